//! How campaigns begin, end, and follow each other; what results do.

use crate::world::{World, at_once, on_both};
use jiff::SignedDuration;
use serde_json::json;
use waybill_events::{Batch, Tell, Told};
use waybill_notifications::{Factor, FanoutSettings};
use waybill_store::Store;

on_both! {
    where_nobody_waits_or_nothing_is_to_be_had_nobody_is_told => skipped;
    a_second_restock_waits_for_the_end_of_the_first_and_tells_those_who_were_not_told => one_after_the_other;
    a_product_that_sells_out_takes_back_what_is_not_published_and_leaves_the_rest_waiting => sold_out;
    a_restock_that_is_told_later_reads_the_stock_of_then => later;
    a_batch_that_nothing_is_heard_of_for_a_day_holds_up_nobody => silent;
    results_are_taken_once_and_only_who_was_told_or_never_can_be_stops_waiting => results;
}

fn by_mail(people: i64) -> impl Iterator<Item = (i64, &'static str, i64, i64)> {
    (1..=people).map(|n| (n, "email", 1, 9))
}

async fn skipped(mut world: World) {
    world.start(at_once(Factor::All));
    world.stock(5, 3).await;
    world.restock(3, 0);
    let campaign = world.tell(3, |_, _| Tell::Sent).await;
    assert_eq!((&campaign["planned"], &campaign["tally"]["people"]), (&json!(0), &json!(0)), "nobody waits");
    world.wait(by_mail(3)).await;
    world.stock(0, 6).await;
    world.restock(5, 0);
    let campaign = world.tell(5, |_, _| Tell::Sent).await;
    assert_eq!((&campaign["planned"], world.batches().len()), (&json!(0), 0), "nothing is to be had");
    assert_eq!(world.count("select count(*) from subscriptions").await, 3);
}

async fn one_after_the_other(mut world: World) {
    world.wait(by_mail(8)).await;
    world.stock(9, 3).await;
    world.start(at_once(Factor::All));
    world.restock(3, 0);
    world.restock(5, 0);
    world.until("the first is planned", "select count(*) from batches", 1).await;
    assert_eq!(world.campaign(5).await, json!(null), "the second waits behind it");
    let even = |user: &str| user[2..].parse::<i64>().unwrap() % 2 == 0;
    let (mut first, mut told) = (None, Vec::new());
    let tell = |batch: &Batch, user: &str| {
        if *first.get_or_insert(batch.campaign_id.clone()) == batch.campaign_id {
            return if even(user) { Tell::Sent } else { Tell::Unknown };
        }
        told.push(user.to_owned());
        Tell::Sent
    };
    let second = world.tell(5, tell).await;
    assert_eq!(world.campaign(3).await["tally"], json!({"batches": 1, "people": 8, "sent": 4, "errors": 4}));
    assert_eq!(told, ["u-1", "u-3", "u-5", "u-7"]);
    assert_eq!(second["tally"]["sent"], 4);
}

async fn sold_out(mut world: World) {
    world.wait(by_mail(350)).await;
    world.stock(9, 3).await;
    world.start(FanoutSettings { spacing: SignedDuration::from_secs(3_600), ..at_once(Factor::All) });
    world.restock(3, 0);
    world.until("one of four is published", "select count(*) from batches where published_at is not null", 1).await;
    assert_eq!(world.count("select count(*) from batches").await, 4);
    // It is gone and back before anybody looks.
    world.stock(9, 6).await;
    let campaign = world.tell(3, |_, _| Tell::Sent).await;
    assert_eq!(campaign["tally"], json!({"batches": 1, "people": 100, "sent": 100, "errors": 0}));
    assert_eq!(world.batches().len(), 1);
    assert_eq!(world.count("select count(*) from subscriptions").await, 250);
}

async fn later(mut world: World) {
    world.wait(by_mail(2)).await;
    world.stock(0, 6).await;
    world.start(at_once(Factor::All));
    world.restock(3, 2);
    world.until("it is known", "select count(*) from campaigns", 1).await;
    assert_eq!(world.batches().len(), 0);
    world.stock(4, 6).await;
    let (told, _) = world.tell_until_the_end(3).await;
    assert_eq!(told, ["u-1", "u-2"]);
}

async fn silent(mut world: World) {
    world.wait(by_mail(2)).await;
    world.stock(9, 3).await;
    world.start(at_once(Factor::All));
    world.restock(3, 0);
    let published = "select count(*) from batches where published_at is not null";
    world.until("it is published", published, 1).await;
    let long_ago = match world.store {
        Store::Postgres(_) => "now() - interval '25 hours'",
        Store::Sqlite(_) => "unixepoch('subsec') - 25 * 3600",
    };
    world.execute(&format!("update batches set published_at = {long_ago}")).await;
    let ended = "select count(*) from campaigns where key = 'p/3' and cast(state as text) like '%ended%'";
    world.until("the campaign has ended", ended, 1).await;
    let campaign = world.campaign(3).await;
    assert_eq!(campaign["tally"], json!({"batches": 1, "people": 2, "sent": 0, "errors": 0}));
    world.restock(5, 0);
    world.tell_until_the_end(5).await;
    let subscriptions = "select count(*) from subscriptions";
    assert_eq!(world.count(subscriptions).await, 0, "the next restock is told, and results that come late count");
}

async fn results(mut world: World) {
    world.wait(by_mail(4)).await;
    world.stock(9, 3).await;
    world.start(at_once(Factor::All));
    world.restock(3, 0);
    let all = [Tell::Sent, Tell::Unknown, Tell::Failed, Tell::Unreachable];
    let mut result = all.into_iter();
    let campaign = world.tell(3, |_, _| result.next().unwrap()).await;
    assert_eq!(campaign["tally"], json!({"batches": 1, "people": 4, "sent": 1, "errors": 3}));
    let left = "select count(*) from subscriptions where user_id in ('u-2', 'u-3')";
    let settled =
        "select count(*) from batches where sent = 1 and failed = 2 and unknown = 1 and settled_at is not null";
    for sql in [left, "select count(*) from subscriptions"] {
        assert_eq!(world.count(sql).await, 2);
    }
    assert_eq!(world.count(settled).await, 1);
    // The same batch again, with another say: the first counts. A restock after it shows that it was read.
    let (channel, batch) = world.batches().remove(0);
    let people = world.people(channel, &batch).await;
    let told = |(subscription_id, user_id)| Told { subscription_id, user_id, result: Tell::Sent };
    world.answer(channel, &batch, people.into_iter().map(told).collect());
    world.stock(0, 9).await;
    world.restock(5, 0);
    world.tell(5, |_, _| Tell::Sent).await;
    assert_eq!((world.count(left).await, world.count(settled).await), (2, 1));
}
