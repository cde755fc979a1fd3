//! Given, when, then: what the answers of parts come to.

use super::marks::Marks;
use super::part::{Became, Came, Part, PartAnswer, Tried, Whom};
use super::people::{Reach, Waiting};
use super::settings::Rates;
use super::stage::{Email, Tell};
use super::telling::Telling;
use jiff::Timestamp;
use std::time::Duration;
use waybill_events::{Batch, EmailBatch, Tell as Result};
use waybill_spine::{Outcome, Stage as _};
use waybill_telemetry::Waybill;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn stage() -> Tell<Email> {
    Tell::new(&Rates::default())
}

fn batch(size: u32) -> EmailBatch {
    EmailBatch(Batch {
        batch_id: "b".into(),
        campaign_id: "c".into(),
        product_id: "p".into(),
        restocked_at: Timestamp::UNIX_EPOCH,
        index: 0,
        size,
        after: 10,
        to: 500,
        waybill: Waybill::none(),
    })
}

fn waiting(subscription_id: i64) -> Waiting {
    Waiting { subscription_id, user_id: format!("u{subscription_id}"), since: Timestamp::UNIX_EPOCH, traceparent: None }
}

fn tried(id: i64, became: Became) -> Tried {
    let now = Timestamp::UNIX_EPOCH;
    Tried { waiting: waiting(id), interval: (now, now), became, dead: Vec::new() }
}

fn sent(ids: std::ops::RangeInclusive<i64>) -> Vec<Tried> {
    ids.map(|id| tried(id, Became::Told(Result::Sent, String::new()))).collect()
}

/// A batch under way: what its stage has said last.
struct Run {
    batch: EmailBatch,
    state: Telling,
    /// None at the end.
    next: Option<(Part, Duration)>,
    now: Timestamp,
}

impl Run {
    fn new(size: u32) -> Self {
        let batch = batch(size);
        let now = Timestamp::UNIX_EPOCH;
        let said = stage().decide(&mut Marks::default(), None, &batch, now);
        let Outcome::Call { state, call, wait, .. } = said else { panic!("a batch begins with a call") };
        Run { batch, state, next: Some((call, wait)), now }
    }

    /// The answer comes as soon as it can; yields the next part and its wait.
    fn answer(&mut self, came: Came) -> Option<(Whom, Duration)> {
        let (part, wait) = self.next.take().unwrap();
        self.now += wait;
        let answer = PartAnswer { part, came };
        match stage().settle(&mut Marks::default(), Some(&self.state), &self.batch, &answer, self.now) {
            Outcome::Call { state, call, wait, .. } => {
                self.state = state;
                self.next = Some((call.clone(), wait));
                Some((call.whom, wait))
            }
            Outcome::Emit(decision) => {
                assert_eq!(decision.events.len(), 1);
                self.state = decision.state;
                None
            }
            _ => panic!("neither a call nor the results"),
        }
    }

    fn told(&self) -> Vec<(i64, Result)> {
        self.state.told.iter().map(|told| (told.subscription_id, told.result)).collect()
    }
}

fn next(after: i64, most: u32) -> Whom {
    Whom::Next { after, to: 500, most }
}

const SOON: Duration = Duration::ZERO;

#[test]
fn a_batch_goes_on_part_by_part_until_its_people_are_found() {
    let mut run = Run::new(45);
    assert_eq!(run.next.as_ref().unwrap().0.whom, next(10, 20));
    assert_eq!(run.answer(Came::Tried(sent(11..=30), None)), Some((next(30, 20), SOON)));
    assert_eq!(run.answer(Came::Tried(sent(101..=120), None)), Some((next(120, 5), SOON)), "no more than were planned");
    assert_eq!(run.answer(Came::Tried(sent(121..=125), None)), None);
    assert_eq!(run.told().len(), 45);
    assert_eq!(run.state.part, 3);
}

#[test]
fn a_batch_ends_where_fewer_wait_than_were_asked_for_and_at_the_end_of_its_range() {
    let mut run = Run::new(45);
    assert_eq!(run.answer(Came::Tried(sent(11..=12), None)), None);
    let mut run = Run::new(45);
    assert_eq!(run.answer(Came::Tried(sent(481..=500), None)), None);
    let mut run = Run::new(45);
    assert_eq!(run.answer(Came::Tried(vec![], None)), None, "all have unsubscribed");
}

