//! The rules of what there is.

use crate::shop::{HOUR, Shop, on_both};
use waybill_inventory::{Adjusted, Adjustment};
use waybill_store::{Connection, StoreError};

on_both! {
    goods_come_in_and_make_their_product_known => come_in;
    a_loss_is_shrinkage_and_never_takes_what_is_held => losses;
    adjustments_of_a_batch_are_booked_in_order => in_order;
    a_number_that_is_too_large_is_refused => too_large;
    the_tables_refuse_a_piece_that_is_nowhere => refused;
}

fn delta(product_id: &str, delta: i64) -> Adjustment<'_> {
    Adjustment { product_id, delta }
}

async fn come_in(mut shop: Shop) {
    let answers = shop.adjust(&[delta("a", 5), delta("none", 0), delta("a", 2)]).await;
    let available = |available| Adjusted::Applied { available };
    assert_eq!(answers, [available(5), available(0), available(7)]);
    assert_eq!((shop.counts("a").await, shop.counts("none").await), ([7, 0, 0, 0], [0; 4]));
}

async fn losses(shop: Shop) {
    let mut shop = shop.with(&[("a", 5)]).await;
    shop.order("1", &[("a", 2)], HOUR).await;
    assert_eq!(shop.adjust(&[delta("a", -4)]).await, [Adjusted::Refused { available: 3 }]);
    assert_eq!(shop.adjust(&[delta("a", -3)]).await, [Adjusted::Applied { available: 0 }]);
    assert_eq!(shop.adjust(&[delta("a", -1)]).await, [Adjusted::Refused { available: 0 }]);
    assert_eq!(shop.counts("a").await, [0, 2, 0, 3]);
    assert_eq!(shop.adjust(&[delta("ghost", -1)]).await, [Adjusted::Refused { available: 0 }]);
    assert_eq!(shop.stock().await.len(), 1, "nobody gets to know a product by losing it");
}

async fn in_order(mut shop: Shop) {
    let answers = shop.adjust(&[delta("a", -1), delta("a", 1), delta("a", -1), delta("a", -1)]).await;
    let (no, yes) = (|available| Adjusted::Refused { available }, |available| Adjusted::Applied { available });
    assert_eq!(answers, [no(0), yes(1), yes(0), no(0)]);
    assert_eq!(shop.counts("a").await, [0, 0, 0, 1]);
}

async fn too_large(shop: Shop) {
    let mut shop = shop.with(&[("a", 5)]).await;
    let refused = [Adjusted::Refused { available: 5 }; 2];
    assert_eq!(shop.adjust(&[delta("a", i64::MAX), delta("a", i64::MIN)]).await, refused);
    assert_eq!(shop.adjust(&[delta("a", i64::MAX - 5)]).await, [Adjusted::Applied { available: i64::MAX }]);
    assert_eq!(shop.counts("a").await, [i64::MAX, 0, 0, 0]);
}

async fn refused(shop: Shop) {
    let mut shop = shop.with(&[("a", 5)]).await;
    for change in ["available = 4", "sold = -1, available = 6", "available = 6, reserved = -1", "received = 6"] {
        let sql = sqlx::AssertSqlSafe(format!("update stock set {change}"));
        let mut tx = shop.0.begin().await.unwrap();
        let result = match tx.connection() {
            Connection::Postgres(c) => sqlx::query(sql).execute(c).await.map(drop),
            Connection::Sqlite(c) => sqlx::query(sql).execute(c).await.map(drop),
        };
        let error = StoreError::from(result.unwrap_err());
        assert!(matches!(error, StoreError::Refused(_)), "{change}: {error:?}");
    }
}
