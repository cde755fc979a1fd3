//! What a fanout's batch writes: results that came, and the outbox of batches, for both databases.

use crate::fanout::Fanout;
use crate::time::from_micros;
use serde_json::{Value, json};
use waybill_events::{Batch, EmailBatch, PushBatch, Results, Tell};
use waybill_spine::{BareEvent, Emit, Shared, Work};
use waybill_store::{Connection, StoreError, Tx};

/// What became of a batch.
#[derive(Debug)]
struct Settled {
    campaign_id: String,
    number: i32,
    sent: i32,
    failed: i32,
    unknown: i32,
}

/// The results of a micro-batch: all that its records have in common is that they are written at once.
#[derive(Debug, Default)]
pub struct Taken {
    batches: Vec<Settled>,
    /// Subscriptions that have done their work, or never can.
    over: Vec<i64>,
}

impl Taken {
    /// Notes results; a number that no batch has is an error.
    pub(crate) fn take(&mut self, number: i32, results: &Results) {
        let count = |wanted: &[Tell]| results.people.iter().filter(|told| wanted.contains(&told.result)).count();
        let count = |wanted: &[Tell]| i32::try_from(count(wanted)).unwrap_or(i32::MAX);
        let over = results.people.iter().filter(|told| matches!(told.result, Tell::Sent | Tell::Unreachable));
        self.over.extend(over.map(|told| told.subscription_id));
        self.batches.push(Settled {
            campaign_id: results.campaign_id.clone(),
            number,
            sent: count(&[Tell::Sent]),
            failed: count(&[Tell::Failed, Tell::Unreachable]),
            unknown: count(&[Tell::Unknown]),
        });
    }
}

impl Shared<Fanout> for Taken {
    async fn load(_: &mut Tx<'_>, _: &[Work<'_, Fanout>]) -> Result<Self, StoreError> {
        Ok(Taken::default())
    }

    async fn save(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let Taken { batches, over } = self;
        if batches.is_empty() {
            return Ok(());
        }
        // Whoever has results has the batch: it need not be published again.
        match tx.connection() {
            Connection::Postgres(connection) => {
                let sql = "update batches b set settled_at = now(), published_at = coalesce(b.published_at, now()),
                               sent = r.sent, failed = r.failed, unknown = r.unknown
                           from unnest($1::text[], $2::int4[], $3::int4[], $4::int4[], $5::int4[])
                               as r (campaign_id, number, sent, failed, unknown)
                           where b.campaign_id = r.campaign_id and b.number = r.number";
                let column = |of: fn(&Settled) -> i32| batches.iter().map(of).collect::<Vec<_>>();
                sqlx::query(sql)
                    .bind(batches.iter().map(|batch| batch.campaign_id.as_str()).collect::<Vec<_>>())
                    .bind(column(|batch| batch.number))
                    .bind(column(|batch| batch.sent))
                    .bind(column(|batch| batch.failed))
                    .bind(column(|batch| batch.unknown))
                    .execute(&mut *connection)
                    .await?;
                sqlx::query("delete from subscriptions where id = any($1)").bind(over).execute(connection).await?;
            }
            Connection::Sqlite(connection) => {
                let sql = "update batches set settled_at = unixepoch('subsec'),
                               published_at = coalesce(published_at, unixepoch('subsec')),
                               sent = value ->> 2, failed = value ->> 3, unknown = value ->> 4
                           from json_each(?1) where campaign_id = value ->> 0 and number = value ->> 1";
                let row = |b: &Settled| json!([b.campaign_id, b.number, b.sent, b.failed, b.unknown]);
                let rows = Value::from_iter(batches.iter().map(row)).to_string();
                sqlx::query(sql).bind(rows).execute(&mut *connection).await?;
                let sql = "delete from subscriptions where id in (select value from json_each(?1))";
                sqlx::query(sql).bind(Value::from(over).to_string()).execute(connection).await?;
            }
        }
        Ok(())
    }
}

/// campaign, number, product, channel, position, size, after, to, restocked_at, waybill, publish_at.
type Row = (String, i32, String, String, i32, i32, i64, i64, i64, String, i64);

/// Batches whose time has come, the earliest first.
pub(crate) async fn outbox(tx: &mut Tx<'_>, most: i64) -> Result<Vec<BareEvent>, StoreError> {
    let rows: Vec<Row> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select campaign_id, number, product_id, channel, position, size, after_id, to_id,
                           (extract(epoch from restocked_at) * 1000000)::int8, waybill::text,
                           (extract(epoch from publish_at) * 1000000)::int8
                       from batches where published_at is null and publish_at <= now()
                       order by publish_at, campaign_id, number limit $1";
            sqlx::query_as(sql).bind(most).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select campaign_id, number, product_id, channel, position, size, after_id, to_id,
                           cast(round(restocked_at * 1000000) as integer), waybill,
                           cast(round(publish_at * 1000000) as integer)
                       from batches where published_at is null and publish_at <= unixepoch('subsec')
                       order by publish_at, campaign_id, number limit ?1";
            sqlx::query_as(sql).bind(most).fetch_all(connection).await?
        }
    };
    rows.into_iter().map(event).collect()
}

/// A batch as it is told; its id derives from its own.
fn event(row: Row) -> Result<BareEvent, StoreError> {
    let (campaign_id, number, product_id, channel, position, size, after, to, restocked_at, waybill, publish_at) = row;
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| StoreError::from(sqlx::Error::Decode(error));
    let batch = Batch {
        batch_id: format!("{campaign_id}.{number}"),
        campaign_id,
        product_id,
        restocked_at: from_micros(restocked_at)?,
        index: u32::try_from(position).map_err(|e| wrong(e.into()))?,
        size: u32::try_from(size).map_err(|e| wrong(e.into()))?,
        after,
        to,
        waybill: serde_json::from_str(&waybill).map_err(|e| wrong(e.into()))?,
    };
    let (subject, waybill) = (batch.batch_id.clone(), batch.waybill.clone());
    let event: Box<dyn Emit> = match channel.as_str() {
        "email" => Box::new(EmailBatch(batch)),
        _ => Box::new(PushBatch(batch)),
    };
    Ok(BareEvent { event, subject, time: from_micros(publish_at)?, waybill })
}

/// Batches that were published are not to be published again.
pub(crate) async fn forget(tx: &mut Tx<'_>, published: &[(&str, i32)]) -> Result<(), StoreError> {
    match tx.connection() {
        Connection::Postgres(connection) => {
            // A row that is busy is just being settled, which says as much.
            let sql = "update batches b set published_at = now() from (
                           select campaign_id, number from batches
                           join unnest($1::text[], $2::int4[]) as p (campaign_id, number) using (campaign_id, number)
                           for update of batches skip locked) as p
                       where b.campaign_id = p.campaign_id and b.number = p.number";
            let (campaigns, numbers): (Vec<&str>, Vec<i32>) = published.iter().copied().unzip();
            sqlx::query(sql).bind(campaigns).bind(numbers).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "update batches set published_at = unixepoch('subsec')
                       where (campaign_id, number) in (select value ->> 0, value ->> 1 from json_each(?1))";
            sqlx::query(sql).bind(json!(published).to_string()).execute(connection).await?;
        }
    }
    Ok(())
}
