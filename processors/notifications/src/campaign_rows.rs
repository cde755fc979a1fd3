//! The statements of a campaign's steps, and of what is cleared away, for both databases.

use crate::campaign::Tally;
use crate::fanout::FanoutSettings;
use crate::step::Step;
use crate::subscriptions;
use crate::time::{from_micros, micros};
use jiff::Timestamp;
use waybill_events::MAX_BATCH;
use waybill_store::{Connection, StoreError, Tx};

/// Most rows that are cleared away at a time.
const SWEEP: i64 = 1_000;
/// Hours after which a batch that nothing is heard of, a dead letter perhaps, holds up its campaign no more. Its results
/// count whenever they come.
const SILENCE: i64 = 24;
/// Days that settled batches are kept for people who look.
const KEEP: i64 = 30;

/// What a step goes by.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The step that the campaign waits for.
    pub step: i64,
    /// Pieces to be had.
    pub available: i64,
    /// The stock's last version without any.
    pub last_zero_version: i64,
    /// The database's clock.
    pub now: Timestamp,
}

/// How far the subscriptions of a step reach.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Reach {
    /// The last one.
    pub to: i64,
    /// How many were looked at.
    pub rows: i64,
    /// How many of these people are to be told.
    pub people: i64,
}

/// Batches that are planned.
#[derive(Debug)]
pub(crate) struct Found {
    /// How many of each channel: email, push.
    pub batches: [i32; 2],
    /// People in them.
    pub people: i64,
    /// The last subscription.
    pub to: i64,
    /// When the first goes out.
    pub begins: Option<Timestamp>,
}

/// What a campaign waits for.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Waits {
    /// Batches that are not settled, and may still be.
    pub open: bool,
    /// People beyond its cursor.
    pub waiting: bool,
}

/// The campaign's row is locked, so that it does not go on meanwhile; none where there is no such campaign.
pub(crate) async fn facts(tx: &mut Tx<'_>, key: &str, product_id: &str) -> Result<Option<Facts>, StoreError> {
    let row: Option<(i64, i64, i64, i64)> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select (c.state #>> '{campaign,step}')::int8, coalesce(s.available, 0),
                           coalesce(s.last_zero_version, 0), (extract(epoch from now()) * 1000000)::int8
                       from campaigns c left join stock s on s.product_id = $2 where c.key = $1 for share of c";
            sqlx::query_as(sql).bind(key).bind(product_id).fetch_optional(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql =
                "select c.state ->> '$.campaign.step', coalesce(s.available, 0), coalesce(s.last_zero_version, 0),
                           cast(round(unixepoch('subsec') * 1000000) as integer)
                       from campaigns c left join stock s on s.product_id = ?2 where c.key = ?1";
            sqlx::query_as(sql).bind(key).bind(product_id).fetch_optional(connection).await?
        }
    };
    let facts = |(step, available, last_zero_version, now)| {
        Ok(Facts { step, available, last_zero_version, now: from_micros(now)? })
    };
    row.map(facts).transpose()
}

/// The batches of a campaign from a number on.
pub(crate) async fn planned(tx: &mut Tx<'_>, campaign_id: &str, from: i32) -> Result<Found, StoreError> {
    let (email, push, people, to, begins): (i64, i64, i64, i64, Option<i64>) = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select count(*) filter (where channel = 'email'), count(*) filter (where channel = 'push'),
                           coalesce(sum(size), 0)::int8, coalesce(max(to_id), 0),
                           (extract(epoch from min(publish_at)) * 1000000)::int8
                       from batches where campaign_id = $1 and number >= $2";
            sqlx::query_as(sql).bind(campaign_id).bind(from).fetch_one(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select count(*) filter (where channel = 'email'), count(*) filter (where channel = 'push'),
                           coalesce(sum(size), 0), coalesce(max(to_id), 0),
                           cast(round(min(publish_at) * 1000000) as integer)
                       from batches where campaign_id = ?1 and number >= ?2";
            sqlx::query_as(sql).bind(campaign_id).bind(from).fetch_one(connection).await?
        }
    };
    let batches = [email, push].map(|batches| i32::try_from(batches).unwrap_or(i32::MAX));
    Ok(Found { batches, people, to, begins: begins.map(from_micros).transpose()? })
}

