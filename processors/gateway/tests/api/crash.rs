//! What a crash leaves, a start picks up; what is old goes.

use crate::played::body;
use crate::world::{Ground, World, hasty, settings};
use crate::{LIMIT, on_both};
use waybill_harness::eventually;

on_both! {
    a_request_that_was_not_published_is_published_at_the_next_start;
    a_key_is_free_after_its_time_and_old_ones_are_deleted;
    a_stop_answers_who_waits;
}

/// So many seconds ago, in either database's SQL.
fn ago(ground: &Ground, seconds: u32) -> String {
    match ground.store.system() {
        "sqlite" => format!("unixepoch('subsec') - {seconds}"),
        _ => format!("now() - interval '{seconds} seconds'"),
    }
}

async fn a_request_that_was_not_published_is_published_at_the_next_start(world: World) {
    let reply = world.client.check_out("key", &body("k-1"), &[("prefer", "respond-async")]).await;
    let order = reply.text("orderId").to_owned();
    world.ground.order_of("key").await;
    world.gateway.stop().await;
    // As after a crash between the commit and the acknowledgement.
    let then = ago(&world.ground, 5);
    let sql = format!("update checkout_requests set published_at = null, requested_at = {then} where key = 'key'");
    world.ground.execute(&sql).await;
    let gateway = world.ground.start(settings()).await;
    world.ground.order_of("key").await;
    let requested = world.ground.requested(&order).await;
    let [first, again] = requested.as_slice() else { panic!("{requested:?}") };
    assert_eq!((&first.payload, &first.headers), (&again.payload, &again.headers), "the same bytes");
    gateway.stop().await;
}

async fn a_key_is_free_after_its_time_and_old_ones_are_deleted(world: World) {
    let prefer = [("prefer", "respond-async")];
    let mut orders = Vec::new();
    for key in ["young", "old", "gone"] {
        let reply = world.client.check_out(key, &body("k-1"), &prefer).await;
        orders.push(reply.text("orderId").to_owned());
        world.ground.order_of(key).await;
    }
    let (almost, over) = (ago(&world.ground, 24 * 3_600 - 60), ago(&world.ground, 24 * 3_600 + 60));
    for (key, time) in [("young", &almost), ("old", &over), ("gone", &over)] {
        let sql = format!("update checkout_requests set requested_at = {time} where key = '{key}'");
        world.ground.execute(&sql).await;
    }
    for (key, order, same) in [("young", &orders[0], true), ("old", &orders[1], false)] {
        // Another body: the key is either taken or free.
        let reply = world.client.check_out(key, &body("k-2"), &prefer).await;
        assert_eq!(reply.status, if same { 422 } else { 202 }, "{reply:?}");
        let kept = world.ground.order_of(key).await;
        assert_eq!(kept == *order, same);
    }
    let world = world.again(hasty()).await;
    eventually("the old key is deleted", LIMIT, async || {
        let mut keys = world.ground.column("select key from checkout_requests").await;
        keys.retain(|key| key != "is-it-ready");
        keys.sort();
        if keys == ["old", "young"] { Ok(()) } else { Err(format!("{keys:?}")) }
    })
    .await;
    world.stop().await;
}

async fn a_stop_answers_who_waits(world: World) {
    let client = world.client.clone();
    let waiting = tokio::spawn(async move { client.check_out("key", &body("k-1"), &[]).await });
    let order = world.ground.order_of("key").await;
    world.gateway.ask_to_stop();
    let reply = waiting.await.unwrap();
    assert_eq!((reply.status, reply.text("orderId")), (202, order.as_str()), "{reply:?}");
    world.gateway.ended().await;
}
