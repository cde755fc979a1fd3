//! Who is told, in which order, and how fast.

use crate::world::{CHANNELS, World, at_once, on_both};
use jiff::SignedDuration;
use std::collections::BTreeMap;
use waybill_events::Batch;
use waybill_notifications::{Factor, FanoutSettings};

on_both! {
    waves_follow_each_other_first_come_first_served_until_nobody_waits => waves;
    everyone_is_told_at_once_where_the_shop_says_so => everyone;
    a_huge_wave_is_planned_in_portions_without_hole_or_overlap => portions;
    who_wants_more_than_there_is_and_who_waits_no_more_is_passed_over => quantities;
    who_unsubscribes_between_two_waves_is_not_planned => unsubscribed;
}

/// Users `u-<from>` to `u-<to>`.
fn users(from: i64, to: i64) -> Vec<String> {
    (from..=to).map(|n| format!("u-{n}")).collect()
}

/// By email and by push in turn.
fn mixed(people: i64) -> impl Iterator<Item = (i64, &'static str, i64, i64)> {
    (1..=people).map(|n| (n, CHANNELS[usize::from(n % 2 == 0)], 1, 9))
}

async fn waves(mut world: World) {
    world.wait(mixed(20)).await;
    world.stock(2, 3).await;
    world.start(at_once(Factor::Times(3)));
    world.restock(3, 0);
    let (told, campaign) = world.tell_until_the_end(3).await;
    // Of a wave of six there is a batch for each channel.
    let sizes: Vec<u32> = world.batches().iter().map(|(_, batch)| batch.size).collect();
    assert_eq!(sizes, [3, 3, 3, 3, 3, 3, 1, 1]);
    let indexes: Vec<(&str, u32)> = world.batches().iter().map(|(channel, batch)| (*channel, batch.index)).collect();
    assert_eq!(indexes[..4], [("email", 0), ("push", 0), ("email", 1), ("push", 1)]);
    for (wave, told) in told.chunks(6).enumerate() {
        let mut told: Vec<i64> = told.iter().map(|user| user[2..].parse().unwrap()).collect();
        told.sort_unstable();
        let first = i64::try_from(wave).unwrap() * 6 + 1;
        assert_eq!(told, (first..=(first + 5).min(20)).collect::<Vec<_>>(), "wave {wave}");
    }
    assert_eq!(campaign["tally"], serde_json::json!({"batches": 8, "people": 20, "sent": 20, "errors": 0}));
    assert_eq!(world.count("select count(*) from subscriptions").await, 0);
}

/// The ranges of each channel follow each other and hold every person that waited, once.
fn covers(batches: &[(&str, Batch)], people: i64) {
    let mut last = BTreeMap::new();
    let mut sizes = 0;
    for (channel, batch) in batches {
        assert!(batch.size <= 100 && batch.size > 0);
        let before = last.insert(*channel, batch.to).unwrap_or(0);
        assert!(batch.after >= before && batch.to > batch.after, "{before} then {batch:?}");
        sizes += i64::from(batch.size);
    }
    assert_eq!(sizes, people);
}

async fn everyone(mut world: World) {
    world.wait((1..=370).map(|n| (n, CHANNELS[usize::from(n > 250)], 1, 9))).await;
    world.stock(1, 3).await;
    world.start(FanoutSettings { spacing: SignedDuration::from_millis(400), ..at_once(Factor::All) });
    world.restock(3, 0);
    let (mut told, campaign) = world.tell_until_the_end(3).await;
    covers(&world.batches(), 370);
    told.sort_by_key(|user| user[2..].parse::<i64>().unwrap());
    assert_eq!(told, users(1, 370));
    assert_eq!(campaign["tally"]["batches"], 5);
    // Of a channel every 400 ms.
    let apart = match world.store {
        waybill_store::Store::Postgres(_) => "extract(epoch from b.publish_at - a.publish_at)",
        waybill_store::Store::Sqlite(_) => "(b.publish_at - a.publish_at)",
    };
    let sql = format!(
        "select count(*) from batches a join batches b on b.channel = a.channel and b.position = a.position + 1
         where round({apart} * 1000) = 400"
    );
    assert_eq!(world.count(&sql).await, 3);
    assert_eq!(world.count("select count(distinct publish_at) from batches").await, 3, "the channels side by side");
}

async fn portions(mut world: World) {
    world.wait(mixed(1_234)).await;
    world.stock(9, 3).await;
    world.start(FanoutSettings { portion: 150, ..at_once(Factor::All) });
    world.restock(3, 0);
    let (told, campaign) = world.tell_until_the_end(3).await;
    assert_eq!(told.len(), 1_234, "nobody is told twice");
    covers(&world.batches(), 1_234);
    let numbers: Vec<i64> =
        world.batches().iter().map(|(_, batch)| batch.batch_id.rsplit_once('.').unwrap().1.parse().unwrap()).collect();
    assert_eq!(numbers, (0..i64::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
    assert_eq!(campaign["wave"]["first"], 0, "one wave");
    assert!(campaign["step"].as_i64() > Some(8), "{campaign}");
}

async fn quantities(mut world: World) {
    // Two of three want too much, and of the rest every other one does not wait any more.
    world.wait((1..=600).map(|n| (n, "email", if n % 3 == 0 { 2 } else { 3 }, if n % 2 == 0 { -1 } else { 9 }))).await;
    world.stock(2, 3).await;
    world.start(at_once(Factor::All));
    world.restock(3, 0);
    let campaign = world.tell(3, |_, _| waybill_events::Tell::Failed).await;
    assert_eq!(campaign["tally"]["people"], 100);
    let batches = world.batches();
    covers(&batches, 100);
    for (channel, batch) in &batches {
        let people = world.people(channel, batch).await.len();
        assert!(people <= 100, "a range never holds more than a batch: {people}");
    }
    let sql = "select count(*) from subscriptions";
    world.until("those who wait no more are swept", sql, 300).await;
}

async fn unsubscribed(mut world: World) {
    world.wait(mixed(12)).await;
    world.stock(2, 3).await;
    world.start(at_once(Factor::Times(3)));
    world.restock(3, 0);
    world.until("the first wave is planned", "select count(*) from batches", 2).await;
    world.execute("delete from subscriptions where user_id in ('u-2', 'u-7', 'u-8')").await;
    let (mut told, _) = world.tell_until_the_end(3).await;
    told.sort_by_key(|user| user[2..].parse::<i64>().unwrap());
    assert_eq!(told, ["u-1", "u-3", "u-4", "u-5", "u-6", "u-9", "u-10", "u-11", "u-12"]);
}
