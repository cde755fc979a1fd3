//! Where the time of a checkout went, told by the topics alone.

use crate::front::{Front, PRICE};
use crate::shop::LIMIT;
use serde_json::Value;
use waybill_harness::{Collector, eventually};

/// How long the provider takes, milliseconds.
const SLOW: i64 = 400;

fn time(span: &Value, name: &str) -> i128 {
    span[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_nanosecond()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waterfall_of_a_slow_payment_shows_where_the_time_went() {
    let collector = Collector::start().unwrap();
    let Some(front) = Front::open_with("slow", Some(&collector), &[("WAYBILL_SIMULATOR_LATENCY", "400ms")]).await
    else {
        return;
    };
    front.sell("p-0001", 10).await;
    let _all = front.shop.run(&["all"]);
    front.until_open().await;
    front.cart("k-1", "u-1", &[("p-0001", 1)], PRICE).await;
    let answer = front.checkout("k-1", "u-1", "pm_card_visa", &[]).await;
    let order = answer["orderId"].as_str().unwrap();
    front.shop.until("orders.shipped", 1).await;

    let journey: Value = serde_json::from_str(&front.shop.done(&["trace", order, "--json"])).unwrap();
    let spans = journey["spans"].as_array().unwrap();
    let one = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no span {name}"));
    let took = |name: &str| (time(one(name), "end") - time(one(name), "start")) / 1_000_000;
    for name in ["payment.gateway_call", "payment.process", "checkout.process"] {
        assert!(took(name) >= i128::from(SLOW), "{name} took {} ms", took(name));
    }
    assert_eq!(one("payment.gateway_call")["parent"], one("payment.process")["span_id"]);
    assert_eq!(one("cart.validate")["parent"], one("checkout.process")["span_id"]);
    assert_eq!(one("checkout.complete")["parent"], one("checkout.process")["span_id"]);

    // What the topics tell of the checkout is what was exported.
    let exported = eventually("the spans of the checkout are exported", LIMIT, async || {
        let exported = collector.spans();
        let all = |name: &str| exported.iter().any(|span| span.name() == name);
        if all("checkout.process") && all("checkout.complete") { Ok(exported) } else { Err(exported.len().to_string()) }
    })
    .await;
    let published = spans.iter().filter(|span| span["stage"] == "checkout");
    let mut compared = 0;
    for copy in published {
        let name = copy["name"].as_str().unwrap();
        let id = copy["span_id"].as_str().unwrap();
        let span =
            exported.iter().find(|span| span.span_id() == id).unwrap_or_else(|| panic!("{name} is not exported"));
        assert_eq!((span.name(), span.trace_id().as_str()), (name, copy["trace_id"].as_str().unwrap()));
        assert_eq!(span.parent().as_deref(), copy["parent"].as_str(), "{name}");
        let interval = (span.span.start_time_unix_nano, span.span.end_time_unix_nano);
        assert_eq!(interval, (time(copy, "start") as u64, time(copy, "end") as u64), "{name}");
        compared += 1;
    }
    let trace = one("cart.validate")["trace_id"].as_str().unwrap();
    let of_checkout = exported.iter().filter(|span| span.trace_id() == trace && span.name() != "POST /api/checkout");
    assert_eq!(compared, of_checkout.count(), "each of them is told");

    let shown = front.shop.done(&["trace", order]);
    for part in ["POST /api/checkout", "└─ ", "payment.gateway_call", "warehouse.pick", "shipped: "] {
        assert!(shown.contains(part), "no {part} in\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waterfall_of_a_declined_checkout_tells_why() {
    let Some(front) = Front::open("declined", None).await else { return };
    front.sell("p-0001", 10).await;
    let _all = front.shop.run(&["all"]);
    front.until_open().await;
    front.cart("k-1", "u-1", &[("p-0001", 1)], PRICE).await;
    front.checkout("k-1", "u-1", "pm_card_chargeDeclined", &[]).await;
    let rejected = front.shop.until("checkout.rejected", 1).await;
    let shown = front.shop.done(&["trace", rejected[0].key_str().unwrap()]);
    for part in ["checkout.process", "payment.gateway_call", "checkout.compensate", "inventory.release", "rejected at"]
    {
        assert!(shown.contains(part), "no {part} in\n{shown}");
    }
    assert!(!shown.contains("pm_card"), "{shown}");
}
