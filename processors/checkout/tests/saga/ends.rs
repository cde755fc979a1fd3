//! How a checkout can end.

use crate::world::{World, json};
use serde_json::json;
use waybill_telemetry::Carrier as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_ends_in_an_order_that_is_sold_paid_and_published() {
    for world in World::each("confirmed").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p2", 1), ("p1", 2)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_card_visa").await;
        let order = world.until("orders.new", 1).await.remove(0);
        let completed = world.until("checkout.completed", 1).await.remove(0);
        running.stop();
        assert_eq!(json(&order)["lines"][0]["product_id"], "p1");
        assert_eq!(json(&order)["lines"][0]["sku"], "sku-p1");
        assert_eq!(json(&order)["lines"][0]["size_mm"], json!([100, 80, 60]));
        assert_eq!(json(&order)["country"], "DE");
        assert_eq!(json(&completed)["total"], json!({"amount_minor": 3_750, "currency": "EUR"}));
        let stamps = &json(&order)["waybill"];
        assert_eq!((stamps.as_array().unwrap().len(), &stamps[0]["stage"]), (1, &json!("checkout")));
        assert_eq!(
            order.content.header("traceparent"),
            order.content.header("ce_traceparent"),
            "the journey begins here"
        );
        assert_eq!(world.paid("o1"), (1, 3_750));
        world.assert_clean_slate(3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_bought_is_rejected_before_anybody_is_charged() {
    for world in World::each("invalid").await {
        let mut world = world.with_provider().await;
        world.cart("stale", &[("p1", 1), ("p2", 1)]).await;
        world.execute("update products set price_amount = price_amount + 1 where id = 'p2'").await;
        world.cart("much", &[("p1", 1), ("p3", 11)]).await;
        world.cart("empty", &[]).await;
        world.cart("gone", &[("p9", 1)]).await;
        world.cart("others", &[("p1", 1)]).await;
        world.execute("update carts set user_id = 'c2' where id = 'others'").await;
        let running = world.start();
        for cart in ["stale", "much", "empty", "nowhere", "gone", "others"] {
            world.request(&format!("o-{cart}"), cart, "pm_card_visa").await;
        }
        let rejected = world.until("checkout.rejected", 6).await;
        running.stop();
        let said = |cart: &str| {
            let order = format!("o-{cart}");
            let event = json(rejected.iter().find(|r| r.content.key() == Some(order.as_bytes())).unwrap());
            assert_eq!(event["step"], "validating_cart");
            (event["reason"].as_str().unwrap().to_owned(), event["products"].clone())
        };
        assert_eq!(said("stale"), ("stale_prices".to_owned(), json!(["p2"])));
        assert_eq!(said("gone"), ("stale_prices".to_owned(), json!(["p9"])));
        assert_eq!(said("much"), ("insufficient_stock".to_owned(), json!(["p3"])));
        for cart in ["empty", "nowhere", "others"] {
            assert_eq!(said(cart), ("no_such_cart".to_owned(), json!([])));
        }
        assert_eq!(world.ledger().charges.len(), 0);
        world.assert_clean_slate(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declined_card_gives_the_goods_back() {
    for world in World::each("declined").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p1", 2)]).await;
        let running = world.start();
        world.request("hard", "k1", "pm_card_chargeDeclined").await;
        let rejected = json(&world.until("checkout.rejected", 1).await[0]);
        assert_eq!((&rejected["step"], &rejected["reason"]), (&json!("processing_payment"), &json!("declined")));
        assert_eq!(world.ledger().keys, 1, "a card that declines for good is asked once");
        world.request("soft", "k1", "pm_card_visa_chargeDeclinedProcessingError").await;
        let rejected = world.until("checkout.rejected", 2).await;
        assert!(rejected.iter().all(|r| json(r)["reason"] == "declined"));
        running.stop();
        assert_eq!(world.ledger().keys, 4, "one that declines for now is asked again, each time under a new key");
        world.assert_clean_slate(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_carts_for_the_last_pieces_some_are_sold_and_none_too_many() {
    for world in World::each("last").await {
        let mut world = world.with_provider().await;
        for n in 0..20 {
            let lines = if n % 2 == 0 { [("p1", 1), ("p2", 1)] } else { [("p2", 1), ("p1", 1)] };
            world.cart(&format!("k{n}"), &lines).await;
        }
        let (one, other) = (world.start(), world.start());
        for n in 0..20 {
            world.request(&format!("o{n}"), &format!("k{n}"), "pm_card_visa").await;
        }
        let completed = world.until("checkout.completed", 10).await;
        let rejected = world.until("checkout.rejected", 10).await;
        assert_eq!((completed.len(), rejected.len()), (10, 10));
        world.assert_clean_slate(20).await;
        one.stop();
        other.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_again_is_answered_again_and_nothing_else() {
    for world in World::each("again").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p1", 1)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_card_visa").await;
        world.until("checkout.completed", 1).await;
        world.publish("o1", "k1");
        let completed = world.until("checkout.completed", 2).await;
        running.stop();
        assert_eq!(completed[0].content, completed[1].content, "byte for byte");
        assert_eq!(world.paid("o1").0, 1);
        world.assert_clean_slate(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_warehouse_does_not_find_is_paid_back_once() {
    for world in World::each("short").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p1", 4)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_card_visa").await;
        world.until("checkout.completed", 1).await;
        world.short("o1", "p1", 4, 1);
        world.short("o1", "p1", 4, 1);
        world.short("o-of-nobody", "p1", 4, 1);
        world.until_committed("orders.short", 3).await;
        world.until_parked(0).await;
        world.publish("o1", "k1");
        let completed = world.until("checkout.completed", 2).await;
        running.stop();
        assert_eq!(completed[0].content, completed[1].content, "a refund changes nothing of what was said");
        assert_eq!(world.paid("o1"), (1, 1_250));
        world.assert_clean_slate_but(4, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cancels_gets_back_what_is_not_paid_back_already_and_once() {
    for world in World::each("cancelled").await {
        let mut world = world.with_provider().await;
        world.cart("k1", &[("p1", 4)]).await;
        let running = world.start();
        world.request("o1", "k1", "pm_card_visa").await;
        world.until("checkout.completed", 1).await;
        world.short("o1", "p1", 4, 3);
        world.until_committed("orders.short", 1).await;
        world.until_parked(0).await;
        world.cancelled("o1");
        world.cancelled("o1");
        world.until_committed("orders.cancelled", 2).await;
        world.until_parked(0).await;
        running.stop();
        assert_eq!(world.paid("o1"), (1, 0));
        world.assert_clean_slate_but(4, 4).await;
    }
}
