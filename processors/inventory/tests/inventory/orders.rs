//! The rules of what is done for an order, and of doing it again.

use crate::shop::{HOUR, Shop, is_held, on_both, plain, wants};
use std::time::Duration;
use waybill_inventory::{Confirmed, Ledger, Reserved};
use waybill_store::{Connection, StoreError};

on_both! {
    an_order_holds_all_its_lines_or_none => all_or_none;
    a_product_that_is_not_known_is_a_shortage => unknown;
    a_product_named_twice_is_summed => summed;
    orders_of_a_batch_are_served_in_order => in_order;
    an_order_without_lines_holds_nothing => empty;
    a_repeated_reserve_gets_the_same_answer => repeated_reserve;
    reservation_ids_are_made_of_order_and_product => ids;
    an_order_whose_hold_was_released_is_served_as_new => anew;
    a_hold_that_is_over_and_not_swept_is_extended => extended;
    a_paid_order_is_sold_once_and_stays_sold => sold;
    an_order_that_holds_nothing_lapses => lapses;
    expire_then_confirm_lapses => expire_then_confirm;
    confirm_then_expire_is_sold => confirm_then_expire;
    released_lines_are_available_again_once => released;
    only_holds_that_are_over_are_swept_and_not_more_than_asked_for => swept;
    the_longest_over_is_swept_first => oldest_first;
    what_was_sold_and_not_found_is_written_off_once => shorted;
    a_cancelled_order_gives_back_what_it_did_not_lose => given_back;
    a_ledger_does_all_of_a_transaction_in_one_change => mixed;
    what_was_not_locked_does_not_exist => not_locked;
    thousands_of_lines_in_one_batch => large;
}

async fn all_or_none(shop: Shop) {
    let mut shop = shop.with(&[("a", 5), ("b", 1)]).await;
    let answer = shop.order("1", &[("b", 2), ("a", 2)], HOUR).await;
    assert_eq!(plain(&answer), Err(vec![("b".into(), 1, 2)]));
    assert_eq!(shop.counts("a").await, [5, 0, 0, 0], "nothing of the other line");
    let answer = shop.order("1", &[("b", 1), ("a", 2)], HOUR).await;
    assert_eq!(plain(&answer), Ok(vec![("a".into(), 2), ("b".into(), 1)]), "an answer of no is not kept");
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([3, 2, 0, 0], [0, 1, 0, 0]));
}

async fn unknown(shop: Shop) {
    let mut shop = shop.with(&[("a", 5)]).await;
    let answer = shop.order("1", &[("a", 6), ("ghost", 0), ("x", 1)], HOUR).await;
    assert_eq!(plain(&answer), Err(vec![("a".into(), 5, 6), ("ghost".into(), 0, 0), ("x".into(), 0, 1)]));
}

async fn summed(shop: Shop) {
    let mut shop = shop.with(&[("a", 5)]).await;
    assert_eq!(plain(&shop.order("1", &[("a", 3), ("a", 3)], HOUR).await), Err(vec![("a".into(), 5, 6)]));
    assert_eq!(plain(&shop.order("2", &[("a", 3), ("a", 2)], HOUR).await), Ok(vec![("a".into(), 5)]));
    shop.confirm(&["2"]).await;
    assert_eq!(shop.short(&[wants("2", &[("a", 1), ("a", 1)])]).await, [[("a".to_owned(), 2)]]);
}