/// Looks along the subscriptions of a product, at most `portion` of them, until `wanted` people are found.
pub(crate) async fn reach(
    tx: &mut Tx<'_>,
    step: &Step,
    facts: &Facts,
    wanted: i64,
    portion: i64,
) -> Result<Reach, StoreError> {
    let cursor = step.campaign.cursor;
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = r#"with seen as (
                           select id, (quantity <= $3 and expires_at > now())::int as fits
                           from subscriptions where product_id = $1 and id > $2 order by id limit $5),
                       counted as (select id, fits, sum(fits) over (order by id) - fits as before from seen)
                       select coalesce(max(id), $2) as "to", count(*) as rows, coalesce(sum(fits), 0)::int8 as people
                       from counted where before < $4"#;
            let query = sqlx::query_as(sql).bind(&step.restocked.product_id).bind(cursor).bind(facts.available);
            query.bind(wanted).bind(portion).fetch_one(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = r#"with seen as (
                           select id, quantity <= ?3 and expires_at > unixepoch('subsec') as fits
                           from subscriptions where product_id = ?1 and id > ?2 order by id limit ?5),
                       counted as (select id, fits, sum(fits) over (order by id) - fits as before from seen)
                       select coalesce(max(id), ?2) as "to", count(*) as rows, coalesce(sum(fits), 0) as people
                       from counted where before < ?4"#;
            let query = sqlx::query_as(sql).bind(&step.restocked.product_id).bind(cursor).bind(facts.available);
            query.bind(wanted).bind(portion).fetch_one(connection).await?
        }
    })
}

/// Cuts the subscriptions up to `to` into batches, each channel's apart. A range never holds more than a batch may, whoever
/// of them is to be told now; one in which nobody is has no batch.
pub(crate) async fn plan(
    tx: &mut Tx<'_>,
    step: &Step,
    facts: &Facts,
    (to, begins): (i64, Timestamp),
    settings: &FanoutSettings,
) -> Result<(), StoreError> {
    let Step { restocked, campaign } = step;
    let waybill = serde_json::to_string(&restocked.waybill).map_err(|e| sqlx::Error::Encode(e.into()))?;
    let ([email, push], [first_email, first_push]) = (campaign.positions, campaign.wave.first_positions);
    let spacing = i64::try_from(settings.spacing().as_micros()).unwrap_or(i64::MAX);
    macro_rules! insert {
        ($connection:expr, $sql:expr) => {
            sqlx::query($sql)
                .bind(step.campaign_id())
                .bind(campaign.planned)
                .bind(&restocked.product_id)
                .bind(campaign.cursor)
                .bind(to)
                .bind(facts.available)
                .bind(i64::from(MAX_BATCH))
                .bind(email)
                .bind(push)
                .bind(first_email)
                .bind(first_push)
                .bind(micros(restocked.restocked_at))
                .bind(waybill)
                .bind(micros(begins))
                .bind(spacing)
                .execute($connection)
                .await
                .map(drop)?
        };
    }
    match tx.connection() {
        Connection::Postgres(connection) => insert!(connection, PLAN_POSTGRES),
        Connection::Sqlite(connection) => insert!(connection, PLAN_SQLITE),
    };
    Ok(())
}

const PLAN_POSTGRES: &str = "
    with waiting as (
        select id, channel, (quantity <= $6 and expires_at > now())::int as fits,
            (row_number() over (partition by channel order by id) - 1) / $7 as part
        from subscriptions where product_id = $3 and id > $4 and id <= $5),
    cut as (
        select channel, part, sum(fits) as size, max(id) as to_id,
            coalesce(lag(max(id)) over (partition by channel order by part), $4) as after_id
        from waiting group by channel, part),
    placed as (
        select cut.*, (row_number() over (order by part, channel) - 1)::int4 as nr,
            (row_number() over (partition by channel order by part) - 1)::int4
                + case channel when 'email' then $8 else $9 end as position
        from cut where size > 0)
    insert into batches (campaign_id, number, product_id, channel, position, size, after_id, to_id, restocked_at, waybill,
        publish_at)
    select $1, $2 + nr, $3, channel, position, size, after_id, to_id,
        timestamptz 'epoch' + $12 * interval '1 microsecond', $13::jsonb,
        timestamptz 'epoch' + ($14 + (position - case channel when 'email' then $10 else $11 end)::int8 * $15)
            * interval '1 microsecond'
    from placed";

