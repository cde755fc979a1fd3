//! Requests to check out, by their keys, in the database.

use crate::outbox_rows as outbox;
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
    /// It is new, with its message at this place of the outbox.
    New(i64),
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

const TAKE: &str = "insert into checkout_requests as r (key, body_hash, order_id, cart_id, user_id, answer_by)
    values ($1, $2, $3, $4, $5, now() + $6 * interval '1 second')
    on conflict (key) do update set body_hash = excluded.body_hash, order_id = excluded.order_id,
        cart_id = excluded.cart_id, user_id = excluded.user_id, requested_at = now(), answer_by = excluded.answer_by
    where r.requested_at < now() - $7 * interval '1 second'";
const TAKE_SQLITE: &str = "insert into checkout_requests as r (key, body_hash, order_id, cart_id, user_id, answer_by)
    values ($1, $2, $3, $4, $5, unixepoch('subsec') + $6)
    on conflict (key) do update set body_hash = excluded.body_hash, order_id = excluded.order_id,
        cart_id = excluded.cart_id, user_id = excluded.user_id, requested_at = unixepoch('subsec'),
        answer_by = excluded.answer_by
    where r.requested_at < unixepoch('subsec') - $7";

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
        Intake::New(outbox::keep(&mut tx, &request.message).await?)
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
    let outcome = state.map(|state| Checkout::read(&state)).transpose()?.and_then(Checkout::outcome);
    Ok(Some(Known { order_id, body_hash, answered, asynchronous, outcome }))
}

/// Forgets at most `limit` requests older than `keep`; returns how many.
pub(crate) async fn purge(store: &mut Store, keep: Duration, limit: i64) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let deleted = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "delete from checkout_requests where ctid = any(array(
                           select ctid from checkout_requests
                           where requested_at < now() - $1 * interval '1 second'
                           limit $2 for update skip locked))";
            sqlx::query(sql).bind(keep.as_secs_f64()).bind(limit).execute(connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from checkout_requests where key in (
                           select key from checkout_requests
                           where requested_at < unixepoch('subsec') - $1 limit $2)";
            sqlx::query(sql).bind(keep.as_secs_f64()).bind(limit).execute(connection).await?.rows_affected()
        }
    };
    tx.commit().await?;
    Ok(deleted)
}
