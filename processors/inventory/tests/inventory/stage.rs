//! The stage's decisions, each in a transaction as the spine makes it: what is given, what comes, what then holds.

use crate::shop::{HOUR, Shop, on_both, wants};
use std::time::Duration;
use waybill_events::{AdjustmentReason, OrderCancelled, OrderShort, ShortLine, StockAdjustment};
use waybill_inventory::{Booked, Change, Inventory, Ledger};
use waybill_spine::{Input as _, Outcome, Shared, Stage, Work};
use waybill_store::Connection;
use waybill_telemetry::Waybill;

on_both! {
    changes_of_the_stock_are_booked_or_rejected_with_a_reason => booked;
    a_change_booked_before_repeats_its_answer_and_changes_nothing => replayed;
    a_short_order_that_comes_after_its_cancellation_loses_nothing => out_of_order;
    an_adjustment_never_has_the_subject_of_an_order => subjects;
    levels_are_told_in_order_until_they_are_forgotten => told;
    reservations_whose_time_is_over_are_released_by_the_clock => swept;
    what_is_available_is_told_by_category => told_by_category;
}

fn adjustment(id: &str, product_id: &str, delta: i64) -> Change {
    let reason = AdjustmentReason::Recount;
    let (adjustment_id, product_id) = (id.to_owned(), product_id.to_owned());
    Change::Adjustment(StockAdjustment { adjustment_id, product_id, delta, reason })
}

fn read(schema: &str, event: &impl serde::Serialize) -> Change {
    Change::read(schema, &serde_json::to_vec(event).unwrap()).unwrap()
}

fn short(order: &str, product: &str, requested: u32, picked: u32) -> Change {
    let line = ShortLine { line: 1, product_id: product.into(), sku: "s".into(), requested, picked };
    let (order_id, customer_id) = (order.to_owned(), "c-1".to_owned());
    let event = OrderShort { order_id, customer_id, lines: vec![line], waybill: Waybill::default() };
    read("orders.short.v1", &event)
}

fn cancelled(order: &str) -> Change {
    let (order_id, customer_id) = (order.to_owned(), "c-1".to_owned());
    read("orders.cancelled.v1", &OrderCancelled { order_id, customer_id, waybill: Waybill::default() })
}

/// Books changes in one transaction; what is said to each, in words.
async fn book(shop: &mut Shop, state: Option<&Booked>, changes: &[Change]) -> Vec<String> {
    let mut tx = shop.0.begin().await.unwrap();
    let work: Vec<Work<'_, Inventory>> = changes.iter().map(|event| Work { event, state, answer: None }).collect();
    let mut ledger = <Ledger as Shared<Inventory>>::load(&mut tx, &work).await.unwrap();
    let mut said = Vec::new();
    for change in changes {
        said.push(match Inventory.decide(&mut ledger, state, change, jiff::Timestamp::UNIX_EPOCH) {
            Outcome::Emit(decision) => {
                assert!(decision.events.is_empty(), "only levels are told");
                format!("{:?}", decision.state)
            }
            Outcome::Repeat => "repeat".to_owned(),
            Outcome::Reject(refusal) => format!("{}: {}", refusal.reason, refusal.message),
            _ => "something else".to_owned(),
        });
    }
    Shared::<Inventory>::save(ledger, &mut tx).await.unwrap();
    tx.commit().await.unwrap();
    said
}

async fn sold(shop: &mut Shop, order: &str, product: &str, pieces: u32) {
    shop.order(order, &[(product, pieces)], HOUR).await;
    shop.confirm(&[order]).await;
}