async fn in_order(shop: Shop) {
    let mut shop = shop.with(&[("a", 3)]).await;
    let batch = [wants("9", &[("a", 2)]), wants("1", &[("a", 2)]), wants("5", &[("a", 1)]), wants("9", &[("a", 2)])];
    let answers = shop.reserve(&batch, HOUR).await;
    assert_eq!(answers.iter().map(is_held).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(answers[0], answers[3], "a repeat in one batch");
    assert_eq!(shop.counts("a").await, [0, 3, 0, 0]);
}

async fn empty(mut shop: Shop) {
    assert_eq!(plain(&shop.order("1", &[], HOUR).await), Ok(vec![]));
    assert_eq!(shop.confirm(&["1"]).await, [Confirmed::Lapsed]);
    assert!(shop.reserve(&[], HOUR).await.is_empty());
    assert!(shop.confirm(&[]).await.is_empty());
    assert!(shop.adjust(&[]).await.is_empty());
}

async fn repeated_reserve(shop: Shop) {
    let mut shop = shop.with(&[("a", 5), ("b", 5)]).await;
    let lines = [("b", 2), ("a", 1)];
    let first = shop.order("1", &lines, HOUR).await;
    assert_eq!(shop.order("1", &lines, 2 * HOUR).await, first);
    assert_eq!(shop.order("1", &[("a", 4)], HOUR).await, first, "an order does not change");
    assert_eq!(shop.counts("b").await, [3, 2, 0, 0]);
    shop.confirm(&["1"]).await;
    assert_eq!(shop.order("1", &lines, HOUR).await, first);
    shop.short(&[wants("1", &[("a", 1)])]).await;
    shop.cancelled(&["1"]).await;
    assert_eq!(shop.order("1", &lines, HOUR).await, first, "a late repeat takes nothing for a cancelled order");
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([4, 0, 0, 1], [5, 0, 0, 0]));
}

async fn ids(shop: Shop) {
    let mut shop = shop.with(&[("a", 9), ("b", 9)]).await;
    let mut ids = Vec::new();
    for order in ["1", "2"] {
        let Reserved::Held { reservations, .. } = shop.order(order, &[("a", 1), ("b", 1)], HOUR).await else {
            panic!()
        };
        ids.extend(reservations.iter().map(|r| r.id.to_string()));
    }
    assert_eq!(ids[0], "b86e49f4-ffa9-5a0f-9f32-554d126ccb7c", "fixed for ever");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

async fn anew(shop: Shop) {
    let mut shop = shop.with(&[("a", 2), ("b", 2)]).await;
    let first = shop.order("1", &[("a", 2)], Duration::ZERO).await;
    assert_eq!(shop.expire(9).await, ["1"]);
    let second = shop.order("1", &[("a", 2)], HOUR).await;
    assert_eq!((plain(&second), second == first), (plain(&first), false), "the same, for longer");
    assert_eq!(shop.release(&["1"]).await, [1]);
    assert_eq!(plain(&shop.order("1", &[("b", 1)], HOUR).await), Ok(vec![("b".into(), 1)]));
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([2, 0, 0, 0], [1, 1, 0, 0]));
    assert_eq!(shop.release(&["1"]).await, [1], "what was released before stays so");
    assert!(is_held(&shop.order("2", &[("a", 2)], HOUR).await));
    assert!(!is_held(&shop.order("1", &[("a", 2)], HOUR).await), "others came first");
}

async fn extended(shop: Shop) {
    let mut shop = shop.with(&[("a", 1)]).await;
    shop.order("1", &[("a", 1)], Duration::ZERO).await;
    assert!(!is_held(&shop.order("2", &[("a", 1)], HOUR).await), "not swept: not to be had");
    assert!(is_held(&shop.order("1", &[("a", 1)], HOUR).await));
    assert!(shop.expire(9).await.is_empty());
    assert_eq!(shop.counts("a").await, [0, 1, 0, 0]);
}

async fn sold(shop: Shop) {
    let mut shop = shop.with(&[("a", 3), ("b", 3)]).await;
    shop.order("1", &[("a", 1), ("b", 2)], Duration::ZERO).await;
    assert_eq!(shop.confirm(&["1", "1"]).await, [Confirmed::Sold; 2]);
    assert_eq!(shop.confirm(&["1"]).await, [Confirmed::Sold]);
    assert_eq!((shop.release(&["1"]).await, shop.expire(9).await.len()), (vec![0], 0));
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([2, 0, 1, 0], [1, 0, 2, 0]));
    shop.cancelled(&["1"]).await;
    assert_eq!(shop.confirm(&["1"]).await, [Confirmed::Sold], "that it was paid stays true");
    assert_eq!(shop.counts("a").await, [3, 0, 0, 0]);
}

async fn lapses(shop: Shop) {
    let mut shop = shop.with(&[("a", 3)]).await;
    shop.order("1", &[("a", 1)], HOUR).await;
    shop.order("2", &[("a", 1)], HOUR).await;
    shop.release(&["1"]).await;
    let answers = shop.confirm(&["1", "never", "2", "1"]).await;
    assert_eq!(answers, [Confirmed::Lapsed, Confirmed::Lapsed, Confirmed::Sold, Confirmed::Lapsed]);
    assert_eq!(shop.counts("a").await, [2, 0, 1, 0]);
}

