//! Levels: what is available now, to be told to whoever shows it. Written by the transaction that changed it.

use crate::rows::instant;
use std::time::SystemTime;
use waybill_store::{Connection, StoreError, Tx};

/// One committed change of what is available of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The product.
    pub product_id: String,
    /// Counts the product's changes from 1, without a gap.
    pub version: i64,
    /// What is available since.
    pub available: i64,
    /// The last version, this one included, that left nothing.
    pub last_zero_version: i64,
    /// When, by the database's clock.
    pub changed_at: SystemTime,
}

/// At most `limit` levels that are not told yet, oldest first: a product's in the order of their versions.
///
/// # Errors
/// The database is away.
pub async fn levels(tx: &mut Tx<'_>, limit: i64) -> Result<Vec<Level>, StoreError> {
    let rows: Vec<(String, i64, i64, i64, i64)> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select product_id, version, available, last_zero_version,
                           (extract(epoch from changed_at) * 1000000)::int8
                       from levels order by id limit $1";
            sqlx::query_as(sql).bind(limit).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select product_id, version, available, last_zero_version,
                           cast(round(changed_at * 1000000) as integer)
                       from levels order by id limit ?1";
            sqlx::query_as(sql).bind(limit).fetch_all(connection).await?
        }
    };
    let level = |(product_id, version, available, last_zero_version, changed_at)| Level {
        product_id,
        version,
        available,
        last_zero_version,
        changed_at: instant(changed_at),
    };
    Ok(rows.into_iter().map(level).collect())
}

/// Forgets levels that were told: product and version.
///
/// # Errors
/// The database is away.
pub async fn relayed(tx: &mut Tx<'_>, told: &[(&str, i64)]) -> Result<(), StoreError> {
    match tx.connection() {
        Connection::Postgres(connection) => {
            // Those that somebody else is just forgetting are skipped: two relays never wait for each other.
            let sql = "delete from levels where id = any(array(
                           select l.id from levels l
                           join unnest($1::text[], $2::int8[]) as t (product_id, version) using (product_id, version)
                           for update of l skip locked))";
            let (products, versions): (Vec<&str>, Vec<i64>) = told.iter().copied().unzip();
            sqlx::query(sql).bind(products).bind(versions).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from levels where (product_id, version) in
                           (select value ->> 0, value ->> 1 from json_each(?1))";
            sqlx::query(sql).bind(serde_json::json!(told).to_string()).execute(connection).await?;
        }
    }
    Ok(())
}
