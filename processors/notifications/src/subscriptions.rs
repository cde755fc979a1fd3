//! Who waits for which product, by which channel. Written as people ask; a campaign walks along their numbers.

use std::time::Duration;
use waybill_store::{Connection, StoreError, Tx};

/// Most people that are counted: a crowd is one, however large.
pub const MOST_COUNTED: i64 = 10_000;

/// How somebody is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// By mail.
    Email,
    /// By push message.
    Push,
}

impl Channel {
    /// As in tables, spans and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Channel::Email => "email",
            Channel::Push => "push",
        }
    }
}

/// Somebody wants to be told.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Of which product.
    pub product_id: &'a str,
    /// Who.
    pub user_id: &'a str,
    /// How.
    pub channel: Channel,
    /// Fewer pieces are of no use.
    pub quantity: i64,
    /// For how long, by the database's clock.
    pub expires_in: Duration,
    /// The span in which it was asked for, W3C.
    pub traceparent: &'a str,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is noted.
    Waiting(Waiting),
    /// The shop does not sell that.
    NoProduct,
    /// There is no address for the channel.
    NoContact,
}

/// A subscription that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its number.
    pub id: i64,
    /// It was there: quantity and expiry are those of now, its place and its span those of the first time.
    pub duplicate: bool,
    /// All that wait for the product, this one included; [`MOST_COUNTED`] where there are more.
    pub total: i64,
    /// The product's category.
    pub category: String,
    /// What a piece costs, minor units.
    pub price: i64,
}

/// Category, price, reachable, id, new, lapsed (had expired), total before.
type Columns = (Option<String>, Option<i64>, bool, Option<i64>, Option<bool>, bool, i64);

/// Notes that somebody waits. Of two who ask the same at once, one is a duplicate.
///
/// # Errors
/// The database is away.
pub async fn subscribe(tx: &mut Tx<'_>, ask: &Ask<'_>) -> Result<Asked, StoreError> {
    let mut row = write(tx, ask).await?;
    if row.5 {
        // What has expired is over, though nobody has deleted it yet: whoever asks again is at the end of the queue.
        end(tx, ask.product_id, ask.user_id, ask.channel).await?;
        row = write(tx, ask).await?;
    }
    Ok(match row {
        (Some(category), Some(price), _, Some(id), Some(new), _, before) => {
            let total = (before + i64::from(new)).min(MOST_COUNTED);
            Asked::Waiting(Waiting { id, duplicate: !new, total, category, price })
        }
        (Some(_), Some(_), _, None, ..) => Asked::NoContact,
        _ => Asked::NoProduct,
    })
}

async fn write(tx: &mut Tx<'_>, ask: &Ask<'_>) -> Result<Columns, StoreError> {
    match tx.connection() {
        Connection::Postgres(connection) => postgres(connection, ask).await,
        Connection::Sqlite(connection) => sqlite(connection, ask).await,
    }
}

/// One statement; its parts see the tables as they were before it.
async fn postgres(connection: &mut sqlx::PgConnection, ask: &Ask<'_>) -> Result<Columns, StoreError> {
    let sql = "with product as (select category, price_amount from products where id = $1),
                   reachable as (select case $3 when 'email'
                       then exists (select 1 from contacts where user_id = $2)
                       else exists (select 1 from push_targets where user_id = $2) end as it_is),
                   written as (
                       insert into subscriptions as s (product_id, user_id, channel, quantity, traceparent, expires_at)
                       select $1, $2, $3, $4, $5, now() + $6 * interval '1 second' from product, reachable where it_is
                       on conflict (product_id, user_id, channel) do update set quantity = excluded.quantity,
                           expires_at = excluded.expires_at
                       returning s.id, s.xmax = 0 as new)
               select (select category from product), (select price_amount from product), (select it_is from reachable),
                   (select id from written), (select new from written),
                   exists (select 1 from subscriptions where product_id = $1 and user_id = $2 and channel = $3
                       and expires_at <= now()),
                   (select count(*) from (select from subscriptions where product_id = $1 limit $7) as counted)";
    let query = sqlx::query_as(sql).bind(ask.product_id).bind(ask.user_id).bind(ask.channel.as_str());
    let query = query.bind(ask.quantity).bind(ask.traceparent).bind(ask.expires_in.as_secs_f64()).bind(MOST_COUNTED);
    Ok(query.fetch_one(connection).await?)
}

