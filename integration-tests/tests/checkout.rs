//! From an HTTP request to a label, and what is left of many requests when processes are killed on the way.

use crate::front::{Front, PRICE};
use crate::shop::LIMIT;
use crate::telemetry::keeps_contract;
use serde_json::Value;
use waybill_harness::{Caught, Collector, PostgresServer, Scope, ask, eventually, kafka, postgres};
use waybill_storm::checkouts::{Ashes, CANARIES, Fire};

pub const CALLER: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
/// With ten kills it is half a minute; `just storm --checkouts 5000` is the long one.
const CHECKOUTS: usize = 400;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_goes_from_the_request_to_the_label_in_one_picture() {
    let collector = Collector::start().unwrap();
    let Some(front) = Front::open("front", Some(&collector)).await else { return };
    let _all = front.shop.run(&["all"]);
    front.until_open().await;
    front.sell("p-0001", 10).await;
    front.sell("p-0002", 10).await;
    front.cart("k-1", "u-1", &[("p-0001", 1), ("p-0002", 1)], PRICE).await;
    let answer = front.checkout("k-1", "u-1", "pm_card_visa", &[CALLER]).await;
    assert_eq!(answer["status"], "confirmed");
    let order = answer["orderId"].as_str().unwrap().to_owned();
    front.shop.until("orders.shipped", 1).await;
    eventually("the order is shipped, the gateway says", LIMIT, async || {
        let answer = ask(front.gateway, "GET", &format!("/api/orders/{order}"), &[], &Value::Null).await;
        let status = answer.map_err(|e| e.to_string())?.body["status"].clone();
        if status == "shipped" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let spans = eventually("all spans are here", LIMIT, async || {
        let spans: Vec<Caught> = collector.spans();
        let names: Vec<String> = spans.iter().map(|span| span.name().to_owned()).collect();
        let all = ["POST /api/checkout", "checkout.process", "checkout.complete", "shipping.dispatch"];
        if all.iter().all(|name| names.iter().any(|n| n == name)) { Ok(spans) } else { Err(format!("{names:?}")) }
    })
    .await;
    let one = |name: &str| spans.iter().find(|span| span.name() == name).unwrap_or_else(|| panic!("no span {name}"));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let inside = [
        ("checkout.process", "POST /api/checkout"),
        ("cart.validate", "checkout.process"),
        ("cart.fetch_contents", "cart.validate"),
        ("cart.verify_prices", "cart.validate"),
        ("inventory.reserve_batch", "cart.validate"),
        ("inventory.reserve_item", "cart.validate"),
        ("payment.process", "checkout.process"),
        ("payment.gateway_call", "payment.process"),
        ("order.create", "checkout.process"),
        ("checkout.complete", "checkout.process"),
    ];
    for (name, parent) in inside {
        assert_eq!(one(name).trace_id(), trace, "{name}: the browser's trace goes on");
        let within = one(name).parent().and_then(|id| spans.iter().find(|span| span.span_id() == id));
        assert_eq!(within.map(Caught::name), Some(parent), "{name}");
    }
    let events: Vec<String> = one("checkout.process").events().into_iter().map(|(name, _)| name).collect();
    assert_eq!(events, ["cart_validated", "payment_processed", "order_created"]);
    let pick = one("warehouse.pick");
    assert_ne!(pick.trace_id(), trace, "the warehouse may take its time");
    assert!(pick.links().iter().any(|(_, span, _)| *span == one("checkout.complete").span_id()));
    let of_checkout = |span: &&Caught| span.trace_id() == trace;
    spans.iter().filter(of_checkout).for_each(keeps_contract);
    // What must be nowhere is nowhere.
    let told = format!("{spans:?}");
    assert!(!told.contains("pm_card_visa") && !told.contains("sk_test_canary"));
    for topic in ["checkout.requested", "checkout.completed", "orders.new"] {
        assert!(front.shop.read(topic).iter().all(|r| !format!("{r:?}").contains("pm_card_visa")), "{topic}");
    }
    assert_eq!(front.shop.number("select count(*) from payment_methods").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_request_ends_and_the_ledgers_agree_though_processes_are_killed() {
    let Some(scope) = kafka().map(|kafka| Scope::new(kafka.bootstrap(), "fire")) else { return };
    if postgres().is_none() {
        return;
    }
    // Its own, as it is restarted without a checkpoint.
    let mut postgres = PostgresServer::start().unwrap();
    let collector = Collector::start().unwrap();
    let fire = Fire {
        binary: env!("CARGO_BIN_EXE_waybill").into(),
        bootstrap: scope.bootstrap().to_owned(),
        prefix: scope.prefix().to_owned(),
        seed: 1,
        checkouts: CHECKOUTS,
        kills: 10,
        collector: Some(collector.endpoint()),
    };
    let Ashes { books, canaries, .. } = fire.run(&mut postgres).await.unwrap();
    print!("{books}");
    assert!(books.violations.is_empty(), "{books}");
    assert_eq!(books.accepted, CHECKOUTS);
    let ends: Vec<&str> = books.rejected.keys().map(String::as_str).collect();
    assert_eq!(ends, ["declined", "insufficient_stock", "no_such_cart", "stale_prices"], "all scenarios were met");
    assert!(canaries.is_empty(), "payment methods were told: {canaries:?}");
    let exported = format!("{:?} {:?}", collector.spans(), collector.metrics());
    assert!(exported.contains("payment.process"), "spans were exported");
    assert!(CANARIES.iter().all(|word| !exported.contains(word)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goods_are_held_as_long_as_is_set_and_taken_again_when_the_payment_comes_later() {
    let Some(mut front) = Front::open("hold", None).await else { return };
    front.sell("p-0001", 10).await;
    front.shop.set("WAYBILL_CHECKOUT_DEADLINE", "1s");
    front.shop.set("WAYBILL_CHECKOUT_HOLD", "2s");
    front.simulator.kill().unwrap();
    let _stages = front.shop.run(&["gateway", "checkout", "inventory"]);
    front.until_open().await;
    front.cart("k-1", "u-1", &[("p-0001", 2)], PRICE).await;
    front.checkout("k-1", "u-1", "pm_card_visa", &[("prefer", "respond-async")]).await;
    let until = async |what: &str, sql: &'static str, expected: i64| {
        eventually(what, LIMIT, async || match front.shop.number(sql).await {
            found if found == expected => Ok(()),
            found => Err(found.to_string()),
        })
        .await;
    };
    let reserved = "select sum(reserved)::int8 from stock";
    until("two pieces are held", reserved, 2).await;
    until("they are given back", reserved, 0).await;
    let status = "select count(*) from checkouts where state->>'status' = 'running'";
    assert_eq!(front.shop.number(status).await, 1, "the provider may have taken the money");
    front.simulator = front.shop.run(&["payment-simulator"]);
    until("the checkout ends", status, 0).await;
    let books = front.check().await;
    assert_eq!((books.confirmed, books.charges, books.kept, books.sold), (1, 1, 2 * PRICE, 2), "{books}");
}
