//! Requests to check out, in the database, and what the checkout has made of them.

use crate::outcome::{Checkout, Outcome};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use waybill_store::{Connection, Store, StoreError, Tx};

/// A request to be taken.
pub(crate) struct Request {
    pub key: String,
    pub body_hash: [u8; 32],
    pub order_id: String,
    pub cart_id: String,
    pub user_id: String,
    pub payment_method: SecretString,
    /// What is to be published, encoded.
    pub message: Vec<u8>,
    /// How long it is going to wait for its outcome.
    pub wait: Duration,
    /// After how long a key is free again.
    pub keep: Duration,
}

/// What came of taking it.
pub(crate) enum Intake {
    New,
    Known(Known),
}

/// A request that came before with the same key.
pub(crate) struct Known {
    pub order_id: String,
    pub body_hash: Vec<u8>,
    /// Nobody waits for its outcome any more,
    pub answered: bool,
    /// or ever did.
    pub asynchronous: bool,
    pub outcome: Option<Outcome>,
}

const TAKE: &str = "insert into checkout_requests as r (key, body_hash, order_id, cart_id, user_id, message, answer_by)
    values ($1, $2, $3, $4, $5, $6, now() + $7 * interval '1 second')
    on conflict (key) do update set body_hash = excluded.body_hash, order_id = excluded.order_id,
        cart_id = excluded.cart_id, user_id = excluded.user_id, message = excluded.message, requested_at = now(),
        answer_by = excluded.answer_by, published_at = null
    where r.requested_at < now() - $8 * interval '1 second' and r.published_at is not null";
const TAKE_SQLITE: &str =
    "insert into checkout_requests as r (key, body_hash, order_id, cart_id, user_id, message, answer_by)
    values ($1, $2, $3, $4, $5, $6, unixepoch('subsec') + $7)
    on conflict (key) do update set body_hash = excluded.body_hash, order_id = excluded.order_id,
        cart_id = excluded.cart_id, user_id = excluded.user_id, message = excluded.message,
        requested_at = unixepoch('subsec'), answer_by = excluded.answer_by, published_at = null
    where r.requested_at < unixepoch('subsec') - $8 and r.published_at is not null";

/// Takes a request, unless its key is known and young.
pub(crate) async fn take(store: &mut Store, request: &Request) -> Result<Intake, StoreError> {
    macro_rules! insert {
        ($connection:ident, $sql:ident) => {
            sqlx::query($sql)
                .bind(&request.key)
                .bind(&request.body_hash[..])
                .bind(&request.order_id)
                .bind(&request.cart_id)
                .bind(&request.user_id)
                .bind(&request.message)
                .bind(request.wait.as_secs_f64())
                .bind(request.keep.as_secs_f64())
                .execute($connection)
                .await?
                .rows_affected()
        };
    }
    let mut tx = store.begin().await?;
    let taken = match tx.connection() {
        Connection::Postgres(connection) => insert!(connection, TAKE),
        Connection::Sqlite(connection) => insert!(connection, TAKE_SQLITE),
    };
    let intake = if taken == 1 {
        keep_payment_method(&mut tx, request).await?;
        Intake::New
    } else {
        // It has been purged just now: the next try finds the key free.
        Intake::Known(known(&mut tx, &request.key).await?.ok_or(StoreError::Conflict)?)
    };
    tx.commit().await?;
    Ok(intake)
}

async fn keep_payment_method(tx: &mut Tx<'_>, request: &Request) -> Result<(), StoreError> {
    let sql = "insert into payment_methods (order_id, reference) values ($1, $2)";
    let reference = request.payment_method.expose_secret();
    match tx.connection() {
        Connection::Postgres(connection) => {
            sqlx::query(sql).bind(&request.order_id).bind(reference).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            sqlx::query(sql).bind(&request.order_id).bind(reference).execute(connection).await?;
        }
    }
    Ok(())
}

/// Order, body hash, whether it is answered, whether it was to be answered at once, state.
type Columns = (String, Vec<u8>, bool, bool, Option<String>);