async fn booked(mut shop: Shop) {
    let first = [adjustment("1", "a", 9), adjustment("2", "a", -2), adjustment("3", "ghost", -1)];
    let said = book(&mut shop, None, &first).await;
    assert!(said[0].contains("delta: 9, available: 9") && said[1].contains("delta: -2, available: 7"), "{said:?}");
    assert_eq!(said[2], "not_available: 0 of product ghost are available: -1 cannot be booked");
    sold(&mut shop, "o-1", "a", 3).await;
    sold(&mut shop, "o-2", "a", 2).await;
    let then = [short("o-1", "a", 3, 2), cancelled("o-2"), cancelled("o-none"), adjustment("4", "a", -5)];
    let said = book(&mut shop, None, &then).await;
    assert_eq!(said[..3], [r#"Lost([("a", 1)])"#, "GivenBack(1)", "GivenBack(0)"]);
    assert_eq!(said[3], "not_available: 4 of product a are available: -5 cannot be booked");
    assert_eq!(shop.counts("a").await, [4, 0, 2, 3]);
}

async fn replayed(shop: Shop) {
    let mut shop = shop.with(&[("a", 9)]).await;
    sold(&mut shop, "o-1", "a", 3).await;
    let state = Booked::GivenBack(1);
    let changes = [adjustment("1", "a", 5), short("o-1", "a", 3, 0), cancelled("o-1")];
    assert_eq!(book(&mut shop, Some(&state), &changes).await, ["repeat"; 3]);
    assert_eq!(shop.counts("a").await, [6, 0, 3, 0]);
}

async fn out_of_order(shop: Shop) {
    let mut shop = shop.with(&[("a", 9)]).await;
    sold(&mut shop, "o-1", "a", 3).await;
    let said = book(&mut shop, None, &[cancelled("o-1"), short("o-1", "a", 3, 1)]).await;
    assert_eq!(said, ["GivenBack(1)", "Lost([])"]);
    assert_eq!(shop.counts("a").await, [9, 0, 0, 0]);
}

async fn subjects(_: Shop) {
    let changes = [adjustment("short-o-1", "a", 1), short("o-1", "a", 1, 0), cancelled("o-1")];
    assert_eq!(changes.each_ref().map(|c| c.subject()), ["short-o-1", "short/o-1", "cancelled/o-1"]);
    assert_eq!(changes.each_ref().map(|c| c.key()), ["a", "o-1", "o-1"]);
    assert!(adjustment("short/o-1", "a", 1).check().is_err());
}

async fn told(mut shop: Shop) {
    for delta in [3, -3, 1] {
        book(&mut shop, None, &[adjustment("1", "a", delta), adjustment("2", "b", 1)]).await;
    }
    let mut tx = shop.0.begin().await.unwrap();
    let mut levels = Inventory.outbox(&mut tx, 99).await.unwrap();
    let subjects: Vec<&str> = levels.iter().map(|l| l.subject.as_str()).filter(|s| s.starts_with('a')).collect();
    assert_eq!(subjects, ["a/1", "a/2", "a/3"]);
    let messages: Vec<_> = levels.iter_mut().map(|l| l.message("inventory").unwrap()).collect();
    let again: Vec<_> = Inventory.outbox(&mut tx, 99).await.unwrap();
    let again: Vec<_> = again.into_iter().map(|mut l| l.message("inventory").unwrap()).collect();
    assert_eq!(messages, again, "the same bytes");
    assert!(levels.iter().all(|l| l.event.topic() == "inventory.levels"));
    Inventory.forget(&mut tx, &levels[..4]).await.unwrap();
    let left: Vec<String> = Inventory.outbox(&mut tx, 99).await.unwrap().into_iter().map(|l| l.subject).collect();
    assert_eq!(left, levels[4..].iter().map(|l| l.subject.clone()).collect::<Vec<_>>());
    tx.commit().await.unwrap();
}

async fn swept(shop: Shop) {
    let mut shop = shop.with(&[("a", 5)]).await;
    shop.reserve(&[wants("over", &[("a", 2)])], Duration::ZERO).await;
    shop.reserve(&[wants("young", &[("a", 1)])], HOUR).await;
    let mut tx = shop.0.begin().await.unwrap();
    Inventory.tend(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(shop.counts("a").await, [4, 1, 0, 0]);
}

async fn told_by_category(mut shop: Shop) {
    let mut tx = shop.0.begin().await.unwrap();
    assert_eq!(Inventory.gauge(&mut tx).await.unwrap(), vec![], "nothing is in stock yet");
    for (id, category) in [("a", "mugs"), ("b", "mugs"), ("c", "posters"), ("never-in-stock", "prints")] {
        let sql = format!("insert into products values ('{id}', 's', 'A thing', '{category}', 1, 'EUR', 1, 1, 1, 1)");
        let sql = sqlx::AssertSqlSafe(sql);
        match tx.connection() {
            Connection::Postgres(connection) => drop(sqlx::query(sql).execute(connection).await.unwrap()),
            Connection::Sqlite(connection) => drop(sqlx::query(sql).execute(connection).await.unwrap()),
        }
    }
    tx.commit().await.unwrap();
    let mut shop = shop.with(&[("a", 5), ("b", 7), ("c", 1), ("not-listed", 4)]).await;
    sold(&mut shop, "o-1", "a", 2).await;
    shop.order("o-2", &[("c", 1)], HOUR).await;
    let mut tx = shop.0.begin().await.unwrap();
    let told = Inventory.gauge(&mut tx).await.unwrap();
    let told: Vec<(&str, i64)> = told.iter().map(|(category, pieces)| (category.as_str(), *pieces)).collect();
    assert_eq!(told, [("mugs", 10), ("posters", 0), ("unknown", 4)]);
    tx.commit().await.unwrap();
}