#[test]
fn a_batch_that_was_told_repeats_its_results_and_a_late_answer_changes_nothing() {
    let mut run = Run::new(1);
    let (part, _) = run.next.clone().unwrap();
    assert_eq!(run.answer(Came::Tried(sent(11..=11), None)), None);
    let said = stage().decide(&mut Marks::default(), Some(&run.state), &run.batch, run.now);
    assert!(matches!(said, Outcome::Repeat));
    let late = PartAnswer { part, came: Came::Tried(sent(11..=11), None) };
    let said = stage().settle(&mut Marks::default(), Some(&run.state), &run.batch, &late, run.now);
    assert!(matches!(said, Outcome::Reject(_)));
}

#[test]
fn a_product_that_is_gone_ends_the_batch_and_whoever_was_to_be_tried_again_waits_on() {
    let mut run = Run::new(45);
    let mut people = sent(11..=29);
    people.push(tried(30, Became::Later(None)));
    assert_eq!(run.answer(Came::Tried(people, None)), Some((next(30, 20), SOON)));
    assert_eq!(run.answer(Came::SoldOut), None);
    assert!(run.state.sold_out);
    assert_eq!(run.told().len(), 19, "the twentieth is not named");
}

#[test]
fn what_may_go_later_is_tried_again_at_growing_waits_and_then_failed() {
    let later = || Came::Tried(vec![tried(11, Became::Later(None))], None);
    let mut run = Run::new(1);
    let those = || Whom::Those(vec![11]);
    for seconds in [5, 30, 120, 300] {
        assert_eq!(run.answer(later()), Some((those(), Duration::from_secs(seconds))));
    }
    assert_eq!(run.answer(later()), None);
    assert_eq!(run.told(), [(11, Result::Failed)]);

    // A provider that says how long is believed, and one that says too long is not.
    for (asked, wait) in [(60, 60), (100_000, 3_600)] {
        let mut run = Run::new(1);
        let asked = Became::Later(Some(Duration::from_secs(asked)));
        let said = run.answer(Came::Tried(vec![tried(11, asked)], None));
        assert_eq!(said, Some((those(), Duration::from_secs(wait))));
        assert_eq!(run.answer(Came::Tried(vec![], None)), None, "unsubscribed meanwhile");
        assert_eq!(run.told(), []);
    }
}

#[test]
fn a_provider_that_is_away_is_waited_for_without_counting_it_against_anybody() {
    let mut run = Run::new(2);
    let (wait, both) = (Duration::from_secs(300), || vec![tried(11, Became::Untried), tried(12, Became::Untried)]);
    let mut parts = 0;
    while run.now < Timestamp::UNIX_EPOCH + DAY {
        assert_eq!(run.answer(Came::Tried(both(), Some(wait))), Some((Whom::Those(vec![11, 12]), wait)));
        parts += 1;
        assert_eq!(
            (run.state.part, run.next.as_ref().unwrap().0.away),
            (parts, parts),
            "a try has a number of its own"
        );
    }
    let mut back = Run { batch: run.batch.clone(), state: run.state.clone(), next: run.next.clone(), now: run.now };
    assert_eq!(back.answer(Came::Tried(sent(11..=12), None)), None);
    assert_eq!(back.told(), [(11, Result::Sent), (12, Result::Sent)]);
    assert_eq!(run.answer(Came::Tried(both(), Some(wait))), None, "a day is too long");
    assert_eq!(run.told(), [(11, Result::Failed), (12, Result::Failed)]);
}

#[test]
fn what_has_not_begun_is_made_again_under_its_number() {
    let mut run = Run::new(1);
    let before = run.next.clone().unwrap().0;
    let wait = Duration::from_secs(7);
    assert_eq!(run.answer(Came::NotYet(wait)), Some((next(10, 1), wait)));
    assert_eq!(run.next.unwrap().0, before);
}

#[test]
fn an_address_that_nobody_has_is_suppressed() {
    let mut one = tried(11, Became::Told(Result::Unreachable, String::new()));
    one.dead.push(Reach { id: String::new(), place: "Ada@example.org".into(), name: None });
    let run = Run::new(1);
    let mut marks = Marks::default();
    let answer = PartAnswer { part: run.next.unwrap().0, came: Came::Tried(vec![one], None) };
    stage().settle(&mut marks, Some(&run.state), &run.batch, &answer, run.now);
    assert!(format!("{marks:?}").contains("\"ada@example.org\""), "{marks:?}");
}
