//! From a level to the batches that senders get, by real processes; the test itself plays the senders.

use crate::shop::{LIMIT, Shop, once_by_id};
use crate::telemetry::keeps_contract;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use waybill_harness::{Caught, Collector, Draft, Process, Rec, eventually, produce};
use waybill_inventory::Lines;
use waybill_store::Store;

const CHANNELS: [&str; 2] = ["email", "push"];

/// So many people wait for a product, by mail and by push in turn.
async fn wait(shop: &Shop, product: &str, people: i64) {
    let sql = format!(
        "insert into subscriptions (product_id, user_id, channel, expires_at)
         select '{product}', 'u-' || n, case n % 2 when 0 then 'email' else 'push' end, now() + interval '1 day'
         from generate_series(1, {people}) n"
    );
    shop.execute(&sql).await;
}

fn stock(shop: &Shop, product: &str, delta: &str) {
    shop.done(&["produce", "stock", "--product", product, "--delta", delta]);
}

/// Senders that tell everyone they find: a batch once, as their own stage would.
struct Senders {
    answered: BTreeSet<String>,
    /// Whom they told, by subscription, and in which batch.
    told: BTreeMap<i64, String>,
    seen: i64,
}

impl Senders {
    fn new() -> Self {
        Senders { answered: BTreeSet::new(), told: BTreeMap::new(), seen: 0 }
    }

    /// Answers the batches that have come since.
    async fn answer(&mut self, shop: &Shop) {
        let records = CHANNELS.map(|channel| shop.count(&format!("notifications.{channel}"))).iter().sum();
        if records == self.seen {
            return;
        }
        self.seen = records;
        for channel in CHANNELS {
            let mut drafts = Vec::new();
            for record in shop.read(&format!("notifications.{channel}")) {
                let batch = record.json().unwrap();
                if self.answered.insert(batch["batch_id"].as_str().unwrap().to_owned()) {
                    drafts.push(self.results(shop, channel, &batch).await);
                }
            }
            let topic = shop.scope.topic(&format!("notifications.{channel}.results"));
            produce(&shop.bootstrap, &topic, drafts).await.unwrap();
        }
    }

    async fn results(&mut self, shop: &Shop, channel: &str, batch: &Value) -> Draft {
        let id = batch["batch_id"].as_str().unwrap();
        let sql = format!(
            "select coalesce(jsonb_agg(jsonb_build_object('subscription_id', id, 'user_id', user_id, 'result', 'sent')),
                 '[]')::text
             from subscriptions where product_id = '{}' and channel = '{channel}' and id > {} and id <= {}",
            batch["product_id"].as_str().unwrap(),
            batch["after"],
            batch["to"]
        );
        let people: Value = serde_json::from_str(&shop.text(&sql).await).unwrap();
        for person in people.as_array().unwrap() {
            let before = self.told.insert(person["subscription_id"].as_i64().unwrap(), id.to_owned());
            assert_eq!(before, None, "{person} is told twice, in {id} too");
        }
        let results = json!({"batch_id": id, "campaign_id": batch["campaign_id"], "product_id": batch["product_id"],
            "people": people, "sold_out": false, "waybill": batch["waybill"]});
        let schema = format!("notifications.{channel}.results");
        Draft::json(id, &results)
            .header("ce_id", format!("results-{id}"))
            .header("ce_type", format!("{schema}.v1"))
            .header("ce_source", format!("/waybill/{channel}"))
            .header("ce_dataschema", format!("urn:waybill:schema:{schema}:v1"))
            .header("ce_time", "2026-11-21T10:00:00Z")
    }
}

/// Campaigns that have ended.
const ENDED: &str = "select count(*) from campaigns where state #>> '{campaign,doing}' = 'ended'";

