//! The operators' pages in a real browser, on a real run.

use crate::front::{Front, PRICE};
use crate::shop::LIMIT;
use serde_json::{Value, json};
use std::net::SocketAddr;
use waybill_harness::{Browser, eventually, free_port};

/// An order id as nobody could send one: it stands in the database alone.
const SCRIPT: &str = "<script>alert(1)</script>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_open_find_and_draw_in_a_real_browser() {
    let Some(browser) = Browser::find() else { return };
    let pages = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let listen = pages.to_string();
    let Some(front) = Front::open_with("pages", None, &[("WAYBILL_PAGES_LISTEN", &listen)]).await else { return };
    front.sell("p-0001", 10).await;
    let _all = front.shop.run(&["all"]);
    front.until_open().await;
    front.cart("k-1", "u-1", &[("p-0001", 2)], PRICE).await;
    let order = front.checkout("k-1", "u-1", "pm_card_visa", &[]).await["orderId"].as_str().unwrap().to_owned();
    front.shop.until("orders.shipped", 1).await;
    let copy = format!(
        "insert into checkouts (key, version, state, answer) select '{SCRIPT}', 1, state, answer from checkouts
         where key = '{order}'"
    );
    front.shop.execute(&copy).await;
    front
        .shop
        .execute(
            "insert into parked (stage, key, origin, record, why, attempts, due_at)
        values ('ship', '<script>alert(1)</script>', 'x', '', '<img src=x onerror=alert(1)>', 1, now())",
        )
        .await;
    let shipped = format!("select count(*) from checkouts where key = '{order}' and state ->> 'status' = 'shipped'");
    eventually("the checkout knows that it is shipped", LIMIT, async || match front.shop.sum(&shipped).await {
        1 => Ok(()),
        found => Err(found.to_string()),
    })
    .await;

    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("journey.html").display().to_string();
    front.shop.done(&["report", &order, "-o", &report]);
    assert_eq!(front.shop.command(&["report", "o-none", "-o", &report]).status.code(), Some(4), "no such order");

    let given = json!({"report": format!("file://{report}"), "at": format!("http://{pages}"), "order": order, "script": SCRIPT});
    let saw = tokio::task::spawn_blocking(move || browser.run(include_str!("pages/look.js"), &given)).await.unwrap();
    let saw = saw.unwrap();
    let of = |name: &str| saw[name].clone();
    assert_eq!(of("listed"), json!(true), "the order is listed");
    assert_eq!(of("found"), json!(order), "the search finds it by the beginning of its id and leads there");
    assert_eq!(of("status"), json!("shipped"));
    assert_eq!(of("lanes"), json!(["Checkout", "Pick", "Pack", "Ship"]), "a lane a trace");
    assert_eq!(of("thin"), json!([]), "every bar can be seen");
    assert_eq!(of("curves"), json!(6), "every link between stages is drawn");
    assert_eq!(of("jumped"), json!("warehouse.pick"), "a link leads to the span it names");
    assert_eq!(of("attributes"), json!(true), "a chosen span shows its attributes");
    assert_eq!(of("closed"), json!(true), "the keyboard closes it again");
    assert_eq!(of("report"), json!(["POST /api/checkout", "warehouse.pick", "warehouse.pack", "shipping.dispatch"]));
    assert_eq!(of("text"), json!(SCRIPT), "an id is text");
    assert_eq!(of("wide"), json!([]), "nothing is wider than a phone");
    assert_eq!(of("titles"), json!(["Orders", "Demand", "Campaigns", "Stages", "Dead letters"]));
    let stages = of("stages");
    let stages: Vec<&str> = stages.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(stages.contains(&"pick") && stages.contains(&"ship"), "{stages:?}");
    let [light, dark] = [&saw["grounds"][0], &saw["grounds"][1]];
    assert_ne!(light, dark, "there is a dark mode");
}