async fn expire_then_confirm(shop: Shop) {
    let mut shop = shop.with(&[("a", 1)]).await;
    shop.order("1", &[("a", 1)], Duration::ZERO).await;
    assert_eq!(shop.expire(9).await, ["1"]);
    assert_eq!(shop.confirm(&["1"]).await, [Confirmed::Lapsed]);
    assert_eq!(shop.counts("a").await, [1, 0, 0, 0]);
}

async fn confirm_then_expire(shop: Shop) {
    let mut shop = shop.with(&[("a", 1)]).await;
    shop.order("1", &[("a", 1)], Duration::ZERO).await;
    assert_eq!(shop.confirm(&["1"]).await, [Confirmed::Sold], "over, but not swept");
    assert!(shop.expire(9).await.is_empty());
    assert_eq!(shop.counts("a").await, [0, 0, 1, 0]);
}

async fn released(shop: Shop) {
    let mut shop = shop.with(&[("a", 3), ("b", 3)]).await;
    shop.order("1", &[("a", 1), ("b", 2)], HOUR).await;
    shop.order("2", &[("a", 2)], HOUR).await;
    assert_eq!(shop.release(&["1", "never", "1"]).await, [2, 0, 0]);
    assert_eq!(shop.release(&["1"]).await, [0]);
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([1, 2, 0, 0], [3, 0, 0, 0]));
}

async fn swept(shop: Shop) {
    let mut shop = shop.with(&[("a", 9), ("b", 9)]).await;
    shop.order("young", &[("a", 1)], HOUR).await;
    for order in ["1", "2", "3"] {
        shop.order(order, &[("a", 1), ("b", 1)], Duration::ZERO).await;
    }
    let (mut first, last) = (shop.expire(2).await, shop.expire(2).await);
    assert_eq!((first.len(), last.len(), shop.expire(2).await.len()), (2, 1, 0));
    first.extend(last);
    first.sort_unstable();
    assert_eq!(first, ["1", "2", "3"]);
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([8, 1, 0, 0], [9, 0, 0, 0]));
}

async fn oldest_first(shop: Shop) {
    let mut shop = shop.with(&[("a", 9)]).await;
    shop.order("1", &[("a", 1)], Duration::ZERO).await;
    shop.order("2", &[("a", 1)], Duration::ZERO).await;
    let mut tx = shop.0.begin().await.unwrap();
    match tx.connection() {
        Connection::Postgres(c) => {
            let sql = "update reservations set expires_at = now() - interval '1 hour' where order_id = '2'";
            sqlx::query(sql).execute(c).await.unwrap();
        }
        Connection::Sqlite(c) => {
            let sql = "update reservations set expires_at = unixepoch() - 3600 where order_id = '2'";
            sqlx::query(sql).execute(c).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    assert_eq!((shop.expire(1).await, shop.expire(1).await), (vec!["2".to_owned()], vec!["1".to_owned()]));
}

async fn shorted(shop: Shop) {
    let mut shop = shop.with(&[("a", 9), ("b", 9)]).await;
    shop.order("1", &[("a", 3), ("b", 2)], HOUR).await;
    shop.order("2", &[("a", 1)], HOUR).await;
    assert_eq!(shop.short(&[wants("1", &[("a", 1)])]).await, [[]; 1], "only what was sold can be lost");
    shop.confirm(&["1", "2"]).await;
    let missing = [wants("1", &[("b", 5), ("a", 1), ("x", 1)]), wants("never", &[("a", 1)]), wants("2", &[("a", 0)])];
    let lost = [vec![("a".to_owned(), 1), ("b".to_owned(), 2)], vec![], vec![]];
    assert_eq!(shop.short(&missing).await, lost, "at most what was sold to it");
    assert_eq!(shop.short(&missing).await, lost, "a repeat");
    assert_eq!(shop.short(&[wants("1", &[("a", 3)])]).await, [[("a".to_owned(), 1)]], "a line loses once");
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([5, 0, 3, 1], [7, 0, 0, 2]));
}

async fn given_back(shop: Shop) {
    let mut shop = shop.with(&[("a", 9), ("b", 9)]).await;
    shop.order("1", &[("a", 3), ("b", 2)], HOUR).await;
    assert_eq!(shop.cancelled(&["1", "never"]).await, [0, 0], "held is not sold");
    shop.confirm(&["1"]).await;
    shop.short(&[wants("1", &[("a", 1)])]).await;
    assert_eq!(shop.cancelled(&["1", "1"]).await, [2, 0]);
    assert_eq!(shop.cancelled(&["1"]).await, [0]);
    assert_eq!(shop.short(&[wants("1", &[("a", 1), ("b", 1)])]).await, [[("a".to_owned(), 1)]], "a late repeat");
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([8, 0, 0, 1], [9, 0, 0, 0]));
}