/// Answers until so many campaigns have ended, or somebody has seen enough.
async fn until_ended(shop: &Shop, senders: &mut Senders, campaigns: i64, mut meanwhile: impl FnMut(usize)) {
    let begun = Instant::now();
    loop {
        senders.answer(shop).await;
        meanwhile(senders.answered.len());
        let ended = shop.number(ENDED).await;
        if ended >= campaigns {
            return;
        }
        assert!(begun.elapsed() < 2 * LIMIT, "{ended} campaigns ended, {} batches answered", senders.answered.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each batch has one id and one content, and the ranges of a channel neither overlap nor leave anybody out.
fn ranges(shop: &Shop, people: i64) -> usize {
    let mut batches = 0;
    let mut planned = 0;
    for channel in CHANNELS {
        let records: Vec<Rec> = shop.read(&format!("notifications.{channel}"));
        let mut of_channel: Vec<Value> = once_by_id(&records).into_values().collect();
        of_channel.sort_by_key(|batch| batch["index"].as_i64());
        let mut last = 0;
        for (index, batch) in of_channel.iter().enumerate() {
            assert_eq!(batch["index"].as_u64(), u64::try_from(index).ok(), "{batch}");
            assert!(batch["size"].as_i64().unwrap() <= 100, "{batch}");
            assert!(batch["after"].as_i64().unwrap() >= last, "it overlaps the one before: {batch}");
            last = batch["to"].as_i64().unwrap();
            planned += batch["size"].as_i64().unwrap();
        }
        batches += of_channel.len();
    }
    assert_eq!(planned, people, "everyone is in one batch");
    batches
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restock_becomes_batches_and_its_span_tells_what_came_of_them() {
    let Some(mut shop) = Shop::open("back", 1).await else { return };
    let collector = Collector::start().unwrap();
    shop.export_to(&collector.endpoint());
    shop.set("WAYBILL_FANOUT_SPACING", "50ms");
    let _processes = ["inventory", "restock", "fanout"].map(|role| shop.run(&[role]));
    wait(&shop, "p-0001", 250).await;
    stock(&shop, "p-0001", "100");
    let mut senders = Senders::new();
    until_ended(&shop, &mut senders, 1, |_| {}).await;
    assert_eq!(ranges(&shop, 250), 4);
    assert_eq!(shop.number("select count(*) from subscriptions").await, 0);
    let spans = eventually("the campaign's span is here", LIMIT, async || {
        let spans: Vec<Caught> =
            collector.spans().into_iter().filter(|span| span.name() != "waybill.stage.paused").collect();
        let names: Vec<String> = spans.iter().map(|span| span.name().to_owned()).collect();
        let here = ["back_in_stock.detect", "back_in_stock.process_restock"].map(|n| names.iter().any(|m| m == n));
        if here == [true; 2] { Ok(spans) } else { Err(format!("{names:?}")) }
    })
    .await;
    spans.iter().for_each(keeps_contract);
    let one = |name: &str| {
        let named: Vec<&Caught> = spans.iter().filter(|span| span.name() == name).collect();
        assert_eq!(named.len(), 1, "{name}");
        named[0]
    };
    let (detect, campaign) = (one("back_in_stock.detect"), one("back_in_stock.process_restock"));
    let linked: Vec<(String, String)> = campaign.links().into_iter().map(|(trace, span, _)| (trace, span)).collect();
    assert_eq!(linked, [(detect.trace_id(), detect.span_id())]);
    let expected = json!({"product.id": "p-0001", "inventory.new_quantity": 100, "notification.subscriber_count": 250,
        "notification.skipped": false, "notification.batch_count": 4, "notification.sent_count": 250,
        "notification.error_count": 0});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(campaign.attributes()[key], *value, "{key}");
    }
    let duration = campaign.span.end_time_unix_nano - campaign.span.start_time_unix_nano;
    assert!(duration > 1_000_000_000, "it lasts from the restock to the last result: {duration} ns");
    // What a sender links to.
    for record in shop.read("notifications.email") {
        let waybill = &record.json().unwrap()["waybill"];
        assert_eq!(waybill.as_array().unwrap().len(), 1);
        assert_eq!((&waybill[0]["stage"], &waybill[0]["span_id"]), (&json!("restock"), &json!(detect.span_id())));
    }
}

/// Kills and restarts fanout at random while a campaign of many batches runs on so many processes.
async fn killed(name: &str, replicas: usize) {
    const PEOPLE: i64 = 6_000;
    let Some(mut shop) = Shop::open(name, 1).await else { return };
    shop.set("WAYBILL_RESTOCK_COOLDOWN", "0s");
    // A dead process's place is taken sooner.
    shop.set("WAYBILL_KAFKA_SESSION_TIMEOUT_MS", "6000");
    let _others = shop.run(&["inventory", "restock"]);
    let mut fanouts: Vec<Process> = (0..replicas).map(|_| shop.run(&["fanout"])).collect();
    wait(&shop, "p-0001", PEOPLE).await;
    stock(&shop, "p-0001", "1500");
    let mut senders = Senders::new();
    let (mut kills, mut last, mut sold_out) = (0, 0, false);
    until_ended(&shop, &mut senders, 2, |answered| {
        if answered >= last + 3 && kills < 6 {
            (kills, last) = (kills + 1, answered);
            fanouts[kills % replicas].kill().unwrap();
            fanouts[kills % replicas] = shop.run(&["fanout"]);
        }
        if kills == 3 && !sold_out {
            sold_out = true;
            // Sold out and back in the middle of it: another campaign, for those whom the first did not reach.
            stock(&shop, "p-0001", "-1500");
            stock(&shop, "p-0001", "1400");
        }
    })
    .await;
    assert!(kills >= 4, "{kills} kills");
    let told = i64::try_from(senders.told.len()).unwrap();
    let waiting = shop.number("select count(*) from subscriptions").await;
    assert_eq!((told, waiting), (PEOPLE, 0), "nobody is lost, and nobody told twice");
    assert_eq!(shop.count("dead.fanout") + shop.count("dead.restock"), 0);
    for channel in CHANNELS {
        once_by_id(&shop.read(&format!("notifications.{channel}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_fanouts_killed_at_random_tell_everyone_once() {
    Box::pin(killed("killed-2", 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_fanouts_killed_at_random_tell_everyone_once() {
    Box::pin(killed("killed-4", 4)).await;
}

/// Fanout aborts at a point of the loop, in the middle of planning, and another one goes on.
async fn dies(point: &str) {
    let Some(mut shop) = Shop::open("dying", 1).await else { return };
    shop.set("WAYBILL_FANOUT_PORTION", "500");
    shop.set("WAYBILL_FANOUT_FACTOR", "all");
    shop.set("WAYBILL_FANOUT_SPACING", "0s");
    let _others = shop.run(&["inventory", "restock"]);
    shop.set("WAYBILL_TEST_FAILPOINT", point);
    let mut dying = shop.run(&["fanout"]);
    shop.set("WAYBILL_TEST_FAILPOINT", "none");
    wait(&shop, "p-0001", 1_200).await;
    stock(&shop, "p-0001", "1");
    let status = dying.wait(LIMIT).await.unwrap();
    assert!(!status.success(), "{point}: {status}");
    let _again = shop.run(&["fanout"]);
    let mut senders = Senders::new();
    until_ended(&shop, &mut senders, 1, |_| {}).await;
    assert_eq!((senders.told.len(), ranges(&shop, 1_200)), (1_200, 14), "{point}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fanout_that_dies_at_any_point_of_a_campaign_plans_every_batch_once() {
    // Planned and nobody knows; kept and not planned; known and not kept; kept and not published; published and not forgotten.
    let points = ["after_call:1", "before_call:2", "before_settle:2", "after_settle:1", "after_relay:1"];
    let [a, b, c, d, e] = points.map(|point| Box::pin(dies(point)));
    tokio::join!(a, b, c, d, e);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_people_are_planned_in_flat_memory() {
    const PEOPLE: i64 = 100_000;
    let Some(mut shop) = Shop::open("crowd", 1).await else { return };
    shop.set("WAYBILL_FANOUT_FACTOR", "all");
    shop.set("WAYBILL_FANOUT_SPACING", "1ms");
    let _others = shop.run(&["inventory", "restock"]);
    let fanout = shop.run(&["fanout"]);
    let first = async |product: &str| {
        let begun = Instant::now();
        let published = || CHANNELS.map(|channel| shop.count(&format!("notifications.{channel}"))).iter().sum::<i64>();
        let before = published();
        stock(&shop, product, "1");
        eventually("a first batch is published", LIMIT, async || match published() {
            records if records > before => Ok(begun.elapsed()),
            records => Err(format!("{records}")),
        })
        .await
    };
    // A few people first: what a process of this kind takes at all.
    wait(&shop, "p-0001", 200).await;
    first("p-0001").await;
    let before = fanout.peak_rss().unwrap();
    wait(&shop, "p-0002", PEOPLE).await;
    let delay = first("p-0002").await;
    eventually("everyone is planned and published", LIMIT, async || {
        match shop.number("select coalesce(sum(size), 0)::int8 from batches where published_at is not null").await {
            people if people == PEOPLE + 200 => Ok(()),
            people => Err(format!("{people} people")),
        }
    })
    .await;
    let after = fanout.peak_rss().unwrap();
    println!("first batch after {delay:?}; {before} KiB at most, then {after}");
    assert!(after < before + 40 * 1024, "{before} KiB, then {after}");
    assert_eq!(shop.number("select max(size)::int8 from batches").await, 100);
    assert_eq!(shop.number("select count(*) from batches").await, 2 + PEOPLE / 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_that_comes_back_by_itself_is_a_restock_too() {
    let Some(mut shop) = Shop::open("by-itself", 1).await else { return };
    shop.set("WAYBILL_RESTOCK_COOLDOWN", "0s");
    let _processes = shop.run(&["inventory", "restock", "ship"]);
    let restocks = async |count: usize| {
        eventually(&format!("{count} restocks"), LIMIT, async || {
            match once_by_id(&shop.read("inventory.restocked")).len() {
                found if found == count => Ok(()),
                found => Err(format!("{found}")),
            }
        })
        .await;
    };
    stock(&shop, "p-0001", "2");
    restocks(1).await;
    let mut store = Store::open(&shop.database).await.unwrap();
    let mut take = async |order: &str, hold: Duration| {
        let mut tx = store.begin().await.unwrap();
        waybill_inventory::reserve(&mut tx, &[Lines { order_id: order, lines: vec![("p-0001", 2)] }], hold)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    };
    // Reserved and never paid.
    take("o-1", Duration::from_secs(1)).await;
    restocks(2).await;
    // Paid and cancelled.
    take("o-2", Duration::from_secs(600)).await;
    shop.execute(
        "update reservations set state = 'sold' where order_id = 'o-2'; update stock set sold = 2, reserved = 0",
    )
    .await;
    shop.ask_to_cancel(&["o-2"]).await;
    restocks(3).await;
    let zeros: BTreeSet<i64> =
        shop.read("inventory.restocked").iter().map(|r| r.json().unwrap()["zero_version"].as_i64().unwrap()).collect();
    assert_eq!(zeros, BTreeSet::from([0, 2, 4]));
}
