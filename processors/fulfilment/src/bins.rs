//! Bins: where goods lie, and how many. Owned by pick.
//!
//! A batch locks the bins of its products in key order, so two processes never wait for each other in a circle, and
//! writes what it took in one statement, in the transaction that keeps the picks.

use crate::Pick;
use sqlx::QueryBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use waybill_spine::{Shared, Work};
use waybill_store::{Connection, Store, StoreError, Tx};

/// One bin's stock of one product.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bin {
    /// The product.
    pub product_id: String,
    /// The bin.
    pub bin: String,
    /// Warehouse zone it stands in.
    pub zone: String,
    /// Units it holds.
    pub quantity: i64,
}

/// A row of the table: product, bin, zone, quantity.
type Columns = (String, String, String, i64);

impl From<Columns> for Bin {
    fn from((product_id, bin, zone, quantity): Columns) -> Self {
        Bin { product_id, bin, zone, quantity }
    }
}

/// Units taken from a bin.
pub(crate) struct Take {
    pub zone: Arc<str>,
    pub bin: Arc<str>,
    pub quantity: u32,
}

struct Held {
    bin: Arc<str>,
    zone: Arc<str>,
    quantity: i64,
    changed: bool,
}

/// The locked bins of a batch's products.
#[derive(Default)]
pub struct Bins(BTreeMap<String, Vec<Held>>);

impl Bins {
    pub(crate) fn from_rows(rows: impl Iterator<Item = Bin>) -> Self {
        let mut bins = Bins::default();
        for row in rows {
            bins.0.entry(row.product_id).or_default().push(Held {
                bin: row.bin.into(),
                zone: row.zone.into(),
                quantity: row.quantity,
                changed: false,
            });
        }
        bins
    }

    pub(crate) fn knows(&self, product_id: &str) -> bool {
        self.0.contains_key(product_id)
    }

    /// Takes up to `quantity` units, bin by bin.
    pub(crate) fn take(&mut self, product_id: &str, quantity: u32) -> Vec<Take> {
        let mut left = quantity;
        let mut takes = Vec::new();
        for held in self.0.get_mut(product_id).into_iter().flatten() {
            let take = left.min(u32::try_from(held.quantity).unwrap_or(if held.quantity < 0 { 0 } else { left }));
            if take > 0 {
                held.quantity -= i64::from(take);
                held.changed = true;
                left -= take;
                takes.push(Take { zone: held.zone.clone(), bin: held.bin.clone(), quantity: take });
            }
            if left == 0 {
                break;
            }
        }
        takes
    }

    #[cfg(test)]
    pub(crate) fn held(&self, product_id: &str) -> i64 {
        self.0.get(product_id).into_iter().flatten().map(|h| h.quantity).sum()
    }

    fn changed(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.0.iter().flat_map(|(product, held)| held.iter().map(|h| (product.as_str(), h))).filter(|(_, h)| h.changed)
    }
}

impl Shared<Pick> for Bins {
    async fn load(tx: &mut Tx<'_>, work: &[Work<'_, Pick>]) -> Result<Self, StoreError> {
        let products: BTreeSet<&str> =
            work.iter().flat_map(|w| &w.event.lines).map(|line| line.product_id.as_str()).collect();
        let products: Vec<&str> = products.into_iter().collect();
        let rows: Vec<Columns> = match tx.connection() {
            Connection::Postgres(connection) => {
                let sql = "select product_id, bin, zone, quantity from bins where product_id = any($1)
                           order by product_id, bin for update";
                sqlx::query_as(sql).bind(products).fetch_all(connection).await?
            }
            Connection::Sqlite(connection) => {
                let sql = "select product_id, bin, zone, quantity from bins
                           where product_id in (select value from json_each(?1)) order by product_id, bin";
                let products = serde_json::Value::from(products).to_string();
                sqlx::query_as(sql).bind(products).fetch_all(connection).await?
            }
        };
        Ok(Bins::from_rows(rows.into_iter().map(Bin::from)))
    }

    async fn save(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let changed: Vec<(&str, &Held)> = self.changed().collect();
        if changed.is_empty() {
            return Ok(());
        }
        match tx.connection() {
            Connection::Postgres(connection) => {
                let sql = "update bins b set quantity = c.quantity
                           from unnest($1::text[], $2::text[], $3::int8[]) as c (product_id, bin, quantity)
                           where b.product_id = c.product_id and b.bin = c.bin";
                sqlx::query(sql)
                    .bind(changed.iter().map(|(product, _)| *product).collect::<Vec<_>>())
                    .bind(changed.iter().map(|(_, h)| &*h.bin).collect::<Vec<_>>())
                    .bind(changed.iter().map(|(_, h)| h.quantity).collect::<Vec<_>>())
                    .execute(connection)
                    .await?;
            }
            Connection::Sqlite(connection) => {
                let sql = "update bins set quantity = c.value ->> 2 from json_each(?1) c
                           where product_id = c.value ->> 0 and bin = c.value ->> 1";
                let rows: Vec<(&str, &str, i64)> =
                    changed.iter().map(|(product, h)| (*product, &*h.bin, h.quantity)).collect();
                let rows = serde_json::json!(rows).to_string();
                sqlx::query(sql).bind(rows).execute(connection).await?;
            }
        }
        Ok(())
    }
}

/// Sets bins to these quantities, creating what is missing; other bins stay as they are.
///
/// # Errors
/// The database is away, or a quantity is negative.
pub async fn load_bins(store: &mut Store, bins: &[Bin]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let upsert = " on conflict (product_id, bin) do update set zone = excluded.zone, quantity = excluded.quantity";
    for bins in bins.chunks(200) {
        match tx.connection() {
            Connection::Postgres(connection) => {
                let mut query = QueryBuilder::new("insert into bins (product_id, bin, zone, quantity) ");
                query.push_values(bins, |mut row, b| {
                    row.push_bind(&b.product_id).push_bind(&b.bin).push_bind(&b.zone).push_bind(b.quantity);
                });
                query.push(upsert).build().execute(connection).await?;
            }
            Connection::Sqlite(connection) => {
                let mut query = QueryBuilder::new("insert into bins (product_id, bin, zone, quantity) ");
                query.push_values(bins, |mut row, b| {
                    row.push_bind(&b.product_id).push_bind(&b.bin).push_bind(&b.zone).push_bind(b.quantity);
                });
                query.push(upsert).build().execute(connection).await?;
            }
        }
    }
    tx.commit().await
}

/// All bins, by product and bin.
///
/// # Errors
/// The database is away.
pub async fn list_bins(store: &mut Store) -> Result<Vec<Bin>, StoreError> {
    let mut tx = store.begin().await?;
    let sql = "select product_id, bin, zone, quantity from bins order by product_id, bin";
    let rows: Vec<Columns> = match tx.connection() {
        Connection::Postgres(connection) => sqlx::query_as(sql).fetch_all(connection).await?,
        Connection::Sqlite(connection) => sqlx::query_as(sql).fetch_all(connection).await?,
    };
    tx.commit().await?;
    Ok(rows.into_iter().map(Bin::from).collect())
}
