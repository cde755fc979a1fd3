//! Given, when, then: what comes after each step.

use super::*;
use crate::step::Planned;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn campaign() -> Campaign {
    Campaign {
        step: 1,
        doing: Doing::Plan,
        cursor: 0,
        planned: 0,
        positions: [0; 2],
        zero_version: None,
        wave: Wave::new(at(100), 0, [0; 2]),
        tally: Tally::default(),
    }
}

fn planned(batches: [i32; 2], cursor: i64, left: i64, more: bool) -> Looked {
    let begins = (batches != [0; 2]).then(|| at(100));
    Looked::Planned(Planned { batches, cursor, begins, left, more, zero_version: 7 })
}

fn tally(sent: i64) -> Tally {
    Tally { batches: 1, people: sent + 1, sent, errors: 1 }
}

/// What it does next, after which wait in seconds; or how it ended.
fn next(campaign: Campaign, looked: &Looked) -> (Campaign, Doing, f64) {
    match campaign.next(looked, &FanoutSettings::default()) {
        Next::Step(campaign, wait) => (campaign.clone(), campaign.doing, wait.as_secs_f64()),
        Next::End(campaign) => (campaign.clone(), campaign.doing, 0.0),
    }
}

#[test]
fn a_wave_is_planned_in_portions_and_then_watched() {
    let (after, doing, wait) = next(campaign(), &planned([2, 1], 250, 50, true));
    assert_eq!((doing, wait, after.step), (Doing::Plan, 0.0, 2));
    assert_eq!((after.cursor, after.planned, after.positions), (250, 3, [2, 1]));
    assert_eq!((after.wave.begins, after.wave.left, after.zero_version), (Some(at(100)), Some(50), Some(7)));
    let (after, doing, wait) = next(after, &planned([0, 1], 300, 0, true));
    assert_eq!((doing, wait, after.planned, after.positions), (Doing::Watch, 2.0, 4, [2, 2]));
    assert_eq!(next(after, &Looked::Open).1, Doing::Watch);
}

#[test]
fn a_campaign_ends_where_nobody_waits_and_where_nothing_is_left_to_be_had() {
    assert_eq!(next(campaign(), &planned([0; 2], 0, 9, false)).1, Doing::Ended);
    assert_eq!(next(campaign(), &Looked::SoldOut).1, Doing::Ended);
    assert_eq!(next(campaign(), &planned([0; 2], 20_000, 9, true)).1, Doing::Plan, "a portion of others");
    let halfway = next(campaign(), &planned([1, 0], 100, 50, true)).0;
    assert_eq!(next(halfway, &Looked::SoldOut).1, Doing::Watch, "what is on its way is waited for");
}

#[test]
fn the_next_wave_comes_after_a_pause_in_which_the_stock_is_watched() {
    let watching = next(campaign(), &planned([1, 1], 90, 0, true)).0;
    let settled = |go_on| Looked::Settled { tally: tally(4), go_on, at: at(200) };
    let (after, doing, wait) = next(watching.clone(), &settled(true));
    assert_eq!((doing, wait), (Doing::Plan, 2.0));
    assert_eq!((after.wave.not_before, after.wave.first, after.wave.first_positions), (at(800), 2, [1, 1]));
    assert_eq!((after.wave.begins, after.wave.left, after.tally), (None, None, tally(4)));
    assert_eq!(after.wave.early(at(300), false), Some(TICK));
    assert_eq!(after.wave.early(at(799), false), Some(Duration::from_secs(1)));
    assert_eq!(after.wave.early(at(800), false), None);
    let (after, doing, _) = next(watching, &settled(false));
    assert_eq!((doing, after.tally), (Doing::Ended, tally(4)));
}

#[test]
fn a_restock_that_is_to_be_told_later_waits_for_its_time_whatever_the_stock_does() {
    assert_eq!(campaign().wave.early(at(40), true), Some(Duration::from_secs(60)));
    assert_eq!(next(campaign(), &Looked::Early { wait: Duration::from_secs(60) }).2, 60.0);
}

#[test]
fn a_step_that_fails_is_made_again_as_another_one() {
    let (after, doing, wait) = next(campaign(), &Looked::Failed("away".into()));
    assert_eq!((doing, wait, after), (Doing::Plan, 1.0, Campaign { step: 2, ..campaign() }));
}

#[test]
fn a_product_that_was_gone_in_between_is_sold_out_though_it_is_back() {
    assert!(campaign().sold_out(0, 0));
    assert!(!campaign().sold_out(1, 9), "what was before the campaign does not count");
    let begun = Campaign { zero_version: Some(7), ..campaign() };
    assert!(!begun.sold_out(1, 7) && begun.sold_out(1, 8));
}
