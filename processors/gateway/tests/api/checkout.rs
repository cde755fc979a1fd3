//! `POST /api/checkout` and what it answers.

use crate::played::{body, confirmed};
use crate::world::{Ground, World, hasty, settings};
use crate::{LIMIT, on_both};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::io::AsyncWriteExt;
use waybill_harness::eventually;

on_both! {
    a_checkout_is_published_and_answered_by_its_event;
    each_rejection_is_a_problem_of_its_own;
    a_checkout_that_takes_long_is_pending_and_can_be_asked_for;
    who_prefers_not_to_wait_is_answered_at_once;
    a_key_is_for_one_body_and_one_request_at_a_time;
    twenty_equal_requests_are_one_order;
    a_client_that_goes_away_stops_nothing;
}

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Checks out, and lets the checkout end so in the meantime.
async fn played(world: &World, key: &str, end: impl AsyncFnOnce(&Ground, &str)) -> (crate::client::Reply, String) {
    let body = body("k-1");
    let ended = async {
        let order = world.ground.order_of(key).await;
        end(&world.ground, &order).await;
        order
    };
    tokio::join!(world.client.check_out(key, &body, &[("traceparent", CALLER)]), ended)
}

async fn a_checkout_is_published_and_answered_by_its_event(world: World) {
    let (reply, order) = played(&world, "key-1", async |ground, order| ground.confirm(order).await).await;
    let path = format!("/api/orders/{order}");
    assert_eq!((reply.status, reply.header("location")), (201, Some(path.as_str())), "{reply:?}");
    assert_eq!(reply.body, json!({"orderId": order, "status": "confirmed"}));
    let requested = world.ground.requested(&order).await;
    let [record] = requested.as_slice() else { panic!("{requested:?}") };
    assert_eq!(record.json().unwrap(), json!({"order_id": order, "customer_id": "c-1", "cart_id": "k-1"}));
    assert_eq!(record.header("ce_type"), Some("checkout.requested.v1"));
    assert_eq!(record.header("ce_source"), Some("/waybill/gateway"));
    assert_eq!(record.header("ce_traceparent"), record.header("traceparent"));
    let trace: Vec<&str> = record.header("traceparent").unwrap().split('-').collect();
    assert_eq!(trace[1], &CALLER[3..35], "the caller's trace goes on");
    assert_ne!(trace[2], &CALLER[36..52], "in a span of its own");
    let kept = world.ground.column(&format!("select reference from payment_methods where order_id = '{order}'")).await;
    assert_eq!(kept, ["pm_1"]);
    // What the warehouse does later changes the order, not the answer.
    world.ground.decide(&order, &confirmed("shipped")).await;
    let again = world.client.check_out("key-1", &body("k-1"), &[]).await;
    assert_eq!((again.status, &again.body, again.header("location")), (201, &reply.body, Some(path.as_str())));
    assert_eq!(world.client.get(&path).await.text("status"), "shipped");
    world.stop().await;
}

async fn each_rejection_is_a_problem_of_its_own(world: World) {
    for (reason, step, products, status) in [
        ("no_such_cart", "validating_cart", &[][..], 422),
        ("stale_prices", "validating_cart", &["p-1", "p-2"][..], 409),
        ("insufficient_stock", "validating_cart", &["p-1"], 409),
        ("declined", "processing_payment", &[], 402),
        ("payment_unavailable", "processing_payment", &[], 503),
        ("reservation_lapsed", "creating_order", &["p-1"], 409),
        ("aborted", "creating_order", &[], 409),
    ] {
        let (reply, order) =
            played(&world, reason, async |ground, order| ground.reject(order, step, reason, products).await).await;
        assert_eq!((reply.status, reply.problem(), reply.text("orderId")), (status, reason, order.as_str()));
        let named = if products.is_empty() { Value::Null } else { json!(products) };
        assert_eq!(reply.body["products"], named);
        let again = world.client.check_out(reason, &body("k-1"), &[]).await;
        assert_eq!((again.status, &again.body), (status, &reply.body));
        let found = world.client.get(&format!("/api/orders/{order}")).await;
        assert_eq!(found.text("status"), "rejected");
        assert_eq!(found.body["failure"], json!({"step": step, "reason": reason, "products": products}));
    }
    world.stop().await;
}

async fn a_checkout_that_takes_long_is_pending_and_can_be_asked_for(world: World) {
    let world = world.again(hasty()).await;
    let reply = world.client.check_out("slow", &body("k-1"), &[]).await;
    let (order, path) = (reply.text("orderId").to_owned(), reply.text("statusUrl").to_owned());
    assert_eq!((reply.status, reply.text("status")), (202, "pending"));
    assert_eq!(
        (reply.header("location"), path.as_str()),
        (Some(path.as_str()), format!("/api/orders/{order}").as_str())
    );
    assert_eq!(reply.header("preference-applied"), None);
    assert_eq!(world.client.get(&path).await.body, json!({"orderId": order, "status": "pending"}));
    let again = world.client.check_out("slow", &body("k-1"), &[]).await;
    assert_eq!((again.status, &again.body), (202, &reply.body));
    let running = json!({"status": "running", "customer_id": "c-1", "cart_id": "k-1"});
    world.ground.decide(&order, &running).await;
    assert_eq!(world.client.get(&path).await.text("status"), "pending");
    for status in ["confirmed", "picked", "packed", "shipped", "cancelled"] {
        world.ground.decide(&order, &confirmed(status)).await;
        let found = world.client.get(&path).await;
        let total = json!({"amount": 3998, "currency": "EUR"});
        assert_eq!(found.body, json!({"orderId": order, "status": status, "total": total, "itemCount": 1}));
        assert_eq!(world.client.check_out("slow", &body("k-1"), &[]).await.status, 201);
    }
    let none = world.client.get("/api/orders/none").await;
    assert_eq!((none.status, none.problem()), (404, "not_found"));
    world.stop().await;
}

