//! What a crash leaves, a start picks up; what is old goes.

use crate::played::body;
use crate::world::{Ground, World, hasty, settings};
use crate::{LIMIT, on_both};
use waybill_harness::eventually;

on_both! {
    a_request_that_was_not_acknowledged_is_published_again_at_the_next_start;
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

/// As if the process died after every acknowledgement, before it could note it.
const DIES: [(&str, &str, &str); 2] = [
    (
        "sqlite",
        "create trigger dies before delete on gateway_outbox begin select raise(ignore); end",
        "drop trigger dies",
    ),
    (
        "postgresql",
        "create rule dies as on delete to gateway_outbox do instead nothing",
        "drop rule dies on gateway_outbox",
    ),
];

async fn a_request_that_was_not_acknowledged_is_published_again_at_the_next_start(world: World) {
    let system = world.ground.store.system();
    let (_, die, live) = DIES.into_iter().find(|(name, ..)| *name == system).unwrap();
    world.ground.execute(die).await;
    let reply = world.client.check_out("key", &body("k-1"), &[("prefer", "respond-async")]).await;
    let order = reply.text("orderId").to_owned();
    eventually("the request is published", LIMIT, async || match world.ground.requested(&order).await.len() {
        0 => Err("it is not".to_owned()),
        _ => Ok(()),
    })
    .await;
    world.gateway.stop().await;
    world.ground.execute(live).await;
    let before = world.ground.requested(&order).await.len();
    world.ground.execute(&format!("update gateway_outbox set created_at = {}", ago(&world.ground, 5))).await;
    let gateway = world.ground.start(settings()).await;
    world.ground.order_of("key").await;
    let requested = world.ground.requested(&order).await;
    assert_eq!(requested.len(), before + 1);
    let first = &requested[0];
    for again in &requested {
        assert_eq!((&first.payload, &first.headers), (&again.payload, &again.headers), "the same bytes");
    }
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
