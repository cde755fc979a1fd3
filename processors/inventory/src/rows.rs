//! The ledger's statements, for both databases.

use crate::ledger::{Line, State};
use crate::stock::Stock;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use waybill_store::{Connection, StoreError, Tx};

/// The database's clock, then order, product, quantity, lost, state, expiry; one row without an order if there is none.
type LineRow = (i64, Option<String>, String, i64, i64, String, i64);

/// A time by the database's clock: microseconds since 1970.
pub(crate) fn instant(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.try_into().unwrap_or(0))
}

/// Locks products and the products of orders: the only locks that anybody waits for, taken in product order.
pub(crate) async fn lock(tx: &mut Tx<'_>, products: &[&str], orders: &[&str]) -> Result<Vec<Stock>, StoreError> {
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            // By name: a statement that is prepared fails once a newer version has added a column to what `*` is.
            let sql = "select product_id, received, available, reserved, sold, shrinkage, version, last_zero_version
                       from stock where product_id = any(array(
                           select unnest($1::text[]) union
                           select product_id from reservations where order_id = any($2) and state <> 'released'))
                       order by product_id for update";
            sqlx::query_as(sql).bind(products).bind(orders).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select product_id, received, available, reserved, sold, shrinkage, version, last_zero_version
                       from stock where product_id in (
                           select value from json_each(?1) union
                           select product_id from reservations
                           where order_id in (select value from json_each(?2)) and state <> 'released')";
            let (products, orders) = (Value::from(products).to_string(), Value::from(orders).to_string());
            sqlx::query_as(sql).bind(products).bind(orders).fetch_all(connection).await?
        }
    })
}

/// The database's clock, and what these orders have. A statement of its own, after the lock: it sees what those
/// committed for whom the lock waited.
pub(crate) async fn lines(tx: &mut Tx<'_>, orders: &[&str]) -> Result<(i64, Vec<(String, String, Line)>), StoreError> {
    let rows: Vec<LineRow> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select (extract(epoch from now()) * 1000000)::int8, order_id, coalesce(product_id, ''),
                           coalesce(quantity, 0), coalesce(lost, 0), coalesce(state, ''),
                           coalesce((extract(epoch from expires_at) * 1000000)::int8, 0)
                       from (select) as clock
                       left join reservations on order_id = any($1) and state <> 'released'";
            sqlx::query_as(sql).bind(orders).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql =
                "select cast(round(unixepoch('subsec') * 1000000) as integer), order_id, coalesce(product_id, ''),
                           coalesce(quantity, 0), coalesce(lost, 0), coalesce(state, ''),
                           coalesce(cast(round(expires_at * 1000000) as integer), 0)
                       from (select 1) as clock
                       left join reservations
                           on order_id in (select value from json_each(?1)) and state <> 'released'";
            sqlx::query_as(sql).bind(Value::from(orders).to_string()).fetch_all(connection).await?
        }
    };
    let now = rows.first().map_or(0, |row| row.0);
    let mut lines = Vec::new();
    for (_, order_id, product_id, quantity, lost, state, expires_at) in rows {
        let Some(order_id) = order_id else { continue };
        let state = State::ALL.into_iter().find(|s| s.name() == state);
        let state = state.ok_or_else(|| sqlx::Error::Decode("a reservation in an unknown state".into()))?;
        lines.push((order_id, product_id, Line { quantity, lost, state, expires_at, changed: false }));
    }
    Ok((now, lines))
}

/// At most `limit` orders whose hold is over, the longest ago first.
pub(crate) async fn due(tx: &mut Tx<'_>, limit: i64) -> Result<Vec<String>, StoreError> {
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select distinct order_id, expires_at from reservations
                       where state = 'held' and expires_at <= now() order by expires_at, order_id limit $1";
            sqlx::query_scalar(sql).bind(limit).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select distinct order_id, expires_at from reservations
                       where state = 'held' and expires_at <= unixepoch('subsec')
                       order by expires_at, order_id limit ?1";
            sqlx::query_scalar(sql).bind(limit).fetch_all(connection).await?
        }
    })
}

