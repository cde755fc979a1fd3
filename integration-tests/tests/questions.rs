//! Late orders, orders that stopped, waits and work: asked of the topics, of a file and of a database.

use crate::shop::Shop;
use serde_json::{Value, json};
use waybill_harness::{Draft, produce};

const ORDERS: usize = 40;

/// The answer of a command, as JSON.
fn asked(shop: &Shop, args: &[&str]) -> Value {
    serde_json::from_str(&shop.done(&[args, &["--json"]].concat())).unwrap()
}

fn count(answer: &Value) -> usize {
    answer.as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_and_stuck_orders_are_told_alike_by_topics_file_and_database() {
    let Some(shop) = Shop::open("questions", 1_000).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journeys.db").to_str().unwrap().to_owned();
    // Picked and packed, and one that pick would not accept; nobody ships.
    let warehouse = shop.run(&["pick", "pack"]);
    shop.done(&["produce", "orders", "--count", &ORDERS.to_string(), "--seed", "9"]);
    let bad = Draft::json("o-refused", &json!({"order_id": "o-refused"}))
        .header("ce_id", "refused")
        .header("ce_type", "orders.new.v1")
        .header("ce_source", "/test/outside")
        .header("ce_time", "2026-11-20T10:00:00Z");
    produce(&shop.bootstrap, &shop.scope.topic("orders.new"), vec![bad]).await.unwrap();
    shop.until("orders.packed", ORDERS).await;
    shop.until_committed("pick", "orders.new").await;

    let stuck = asked(&shop, &["stuck", "--older", "0s"]);
    assert_eq!(count(&stuck), ORDERS + 1, "{stuck:#}");
    assert_eq!(
        (&stuck[0]["order_id"], &stuck[0]["waits_for"]),
        (&json!("o-refused"), &json!("pick")),
        "the longest ago"
    );
    assert!(stuck[0]["reason"].as_str().unwrap().starts_with("pick: unreadable: "), "{}", stuck[0]);
    assert!((1..=ORDERS).all(|i| stuck[i]["waits_for"] == "ship" && stuck[i]["reason"].is_null()), "{stuck:#}");
    assert_eq!(count(&asked(&shop, &["stuck", "--older", "1h"])), 1, "only the refused one is older");
    let late = asked(&shop, &["late", "--sla", "0s"]);
    assert_eq!(count(&late), ORDERS, "{late:#}");
    assert!(late.as_array().unwrap().iter().all(|order| order["to_ns"].is_null()));
    assert_eq!(count(&asked(&shop, &["late", "--sla", "48h"])), 0);

    let ship = shop.run(&["ship"]);
    let shipped = shop.until("orders.shipped", ORDERS).await;
    drop((warehouse, ship));
    // One was cancelled before it was picked: it is never late.
    shop.done(&["produce", "orders", "--count", "1", "--seed", "10"]);
    let new = shop.read("orders.new");
    let cancelled = new.iter().find(|r| r.key_str().is_some_and(|key| key.starts_with("o-10-"))).unwrap();
    let cancelled = Draft::json(cancelled.key_str().unwrap(), &json!({})).header("ce_id", "cancelled");
    produce(&shop.bootstrap, &shop.scope.topic("orders.cancelled"), vec![cancelled]).await.unwrap();

    shop.done(&["replay", "--to", &file]);
    shop.done(&["replay", "--to", &shop.database]);
    let mut answers = Vec::new();
    for at in [&[][..], &["--at", &file], &["--at", &shop.database]] {
        let late = asked(&shop, &[&["late", "--sla", "0s"], at].concat());
        assert_eq!(count(&late), ORDERS, "{at:?} {late:#}");
        for order in late.as_array().unwrap() {
            let record = shipped.iter().find(|r| r.key_str() == order["order_id"].as_str()).unwrap();
            let waybill = &record.json().unwrap()["waybill"];
            let ns =
                |stamp: &Value| stamp["ended_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_nanosecond();
            assert_eq!(order["from_ns"].as_i64().map(i128::from), Some(ns(&waybill[0])), "{at:?}");
            assert_eq!(order["to_ns"].as_i64().map(i128::from), Some(ns(&waybill[3])), "{at:?}");
        }
        let from_pick = asked(&shop, &[&["late", "--sla", "0s", "--from", "pick", "--to", "pack"], at].concat());
        assert_eq!(count(&from_pick), ORDERS, "{at:?}");
        let times = asked(&shop, &[&["times"], at].concat());
        let legs: Vec<(&str, &str, i64)> = times.as_array().unwrap().iter().map(leg).collect();
        let n = ORDERS as i64;
        let expected = ["pick", "pack", "ship"].into_iter().flat_map(|s| [(s, "wait", n), (s, "work", n)]);
        assert_eq!(legs, expected.collect::<Vec<_>>(), "{at:?} {times:#}");
        let stuck = asked(&shop, &[&["stuck", "--older", "0s"], at].concat());
        assert_eq!(count(&stuck), 1, "{at:?} {stuck:#}");
        answers.push((late, from_pick, times, stuck));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    let shown = shop.done(&["times", "--at", &file]);
    assert!(shown.contains("p99") && shown.contains("ship"), "{shown}");
    let shown = shop.done(&["late", "--sla", "0s", "--at", &file]);
    assert!(shown.contains(&format!("{ORDERS} late: more than 0 ns from checkout to ship")), "{shown}");
}

fn leg(leg: &Value) -> (&str, &str, i64) {
    let ordered = [&leg["p50_ns"], &leg["p90_ns"], &leg["p99_ns"]].map(|ns| ns.as_i64().unwrap());
    assert!(ordered.is_sorted(), "{leg}");
    (leg["stage"].as_str().unwrap(), leg["what"].as_str().unwrap(), leg["orders"].as_i64().unwrap())
}
