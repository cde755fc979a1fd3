//! A lane: how fast messages of one kind go out, over all processes, on the database's clock.
//!
//! One row says when the lane's next message may go. A lease moves it on by as many messages as it takes, in one
//! statement, so no two leases overlap, whoever takes them. Time that nobody used is gone: there are no bursts.

use std::time::Duration;
use waybill_store::{Connection, Store, StoreError, Tx};

/// How far ahead of the clock slots are granted, in seconds: what a process that dies takes with it.
const AHEAD: f64 = 1.0;

/// A lane of messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// `email`, `push` or `orders`.
    pub name: &'static str,
    /// Messages a second.
    pub per_second: f64,
}

/// What a lane answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leased {
    /// Slots, the first of them so long from now.
    From(Duration),
    /// Nothing yet: ask again after this.
    NotBefore(Duration),
}

impl Lane {
    /// The time between two messages.
    pub fn every(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.per_second)
    }

    /// Takes slots for so many messages. A grant that a crash of the database undoes is one that nobody waits for any more.
    pub async fn lease(&self, store: &mut Store, messages: u32) -> Result<Leased, StoreError> {
        let mut tx = store.begin_unsynced().await?;
        let leased = match self.grant(&mut tx, messages).await? {
            Some(starts_in) => Leased::From(seconds(starts_in)),
            None => Leased::NotBefore(seconds(self.next_in(&mut tx).await? - AHEAD).max(Duration::from_millis(5))),
        };
        tx.commit().await?;
        Ok(leased)
    }

    async fn grant(&self, tx: &mut Tx<'_>, messages: u32) -> Result<Option<f64>, StoreError> {
        // Postgres counts whole microseconds: rounded down, every grant would be a little too short.
        let length = (f64::from(messages) / self.per_second * 1e6).ceil() / 1e6;
        Ok(match tx.connection() {
            Connection::Postgres(connection) => {
                let sql = "with granted as (
                               insert into send_rates as r (lane, next_at) values ($1, now() + $2 * interval '1 s')
                               on conflict (lane) do update
                                   set next_at = greatest(r.next_at, now()) + $2 * interval '1 s'
                                   where r.next_at <= now() + $5 * interval '1 s'
                               returning next_at - $2 * interval '1 s' as starts_at),
                           noted as (
                               insert into send_grants (lane, starts_at, messages, per_second)
                               select $1, starts_at, $3, $4 from granted)
                           select extract(epoch from starts_at - clock_timestamp())::float8 from granted";
                sqlx::query_scalar(sql)
                    .bind(self.name)
                    .bind(length)
                    .bind(i32::try_from(messages).unwrap_or(i32::MAX))
                    .bind(self.per_second)
                    .bind(AHEAD)
                    .fetch_optional(connection)
                    .await?
            }
            Connection::Sqlite(connection) => {
                let sql = "insert into send_rates (lane, next_at) values (?1, unixepoch('subsec') + ?2)
                           on conflict (lane) do update set next_at = max(next_at, unixepoch('subsec')) + ?2
                               where next_at <= unixepoch('subsec') + ?3
                           returning next_at - ?2, next_at - ?2 - unixepoch('subsec')";
                let granted: Option<(f64, f64)> = sqlx::query_as(sql)
                    .bind(self.name)
                    .bind(length)
                    .bind(AHEAD)
                    .fetch_optional(&mut *connection)
                    .await?;
                if let Some((starts_at, _)) = granted {
                    let sql = "insert into send_grants (lane, starts_at, messages, per_second) values (?1, ?2, ?3, ?4)";
                    let noted = sqlx::query(sql).bind(self.name).bind(starts_at).bind(messages).bind(self.per_second);
                    noted.execute(connection).await?;
                }
                granted.map(|(_, starts_in)| starts_in)
            }
        })
    }

    /// Seconds until the lane's next message may go.
    async fn next_in(&self, tx: &mut Tx<'_>) -> Result<f64, StoreError> {
        Ok(match tx.connection() {
            Connection::Postgres(connection) => {
                let sql =
                    "select extract(epoch from next_at - clock_timestamp())::float8 from send_rates where lane = $1";
                sqlx::query_scalar(sql).bind(self.name).fetch_one(connection).await?
            }
            Connection::Sqlite(connection) => {
                let sql = "select next_at - unixepoch('subsec') from send_rates where lane = ?1";
                sqlx::query_scalar(sql).bind(self.name).fetch_one(connection).await?
            }
        })
    }

    /// Lets nothing out for so long: the provider is away, or has had enough of us.
    pub async fn close(&self, store: &mut Store, wait: Duration) -> Result<(), StoreError> {
        let mut tx = store.begin_unsynced().await?;
        match tx.connection() {
            Connection::Postgres(connection) => {
                let sql = "insert into send_rates as r (lane, next_at) values ($1, now() + $2 * interval '1 s')
                           on conflict (lane) do update set next_at = greatest(r.next_at, excluded.next_at)";
                sqlx::query(sql).bind(self.name).bind(wait.as_secs_f64()).execute(connection).await?;
            }
            Connection::Sqlite(connection) => {
                let sql = "insert into send_rates (lane, next_at) values (?1, unixepoch('subsec') + ?2)
                           on conflict (lane) do update set next_at = max(next_at, excluded.next_at)";
                sqlx::query(sql).bind(self.name).bind(wait.as_secs_f64()).execute(connection).await?;
            }
        }
        tx.commit().await
    }
}

/// Deletes old grants of a lane, and what is known of sendings that began long before anybody could still repeat them: a
/// part of each.
pub(super) async fn prune(tx: &mut Tx<'_>, lane: &str) -> Result<(), StoreError> {
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "delete from send_grants where id in (select id from send_grants
                           where lane = $1 and starts_at < now() - interval '1 hour' limit 1000)";
            sqlx::query(sql).bind(lane).execute(&mut *connection).await?;
            let sql = "delete from sendings where (channel, batch_id, part) in (select channel, batch_id, part
                           from sendings where channel = $1 and begun_at < now() - interval '30 days' limit 1000)";
            sqlx::query(sql).bind(lane).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from send_grants where id in (select id from send_grants
                           where lane = ?1 and starts_at < unixepoch() - 3600 limit 1000)";
            sqlx::query(sql).bind(lane).execute(&mut *connection).await?;
            let sql = "delete from sendings where rowid in (select rowid from sendings
                           where channel = ?1 and begun_at < unixepoch() - 30 * 86400 limit 1000)";
            sqlx::query(sql).bind(lane).execute(connection).await?;
        }
    }
    Ok(())
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}
