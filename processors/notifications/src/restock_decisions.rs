//! Given, when, then: which levels are crossings, and which of them are told.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Minutes after the beginning of time.
fn minutes(minutes: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
}

fn level(version: i64, available: i64, last_zero_version: i64, at: i64) -> StockLevel {
    StockLevel { product_id: "p".into(), version, available, last_zero_version, changed_at: minutes(at) }
}

/// What restock keeps, and what it has published, in order.
#[derive(Default)]
struct World {
    restocks: Restocks,
    crossings: BTreeMap<String, Crossing>,
    published: Vec<Restocked>,
}

impl World {
    fn hear(&mut self, restock: Restock, level: StockLevel) -> &'static str {
        let back = Back::from(level);
        assert_eq!(back.check(), Ok(()));
        match restock.decide(&mut self.restocks, self.crossings.get(back.subject()), &back, minutes(0)) {
            Outcome::Emit(mut decision) => {
                let mut json = Vec::new();
                decision.events[0].write(&Waybill::none(), &mut json).unwrap();
                let restocked: Restocked = serde_json::from_slice(&json).unwrap();
                assert_eq!(Event::check(&restocked), Ok(()));
                self.published.push(restocked);
                self.crossings.insert(back.subject().to_owned(), decision.state);
                "published"
            }
            Outcome::Keep(crossing) => {
                self.crossings.insert(back.subject().to_owned(), crossing);
                "remembered"
            }
            Outcome::Repeat => "repeated",
            Outcome::Ignore(why) => why,
            Outcome::Reject(_) | Outcome::Park { .. } | Outcome::Call { .. } => panic!("restock does no such thing"),
        }
    }
}

