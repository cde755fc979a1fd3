//! Postgres: any number of processes, `UNNEST` batches, the database's clock.

use crate::{Decided, Known, Park, Parked, Repark, StoreError, Table};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgArguments, PgConnectOptions, types::PgInterval};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions, Connection as _, PgConnection, Row};
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};
use url::Url;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| crate::only_adding(sqlx::migrate!("migrations/postgres")));

/// What sqlx makes something of in a URL.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// Those of them that name a file, or are its text.
const FILES: [&str; 7] = ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];

/// One connection, made again whenever it was lost.
pub struct Postgres {
    options: Box<PgConnectOptions>,
    connection: Option<PgConnection>,
}

/// Without the options: a password is among them.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

/// A transaction that holds the store's connection.
#[derive(Debug)]
pub struct PgTx<'a> {
    home: &'a mut Option<PgConnection>,
    connection: PgConnection,
}

impl Postgres {
    pub(crate) fn new(url: &str) -> Result<Self, StoreError> {
        check(url)?;
        let options = PgConnectOptions::from_str(url)
            .map_err(StoreError::Denied)?
            .application_name("waybill")
            // Plans follow the tables' real sizes: a plan kept from an empty table would scan a full one.
            .options([("plan_cache_mode", "force_custom_plan"), ("jit", "off"), ("statement_timeout", "30s")])
            .disable_statement_logging();
        Ok(Postgres { options: Box::new(options), connection: None })
    }

    pub(crate) fn another(&self) -> Self {
        Postgres { options: self.options.clone(), connection: None }
    }

    pub(crate) async fn migrate(&mut self) -> Result<(), StoreError> {
        let mut connection = self.connect().await?;
        // The migrator takes an advisory lock, so processes that start together wait for one another.
        MIGRATIONS.run(&mut connection).await.map_err(StoreError::from)?;
        connection.close().await?;
        Ok(())
    }

