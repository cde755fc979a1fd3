//! How far campaigns have come, for people who look.

use crate::campaign::{self, Kept};
use crate::time::from_micros;
use jiff::Timestamp;
use std::collections::HashMap;
use waybill_store::{Connection, StoreError, Tx};

/// Batches that are looked at to find the last campaigns.
const RECENT: i64 = 2_000;

/// What came of a campaign so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The campaign.
    pub campaign_id: String,
    /// What is back.
    pub product_id: String,
    /// Since when.
    pub restocked_at: Timestamp,
    /// Batches that were planned.
    pub batches: i64,
    /// People in them.
    pub people: i64,
    /// People in batches whose time is still to come, or that nobody has answered yet.
    pub waiting: i64,
    /// Those who were told.
    pub sent: i64,
    /// Those who were not.
    pub failed: i64,
    /// Those of whom nobody knows.
    pub unknown: i64,
    /// When the last batch was settled; none where none is.
    pub settled_at: Option<Timestamp>,
    /// What it does now; none where a later campaign of the product hides it.
    pub now: Option<Now>,
}

/// What a campaign does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// It plans a wave, not before this time.
    Plans(Timestamp),
    /// It waits for what becomes of the wave that it has planned.
    Watches,
    /// It is over.
    Ended,
}

/// Campaign, product, restocked, batches, people, waiting, sent, failed, unknown, settled; times are microseconds since 1970.
type Columns = (String, String, i64, i64, i64, i64, i64, i64, i64, Option<i64>);

/// The campaigns that are open or were last heard of, at most `most` of them, the latest restock first. One that has planned
/// nobody yet is not there; batches are kept for a month.
///
/// # Errors
/// The database is away.
pub async fn progress(tx: &mut Tx<'_>, most: i64) -> Result<Vec<Progress>, StoreError> {
    let rows: Vec<Columns> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "with recent as (
                           select campaign_id, restocked_at from (select campaign_id, restocked_at from batches
                               where settled_at is null limit $2) as open
                           union select campaign_id, restocked_at from (select campaign_id, restocked_at from batches
                               where settled_at is not null order by settled_at desc limit $2) as settled),
                       last as (select campaign_id from recent group by campaign_id order by max(restocked_at) desc limit $1)
                       select campaign_id, min(product_id), (extract(epoch from min(restocked_at)) * 1000000)::int8,
                           count(*), sum(size)::int8, coalesce(sum(size) filter (where settled_at is null), 0)::int8,
                           sum(sent)::int8, sum(failed)::int8, sum(unknown)::int8,
                           (extract(epoch from max(settled_at)) * 1000000)::int8
                       from batches join last using (campaign_id) group by campaign_id order by 3 desc, 1";
            sqlx::query_as(sql).bind(most).bind(RECENT).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "with recent as (
                           select * from (select campaign_id, restocked_at from batches where settled_at is null limit ?2)
                           union select * from (select campaign_id, restocked_at from batches
                               where settled_at is not null order by settled_at desc limit ?2)),
                       last as (select campaign_id from recent group by campaign_id order by max(restocked_at) desc limit ?1)
                       select campaign_id, min(product_id), cast(round(min(restocked_at) * 1000000) as integer),
                           count(*), sum(size), coalesce(sum(size) filter (where settled_at is null), 0),
                           sum(sent), sum(failed), sum(unknown), cast(round(max(settled_at) * 1000000) as integer)
                       from batches join last using (campaign_id) group by campaign_id order by 3 desc, 1";
            sqlx::query_as(sql).bind(most).bind(RECENT).fetch_all(connection).await?
        }
    };
    let products: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
    let now = now(tx, &products).await?;
    let progress = |row: Columns| {
        let (campaign_id, product_id, restocked, batches, people, waiting, sent, failed, unknown, settled) = row;
        Ok(Progress {
            now: now.get(&campaign_id).copied(),
            campaign_id,
            product_id,
            restocked_at: from_micros(restocked)?,
            batches,
            people,
            waiting,
            sent,
            failed,
            unknown,
            settled_at: settled.map(from_micros).transpose()?,
        })
    };
    rows.into_iter().map(progress).collect()
}

/// What the last campaign of each product does.
async fn now(tx: &mut Tx<'_>, products: &[&str]) -> Result<HashMap<String, Now>, StoreError> {
    let rows: Vec<(String, String)> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select c.key, c.state::text from restocks r
                       join campaigns c on c.key = r.product_id || '/' || r.zero_version where r.product_id = any($1)";
            sqlx::query_as(sql).bind(products).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select c.key, c.state from restocks r
                       join campaigns c on c.key = r.product_id || '/' || r.zero_version
                       where r.product_id in (select value from json_each(?1))";
            let products = serde_json::Value::from(products).to_string();
            sqlx::query_as(sql).bind(products).fetch_all(connection).await?
        }
    };
    let now = |(subject, state): (String, String)| {
        let kept = serde_json::from_str::<Kept>(&state).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(match kept {
            Kept::Campaign(campaign) => Some((campaign::campaign_id(&subject), campaign.now())),
            Kept::Taken => None,
        })
    };
    rows.into_iter().map(now).filter_map(Result::transpose).collect()
}
