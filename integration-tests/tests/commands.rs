//! What the commands say and how they end.

use crate::shop::Shop;

const GOOD: &str = r#"{"order_id":"o-1","customer_id":"c-1","country":"DE","service":"standard","lines":[{"line":1,"product_id":"p-0001","sku":"SKU-0001","quantity":1,"weight_g":350,"size_mm":[120,95,100]}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_orders_is_checked_line_by_line_and_the_good_ones_are_sent() {
    let Some(shop) = Shop::open("file", 10).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.ndjson");
    let other = GOOD.replace("o-1", "o-2");
    std::fs::write(&file, format!("{GOOD}\n{{\"order_id\": 7}}\n{other}\nrubbish\n")).unwrap();
    let output = shop.command(&["produce", "orders", "--from", file.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("orders.ndjson:2: ") && error.contains("orders.ndjson:4: "), "{error}");
    assert_eq!(shop.count("orders.new"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_gives_the_same_orders_and_ids() {
    let Some(shop) = Shop::open("seed", 1).await else { return };
    for _ in 0..2 {
        shop.done(&["produce", "orders", "--count", "50", "--seed", "5"]);
    }
    let records = shop.read("orders.new");
    let ids: std::collections::BTreeMap<_, _> = records.iter().map(|r| (r.header("ce_id"), r.key_str())).collect();
    assert_eq!((records.len(), ids.len()), (100, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_shows_one_journey_over_four_traces() {
    let Some(shop) = Shop::open("trace", 1_000).await else { return };
    let _process = shop.run(&["fulfilment"]);
    shop.done(&["produce", "orders", "--count", "20", "--seed", "6", "--lines", "3"]);
    shop.until("orders.shipped", 20).await;
    let shown = shop.done(&["trace", "o-6-0000004"]);
    for part in
        ["7 spans in 4 traces", "checkout.complete", "warehouse.pick_item", "shipping.dispatch", "← pack", "shipped: "]
    {
        assert!(shown.contains(part), "{part} is missing:\n{shown}");
    }
    let json: serde_json::Value = serde_json::from_str(&shop.done(&["trace", "o-6-0000004", "--json"])).unwrap();
    assert_eq!(json["spans"].as_array().unwrap().len(), 4);
    assert_eq!(json["spans"][3]["links"].as_array().unwrap().len(), 3);

    let unknown = shop.command(&["trace", "o-none"]);
    assert_eq!(unknown.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no topic knows of order o-none"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_is_wrong_and_what_to_do() {
    let Some(shop) = Shop::open("errors", 1).await else { return };
    let said = |args: &[&str]| {
        let output = shop.command(args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = said(&["run", "nothing"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("possible values: gateway, checkout, pick, pack, ship"), "{text}");
    let output = shop.without_topics().command(&["run", "pick"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("run `waybill topics apply`"), "{text}");
}
