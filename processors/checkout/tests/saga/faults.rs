//! Processes that die, providers that do not answer, goods that are gone.

use crate::world::{World, json};
use serde_json::json;
use waybill_harness::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_asked_for_under_the_same_key() {
    for world in World::each("reset").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p1", 1)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_reset").await;
        world.until("checkout.completed", 1).await;
        running.stop();
        assert_eq!(world.paid("o1").0, 1, "the connection was reset after the charge was made");
        assert_eq!(world.ledger().keys, 1);
        world.assert_clean_slate(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_away_is_waited_for() {
    for mut world in World::each("away").await {
        world.cart("k1", &[("p1", 1)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_card_visa").await;
        let mut store = world.store.another();
        eventually("the charge was tried in vain", crate::world::LIMIT, async || {
            let mut tx = store.begin().await.map_err(|e| e.to_string())?;
            let known =
                tx.known(waybill_store::Table("checkouts"), "checkout", &["o1"]).await.map_err(|e| e.to_string())?;
            tx.commit().await.map_err(|e| e.to_string())?;
            let state = known.decided.first().map_or_else(String::new, |decided| decided.state.clone());
            let state: serde_json::Value = serde_json::from_str(&state).map_err(|e| e.to_string())?;
            if state["unknown"].as_u64() >= Some(1) { Ok(()) } else { Err(state.to_string()) }
        })
        .await;
        world.start_provider().await;
        world.until("checkout.completed", 1).await;
        running.stop();
        world.assert_clean_slate(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_while_the_charge_is_out_is_replaced_and_the_customer_charged_once() {
    for world in World::each("dies").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p1", 1)]).await;
        let dying = world.start();
        world.request("o1", "k1", "pm_slow").await;
        world.until_parked(1).await;
        world.lapse().await;
        let other = world.start();
        world.until("checkout.completed", 1).await;
        world.assert_clean_slate(1).await;
        assert_eq!(world.paid("o1").0, 1);
        dying.stop();
        other.stop();
        assert_eq!(world.broker.records("orders.new").len(), 1, "settled by one of the two");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_paid_for_goods_that_are_gone_gets_the_money_back() {
    for world in World::each("gone").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p1", 10)]).await;
        world.cart("k2", &[("p1", 10)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_slow").await;
        world.until_parked(1).await;
        // The reservation runs out while the bank thinks, and somebody else is faster.
        world.release("o1").await;
        world.request("o2", "k2", "pm_card_visa").await;
        world.until("checkout.completed", 1).await;
        let rejected = json(&world.until("checkout.rejected", 1).await[0]);
        running.stop();
        assert_eq!((&rejected["step"], &rejected["reason"]), (&json!("creating_order"), &json!("reservation_lapsed")));
        assert_eq!(world.paid("o1"), (1, 0), "charged and refunded");
        world.assert_clean_slate(10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_that_ran_out_is_taken_again_while_there_is_stock() {
    for world in World::each("retaken").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p1", 10)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_slow").await;
        world.until_parked(1).await;
        world.release("o1").await;
        world.until("checkout.completed", 1).await;
        running.stop();
        world.assert_clean_slate(10).await;
    }
}