async fn who_prefers_not_to_wait_is_answered_at_once(world: World) {
    let prefer = [("prefer", "wait=100, respond-async")];
    let reply = world.client.check_out("\"key\"", &body("k-1"), &prefer).await;
    assert_eq!((reply.status, reply.header("preference-applied")), (202, Some("respond-async")), "{reply:?}");
    // The quoted key and the bare one are one key.
    let again = world.client.check_out("key", &body("k-1"), &prefer).await;
    assert_eq!(
        (again.status, &again.body, again.header("preference-applied")),
        (202, &reply.body, Some("respond-async"))
    );
    let order = world.ground.order_of("key").await;
    assert_eq!(reply.text("orderId"), order);
    world.ground.confirm(&order).await;
    let done = world.client.check_out("key", &body("k-1"), &prefer).await;
    assert_eq!((done.status, done.header("preference-applied")), (201, None));
    world.stop().await;
}

async fn a_key_is_for_one_body_and_one_request_at_a_time(world: World) {
    let (first, order) = played(&world, "key", async |ground, order| {
        let busy = world.client.check_out("key", &body("k-1"), &[]).await;
        assert_eq!((busy.status, busy.problem()), (409, "in_progress"), "{busy:?}");
        assert_eq!((busy.header("retry-after"), busy.text("orderId")), (Some("1"), order));
        // The same in other words: another order of the fields, other white space.
        let same = "{ \"paymentMethodId\":\"pm_1\",\n\"userId\":\"c-1\", \"cartId\":\"k-\\u0031\" }";
        let busy = world.client.send("POST", "/api/checkout", &[("idempotency-key", "key")], same).await;
        assert_eq!((busy.status, busy.problem()), (409, "in_progress"), "{busy:?}");
        for (field, value) in [("cartId", "k-2"), ("userId", "c-2"), ("paymentMethodId", "pm_2")] {
            let mut other = body("k-1");
            other[field] = value.into();
            let refused = world.client.check_out("key", &other, &[]).await;
            assert_eq!((refused.status, refused.problem()), (422, "key_reused"), "{field}");
        }
        ground.confirm(order).await;
    })
    .await;
    assert_eq!((first.status, first.text("orderId")), (201, order.as_str()));
    let refused = world.client.check_out("key", &body("k-2"), &[]).await;
    assert_eq!((refused.status, refused.problem()), (422, "key_reused"));
    world.stop().await;
}

async fn twenty_equal_requests_are_one_order(world: World) {
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let client = world.client.clone();
            tokio::spawn(async move { client.check_out("key", &body("k-1"), &[]).await })
        })
        .collect();
    let order = world.ground.order_of("key").await;
    world.ground.confirm(&order).await;
    let mut confirmed = 0;
    for request in requests {
        let reply = request.await.unwrap();
        assert_eq!(reply.text("orderId"), order, "{reply:?}");
        assert!(reply.status == 201 || (reply.status, reply.problem()) == (409, "in_progress"), "{reply:?}");
        confirmed += u32::from(reply.status == 201);
    }
    assert!(confirmed >= 1);
    assert_eq!(world.ground.requested(&order).await.len(), 1);
    let orders = world.ground.column("select order_id from payment_methods").await;
    assert_eq!(
        orders.into_iter().collect::<BTreeSet<_>>().len(),
        2,
        "this one, and the one that asked whether all is up"
    );
    world.stop().await;
}

async fn a_client_that_goes_away_stops_nothing(world: World) {
    let address = world.client.address();
    let text = body("k-1").to_string();
    for number in 0..5 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /api/checkout HTTP/1.1\r\nhost: shop\r\nidempotency-key: gone-{number}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        if number == 0 {
            // This one stays until its request is there; the others go at once, perhaps before it is read.
            world.ground.order_of("gone-0").await;
        }
        drop(stream);
    }
    let sql = "select order_id from checkout_requests where key like 'gone-%'";
    let orders = world.ground.column(sql).await;
    assert!(!orders.is_empty());
    for key in world.ground.column("select key from checkout_requests where key like 'gone-%'").await {
        let order = world.ground.order_of(&key).await;
        assert_eq!(world.ground.requested(&order).await.len(), 1);
        let methods = format!("select reference from payment_methods where order_id = '{order}'");
        assert_eq!(world.ground.column(&methods).await, ["pm_1"]);
        world.ground.confirm(&order).await;
        let again = world.client.check_out(&key, &body("k-1"), &[]).await;
        assert_eq!((again.status, again.text("orderId")), (201, order.as_str()));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_sees_every_outcome() {
    let Some(ground) = Ground::postgres("replicas").await else { return };
    let (one, two) = (ground.start(settings()).await, ground.start(settings()).await);
    let cart = body("k-1");
    for (here, there) in [(&one, &two), (&two, &one)] {
        let key = format!("key-{:p}", here);
        let (reply, order) = tokio::join!(here.client.check_out(&key, &cart, &[]), async {
            let order = ground.order_of(&key).await;
            let busy = there.client.check_out(&key, &cart, &[]).await;
            assert_eq!((busy.status, busy.problem()), (409, "in_progress"));
            ground.confirm(&order).await;
            order
        });
        assert_eq!((reply.status, reply.text("orderId")), (201, order.as_str()));
        eventually("the other replica knows", LIMIT, async || {
            let again = there.client.check_out(&key, &cart, &[]).await;
            if again.status == 201 { Ok(()) } else { Err(format!("{again:?}")) }
        })
        .await;
    }
    one.stop().await;
    two.stop().await;
}