const PLAN_SQLITE: &str = "
    with waiting as (
        select id, channel, quantity <= ?6 and expires_at > unixepoch('subsec') as fits,
            (row_number() over (partition by channel order by id) - 1) / ?7 as part
        from subscriptions where product_id = ?3 and id > ?4 and id <= ?5),
    cut as (
        select channel, part, sum(fits) as size, max(id) as to_id,
            coalesce(lag(max(id)) over (partition by channel order by part), ?4) as after_id
        from waiting group by channel, part),
    placed as (
        select cut.*, row_number() over (order by part, channel) - 1 as nr,
            row_number() over (partition by channel order by part) - 1
                + case channel when 'email' then ?8 else ?9 end as position
        from cut where size > 0)
    insert into batches (campaign_id, number, product_id, channel, position, size, after_id, to_id, restocked_at, waybill,
        publish_at)
    select ?1, ?2 + nr, ?3, channel, position, size, after_id, to_id, ?12 / 1e6, ?13,
        (?14 + (position - case channel when 'email' then ?10 else ?11 end) * ?15) / 1e6
    from placed";

/// Forgets the batches of a wave that are not published. The caller has locked the outbox.
pub(crate) async fn take_back(tx: &mut Tx<'_>, campaign_id: &str, first: i32) -> Result<(), StoreError> {
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "delete from batches where campaign_id = $1 and number >= $2 and published_at is null";
            sqlx::query(sql).bind(campaign_id).bind(first).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from batches where campaign_id = ?1 and number >= ?2 and published_at is null";
            sqlx::query(sql).bind(campaign_id).bind(first).execute(connection).await?;
        }
    }
    Ok(())
}

/// What a campaign waits for.
pub(crate) async fn waits(
    tx: &mut Tx<'_>,
    campaign_id: &str,
    product_id: &str,
    cursor: i64,
) -> Result<Waits, StoreError> {
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select exists (select 1 from batches where campaign_id = $1 and settled_at is null
                               and coalesce(published_at, publish_at) > now() - $4 * interval '1 hour') as open,
                           exists (select 1 from subscriptions where product_id = $2 and id > $3) as waiting";
            let query = sqlx::query_as(sql).bind(campaign_id).bind(product_id).bind(cursor);
            query.bind(SILENCE).fetch_one(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select exists (select 1 from batches where campaign_id = ?1 and settled_at is null
                               and coalesce(published_at, publish_at) > unixepoch('subsec') - ?4 * 3600) as open,
                           exists (select 1 from subscriptions where product_id = ?2 and id > ?3) as waiting";
            let query = sqlx::query_as(sql).bind(campaign_id).bind(product_id).bind(cursor);
            query.bind(SILENCE).fetch_one(connection).await?
        }
    })
}

/// What the batches of a wave came to.
pub(crate) async fn tally(tx: &mut Tx<'_>, campaign_id: &str, first: i32) -> Result<Tally, StoreError> {
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select count(*) as batches, coalesce(sum(size), 0)::int8 as people,
                           coalesce(sum(sent), 0)::int8 as sent, coalesce(sum(failed + unknown), 0)::int8 as errors
                       from batches where campaign_id = $1 and number >= $2";
            sqlx::query_as(sql).bind(campaign_id).bind(first).fetch_one(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select count(*) as batches, coalesce(sum(size), 0) as people, coalesce(sum(sent), 0) as sent,
                           coalesce(sum(failed + unknown), 0) as errors
                       from batches where campaign_id = ?1 and number >= ?2";
            sqlx::query_as(sql).bind(campaign_id).bind(first).fetch_one(connection).await?
        }
    })
}

/// Deletes subscriptions whose time is over, and batches that were settled long ago, a part of each.
pub(crate) async fn sweep(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    subscriptions::expire(tx, SWEEP).await?;
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "delete from batches where ctid = any(array(
                           select ctid from batches where settled_at < now() - $1 * interval '1 day'
                           order by settled_at limit $2 for update skip locked))";
            sqlx::query(sql).bind(KEEP).bind(SWEEP).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from batches where rowid in (
                           select rowid from batches where settled_at < unixepoch('subsec') - ?1 * 86400
                           order by settled_at limit ?2)";
            sqlx::query(sql).bind(KEEP).bind(SWEEP).execute(connection).await?;
        }
    }
    Ok(())
}
