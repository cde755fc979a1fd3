//! What a person on call sees of a checkout, and may do about it.

use crate::world::{LIMIT, World, json};
use serde_json::json;
use std::time::Duration;
use waybill_checkout::{Abort, Awaits, Open, Payment, Resume, Standing, Status, abort, count, find, list, resume};
use waybill_harness::eventually;
use waybill_money::{Currency, Money};
use waybill_spine::Call as _;

async fn listed(world: &mut World, standing: Option<Standing>) -> Vec<Open> {
    list(&mut world.store, standing, Duration::ZERO, 10).await.unwrap()
}

/// Waits until the charge has been asked for in vain.
async fn until_unknown(world: &World, order: &str) {
    let mut store = world.store.another();
    eventually("the charge was tried in vain", LIMIT, async || {
        match find(&mut store, order).await.map_err(|e| e.to_string())? {
            Some(open) if open.saga.unknown > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_is_ended_while_its_charge_is_out_and_the_money_goes_back_once() {
    for world in World::each("aborted").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p1", 2)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_slow").await;
        world.until_parked(1).await;
        let [open] = &listed(&mut world, None).await[..] else { panic!("one checkout is open") };
        assert_eq!((open.order_id.as_str(), open.standing), ("o1", Standing::Charging));
        assert_eq!((open.saga.awaits, open.saga.attempt), (Some(Awaits::Charge), 1));
        assert!(open.waits.as_ref().unwrap().in_hand.is_some(), "{open:?}");
        assert_eq!(resume(&mut world.store, "o1").await.unwrap(), Resume::InHand);
        assert_eq!(abort(&mut world.store, "o1").await.unwrap(), Abort::Asked);
        assert_eq!(abort(&mut world.store, "o1").await.unwrap(), Abort::Again);
        assert_eq!(count(&mut world.store).await.unwrap(), [(Standing::Aborting, 1)]);
        let rejected = json(&world.until("checkout.rejected", 1).await[0]);
        assert_eq!((&rejected["step"], &rejected["reason"]), (&json!("processing_payment"), &json!("aborted")));
        world.assert_clean_slate(0).await;
        assert_eq!(world.paid("o1"), (1, 0), "what was out is charged, then refunded");
        assert_eq!(abort(&mut world.store, "o1").await.unwrap(), Abort::Ended(Status::Rejected));
        assert_eq!(resume(&mut world.store, "o1").await.unwrap(), Resume::Ended(Status::Rejected));
        assert!(listed(&mut world, None).await.is_empty());
        world.publish("o1", "k1");
        world.until("checkout.rejected", 2).await;
        running.stop();
        assert_eq!(world.broker.records("orders.new").len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_of_unknown_outcome_is_settled_before_its_checkout_is_ended() {
    for mut world in World::each("settled").await {
        world.cart("k1", &[("p1", 1)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_card_visa").await;
        until_unknown(&world, "o1").await;
        assert_eq!(abort(&mut world.store, "o1").await.unwrap(), Abort::Asked);
        world.start_provider().await;
        let rejected = json(&world.until("checkout.rejected", 1).await[0]);
        assert_eq!(rejected["reason"], "aborted");
        running.stop();
        assert_eq!(world.paid("o1"), (1, 0), "it may have been charged: now it is known, and paid back");
        world.assert_clean_slate(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_ended_before_a_charge_is_made_is_not_charged() {
    for mut world in World::each("uncharged").await {
        world.cart("k1", &[("p1", 1)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_card_visa").await;
        until_unknown(&world, "o1").await;
        running.stop();
        world.start_provider().await;
        // As it would be called after a decline for now, the mark being left in between.
        world.set("o1", "unknown", &json!(0)).await;
        world.set("o1", "abort", &json!(true)).await;
        let keys = world.ledger().keys;
        let charge = |attempt| {
            let amount = Money::new(1_250, Currency::from_code("EUR").unwrap());
            Payment::Charge { order_id: "o1".to_owned(), amount, attempt }
        };
        let payments = world.payments();
        charge(2).make(payments.clone(), false).await;
        assert_eq!(world.ledger().keys, keys, "it was not asked for");
        charge(2).make(payments.clone(), true).await;
        assert_eq!(world.ledger().keys, keys + 1, "somebody may have asked before: that is settled first");
        world.set("o1", "unknown", &json!(1)).await;
        charge(3).make(payments, false).await;
        assert_eq!(world.ledger().keys, keys + 2, "the same");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_made_due_at_once_and_taken_by_a_process() {
    for mut world in World::each("resumed").await {
        world.cart("k1", &[("p1", 1)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_card_visa").await;
        until_unknown(&world, "o1").await;
        world.postpone().await;
        let open = find(&mut world.store, "o1").await.unwrap().unwrap();
        assert!(open.waits.unwrap().next_try > Duration::from_secs(3_000));
        world.start_provider().await;
        assert_eq!(resume(&mut world.store, "o1").await.unwrap(), Resume::Due);
        world.until("checkout.completed", 1).await;
        world.assert_clean_slate(1).await;
        assert_eq!(resume(&mut world.store, "o1").await.unwrap(), Resume::Ended(Status::Confirmed));
        assert_eq!(abort(&mut world.store, "o1").await.unwrap(), Abort::Ended(Status::Confirmed));
        assert_eq!(resume(&mut world.store, "nobody's").await.unwrap(), Resume::Unknown);
        assert_eq!(abort(&mut world.store, "nobody's").await.unwrap(), Abort::Unknown);
        running.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_a_dead_letter_is_found_and_left_to_a_person() {
    for mut world in World::each("dead").await {
        world.cart("k1", &[("p1", 1)]).await;
        let running = world.start();
        // Asked for in vain for longer than a provider keeps its keys.
        world.request("unknown", "k1", "pm_card_visa").await;
        until_unknown(&world, "unknown").await;
        world.postpone().await;
        world.set("unknown", "unknown_since", &json!("2026-01-01T00:00:00Z")).await;
        assert_eq!(resume(&mut world.store, "unknown").await.unwrap(), Resume::Due);
        world.until("dead.checkout", 1).await;
        world.until_parked(0).await;
        // Of a charge that the provider does not know.
        world.start_provider().await;
        world.cart("k2", &[("p2", 4)]).await;
        world.request("refused", "k2", "pm_card_visa").await;
        world.until("checkout.completed", 1).await;
        world.set("refused", "charge_id", &json!("pi_nobodys")).await;
        world.short("refused", "p2", 4, 1);
        world.until("dead.checkout", 2).await;
        world.until_parked(0).await;
        running.stop();
        let dead = listed(&mut world, Some(Standing::Dead)).await;
        let dead: Vec<_> =
            dead.iter().map(|open| (open.order_id.as_str(), open.saga.status, open.saga.awaits)).collect();
        let unknown = ("unknown", Status::Running, Some(Awaits::Charge));
        assert_eq!(dead, [unknown, ("refused", Status::Confirmed, Some(Awaits::Refund))]);
        assert_eq!(count(&mut world.store).await.unwrap(), [(Standing::Dead, 2)]);
        assert!(listed(&mut world, Some(Standing::Charging)).await.is_empty());
        assert!(list(&mut world.store, None, Duration::from_secs(3_600), 10).await.unwrap().is_empty(), "too young");
        assert_eq!(resume(&mut world.store, "unknown").await.unwrap(), Resume::Dead);
        assert_eq!(abort(&mut world.store, "unknown").await.unwrap(), Abort::Dead);
        assert_eq!(abort(&mut world.store, "refused").await.unwrap(), Abort::Ended(Status::Confirmed));
    }
}
