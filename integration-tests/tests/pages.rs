//! The operators' pages in a real browser, on a real run.

use crate::front::{Front, PRICE};
use crate::shop::LIMIT;
use serde_json::{Value, json};
use std::net::SocketAddr;
use waybill_harness::{Browser, Draft, eventually, free_port, produce};

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

    // What people wait for, a campaign, and a record that no stage accepts.
    let rows = "insert into subscriptions (product_id, user_id, channel, quantity, expires_at)
            select 'p-0002', 'u-' || n, case when n % 3 = 0 then 'push' else 'email' end, 1, now() + interval '1 day'
            from generate_series(1, 40) as n;
        insert into batches (campaign_id, number, product_id, channel, position, size, after_id, to_id, restocked_at,
            waybill, publish_at, published_at, settled_at, sent, failed, unknown)
            values ('c-1', 0, 'p-0003', 'email', 0, 100, 0, 100, now(), '[]', now(), now(), now(), 97, 2, 1),
                ('c-1', 1, 'p-0003', 'push', 0, 40, 100, 140, now(), '[]', now(), now(), null, 0, 0, 0)";
    front.shop.execute(rows).await;
    let bad = Draft::new(SCRIPT, b"no order".to_vec()).header("ce_id", "bad").header("ce_type", "orders.new.v1");
    produce(&front.shop.bootstrap, &front.shop.scope.topic("orders.new"), vec![bad]).await.unwrap();
    eventually("the bad record is a dead letter", LIMIT, async || match front.shop.count("dead.pick") {
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
    assert_eq!(of("why"), json!(true), "the journey of an order that stands still says why");
    assert_eq!(of("wide"), json!([]), "nothing is wider than a phone");
    assert_eq!(of("titles"), json!(["Orders", "Demand", "Campaigns", "Stages", "Dead letters"]));
    assert_eq!(of("demand"), json!(["p-0002", "40"]));
    assert_eq!(of("campaign"), json!("97 sent, 2 failed, 1 unknown, 40 waiting"));
    assert!(of("letter").as_str().unwrap().contains(SCRIPT), "{}", of("letter"));
    assert!(of("command").as_str().unwrap().starts_with("waybill dead redrive dead.pick/"), "{}", of("command"));
    let stages = of("stages");
    let stages: Vec<&str> = stages.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(stages.contains(&"pick") && stages.contains(&"ship"), "{stages:?}");
    let [light, dark] = [&saw["grounds"][0], &saw["grounds"][1]];
    assert_ne!(light, dark, "there is a dark mode");
}