    pub(crate) async fn begin(&mut self) -> Result<PgTx<'_>, StoreError> {
        self.begin_as("begin").await
    }

    pub(crate) async fn begin_unsynced(&mut self) -> Result<PgTx<'_>, StoreError> {
        self.begin_as("begin; set local synchronous_commit = off").await
    }

    async fn begin_as(&mut self, sql: &'static str) -> Result<PgTx<'_>, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        sqlx::raw_sql(sql).execute(&mut connection).await?;
        Ok(PgTx { home: &mut self.connection, connection })
    }

    async fn connect(&self) -> Result<PgConnection, StoreError> {
        self.options
            .connect()
            .await
            .map_err(|error| if is_denied(&error) { StoreError::Denied(error) } else { error.into() })
    }

    pub(crate) async fn unlock_outbox(&mut self, stage: &str) -> Result<(), StoreError> {
        let Some(mut connection) = self.connection.take() else { return Ok(()) };
        let sql = "select pg_advisory_unlock(hashtextextended('waybill.outbox.' || $1, 0))";
        sqlx::query(sql).bind(stage).execute(&mut connection).await?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// sqlx passes over a parameter that it does not know, with its value in the log: of a misspelt `sslmode` the password would
/// travel in the open. And a file that is not there is told without its name.
fn check(url: &str) -> Result<(), StoreError> {
    // What is no URL is told by whoever reads it next.
    let Ok(url) = Url::parse(url) else { return Ok(()) };
    for (name, value) in url.query_pairs() {
        if !PARAMETERS.contains(&&*name) && !name.starts_with("options[") {
            return Err(StoreError::Parameter(name.into_owned()));
        }
        if FILES.contains(&&*name) && !value.trim_start().starts_with("-----BEGIN") {
            File::open(&*value).map_err(|error| StoreError::File(name.into_owned(), (*value).into(), error))?;
        }
    }
    Ok(())
}

/// Whether connecting failed for a reason that no waiting mends: somebody has to change a setting or the server.
fn is_denied(error: &sqlx::Error) -> bool {
    match error {
        // Class 28: the password, the certificate, pg_hba.conf. 3D000: there is no such database.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("28") || code == "3D000"),
        sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => true,
        // A handshake that one of the two sides did not accept.
        sqlx::Error::Io(error) => error.kind() == ErrorKind::InvalidData,
        _ => false,
    }
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}

impl PgTx<'_> {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("commit").execute(&mut self.connection).await?;
        *self.home = Some(self.connection);
        Ok(())
    }

    pub(crate) async fn known(&mut self, Table(table): Table, stage: &str, keys: &[&str]) -> Result<Known, StoreError> {
        let sql = format!(
            "select key, version, state::text, answer from {table} where key = any($1)
             union all
             select distinct key, 0, null::text, null::bytea from parked where stage = $2 and key = any($1)"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(keys).bind(stage).fetch_all(&mut self.connection).await?;
        let mut known = Known::default();
        for row in rows {
            match row.try_get::<Option<String>, _>(2)? {
                None => known.parked.push(row.try_get(0)?),
                Some(state) => known.decided.push(Decided {
                    key: row.try_get(0)?,
                    version: row.try_get(1)?,
                    state,
                    answer: row.try_get(3)?,
                }),
            }
        }
        Ok(known)
    }

    pub(crate) async fn save(&mut self, Table(table): Table, rows: &[Decided]) -> Result<u64, StoreError> {
        let sql = format!(
            "insert into {table} as t (key, version, state, answer)
             select key, version, state::jsonb, answer
             from unnest($1::text[], $2::int4[], $3::text[], $4::bytea[]) as r (key, version, state, answer)
             on conflict (key) do update set version = excluded.version, state = excluded.state,
                 answer = excluded.answer, decided_at = now()
             where t.version = excluded.version - 1"
        );
        let mut arguments = PgArguments::default();
        // Megabytes: reserved once, not grown by doubling. 64 bytes a row are lengths and the version.
        arguments.reserve(4, rows.iter().map(|r| r.key.len() + r.state.len() + r.answer.len() + 64).sum());
        let mut add = || {
            arguments.add(rows.iter().map(|r| r.key.as_str()).collect::<Vec<_>>())?;
            arguments.add(rows.iter().map(|r| r.version).collect::<Vec<_>>())?;
            arguments.add(rows.iter().map(|r| r.state.as_str()).collect::<Vec<_>>())?;
            arguments.add(rows.iter().map(|r| r.answer.as_slice()).collect::<Vec<_>>())
        };
        add().map_err(sqlx::Error::Encode)?;
        let done = sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut self.connection).await?;
        Ok(done.rows_affected())
    }

    pub(crate) async fn park(&mut self, stage: &str, rows: &[Park]) -> Result<Vec<(i64, String)>, StoreError> {
        let new = sqlx::query_as(
            "insert into parked (stage, key, origin, record, why, attempts, due_at, leased_until, leases)
             select $1, key, origin, record, why, 1, now() + wait,
                 case when lease > interval '0' then now() + lease else '-infinity' end,
                 case when lease > interval '0' then 1 else 0 end
             from unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::interval[], $7::interval[])
                 with ordinality as r (key, origin, record, why, wait, lease, nr)
             order by nr
             on conflict (stage, origin) do nothing
             returning id, origin",
        )
        .bind(stage)
        .bind(rows.iter().map(|r| r.key.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.origin.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.record.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.why.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| interval(r.wait)).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| interval(r.lease)).collect::<Vec<_>>())
        .fetch_all(&mut self.connection)
        .await?;
        Ok(new)
    }

    pub(crate) async fn held(&mut self, stage: &str, leases: &[(i64, i32)]) -> Result<Vec<i64>, StoreError> {
        let held = sqlx::query_scalar(
            "select p.id from parked p
             join unnest($2::int8[], $3::int4[]) as l (id, lease) on p.id = l.id and p.leases = l.lease
             where p.stage = $1 order by p.id for update of p",
        )
        .bind(stage)
        .bind(leases.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(leases.iter().map(|(_, lease)| *lease).collect::<Vec<_>>())
        .fetch_all(&mut self.connection)
        .await?;
        Ok(held)
    }

    pub(crate) async fn repark(&mut self, stage: &str, rows: &[Repark]) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "update parked p set record = r.record, why = r.why, due_at = now() + r.wait, leases = leases + 1,
                 leased_until = case when r.lease > interval '0' then now() + r.lease else '-infinity' end
             from unnest($2::int8[], $3::bytea[], $4::text[], $5::interval[], $6::interval[])
                 as r (id, record, why, wait, lease)
             where p.stage = $1 and p.id = r.id",
        )
        .bind(stage)
        .bind(rows.iter().map(|r| r.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.record.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.why.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| interval(r.wait)).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| interval(r.lease)).collect::<Vec<_>>())
        .execute(&mut self.connection)
        .await?;
        Ok(done.rows_affected())
    }

    pub(crate) async fn park_again(
        &mut self,
        stage: &str,
        id: i64,
        why: &str,
        wait: Duration,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "update parked set attempts = attempts + 1, why = $3, due_at = now() + $4, leased_until = '-infinity'
             where stage = $1 and id = $2",
        )
        .bind(stage)
        .bind(id)
        .bind(why)
        .bind(interval(wait))
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    pub(crate) async fn due(&mut self, stage: &str, keys: i64, lease: Duration) -> Result<Vec<Parked>, StoreError> {
        let rows = sqlx::query(
            "with head as (
                 select p.key from parked p
                 where p.stage = $1 and p.due_at <= now() and p.leased_until <= now()
                   and not exists (select 1 from parked e where e.stage = $1 and e.key = p.key and e.id < p.id)
                 order by p.due_at limit $2
                 for update skip locked)
             update parked set leased_until = now() + $3, leases = leases + 1
             from (select id, leased_until > '-infinity' from parked where stage = $1 and key in (select key from head))
                 as old (id, lapsed)
             where stage = $1 and parked.id = old.id
             returning parked.id, key, record, attempts, why, (extract(epoch from parked_at) * 1000000)::int8,
                 leases, lapsed",
        )
        .bind(stage)
        .bind(keys)
        .bind(interval(lease))
        .fetch_all(&mut self.connection)
        .await?;
        rows.iter()
            .map(|row| {
                let since = Duration::from_micros(row.try_get::<i64, _>(5)?.try_into().unwrap_or(0));
                Ok(Parked {
                    id: row.try_get(0)?,
                    key: row.try_get(1)?,
                    record: row.try_get(2)?,
                    attempts: row.try_get(3)?,
                    why: row.try_get(4)?,
                    parked_at: UNIX_EPOCH + since,
                    lease: row.try_get(6)?,
                    lapsed: row.try_get(7)?,
                })
            })
            .collect()
    }

    pub(crate) async fn lock_outbox(&mut self, stage: &str) -> Result<bool, StoreError> {
        // Of the session: it is kept while the rows are published, which happens outside any transaction.
        let sql = "select pg_try_advisory_lock(hashtextextended('waybill.outbox.' || $1, 0))";
        Ok(sqlx::query_scalar(sql).bind(stage).fetch_one(&mut self.connection).await?)
    }

    pub(crate) async fn unpark(&mut self, stage: &str, ids: &[i64]) -> Result<(), StoreError> {
        sqlx::query("delete from parked where stage = $1 and id = any($2)")
            .bind(stage)
            .bind(ids)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    pub(crate) async fn prune(
        &mut self,
        Table(table): Table,
        retention: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let sql = format!(
            "delete from {table} where ctid = any(array(
                 select ctid from {table} where decided_at < now() - $1 limit $2 for update skip locked))"
        );
        let done =
            sqlx::query(AssertSqlSafe(sql)).bind(interval(retention)).bind(limit).execute(&mut self.connection).await?;
        Ok(done.rows_affected())
    }
}
