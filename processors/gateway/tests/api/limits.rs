//! How much is taken on at once.

use crate::on_both;
use crate::played::body;
use crate::world::{World, hasty, settings};
use serde_json::json;
use waybill_gateway::Settings;

on_both! {
    a_user_may_send_so_many_requests_and_no_more;
    so_many_requests_are_in_flight_and_no_more;
}

async fn a_user_may_send_so_many_requests_and_no_more(world: World) {
    let world = world.again(Settings { rate: 1, burst: 3, ..hasty() }).await;
    let cart = |user: &str| json!({"userId": user, "country": "DE", "service": "standard"});
    assert_eq!(world.client.check_out("key", &body("k-1"), &[]).await.status, 202);
    assert_eq!(world.client.check_out("key", &body("k-1"), &[]).await.status, 202);
    assert_eq!(world.client.post("/api/carts", &cart("c-1")).await.status, 201);
    for reply in
        [world.client.check_out("key", &body("k-1"), &[]).await, world.client.post("/api/carts", &cart("c-1")).await]
    {
        assert_eq!((reply.status, reply.problem()), (429, "too_many_requests"));
        let seconds: u32 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{reply:?}");
    }
    assert_eq!(world.client.post("/api/carts", &cart("c-2")).await.status, 201, "another user");
    world.stop().await;
}

async fn so_many_requests_are_in_flight_and_no_more(world: World) {
    let world = world.again(Settings { inflight: 2, ..settings() }).await;
    let waiting = ["a", "b"].map(|key| {
        let client = world.client.clone();
        tokio::spawn(async move { client.check_out(key, &body("k-1"), &[]).await })
    });
    let orders = [world.ground.order_of("a").await, world.ground.order_of("b").await];
    let refused = world.client.get("/api/products").await;
    assert_eq!((refused.status, refused.problem(), refused.header("retry-after")), (503, "overloaded", Some("1")));
    for order in &orders {
        world.ground.confirm(order).await;
    }
    for request in waiting {
        assert_eq!(request.await.unwrap().status, 201);
    }
    assert_eq!(world.client.get("/api/products").await.status, 200);
    world.stop().await;
}