async fn mixed(shop: Shop) {
    let mut shop = shop.with(&[("a", 3), ("b", 3)]).await;
    shop.reserve(&[wants("1", &[("a", 1)]), wants("2", &[("a", 2)])], HOUR).await;
    let told = shop.levels(99).await.len();
    let mut tx = shop.0.begin().await.unwrap();
    let mut ledger = Ledger::lock(&mut tx, &["a", "b"], &["1", "2", "3", "4"]).await.unwrap();
    assert!(!is_held(&ledger.reserve(&wants("3", &[("a", 2), ("b", 1)]), HOUR)));
    assert_eq!((ledger.release("2"), ledger.confirm("1")), (1, Confirmed::Sold));
    assert!(is_held(&ledger.reserve(&wants("3", &[("a", 2), ("b", 1)]), HOUR)));
    assert!(is_held(&ledger.reserve(&wants("4", &[("b", 1)]), HOUR)));
    assert_eq!((ledger.release("4"), ledger.confirm("3")), (1, Confirmed::Sold));
    ledger.save(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([0, 0, 3, 0], [2, 0, 1, 0]));
    let levels = shop.levels(99).await.split_off(told);
    assert_eq!(levels.len(), 1, "of a, as many are available as before: {levels:?}");
    assert_eq!((levels[0].product_id.as_str(), levels[0].available), ("b", 2));
    assert_eq!(shop.confirm(&["1", "2", "3", "4"]).await.iter().filter(|c| **c == Confirmed::Sold).count(), 2);
}

async fn not_locked(shop: Shop) {
    let mut shop = shop.with(&[("a", 3)]).await;
    shop.order("1", &[("a", 1)], HOUR).await;
    let mut tx = shop.0.begin().await.unwrap();
    let mut ledger = Ledger::lock(&mut tx, &["a"], &["2"]).await.unwrap();
    assert!(!is_held(&ledger.reserve(&wants("1", &[("a", 1)]), HOUR)), "not told apart from a new order, so refused");
    assert!(!is_held(&ledger.reserve(&wants("2", &[("b", 1)]), HOUR)));
    assert_eq!((ledger.confirm("1"), ledger.release("1")), (Confirmed::Lapsed, 0));
    ledger.save(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(shop.counts("a").await, [2, 1, 0, 0]);

    let mut tx = shop.0.begin().await.unwrap();
    let refused = waybill_inventory::reserve(&mut tx, &[wants("3", &[("a", 1)])], Duration::MAX).await;
    assert!(!matches!(refused, Err(StoreError::Away(_))), "the longest time is no fault of the database: {refused:?}");
}

async fn large(shop: Shop) {
    let products: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    let goods: Vec<(&str, i64)> = products.iter().map(|p| (p.as_str(), 1_000)).collect();
    let mut shop = shop.with(&goods).await;
    let ids: Vec<String> = (0..500).map(|n| format!("o{n}")).collect();
    let orders: Vec<&str> = ids.iter().map(String::as_str).collect();
    let lines: Vec<(&str, u32)> = products.iter().map(|p| (p.as_str(), 1)).collect();
    let requests: Vec<_> = orders.iter().map(|order| wants(order, &lines)).collect();
    let first = shop.reserve(&requests, HOUR).await;
    assert!(first.iter().all(is_held));
    assert_eq!(shop.reserve(&requests, HOUR).await, first);
    assert!(shop.confirm(&orders).await.iter().all(|c| *c == Confirmed::Sold));
    assert_eq!(shop.counts("p7").await, [500, 0, 500, 0]);
}
