//! Orders that are not to be shipped any more.

use crate::checkout::CALLER;
use crate::front::{Front, PRICE};
use crate::shop::{LIMIT, Shop, distinct};
use crate::telemetry::keeps_contract;
use serde_json::{Value, json};
use waybill_harness::{Answer, Collector, ask, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_shipped_or_cancelled_by_which_was_asked_first_and_never_both() {
    let Some(shop) = Shop::open("cancel", 1_000).await else { return };
    let _processes = [shop.run(&["fulfilment", "inventory"]), shop.run(&["ship"])];
    let orders: Vec<String> = (0..60).map(|number| format!("o-5-{number:07}")).collect();
    let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
    shop.ask_to_cancel(&orders[..20]).await;
    shop.until("orders.cancelled", 20).await;
    shop.done(&["produce", "orders", "--count", "60", "--seed", "5"]);
    shop.until("orders.shipped", 40).await;
    // Again, and too late.
    shop.ask_to_cancel(&orders[10..40]).await;
    shop.until_committed("ship", "orders.cancel_requested").await;
    shop.until_committed("ship", "orders.packed").await;
    shop.until_committed("inventory", "orders.cancelled").await;

    let cancelled = shop.read("orders.cancelled");
    assert_eq!(distinct(&cancelled).into_iter().collect::<Vec<_>>(), orders[..20]);
    assert_eq!(cancelled.len(), 30, "a repeat repeats the answer");
    assert_eq!(distinct(&shop.read("orders.shipped")).into_iter().collect::<Vec<_>>(), orders[20..]);
    shop.check(60, 400 * 1_000).await;
    let told = shop.done(&["trace", orders[3]]);
    assert!(told.contains("cancelled before it was shipped"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_under_way_when_it_is_cancelled_ends_once() {
    let Some(shop) = Shop::open("race", 1_000).await else { return };
    let _processes = [shop.run(&["fulfilment", "inventory"]), shop.run(&["ship"])];
    let orders: Vec<String> = (0..300).map(|number| format!("o-6-{number:07}")).collect();
    let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
    shop.done(&["produce", "orders", "--count", "300", "--seed", "6"]);
    shop.ask_to_cancel(&orders).await;
    shop.until_committed("pick", "orders.new").await;
    shop.until_committed("pack", "orders.picked").await;
    shop.until_committed("ship", "orders.packed").await;
    shop.until_committed("ship", "orders.cancel_requested").await;
    let ended = distinct(&shop.read("orders.cancelled")).len() + distinct(&shop.read("orders.shipped")).len();
    assert_eq!(ended, 300);
    shop.check(300, 400 * 1_000).await;
}

async fn cancel(front: &Front, order: &str, user: &str) -> Answer {
    let path = format!("/api/orders/{order}?userId={user}");
    ask(front.gateway, "DELETE", &path, &[CALLER], &Value::Null).await.unwrap()
}

async fn until_status(front: &Front, order: &str, status: &str) {
    eventually(&format!("the order is {status}, the gateway says"), LIMIT, async || {
        let answer = ask(front.gateway, "GET", &format!("/api/orders/{order}"), &[], &Value::Null).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.body["status"] == status { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cancels_over_http_in_time_gets_the_money_back_and_the_shop_its_goods() {
    let collector = Collector::start().unwrap();
    let Some(mut front) = Front::open("http-cancel", Some(&collector)).await else { return };
    front.sell("p-0001", 10).await;
    front.sell("p-0002", 10).await;
    // A checkout is asked for until the gateway has found its topics.
    front.shop.set("WAYBILL_GATEWAY_BURST", "10000");
    let _shop = front.shop.run(&["gateway", "checkout", "inventory"]);
    front.until_open().await;
    let lines = [("p-0001", 1), ("p-0002", 1)];
    front.cart("k-1", "u-1", &lines, PRICE).await;
    front.cart("k-2", "u-2", &lines, PRICE).await;
    let order = front.checkout("k-1", "u-1", "pm_card_visa", &[]).await["orderId"].as_str().unwrap().to_owned();
    let other = front.checkout("k-2", "u-2", "pm_card_visa", &[]).await["orderId"].as_str().unwrap().to_owned();
    assert_eq!(cancel(&front, &order, "u-2").await.status, 404, "of another customer");
    let first = cancel(&front, &order, "u-1").await;
    assert_eq!((first.status, &first.body["orderId"]), (202, &json!(order)));
    let again = cancel(&front, &order, "u-1").await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    let shown = ask(front.gateway, "GET", first.body["statusUrl"].as_str().unwrap(), &[], &Value::Null).await.unwrap();
    assert_eq!((&shown.body["status"], &shown.body["cancelRequested"]), (&json!("confirmed"), &json!(true)));

    let ship = front.shop.run(&["ship"]);
    front.shop.until("orders.cancelled", 1).await;
    until_status(&front, &order, "cancelled").await;
    let _warehouse = (front.shop.run(&["fulfilment"]), ship);
    until_status(&front, &other, "shipped").await;
    for stage in [("pick", "orders.new"), ("pack", "orders.picked"), ("ship", "orders.packed")] {
        front.shop.until_committed(stage.0, stage.1).await;
    }
    for (order, user, problem) in [(&order, "u-1", "order_cancelled"), (&other, "u-2", "order_shipped")] {
        let late = cancel(&front, order, user).await;
        assert_eq!((late.status, &late.body["type"]), (409, &json!(format!("urn:waybill:problem:{problem}"))));
    }
    front.shop.until_committed("inventory", "orders.cancelled").await;
    let requests = front.shop.read("orders.cancel_requested");
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(request.json().unwrap(), json!({"order_id": order, "customer_id": "u-1"}));
    assert_eq!(distinct(&front.shop.read("orders.shipped")).into_iter().collect::<Vec<_>>(), [other.as_str()]);
    let paid = front.paid().await;
    assert_eq!((paid[&order].1, paid[&other].0), (0, 1), "{paid:?}");
    assert_eq!(front.shop.number("select sum(sold)::int8 from stock").await, 2);
    assert_eq!(front.shop.number("select sum(reserved)::int8 from stock").await, 0);
    front.shop.check(2, 400 * 1_000_000).await;

    // The browser's trace leads to the one that cancelled the order.
    let spans = eventually("the spans are here", LIMIT, async || {
        let spans = collector.spans();
        let asked = spans.iter().filter(|span| span.name() == "DELETE /api/orders/{id}").count();
        let decided = spans.iter().any(|span| span.events().iter().any(|(event, _)| event == "cancelled"));
        if asked >= 3 && decided { Ok(spans) } else { Err(format!("{asked}, {decided}")) }
    })
    .await;
    let trace = CALLER.1.split('-').nth(1).unwrap();
    let asked = |span: &&waybill_harness::Caught| span.name() == "DELETE /api/orders/{id}";
    assert!(spans.iter().filter(asked).all(|span| span.trace_id() == trace));
    spans.iter().filter(asked).for_each(keeps_contract);
    let span_id = request.header("traceparent").unwrap().split('-').nth(2).unwrap();
    assert!(spans.iter().filter(asked).any(|span| span.span_id() == span_id));
    let decided = spans.iter().find(|span| span.events().iter().any(|(event, _)| event == "cancelled")).unwrap();
    assert!(decided.links().iter().any(|(t, s, _)| (t.as_str(), s.as_str()) == (trace, span_id)), "{decided:?}");
}
