//! The stock through its stage, by several processes.

use crate::shop::{LIMIT, Shop, once_by_id};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use waybill_harness::eventually;
use waybill_inventory::Lines;
use waybill_store::Store;

/// Pieces that stand nowhere, or less than nothing somewhere, or told as what they are not.
const WRONG: &str = "select count(*) from stock where available + reserved + sold + shrinkage <> received
    or least(available, reserved, sold, shrinkage) < 0";

/// All is booked and told.
async fn until_drained(shop: &Shop) {
    shop.until_committed("inventory", "inventory.adjustments").await;
    eventually("the outbox is empty", LIMIT, async || match shop.number("select count(*) from levels").await {
        0 => Ok(()),
        left => Err(format!("{left} levels")),
    })
    .await;
}

/// The levels of each product, each once, in the order of the topic: by version, without a gap.
fn levels(shop: &Shop) -> BTreeMap<String, Vec<Value>> {
    let records = shop.read("inventory.levels");
    once_by_id(&records);
    let mut levels: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in &records {
        let level = record.json().unwrap();
        assert_eq!(record.header("ce_time"), level["changed_at"].as_str());
        let of_product = levels.entry(record.key_str().unwrap().to_owned()).or_default();
        let version = level["version"].as_i64().unwrap();
        let last = i64::try_from(of_product.len()).unwrap();
        assert!(version <= last + 1, "{level} comes after version {last}");
        if version == last + 1 {
            of_product.push(level);
        }
    }
    levels
}

/// The last level of each product is what the table says.
async fn told_is_true(shop: &Shop) {
    let mut store = Store::open(&shop.database).await.unwrap();
    let levels = levels(shop);
    for stock in waybill_inventory::stock(&mut store).await.unwrap() {
        let last = levels[&stock.product_id].last().unwrap();
        assert_eq!((&last["available"], &last["version"]), (&stock.available.into(), &stock.version.into()), "{last}");
        assert_eq!(last["last_zero_version"], stock.last_zero_version);
    }
    assert_eq!(shop.number(WRONG).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_adjustments_by_two_processes_are_booked_once_though_one_is_killed() {
    let Some(shop) = Shop::open("adjustments", 1).await else { return };
    let _other = shop.run(&["inventory"]);
    let mut killed = shop.run(&["inventory"]);
    let book = |seed| shop.done(&["produce", "stock", "--count", "500", "--quantity", "7", "--seed", seed]);
    book("1");
    shop.until("inventory.levels", 200).await;
    std::thread::scope(|scope| {
        let begin = shop.count("inventory.levels");
        let booking = scope.spawn(|| ["2", "3", "4"].map(book));
        while shop.count("inventory.levels") < begin + 50 {
            std::thread::yield_now();
        }
        killed.kill().unwrap();
        booking.join().unwrap();
    });
    killed = shop.run(&["inventory"]);
    book("2");
    book("4");
    until_drained(&shop).await;
    assert_eq!(shop.count("dead.inventory"), 0);
    assert_eq!(shop.number("select count(*) from stock_moves").await, 2_000);
    assert_eq!(shop.number("select sum(available)::int8 from stock").await, 2_000 * 7);
    told_is_true(&shop).await;

    // What is not there cannot be taken, and costs nothing else.
    shop.done(&["produce", "stock", "--product", "p-0001", "--delta", "-1000"]);
    shop.done(&["produce", "stock", "--product", "p-0001", "--delta", "-3"]);
    let dead = shop.until("dead.inventory", 1).await;
    assert_eq!(dead[0].header("dead_reason"), Some("not_available"));
    until_drained(&shop).await;
    assert_eq!(shop.number("select sum(shrinkage)::int8 from stock").await, 3);
    told_is_true(&shop).await;
    drop(killed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_told_before_a_crash_are_told_again_under_the_same_ids() {
    let Some(mut shop) = Shop::open("told-again", 1).await else { return };
    shop.set("WAYBILL_TEST_FAILPOINT", "after_relay:1");
    let mut crashing = shop.run(&["inventory"]);
    shop.set("WAYBILL_TEST_FAILPOINT", "none");
    shop.done(&["produce", "stock", "--count", "50"]);
    let status = crashing.wait(LIMIT).await.unwrap();
    assert!(!status.success(), "{status}");
    let _again = shop.run(&["inventory"]);
    until_drained(&shop).await;
    let (records, levels) = (shop.count("inventory.levels"), levels(&shop));
    assert_eq!(levels.len(), 50);
    let told: usize = levels.values().map(Vec::len).sum();
    assert!(records > i64::try_from(told).unwrap(), "{records} records of {told} levels");
    told_is_true(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_whose_time_is_over_comes_back_as_a_level() {
    let Some(shop) = Shop::open("expiry", 1).await else { return };
    let _processes = [shop.run(&["inventory"]), shop.run(&["inventory"])];
    shop.done(&["produce", "stock", "--product", "p-0001", "--delta", "2"]);
    until_drained(&shop).await;
    let mut store = Store::open(&shop.database).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    let order = Lines { order_id: "o-1", lines: vec![("p-0001", 2)] };
    waybill_inventory::reserve(&mut tx, &[order], Duration::from_secs(1)).await.unwrap();
    tx.commit().await.unwrap();
    eventually("the pieces are back", LIMIT, async || match shop.number("select version from stock").await {
        3 => Ok(()),
        version => Err(format!("version {version}")),
    })
    .await;
    until_drained(&shop).await;
    let available: Vec<Value> = levels(&shop)["p-0001"].iter().map(|level| level["available"].clone()).collect();
    assert_eq!(available, [2, 0, 2]);
    assert_eq!(levels(&shop)["p-0001"][2]["last_zero_version"], 2);
    told_is_true(&shop).await;
}
