//! The operations on the stock, each a batch in the caller's transaction.

use crate::answers::{Adjusted, Adjustment, Confirmed, Lines, Reserved};
use crate::ledger::Ledger;
use crate::rows;
use std::time::Duration;
use waybill_store::{Connection, Store, StoreError, Tx};

/// What there is of a product, by where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Stock {
    /// The product.
    pub product_id: String,
    /// Pieces that ever came in: the sum of the four below.
    pub received: i64,
    /// To be had.
    pub available: i64,
    /// Held for orders that are not paid yet.
    pub reserved: i64,
    /// Paid.
    pub sold: i64,
    /// Written off, or sold and not found.
    pub shrinkage: i64,
    /// Counts the committed changes of `available`.
    pub version: i64,
    /// The last version that left nothing available; 0 at first, when there was nothing yet.
    pub last_zero_version: i64,
}

/// Holds each order's lines, all or none, first come first served. See [`Ledger::reserve`].
///
/// # Errors
/// The database is away, or refuses the data; [`StoreError::Conflict`]: begin again.
pub async fn reserve(tx: &mut Tx<'_>, orders: &[Lines<'_>], hold: Duration) -> Result<Vec<Reserved>, StoreError> {
    booked(tx, &products(orders), &order_ids(orders), |ledger| {
        orders.iter().map(|order| ledger.reserve(order, hold)).collect()
    })
    .await
}

/// Sells what paid orders hold. See [`Ledger::confirm`].
///
/// # Errors
/// As [`reserve`].
pub async fn confirm(tx: &mut Tx<'_>, orders: &[&str]) -> Result<Vec<Confirmed>, StoreError> {
    booked(tx, &[], orders, |ledger| orders.iter().map(|order| ledger.confirm(order)).collect()).await
}

/// Makes what orders hold available again; of each, how many lines. See [`Ledger::release`].
///
/// # Errors
/// As [`reserve`].
pub async fn release(tx: &mut Tx<'_>, orders: &[&str]) -> Result<Vec<usize>, StoreError> {
    booked(tx, &[], orders, |ledger| orders.iter().map(|order| ledger.release(order)).collect()).await
}

/// Releases at most `limit` orders whose hold is over, the longest ago first; returns them.
///
/// Looking for them locks nothing, and a second sweep at the same time waits for the first and finds them released.
/// Rows that are busy are not skipped: those of a product in demand are always busy.
///
/// # Errors
/// As [`reserve`].
pub async fn expire(tx: &mut Tx<'_>, limit: i64) -> Result<Vec<String>, StoreError> {
    let mut due = rows::due(tx, limit).await?;
    let orders: Vec<&str> = due.iter().map(String::as_str).collect();
    let mut ledger = Ledger::lock(tx, &[], &orders).await?;
    due.retain(|order| ledger.expire(order));
    ledger.save(tx).await?;
    Ok(due)
}

/// Books goods in, and what was counted or thrown away. A delta of nothing or more makes its product known.
///
/// Not safe to repeat: an adjustment is not an order's. See [`Ledger::adjust`].
///
/// # Errors
/// As [`reserve`].
pub async fn adjust(tx: &mut Tx<'_>, adjustments: &[Adjustment<'_>]) -> Result<Vec<Adjusted>, StoreError> {
    let new: Vec<&str> = adjustments.iter().filter(|a| a.delta >= 0).map(|a| a.product_id).collect();
    let all: Vec<&str> = adjustments.iter().map(|a| a.product_id).collect();
    register(tx, &new).await?;
    booked(tx, &all, &[], |ledger| adjustments.iter().map(|a| ledger.adjust(a)).collect()).await
}

/// Writes off what was sold and not found; of each order, what it lost. See [`Ledger::short`].
///
/// # Errors
/// As [`reserve`].
pub async fn short(tx: &mut Tx<'_>, missing: &[Lines<'_>]) -> Result<Vec<Vec<(String, i64)>>, StoreError> {
    booked(tx, &[], &order_ids(missing), |ledger| missing.iter().map(|order| ledger.short(order)).collect()).await
}

/// Makes what was sold to cancelled orders available again; of each, how many lines. See [`Ledger::cancelled`].
///
/// # Errors
/// As [`reserve`].
pub async fn cancelled(tx: &mut Tx<'_>, orders: &[&str]) -> Result<Vec<usize>, StoreError> {
    booked(tx, &[], orders, |ledger| orders.iter().map(|order| ledger.cancelled(order)).collect()).await
}

/// Makes products known, with nothing in stock; those that are known stay as they are. Before [`Ledger::lock`].
///
/// # Errors
/// The database is away, or refuses the data.
pub async fn register(tx: &mut Tx<'_>, products: &[&str]) -> Result<(), StoreError> {
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "insert into stock (product_id)
                       select distinct product_id from unnest($1::text[]) as p (product_id) order by product_id
                       on conflict do nothing";
            sqlx::query(sql).bind(products).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "insert or ignore into stock (product_id) select value from json_each(?1)";
            let products = serde_json::Value::from(products).to_string();
            sqlx::query(sql).bind(products).execute(connection).await?;
        }
    }
    Ok(())
}

/// The stock of all products, in product order.
///
/// # Errors
/// The database is away.
pub async fn stock(store: &mut Store) -> Result<Vec<Stock>, StoreError> {
    let mut tx = store.begin().await?;
    let sql = "select product_id, received, available, reserved, sold, shrinkage, version, last_zero_version
               from stock order by product_id";
    let stock = match tx.connection() {
        Connection::Postgres(connection) => sqlx::query_as(sql).fetch_all(connection).await?,
        Connection::Sqlite(connection) => sqlx::query_as(sql).fetch_all(connection).await?,
    };
    tx.commit().await?;
    Ok(stock)
}

async fn booked<T>(
    tx: &mut Tx<'_>,
    products: &[&str],
    orders: &[&str],
    decide: impl FnOnce(&mut Ledger) -> T,
) -> Result<T, StoreError> {
    let mut ledger = Ledger::lock(tx, products, orders).await?;
    let answer = decide(&mut ledger);
    ledger.save(tx).await?;
    Ok(answer)
}

fn order_ids<'a>(orders: &[Lines<'a>]) -> Vec<&'a str> {
    orders.iter().map(|order| order.order_id).collect()
}

fn products<'a>(orders: &[Lines<'a>]) -> Vec<&'a str> {
    orders.iter().flat_map(|order| &order.lines).map(|(product_id, _)| *product_id).collect()
}
