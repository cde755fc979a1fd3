//! Two versions of a stage side by side, as a deploy has them: on tables that the newer one has migrated, with events that say more
//! than the older one knows.

use crate::front::Front;
use crate::shop::{LIMIT, Shop, distinct};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use waybill_harness::{Collector, Draft, Process, eventually, produce};

/// Names a binary of an older commit; `just rolling COMMIT` builds one. Where there is none, the same binary stands for the old
/// version on tables that it does not know all of.
const OLD: &str = "WAYBILL_TEST_OLD";
/// What a version after this one leaves behind: a column on each table that stages write and read, and its mark.
const HOT: [&str; 9] =
    ["stock", "reservations", "levels", "checkouts", "picks", "packs", "shipments", "bins", "parked"];
const MARK: &str = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
    values (9000, 'newer', true, '\\x00', 1)";
const STAGES: [&str; 3] = ["checkout", "inventory", "fulfilment"];

async fn stop(process: &mut Process) {
    process.terminate().unwrap();
    let status = process.wait(LIMIT).await.unwrap();
    assert!(status.success(), "{status}: {}", process.log().unwrap());
}

/// Waits until `more` further orders stand on a topic: whoever runs now takes part.
async fn flow(shop: &Shop, topic: &str, more: i64) {
    let begin = shop.count(topic);
    eventually("orders go on", LIMIT, async || match shop.count(topic) - begin {
        found if found >= more => Ok(()),
        found => Err(format!("{found} more on {topic}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_that_migrates_under_load_and_is_taken_back_half_way_is_felt_by_nobody() {
    let collector = Collector::start().unwrap();
    let Some(mut front) = Front::open("rolling", Some(&collector)).await else { return };
    front.shop.done(&["produce", "stock", "--quantity", "5000"]);
    let gateway = front.shop.run(&["gateway"]);
    let older = std::env::var(OLD).map(PathBuf::from);
    let old = |shop: &Shop| match &older {
        Ok(binary) => shop.run_of(binary, &STAGES),
        Err(_) => shop.run(&STAGES),
    };
    let mut olds = vec![old(&front.shop), old(&front.shop)];
    front.until_open().await;
    front.shop.until_committed("inventory", "inventory.adjustments").await;
    // More than there is time for.
    let url = format!("http://{}", front.gateway);
    let mut load = front.shop.start(&["produce", "checkouts", "--count", "100000", "--rate", "15", "--url", &url]);
    flow(&front.shop, "orders.shipped", 10).await;

    // The first process of the new version migrates, while those of the old one work. A real one has had its own migrations.
    if older.is_err() {
        for table in HOT {
            front.shop.execute(&format!("alter table {table} add column said_by_newer text")).await;
        }
        front.shop.execute(MARK).await;
    }
    front.shop.set("OTEL_RESOURCE_ATTRIBUTES", "service.version=newer");
    let mut new = front.shop.run(&STAGES);
    front.shop.set("OTEL_RESOURCE_ATTRIBUTES", "");
    flow(&front.shop, "orders.shipped", 10).await;
    // One by one. An old one that must start again finds tables that it does not know all of.
    stop(&mut olds[0]).await;
    olds.push(old(&front.shop));
    stop(&mut olds[1]).await;
    flow(&front.shop, "orders.shipped", 10).await;
    // And back to the old version.
    let of_stage = |stage: &str| -> BTreeSet<String> {
        let spans = collector.spans().into_iter().filter(|span| span.name() == stage);
        spans.map(|span| span.resource["service.version"].as_str().unwrap().to_owned()).collect()
    };
    eventually("both versions have worked", LIMIT, async || {
        let versions = ["checkout.process", "warehouse.pick", "warehouse.pack", "shipping.dispatch"].map(of_stage);
        if versions.iter().all(|found| found.len() == 2) { Ok(()) } else { Err(format!("{versions:?}")) }
    })
    .await;
    stop(&mut new).await;
    front.shop.done(&["saga", "list"]);
    assert!(load.ended().unwrap().is_none(), "{}", load.log().unwrap());
    load.kill().unwrap();

    let taken = eventually("all that was taken is shipped", LIMIT, async || {
        let taken = front.shop.number("select count(*) from checkout_requests").await;
        let shipped = distinct(&front.shop.read("orders.shipped")).len();
        if shipped == usize::try_from(taken).unwrap() { Ok(shipped) } else { Err(format!("{shipped} of {taken}")) }
    })
    .await;
    println!("{taken} orders over three changes of version");
    // Three times ten were waited for.
    assert!(taken > 30, "{taken}");
    let topics = [("ship", "orders.packed"), ("checkout", "orders.shipped"), ("inventory", "inventory.adjustments")];
    for (stage, topic) in topics {
        front.shop.until_committed(stage, topic).await;
    }
    front.check().await;
    front.shop.check(taken, 400 * 1_000_000).await;
    for process in olds.iter().chain([&new, &gateway]) {
        let log = process.log().unwrap();
        // It was there all the time.
        assert!(!log.contains("the database does not answer"), "the migration is felt: {log}");
    }
}

/// The event with what a later minor version might add to it.
fn said_more(mut event: Value) -> Value {
    event["said_by_newer"] = json!({"gift": true, "notes": ["a", "b"]});
    for list in ["lines", "waybill"] {
        for item in event[list].as_array_mut().unwrap() {
            item["said_by_newer"] = json!(7);
        }
    }
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_of_a_later_minor_version_go_through_all_stages_beside_those_of_this_one() {
    const ORDERS: usize = 150;
    let Some(shop) = Shop::open("minor", 1_000).await else { return };
    let Some(elsewhere) = Shop::open("minor-elsewhere", 1).await else { return };
    let _processes = [shop.run(&["fulfilment"]), shop.run(&["fulfilment"])];
    let count = ORDERS.to_string();
    elsewhere.done(&["produce", "orders", "--count", &count, "--seed", "15"]);
    let later = elsewhere.until("orders.new", ORDERS).await.into_iter().map(|record| {
        let draft = Draft::json(record.key_str().unwrap(), &said_more(record.json().unwrap()));
        let headers = record.headers.iter().map(|(name, value)| match name.as_str() {
            "ce_dataschema" => (name.clone(), b"urn:waybill:schema:orders.new:v1.1".to_vec()),
            _ => (name.clone(), value.clone()),
        });
        Draft { headers: headers.chain([("ce_saidbynewer".to_owned(), b"1".to_vec())]).collect(), ..draft }
    });
    produce(&shop.bootstrap, &shop.scope.topic("orders.new"), later.collect::<Vec<_>>()).await.unwrap();
    shop.done(&["produce", "orders", "--count", &count, "--seed", "16"]);
    shop.until("orders.shipped", 2 * ORDERS).await;
    shop.until_committed("ship", "orders.packed").await;
    shop.check(2 * ORDERS, 400 * 1_000).await;
}
