//! An outbox beside the tally: notes by key and version, and alarms, which are notes when their time has come.

use serde::{Deserialize, Serialize};
use waybill_spine::{BareEvent, Event};
use waybill_store::{Connection, Store, StoreError, Tx};
use waybill_telemetry::Waybill;

/// A row of the outbox as an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    pub key: String,
    pub version: i64,
}

impl Event for Note {
    const TOPIC: &'static str = "notes";
    const SCHEMA: &'static str = "notes.v1";

    fn key(&self) -> &str {
        &self.key
    }
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

pub async fn create(store: &mut Store) {
    let mut tx = store.begin().await.unwrap();
    let Connection::Sqlite(connection) = tx.connection() else { unreachable!() };
    let sql = "create table notes (id integer primary key, key text, version integer);
               create table alarms (id integer primary key, key text)";
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
    tx.commit().await.unwrap();
}

/// Every alarm becomes a note.
pub async fn ring(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let Connection::Sqlite(connection) = tx.connection() else { unreachable!() };
    let sql = "insert into notes (key, version) select key, 1 from alarms; delete from alarms";
    sqlx::raw_sql(sql).execute(connection).await?;
    Ok(())
}

pub async fn oldest(tx: &mut Tx<'_>, most: i64) -> Result<Vec<BareEvent>, StoreError> {
    let Connection::Sqlite(connection) = tx.connection() else { unreachable!() };
    let sql = "select key, version from notes order by id limit ?1";
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).bind(most).fetch_all(connection).await?;
    let event = |(key, version)| BareEvent {
        subject: format!("{key}/{version}"),
        event: Box::new(Note { key, version }),
        time: jiff::Timestamp::UNIX_EPOCH,
        waybill: Waybill::none(),
    };
    Ok(rows.into_iter().map(event).collect())
}

pub async fn forget(tx: &mut Tx<'_>, published: &[BareEvent]) -> Result<(), StoreError> {
    let Connection::Sqlite(connection) = tx.connection() else { unreachable!() };
    for note in published {
        let sql = "delete from notes where key || '/' || version = ?1";
        sqlx::query(sql).bind(&note.subject).execute(&mut *connection).await?;
    }
    Ok(())
}
