//! The rules of telling what is available.

use crate::shop::{HOUR, Shop, on_both, wants};
use std::time::Duration;
use waybill_inventory::{Adjustment, Level};

on_both! {
    a_batch_of_orders_is_one_change_of_a_product => one_change;
    only_a_change_of_what_is_available_is_told => only_changes;
    the_last_version_that_left_nothing_is_kept => zeros;
    levels_come_oldest_first_until_they_are_told => relaying;
    a_change_that_is_not_committed_is_not_told => not_committed;
}

fn plain(levels: &[Level]) -> Vec<(&str, i64, i64, i64)> {
    levels.iter().map(|l| (l.product_id.as_str(), l.version, l.available, l.last_zero_version)).collect()
}

async fn one_change(shop: Shop) {
    let mut shop = shop.with(&[("a", 200), ("b", 50)]).await;
    let ids: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let requests: Vec<_> = ids.iter().map(|order| wants(order, &[("a", 1)])).collect();
    shop.reserve(&requests, HOUR).await;
    let levels = shop.levels(99).await;
    assert_eq!(plain(&levels)[2..], [("a", 2, 0, 2)]);
    assert!(levels[2].changed_at >= levels[0].changed_at);
    let a = &shop.stock().await[0];
    assert_eq!((a.available, a.reserved, a.version, a.last_zero_version), (0, 200, 2, 2));
}

async fn only_changes(shop: Shop) {
    let mut shop = shop.with(&[("a", 3)]).await;
    shop.adjust(&[Adjustment { product_id: "none", delta: 0 }, Adjustment { product_id: "a", delta: -9 }]).await;
    shop.order("1", &[("a", 2)], HOUR).await;
    for _ in 0..2 {
        shop.order("1", &[("a", 2)], HOUR).await;
        shop.order("2", &[("a", 2)], HOUR).await;
        shop.confirm(&["1"]).await;
        shop.release(&["1"]).await;
        shop.short(&[wants("1", &[("a", 1)])]).await;
        shop.expire(9).await;
    }
    assert_eq!(plain(&shop.levels(99).await), [("a", 1, 3, 0), ("a", 2, 1, 0)]);
}

async fn zeros(shop: Shop) {
    let mut shop = shop.with(&[("a", 1)]).await;
    shop.order("1", &[("a", 1)], Duration::ZERO).await;
    shop.expire(9).await;
    shop.order("2", &[("a", 1)], HOUR).await;
    shop.confirm(&["2"]).await;
    shop.cancelled(&["2"]).await;
    let levels = shop.levels(99).await;
    assert_eq!(plain(&levels), [("a", 1, 1, 0), ("a", 2, 0, 2), ("a", 3, 1, 2), ("a", 4, 0, 4), ("a", 5, 1, 4)]);
}

async fn relaying(shop: Shop) {
    let mut shop = shop.with(&[("b", 9)]).await.with(&[("a", 9)]).await;
    for order in ["1", "2", "3"] {
        shop.order(order, &[("a", 1), ("b", 1)], HOUR).await;
    }
    let first = shop.levels(3).await;
    assert_eq!(plain(&first)[..2], [("b", 1, 9, 0), ("a", 1, 9, 0)], "not in the order of names");
    assert_eq!(shop.levels(3).await, first, "not told yet");
    let mut all = Vec::new();
    loop {
        let levels = shop.levels(3).await;
        if levels.is_empty() {
            break;
        }
        let told: Vec<(&str, i64)> = levels.iter().map(|l| (l.product_id.as_str(), l.version)).collect();
        shop.relayed(&told).await;
        shop.relayed(&told).await;
        all.extend(levels);
    }
    for product in ["a", "b"] {
        let versions: Vec<i64> = all.iter().filter(|l| l.product_id == product).map(|l| l.version).collect();
        assert_eq!(versions, [1, 2, 3, 4]);
    }
    shop.relayed(&[]).await;
    shop.order("4", &[("a", 1)], HOUR).await;
    assert_eq!(plain(&shop.levels(99).await), [("a", 5, 5, 0)], "versions go on");
}

async fn not_committed(shop: Shop) {
    let mut shop = shop.with(&[("a", 9)]).await;
    let mut tx = shop.0.begin().await.unwrap();
    waybill_inventory::reserve(&mut tx, &[wants("1", &[("a", 1)])], HOUR).await.unwrap();
    drop(tx);
    assert_eq!(plain(&shop.levels(99).await), [("a", 1, 9, 0)]);
    assert_eq!(shop.counts("a").await, [9, 0, 0, 0]);
}