async fn sqlite(connection: &mut sqlx::SqliteConnection, ask: &Ask<'_>) -> Result<Columns, StoreError> {
    type Seen = (Option<String>, Option<i64>, bool, bool, bool, i64);
    let channel = ask.channel.as_str();
    let sql = "select (select category from products where id = ?1), (select price_amount from products where id = ?1),
                   case ?3 when 'email' then exists (select 1 from contacts where user_id = ?2)
                       else exists (select 1 from push_targets where user_id = ?2) end,
                   exists (select 1 from subscriptions where product_id = ?1 and user_id = ?2 and channel = ?3),
                   exists (select 1 from subscriptions where product_id = ?1 and user_id = ?2 and channel = ?3
                       and expires_at <= unixepoch('subsec')),
                   (select count(*) from (select 1 from subscriptions where product_id = ?1 limit ?4))";
    let query = sqlx::query_as(sql).bind(ask.product_id).bind(ask.user_id).bind(channel).bind(MOST_COUNTED);
    let (category, price, reachable, there, lapsed, before): Seen = query.fetch_one(&mut *connection).await?;
    if category.is_none() || !reachable {
        return Ok((category, price, reachable, None, None, false, before));
    }
    let sql = "insert into subscriptions (product_id, user_id, channel, quantity, traceparent, expires_at)
               values (?1, ?2, ?3, ?4, ?5, unixepoch('subsec') + ?6)
               on conflict (product_id, user_id, channel) do update set quantity = excluded.quantity,
                   expires_at = excluded.expires_at
               returning id";
    let query = sqlx::query_scalar(sql).bind(ask.product_id).bind(ask.user_id).bind(channel).bind(ask.quantity);
    let id = query.bind(ask.traceparent).bind(ask.expires_in.as_secs_f64()).fetch_one(connection).await?;
    Ok((category, price, reachable, Some(id), Some(!there), lapsed, before))
}

/// Ends a subscription, if there is one.
///
/// # Errors
/// The database is away.
pub async fn end(tx: &mut Tx<'_>, product_id: &str, user_id: &str, channel: Channel) -> Result<(), StoreError> {
    let sql = "delete from subscriptions where product_id = $1 and user_id = $2 and channel = $3";
    macro_rules! delete {
        ($connection:ident) => {
            _ = sqlx::query(sql).bind(product_id).bind(user_id).bind(channel.as_str()).execute($connection).await?
        };
    }
    match tx.connection() {
        Connection::Postgres(connection) => delete!(connection),
        Connection::Sqlite(connection) => delete!(connection),
    }
    Ok(())
}

/// The name of the product that a subscription waits for, or its id where the shop sells it no more; none where the
/// subscription has ended.
///
/// # Errors
/// The database is away.
pub async fn product_of(tx: &mut Tx<'_>, id: i64) -> Result<Option<String>, StoreError> {
    let sql = "select coalesce((select name from products p where p.id = s.product_id), s.product_id)
               from subscriptions s where s.id = $1";
    Ok(match tx.connection() {
        Connection::Postgres(connection) => sqlx::query_scalar(sql).bind(id).fetch_optional(connection).await?,
        Connection::Sqlite(connection) => sqlx::query_scalar(sql).bind(id).fetch_optional(connection).await?,
    })
}

/// Ends the subscription of this number, if it has not ended.
///
/// # Errors
/// The database is away.
pub async fn end_by_id(tx: &mut Tx<'_>, id: i64) -> Result<(), StoreError> {
    let sql = "delete from subscriptions where id = $1";
    match tx.connection() {
        Connection::Postgres(connection) => {
            sqlx::query(sql).bind(id).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            sqlx::query(sql).bind(id).execute(connection).await?;
        }
    }
    Ok(())
}

/// Deletes at most so many subscriptions whose time is over, the longest ago first; yields how many.
///
/// # Errors
/// The database is away.
pub async fn expire(tx: &mut Tx<'_>, most: i64) -> Result<u64, StoreError> {
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            // Those that somebody else is just deleting are skipped: nobody waits.
            let sql = "delete from subscriptions where id = any(array(
                           select id from subscriptions where expires_at <= now()
                           order by expires_at limit $1 for update skip locked))";
            sqlx::query(sql).bind(most).execute(connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from subscriptions where id in (
                           select id from subscriptions where expires_at <= unixepoch('subsec')
                           order by expires_at limit ?1)";
            sqlx::query(sql).bind(most).execute(connection).await?.rows_affected()
        }
    })
}