/// Writes products, and levels for those that say so.
pub(crate) async fn save_stock(tx: &mut Tx<'_>, changed: &[(&Stock, bool)]) -> Result<(), StoreError> {
    if changed.is_empty() {
        return Ok(());
    }
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "with c as (
                           select * from unnest($1::text[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[],
                               $7::int8[], $8::int8[], $9::bool[]) as c (product_id, received, available, reserved,
                               sold, shrinkage, version, last_zero_version, level)),
                       written as (
                           update stock s set received = c.received, available = c.available, reserved = c.reserved,
                               sold = c.sold, shrinkage = c.shrinkage, version = c.version,
                               last_zero_version = c.last_zero_version
                           from c where s.product_id = c.product_id)
                       insert into levels (product_id, version, available, last_zero_version)
                       select product_id, version, available, last_zero_version from c where level";
            let column = |of: fn(&Stock) -> i64| changed.iter().map(|(stock, _)| of(stock)).collect::<Vec<_>>();
            sqlx::query(sql)
                .bind(changed.iter().map(|(stock, _)| &*stock.product_id).collect::<Vec<_>>())
                .bind(column(|s| s.received))
                .bind(column(|s| s.available))
                .bind(column(|s| s.reserved))
                .bind(column(|s| s.sold))
                .bind(column(|s| s.shrinkage))
                .bind(column(|s| s.version))
                .bind(column(|s| s.last_zero_version))
                .bind(changed.iter().map(|(_, level)| *level).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Connection::Sqlite(connection) => {
            let row = |(s, level): &(&Stock, bool)| {
                let (id, version, zero) = (&s.product_id, s.version, s.last_zero_version);
                json!([id, s.received, s.available, s.reserved, s.sold, s.shrinkage, version, zero, level])
            };
            let rows = Value::from_iter(changed.iter().map(row)).to_string();
            let sql = "update stock set received = value ->> 1, available = value ->> 2, reserved = value ->> 3,
                           sold = value ->> 4, shrinkage = value ->> 5, version = value ->> 6,
                           last_zero_version = value ->> 7
                       from json_each(?1) where product_id = value ->> 0";
            sqlx::query(sql).bind(&rows).execute(&mut *connection).await?;
            let sql = "insert into levels (product_id, version, available, last_zero_version)
                       select value ->> 0, value ->> 6, value ->> 2, value ->> 7 from json_each(?1)
                       where value ->> 8";
            sqlx::query(sql).bind(&rows).execute(connection).await?;
        }
    }
    Ok(())
}

/// Writes what orders have: order, product, line.
pub(crate) async fn save_lines(tx: &mut Tx<'_>, changed: &[(&str, &str, &Line)]) -> Result<(), StoreError> {
    if changed.is_empty() {
        return Ok(());
    }
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "insert into reservations (order_id, product_id, quantity, lost, state, expires_at)
                       select order_id, product_id, quantity, lost, state,
                           timestamptz 'epoch' + expires_at * interval '1 microsecond'
                       from unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::text[], $6::int8[])
                           as c (order_id, product_id, quantity, lost, state, expires_at)
                       on conflict (order_id, product_id) do update set quantity = excluded.quantity,
                           lost = excluded.lost, state = excluded.state, expires_at = excluded.expires_at";
            sqlx::query(sql)
                .bind(changed.iter().map(|(order_id, _, _)| *order_id).collect::<Vec<_>>())
                .bind(changed.iter().map(|(_, product_id, _)| *product_id).collect::<Vec<_>>())
                .bind(changed.iter().map(|(_, _, l)| l.quantity).collect::<Vec<_>>())
                .bind(changed.iter().map(|(_, _, l)| l.lost).collect::<Vec<_>>())
                .bind(changed.iter().map(|(_, _, l)| l.state.name()).collect::<Vec<_>>())
                .bind(changed.iter().map(|(_, _, l)| l.expires_at).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "insert into reservations (order_id, product_id, quantity, lost, state, expires_at)
                       select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, (value ->> 5) / 1e6
                       from json_each(?1) where true
                       on conflict (order_id, product_id) do update set quantity = excluded.quantity,
                           lost = excluded.lost, state = excluded.state, expires_at = excluded.expires_at";
            let rows = changed.iter().map(|(order_id, product_id, l)| {
                json!([order_id, product_id, l.quantity, l.lost, l.state.name(), l.expires_at])
            });
            sqlx::query(sql).bind(Value::from_iter(rows).to_string()).execute(connection).await?;
        }
    }
    Ok(())
}