/// Levels (version, available, last zero version, minute), each with what is said to it.
type Table<'a> = &'a [((i64, i64, i64, i64), &'a str)];

#[test]
fn a_crossing_is_told_once_and_what_is_left_behind_never_again() {
    const BEFORE: &str = "it was to be had before";
    const LITTLE: &str = "too little to tell of";
    const OLD: &str = "older than what is known";
    let tables: [(&str, Table<'_>); 6] = [
        ("the first goods ever", &[((1, 9, 0, 0), "published"), ((2, 8, 0, 1), BEFORE)]),
        (
            "a replay repeats the answer",
            &[((3, 9, 2, 0), "published"), ((3, 9, 2, 0), "repeated"), ((4, 1, 2, 1), BEFORE)],
        ),
        ("compaction took the crossing itself", &[((7, 3, 2, 0), "published"), ((3, 9, 2, 0), BEFORE)]),
        ("out of order", &[((9, 3, 8, 20), "published"), ((5, 3, 4, 1), OLD), ((1, 3, 0, 0), OLD)]),
        ("nothing is no crossing", &[((2, 0, 2, 0), LITTLE), ((3, 1, 2, 1), "published"), ((2, 0, 2, 0), BEFORE)]),
        (
            "it comes and goes",
            &[
                ((1, 1, 0, 0), "published"),
                // Told at 10.
                ((3, 1, 2, 1), "published"),
                ((5, 1, 4, 2), "remembered"),
                ((5, 1, 4, 2), BEFORE),
                ((7, 1, 6, 9), "remembered"),
                // Told at 20.
                ((9, 1, 8, 10), "published"),
                ((11, 1, 10, 19), "remembered"),
                ((13, 1, 12, 60), "published"),
            ],
        ),
    ];
    for (name, table) in tables {
        let mut world = World::default();
        for &((version, available, zero, at), expected) in table {
            let said = world.hear(Restock::default(), level(version, available, zero, at));
            assert_eq!(said, expected, "{name}: version {version}");
        }
    }
}

#[test]
fn people_are_told_at_once_and_then_once_a_cool_down() {
    let mut world = World::default();
    for (version, at) in [(1, 0), (3, 1), (5, 2), (7, 10), (9, 60)] {
        world.hear(Restock::default(), level(version, 1, version - 1, at));
    }
    let told: Vec<(i64, Timestamp)> = world.published.iter().map(|r| (r.version, r.tell_at)).collect();
    assert_eq!(told, [(1, minutes(0)), (3, minutes(10)), (7, minutes(20)), (9, minutes(60))]);
}

#[test]
fn fewer_than_the_minimum_are_nothing_until_there_are_enough() {
    let restock = Restock::new(RestockSettings { minimum: 3, ..RestockSettings::default() });
    let mut world = World::default();
    let mut hear = |version, available| world.hear(restock, level(version, available, 0, version));
    assert_eq!([hear(1, 1), hear(2, 2), hear(3, 3), hear(4, 9)][..2], ["too little to tell of"; 2]);
    assert_eq!(world.published[0].version, 3);
}

#[test]
fn settings_that_do_not_work_are_named() {
    let check = |json: &str| serde_json::from_str::<RestockSettings>(json).unwrap().check();
    assert_eq!(RestockSettings::default().check(), Ok(()));
    assert_eq!(check(r#"{"minimum": 0}"#), Err(RestockSettingsError::Minimum));
    assert_eq!(check(r#"{"cooldown": "-1s"}"#), Err(RestockSettingsError::Cooldown));
}

/// A product's levels, without a gap: what is available, a few minutes apart.
fn history() -> impl Strategy<Value = Vec<StockLevel>> {
    prop::collection::vec((0..3_i64, 0..8_i64), 1..40).prop_map(|changes| {
        let (mut last_zero, mut time) = (0, 0);
        let mut levels = Vec::new();
        for (version, (available, passed)) in (1..).zip(changes) {
            time += passed;
            last_zero = if available == 0 { version } else { last_zero };
            levels.push(level(version, available, last_zero, time));
        }
        levels
    })
}

proptest! {
    #[test]
    fn whatever_is_compacted_away_or_repeated_no_crossing_is_told_twice_and_the_last_is_not_missed(
        history in history(),
        kept in prop::collection::vec(any::<bool>(), 40),
        repeats in prop::collection::vec((any::<prop::sample::Index>(), 1..5_usize), 0..8),
        cooldown in prop::sample::select(vec![0, 10]),
    ) {
        let restock = Restock::new(RestockSettings { cooldown: SignedDuration::from_mins(cooldown), minimum: 1 });
        let last = history.len() - 1;
        let mut heard: Vec<StockLevel> = history.iter().enumerate()
            .filter(|(index, _)| *index == last || kept[*index]).map(|(_, level)| level.clone()).collect();
        // A crash lets some of the latest records come again.
        for (at, count) in repeats {
            let end = at.index(heard.len()) + 1;
            let again = heard[end.saturating_sub(count)..end].to_vec();
            heard.splice(end..end, again);
        }
        let mut world = World::default();
        for level in heard.clone() {
            world.hear(restock, level);
        }
        let mut zeros: Vec<i64> = world.published.iter().map(|r| r.zero_version).collect();
        let told = zeros.len();
        zeros.dedup();
        prop_assert_eq!(zeros.len(), told, "told twice: {:?}", &world.published);
        prop_assert!(zeros.is_sorted());
        for restocked in &world.published {
            let level = &history[usize::try_from(restocked.version).unwrap() - 1];
            prop_assert_eq!((level.available, level.last_zero_version), (restocked.available, restocked.zero_version));
        }
        // Of a product that can be had at the end there is a campaign that starts after it came back, of that very crossing
        // where nothing cools down.
        let end = &history[last];
        if end.available > 0 {
            let back = heard.iter().find(|l| l.last_zero_version == end.last_zero_version && l.available > 0).unwrap();
            let latest = world.published.last().unwrap();
            prop_assert!(latest.tell_at >= back.changed_at, "{:?} is before {:?}", latest, back);
            if cooldown == 0 {
                prop_assert_eq!(latest.zero_version, end.last_zero_version);
            }
        }
    }
}
