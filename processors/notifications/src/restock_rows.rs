//! The last restock of each product: `restocks`, for both databases.

use crate::restock::Restock;
use crate::time::{from_micros, micros};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use waybill_spine::{Shared, Work};
use waybill_store::{Connection, StoreError, Tx};

/// How far a product has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    /// The last lack that was left behind.
    pub zero_version: i64,
    /// When people were or are to be told.
    pub tell_at: Timestamp,
}

/// The last restocks of a batch's products.
#[derive(Debug, Default)]
pub struct Restocks {
    products: BTreeMap<String, Last>,
    changed: BTreeMap<String, Last>,
}

impl Restocks {
    pub(crate) fn last(&self, product_id: &str) -> Option<Last> {
        self.changed.get(product_id).or(self.products.get(product_id)).copied()
    }

    pub(crate) fn set(&mut self, product_id: &str, last: Last) {
        self.changed.insert(product_id.to_owned(), last);
    }
}

impl Shared<Restock> for Restocks {
    async fn load(tx: &mut Tx<'_>, work: &[Work<'_, Restock>]) -> Result<Self, StoreError> {
        // Most levels say that a product is still to be had: nothing is looked up for those.
        let new = work.iter().filter(|work| work.state.is_none());
        let products: Vec<&str> = new.map(|work| work.event.product_id()).collect();
        if products.is_empty() {
            return Ok(Restocks::default());
        }
        let rows: Vec<(String, i64, i64)> = match tx.connection() {
            Connection::Postgres(connection) => {
                let sql = "select product_id, zero_version, (extract(epoch from tell_at) * 1000000)::int8
                           from restocks where product_id = any($1) order by product_id for update";
                sqlx::query_as(sql).bind(products).fetch_all(connection).await?
            }
            Connection::Sqlite(connection) => {
                let sql = "select product_id, zero_version, cast(round(tell_at * 1000000) as integer)
                           from restocks where product_id in (select value from json_each(?1))";
                sqlx::query_as(sql).bind(Value::from(products).to_string()).fetch_all(connection).await?
            }
        };
        let last = |(product_id, zero_version, tell_at)| {
            Ok((product_id, Last { zero_version, tell_at: from_micros(tell_at)? }))
        };
        let products = rows.into_iter().map(last).collect::<Result<_, StoreError>>()?;
        Ok(Restocks { products, changed: BTreeMap::new() })
    }

    async fn save(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if self.changed.is_empty() {
            return Ok(());
        }
        // A product that is new here is locked by nobody: whoever has seen a later lack wins.
        let written = match tx.connection() {
            Connection::Postgres(connection) => {
                let sql = "insert into restocks as r (product_id, zero_version, tell_at)
                           select product_id, zero_version, timestamptz 'epoch' + tell_at * interval '1 microsecond'
                           from unnest($1::text[], $2::int8[], $3::int8[]) as n (product_id, zero_version, tell_at)
                           on conflict (product_id) do update
                               set zero_version = excluded.zero_version, tell_at = excluded.tell_at
                           where r.zero_version < excluded.zero_version";
                let query = sqlx::query(sql)
                    .bind(self.changed.keys().map(String::as_str).collect::<Vec<_>>())
                    .bind(self.changed.values().map(|last| last.zero_version).collect::<Vec<_>>())
                    .bind(self.changed.values().map(|last| micros(last.tell_at)).collect::<Vec<_>>());
                query.execute(connection).await?.rows_affected()
            }
            Connection::Sqlite(connection) => {
                let sql = "insert into restocks (product_id, zero_version, tell_at)
                           select value ->> 0, value ->> 1, (value ->> 2) / 1e6 from json_each(?1) where true
                           on conflict (product_id) do update
                               set zero_version = excluded.zero_version, tell_at = excluded.tell_at
                           where zero_version < excluded.zero_version";
                let rows = self.changed.iter().map(|(id, last)| json!([id, last.zero_version, micros(last.tell_at)]));
                let query = sqlx::query(sql).bind(Value::from_iter(rows).to_string());
                query.execute(connection).await?.rows_affected()
            }
        };
        if written == self.changed.len() as u64 { Ok(()) } else { Err(StoreError::Conflict) }
    }
}