async fn known(tx: &mut Tx<'_>, key: &str) -> Result<Option<Known>, StoreError> {
    let row: Option<Columns> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql =
                "select r.order_id, r.body_hash, r.answer_by <= now(), r.answer_by <= r.requested_at, c.state::text
                       from checkout_requests r left join checkouts c on c.key = r.order_id where r.key = $1";
            sqlx::query_as(sql).bind(key).fetch_optional(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select r.order_id, r.body_hash, r.answer_by <= unixepoch('subsec'),
                           r.answer_by <= r.requested_at, c.state
                       from checkout_requests r left join checkouts c on c.key = r.order_id where r.key = $1";
            sqlx::query_as(sql).bind(key).fetch_optional(connection).await?
        }
    };
    let Some((order_id, body_hash, answered, asynchronous, state)) = row else { return Ok(None) };
    let outcome = state.map(|state| read(&state)).transpose()?.and_then(Checkout::outcome);
    Ok(Some(Known { order_id, body_hash, answered, asynchronous, outcome }))
}

fn read(state: &str) -> Result<Checkout, StoreError> {
    serde_json::from_str(state).map_err(|error| sqlx::Error::Decode(error.into()).into())
}

/// What is known of an order; nothing if it was never asked for.
pub(crate) async fn order(store: &mut Store, order_id: &str) -> Result<Option<Checkout>, StoreError> {
    let mut tx = store.begin().await?;
    let (state, requested): (Option<String>, bool) = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select (select state::text from checkouts where key = $1),
                           exists (select 1 from checkout_requests where order_id = $1)";
            sqlx::query_as(sql).bind(order_id).fetch_one(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select (select state from checkouts where key = $1),
                           exists (select 1 from checkout_requests where order_id = $1)";
            sqlx::query_as(sql).bind(order_id).fetch_one(connection).await?
        }
    };
    tx.commit().await?;
    match state {
        Some(state) => read(&state).map(Some),
        None => Ok(requested.then(Checkout::pending)),
    }
}

/// Requests not published though older than `age`, oldest first: order and message.
pub(crate) async fn unpublished(
    store: &mut Store,
    age: Duration,
    limit: i64,
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let mut tx = store.begin().await?;
    let rows = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select order_id, message from checkout_requests
                       where published_at is null and requested_at < now() - $1 * interval '1 second'
                       order by requested_at limit $2";
            sqlx::query_as(sql).bind(age.as_secs_f64()).bind(limit).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select order_id, message from checkout_requests
                       where published_at is null and requested_at < unixepoch('subsec') - $1
                       order by requested_at limit $2";
            sqlx::query_as(sql).bind(age.as_secs_f64()).bind(limit).fetch_all(connection).await?
        }
    };
    tx.commit().await?;
    Ok(rows)
}

/// These are acknowledged.
pub(crate) async fn published(store: &mut Store, orders: &[&str]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "update checkout_requests set published_at = now()
                       where order_id = any($1) and published_at is null";
            sqlx::query(sql).bind(orders).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "update checkout_requests set published_at = unixepoch('subsec')
                       where order_id in (select value from json_each($1)) and published_at is null";
            sqlx::query(sql).bind(serde_json::json!(orders).to_string()).execute(connection).await?;
        }
    }
    tx.commit().await
}

/// Forgets at most `limit` published requests older than `keep`; returns how many.
pub(crate) async fn purge(store: &mut Store, keep: Duration, limit: i64) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let deleted = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "delete from checkout_requests where ctid = any(array(
                           select ctid from checkout_requests
                           where requested_at < now() - $1 * interval '1 second' and published_at is not null
                           limit $2 for update skip locked))";
            sqlx::query(sql).bind(keep.as_secs_f64()).bind(limit).execute(connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from checkout_requests where key in (
                           select key from checkout_requests
                           where requested_at < unixepoch('subsec') - $1 and published_at is not null limit $2)";
            sqlx::query(sql).bind(keep.as_secs_f64()).bind(limit).execute(connection).await?.rows_affected()
        }
    };
    tx.commit().await?;
    Ok(deleted)
}
