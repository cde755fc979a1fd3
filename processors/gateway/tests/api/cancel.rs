//! `DELETE /api/orders/{id}`.

use crate::client::Reply;
use crate::played::{body, confirmed};
use crate::world::{World, hasty};
use crate::{LIMIT, on_both};
use serde_json::json;
use waybill_gateway::Settings;
use waybill_harness::eventually;

on_both! {
    a_cancellation_is_asked_for_once_however_often_the_customer_asks;
    an_order_can_be_cancelled_while_it_is_under_way_and_by_its_customer_alone;
    twenty_customers_at_once_ask_once;
    a_user_may_ask_so_often_and_no_more;
    a_request_to_cancel_is_forgotten_when_its_order_has_ended;
}

const TOPIC: &str = "orders.cancel_requested";
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// An order that is paid.
async fn paid(world: &World, key: &str) -> String {
    world.client.check_out(key, &body("k-1"), &[("prefer", "respond-async")]).await;
    let order = world.ground.order_of(key).await;
    world.ground.decide(&order, &confirmed("confirmed")).await;
    order
}

async fn cancel(world: &World, order: &str, user: &str) -> Reply {
    let path = format!("/api/orders/{order}?userId={user}");
    world.client.send("DELETE", &path, &[("traceparent", CALLER)], "").await
}

async fn a_cancellation_is_asked_for_once_however_often_the_customer_asks(world: World) {
    let order = paid(&world, "key").await;
    let path = format!("/api/orders/{order}");
    assert_eq!(world.client.get(&path).await.body.get("cancelRequested"), None);
    let first = cancel(&world, &order, "c-1").await;
    assert_eq!((first.status, first.header("location")), (202, Some(path.as_str())));
    assert_eq!(first.body, json!({"orderId": order, "statusUrl": path}));
    let again = cancel(&world, &order, "c-1").await;
    assert_eq!((again.status, &again.body, again.header("location")), (202, &first.body, Some(path.as_str())));
    let shown = world.client.get(&path).await;
    assert_eq!((shown.text("status"), &shown.body["cancelRequested"]), ("confirmed", &json!(true)));

    world.ground.order_of("key").await;
    let published = world.ground.published(TOPIC, &order);
    let [record] = published.as_slice() else { panic!("{published:?}") };
    assert_eq!(record.json().unwrap(), json!({"order_id": order, "customer_id": "c-1"}));
    assert_eq!(record.header("ce_type"), Some("orders.cancel_requested.v1"));
    assert_eq!(record.header("ce_source"), Some("/waybill/gateway"));
    let trace: Vec<&str> = record.header("traceparent").unwrap().split('-').collect();
    assert_eq!(trace[1], &CALLER[3..35], "the caller's trace goes on");
    assert_ne!(trace[2], &CALLER[36..52], "in a span of its own");
    let span: serde_json::Value = serde_json::from_str(record.header("waybill_span").unwrap()).unwrap();
    assert_eq!((&span["name"], &span["span_id"]), (&json!("DELETE /api/orders/{id}"), &json!(trace[2])));
    world.stop().await;
}

async fn an_order_can_be_cancelled_while_it_is_under_way_and_by_its_customer_alone(world: World) {
    for (order, user) in [("none", "c-1"), (&*paid(&world, "others").await, "c-2")] {
        let refused = cancel(&world, order, user).await;
        assert_eq!((refused.status, refused.problem()), (404, "not_found"), "{refused:?}");
    }
    world.client.check_out("pending", &body("k-1"), &[("prefer", "respond-async")]).await;
    let pending = world.ground.order_of("pending").await;
    let early = cancel(&world, &pending, "c-1").await;
    assert_eq!((early.status, early.problem(), early.header("retry-after")), (409, "order_pending", Some("1")));
    world.ground.decide(&pending, &json!({"status": "running", "customer_id": "c-1", "cart_id": "k-1"})).await;
    assert_eq!(cancel(&world, &pending, "c-1").await.problem(), "order_pending");
    for status in ["rejected", "shipped", "cancelled"] {
        let order = paid(&world, status).await;
        world.ground.decide(&order, &confirmed(status)).await;
        let late = cancel(&world, &order, "c-1").await;
        assert_eq!((late.status, late.problem()), (409, format!("order_{status}").as_str()), "{late:?}");
        assert_eq!((late.text("orderId"), late.header("retry-after")), (order.as_str(), None));
        assert!(world.ground.published(TOPIC, &order).is_empty(), "{status}");
    }
    for status in ["confirmed", "picked", "packed"] {
        let order = paid(&world, status).await;
        world.ground.decide(&order, &confirmed(status)).await;
        assert_eq!(cancel(&world, &order, "c-1").await.status, 202, "{status}");
        world.ground.decide(&order, &confirmed("cancelled")).await;
        assert_eq!(cancel(&world, &order, "c-1").await.problem(), "order_cancelled");
        let shown = world.client.get(&format!("/api/orders/{order}")).await;
        assert_eq!((shown.text("status"), shown.body.get("cancelRequested")), ("cancelled", None));
    }
    world.stop().await;
}

async fn twenty_customers_at_once_ask_once(world: World) {
    let order = paid(&world, "key").await;
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let (client, path) = (world.client.clone(), format!("/api/orders/{order}?userId=c-1"));
            tokio::spawn(async move { client.delete(&path).await })
        })
        .collect();
    for request in requests {
        let reply = request.await.unwrap();
        assert_eq!((reply.status, reply.text("orderId")), (202, order.as_str()));
    }
    world.ground.order_of("key").await;
    assert_eq!(world.ground.published(TOPIC, &order).len(), 1);
    world.stop().await;
}

async fn a_user_may_ask_so_often_and_no_more(world: World) {
    let world = world.again(Settings { rate: 1, burst: 2, ..hasty() }).await;
    assert_eq!(cancel(&world, "none", "c-1").await.status, 404);
    assert_eq!(cancel(&world, "none", "c-1").await.status, 404);
    let refused = cancel(&world, "none", "c-1").await;
    assert_eq!((refused.status, refused.problem()), (429, "too_many_requests"));
    world.stop().await;
}

async fn a_request_to_cancel_is_forgotten_when_its_order_has_ended(world: World) {
    let (under_way, ended) = (paid(&world, "under-way").await, paid(&world, "ended").await);
    for order in [&under_way, &ended] {
        assert_eq!(cancel(&world, order, "c-1").await.status, 202);
    }
    world.ground.order_of("ended").await;
    world.ground.decide(&ended, &confirmed("cancelled")).await;
    let old = match world.ground.store.system() {
        "sqlite" => "unixepoch('subsec') - 90000",
        _ => "now() - interval '25 hours'",
    };
    world.ground.execute(&format!("update cancel_requests set requested_at = {old}")).await;
    let world = world.again(hasty()).await;
    eventually("the one of the order that has ended is deleted", LIMIT, async || {
        match world.ground.column("select order_id from cancel_requests").await {
            kept if kept == [under_way.as_str()] => Ok(()),
            kept => Err(format!("{kept:?}")),
        }
    })
    .await;
    assert_eq!(cancel(&world, &under_way, "c-1").await.status, 202);
    world.ground.order_of("under-way").await;
    assert_eq!(world.ground.published(TOPIC, &under_way).len(), 1, "and not asked for again");
    world.stop().await;
}
