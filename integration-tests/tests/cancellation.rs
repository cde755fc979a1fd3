//! Orders that are not to be shipped any more.

use crate::shop::{Shop, distinct};

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
