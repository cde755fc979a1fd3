//! Messages that are taken and not yet published, in the database.

use std::time::Duration;
use waybill_spine::Message;
use waybill_store::{Connection, Store, StoreError, Tx};

/// Keeps a message, encoded, in the transaction of what it tells; returns its place.
pub(crate) async fn keep(tx: &mut Tx<'_>, message: &[u8]) -> Result<i64, StoreError> {
    let sql = "insert into gateway_outbox (message) values ($1) returning id";
    Ok(match tx.connection() {
        Connection::Postgres(connection) => sqlx::query_scalar(sql).bind(message).fetch_one(connection).await?,
        Connection::Sqlite(connection) => sqlx::query_scalar(sql).bind(message).fetch_one(connection).await?,
    })
}

/// Messages older than `age`, oldest first, at most `limit`. One that cannot be read stays where it is.
pub(crate) async fn unpublished(
    store: &mut Store,
    age: Duration,
    limit: i64,
) -> Result<Vec<(i64, Message)>, StoreError> {
    let mut tx = store.begin().await?;
    let rows: Vec<(i64, Vec<u8>)> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select id, message from gateway_outbox where created_at < now() - $1 * interval '1 second'
                       order by id limit $2";
            sqlx::query_as(sql).bind(age.as_secs_f64()).bind(limit).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select id, message from gateway_outbox where created_at < unixepoch('subsec') - $1
                       order by id limit $2";
            sqlx::query_as(sql).bind(age.as_secs_f64()).bind(limit).fetch_all(connection).await?
        }
    };
    tx.commit().await?;
    let read = rows.into_iter().filter_map(|(id, message)| match postcard::from_bytes(&message) {
        Ok(message) => Some((id, message)),
        Err(error) => {
            tracing::error!(id, %error, "a message that cannot be read stays unpublished");
            None
        }
    });
    Ok(read.collect())
}

/// These are acknowledged: they are forgotten; where that is lost, they are published once more.
pub(crate) async fn published(store: &mut Store, ids: &[i64]) -> Result<(), StoreError> {
    let mut tx = store.begin_unsynced().await?;
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "delete from gateway_outbox where id = any($1)";
            sqlx::query(sql).bind(ids).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from gateway_outbox where id in (select value from json_each($1))";
            sqlx::query(sql).bind(serde_json::json!(ids).to_string()).execute(connection).await?;
        }
    }
    tx.commit().await
}
