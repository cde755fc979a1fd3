//! Orders as the gateway knows them: what the checkout says of them, and whether somebody asked to cancel them.

use crate::outbox_rows as outbox;
use crate::outcome::Checkout;
use crate::problem::Kind;
use std::time::Duration;
use waybill_store::{Connection, Store, StoreError, Tx};

/// An order that was asked for.
pub(crate) struct Found {
    pub checkout: Checkout,
    /// Its customer asked to cancel it.
    pub cancel_requested: bool,
}

/// What came of asking to cancel an order.
pub(crate) enum Asked {
    /// It is asked for, with the message at this place of the outbox.
    Now(i64),
    /// It was asked for before.
    Before,
    /// The order stands where it cannot be cancelled.
    Refused(Kind),
    /// There is no such order of this user.
    NoOrder,
}

/// What is known of an order; nothing if it was never asked for.
pub(crate) async fn find(store: &mut Store, order_id: &str) -> Result<Option<Found>, StoreError> {
    let mut tx = store.begin().await?;
    let found = read(&mut tx, order_id).await?;
    tx.commit().await?;
    Ok(found)
}

/// Asks to cancel an order of this user, once: the request and its message are one transaction.
pub(crate) async fn ask_to_cancel(
    store: &mut Store,
    order_id: &str,
    user_id: &str,
    message: &[u8],
) -> Result<Asked, StoreError> {
    let mut tx = store.begin().await?;
    let found = read(&mut tx, order_id).await?.filter(|found| found.checkout.customer_id == user_id);
    let asked = match found.map(|found| found.checkout.status.refuses_to_cancel()) {
        None => Asked::NoOrder,
        Some(Some(kind)) => Asked::Refused(kind),
        Some(None) if mark(&mut tx, order_id).await? => Asked::Now(outbox::keep(&mut tx, message).await?),
        Some(None) => Asked::Before,
    };
    // Committed whatever came of it: a transaction that is dropped costs the connection.
    tx.commit().await?;
    Ok(asked)
}

/// State; who asked for the order; whether somebody asked to cancel it.
type Columns = (Option<String>, Option<String>, bool);

async fn read(tx: &mut Tx<'_>, order_id: &str) -> Result<Option<Found>, StoreError> {
    let (state, user_id, cancel_requested): Columns = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select (select state::text from checkouts where key = $1),
                           (select user_id from checkout_requests where order_id = $1),
                           exists (select 1 from cancel_requests where order_id = $1)";
            sqlx::query_as(sql).bind(order_id).fetch_one(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select (select state from checkouts where key = $1),
                           (select user_id from checkout_requests where order_id = $1),
                           exists (select 1 from cancel_requests where order_id = $1)";
            sqlx::query_as(sql).bind(order_id).fetch_one(connection).await?
        }
    };
    let checkout = match state {
        Some(state) => Some(Checkout::read(&state)?),
        None => user_id.map(Checkout::pending),
    };
    Ok(checkout.map(|checkout| Found { checkout, cancel_requested }))
}

/// Whether this is the first time.
async fn mark(tx: &mut Tx<'_>, order_id: &str) -> Result<bool, StoreError> {
    let sql = "insert into cancel_requests (order_id) values ($1) on conflict do nothing";
    let marked = match tx.connection() {
        Connection::Postgres(connection) => sqlx::query(sql).bind(order_id).execute(connection).await?.rows_affected(),
        Connection::Sqlite(connection) => sqlx::query(sql).bind(order_id).execute(connection).await?.rows_affected(),
    };
    Ok(marked == 1)
}

/// Forgets at most `limit` requests to cancel that are older than `keep` and whose orders are under way no more;
/// returns how many. Until then they are what makes a second request the same one.
pub(crate) async fn purge(store: &mut Store, keep: Duration, limit: i64) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let deleted = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "delete from cancel_requests where order_id = any(array(
                           select order_id from cancel_requests r
                           where requested_at < now() - $1 * interval '1 second' and not exists (
                               select 1 from checkouts c where c.key = r.order_id
                               and c.state->>'status' in ('confirmed', 'picked', 'packed'))
                           limit $2 for update skip locked))";
            sqlx::query(sql).bind(keep.as_secs_f64()).bind(limit).execute(connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from cancel_requests where order_id in (
                           select order_id from cancel_requests r
                           where requested_at < unixepoch('subsec') - $1 and not exists (
                               select 1 from checkouts c where c.key = r.order_id
                               and c.state->>'status' in ('confirmed', 'picked', 'packed'))
                           limit $2)";
            sqlx::query(sql).bind(keep.as_secs_f64()).bind(limit).execute(connection).await?.rows_affected()
        }
    };
    tx.commit().await?;
    Ok(deleted)
}
