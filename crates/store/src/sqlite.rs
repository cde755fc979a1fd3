//! SQLite: one process, one writer, write-ahead log. A second process is refused by the file lock.

use crate::{Decided, Known, Park, Parked, Repark, StoreError, Table};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, QueryBuilder, Row, SqliteConnection};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::{Mutex, OwnedMutexGuard};

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| crate::only_adding(sqlx::migrate!("migrations/sqlite")));

/// Rows a statement: longer ones bring nothing, and SQLite bounds the number of parameters.
const CHUNK: usize = 50;

/// The one connection of the process, shared by its loops, one transaction at a time.
#[derive(Clone, Debug)]
pub struct Sqlite {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    connection: SqliteConnection,
    /// A transaction was begun and not committed: the next one undoes it first.
    open: bool,
}

/// A transaction that holds the process's connection.
#[derive(Debug)]
pub struct SqliteTx {
    shared: OwnedMutexGuard<Shared>,
}

impl Sqlite {
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        let mut connection = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_millis(200))
            .disable_statement_logging()
            .connect()
            .await?;
        // The exclusive lock is taken by the first write: take it now, so that a second process fails at its start.
        sqlx::raw_sql("begin immediate; commit").execute(&mut connection).await?;
        Ok(Sqlite { shared: Arc::new(Mutex::new(Shared { connection, open: false })) })
    }

    pub(crate) fn another(&self) -> Self {
        self.clone()
    }

    pub(crate) async fn migrate(&self) -> Result<(), StoreError> {
        let mut shared = self.shared.lock().await;
        MIGRATIONS.run(&mut shared.connection).await.map_err(StoreError::from)
    }

    pub(crate) async fn begin(&self) -> Result<SqliteTx, StoreError> {
        let mut shared = self.shared.clone().lock_owned().await;
        if std::mem::replace(&mut shared.open, true) {
            // The last transaction was dropped; if its begin never happened, there is nothing to undo.
            sqlx::raw_sql("rollback").execute(&mut shared.connection).await.ok();
        }
        sqlx::raw_sql("begin immediate").execute(&mut shared.connection).await?;
        Ok(SqliteTx { shared })
    }
}

impl SqliteTx {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.shared.connection
    }

    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("commit").execute(self.connection()).await?;
        self.shared.open = false;
        Ok(())
    }

    pub(crate) async fn known(&mut self, Table(table): Table, stage: &str, keys: &[&str]) -> Result<Known, StoreError> {
        let mut known = Known::default();
        for keys in keys.chunks(500) {
            let mut query =
                QueryBuilder::new(format!("select key, version, state, answer from {table} where key in ("));
            push_list(&mut query, keys);
            query.push(" union all select distinct key, 0, null, null from parked where stage = ");
            query.push_bind(stage);
            query.push(" and key in (");
            push_list(&mut query, keys);
            for row in query.build().fetch_all(self.connection()).await? {
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
        }
        Ok(known)
    }

    pub(crate) async fn save(&mut self, Table(table): Table, rows: &[Decided]) -> Result<u64, StoreError> {
        let mut written = 0;
        for rows in rows.chunks(CHUNK) {
            let mut query = QueryBuilder::new(format!("insert into {table} as t (key, version, state, answer) "));
            query.push_values(rows, |mut row, r| {
                row.push_bind(&r.key).push_bind(r.version).push_bind(&r.state).push_bind(&r.answer);
            });
            query.push(
                " on conflict (key) do update set version = excluded.version, state = excluded.state,
                      answer = excluded.answer, decided_at = unixepoch()
                  where t.version = excluded.version - 1",
            );
            written += query.build().execute(self.connection()).await?.rows_affected();
        }
        Ok(written)
    }

    pub(crate) async fn park(&mut self, stage: &str, rows: &[Park]) -> Result<Vec<(i64, String)>, StoreError> {
        let mut new = Vec::with_capacity(rows.len());
        for rows in rows.chunks(CHUNK) {
            let mut query = QueryBuilder::new(
                "insert into parked (stage, key, origin, record, why, attempts, due_at, leased_until, leases) ",
            );
            query.push_values(rows, |mut row, r| {
                row.push_bind(stage)
                    .push_bind(&r.key)
                    .push_bind(&r.origin)
                    .push_bind(&r.record)
                    .push_bind(&r.why)
                    .push("1");
                row.push("unixepoch('subsec') + ").push_bind_unseparated(r.wait.as_secs_f64());
                if r.lease.is_zero() {
                    row.push("0, 0");
                } else {
                    row.push("unixepoch('subsec') + ").push_bind_unseparated(r.lease.as_secs_f64()).push("1");
                }
            });
            query.push(" on conflict (stage, origin) do nothing returning id, origin");
            new.extend(query.build_query_as::<(i64, String)>().fetch_all(self.connection()).await?);
        }
        Ok(new)
    }

    pub(crate) async fn held(&mut self, stage: &str, leases: &[(i64, i32)]) -> Result<Vec<i64>, StoreError> {
        let leases =
            format!("[{}]", leases.iter().map(|(id, lease)| format!("[{id},{lease}]")).collect::<Vec<_>>().join(","));
        let held = sqlx::query_scalar(
            "select p.id from parked p join json_each(?2) l on p.id = l.value ->> 0 and p.leases = l.value ->> 1
             where p.stage = ?1",
        )
        .bind(stage)
        .bind(leases)
        .fetch_all(self.connection())
        .await?;
        Ok(held)
    }

    pub(crate) async fn repark(&mut self, stage: &str, rows: &[Repark]) -> Result<u64, StoreError> {
        let mut written = 0;
        for row in rows {
            let mut query = QueryBuilder::new("update parked set leases = leases + 1, record = ");
            query.push_bind(&row.record).push(", why = ").push_bind(&row.why);
            query.push(", due_at = unixepoch('subsec') + ").push_bind(row.wait.as_secs_f64());
            if row.lease.is_zero() {
                query.push(", leased_until = 0");
            } else {
                query.push(", leased_until = unixepoch('subsec') + ").push_bind(row.lease.as_secs_f64());
            }
            query.push(" where stage = ").push_bind(stage).push(" and id = ").push_bind(row.id);
            written += query.build().execute(self.connection()).await?.rows_affected();
        }
        Ok(written)
    }

    pub(crate) async fn park_again(
        &mut self,
        stage: &str,
        id: i64,
        why: &str,
        wait: Duration,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "update parked set attempts = attempts + 1, why = ?3, due_at = unixepoch('subsec') + ?4, leased_until = 0
             where stage = ?1 and id = ?2",
        )
        .bind(stage)
        .bind(id)
        .bind(why)
        .bind(wait.as_secs_f64())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub(crate) async fn due(&mut self, stage: &str, keys: i64, lease: Duration) -> Result<Vec<Parked>, StoreError> {
        let rows = sqlx::query(
            "select id, key, record, attempts, why, parked_at, leases + 1, leased_until > 0 from parked
             where stage = ?1 and key in (
                 select p.key from parked p
                 where p.stage = ?1 and p.due_at <= unixepoch('subsec') and p.leased_until <= unixepoch('subsec')
                   and not exists (select 1 from parked e where e.stage = ?1 and e.key = p.key and e.id < p.id)
                 order by p.due_at limit ?2)",
        )
        .bind(stage)
        .bind(keys)
        .fetch_all(self.connection())
        .await?;
        // One writer: nothing changes between the two statements.
        for row in &rows {
            sqlx::query("update parked set leased_until = unixepoch('subsec') + ?1, leases = leases + 1 where stage = ?2 and id = ?3")
                .bind(lease.as_secs_f64())
                .bind(stage)
                .bind(row.try_get::<i64, _>(0)?)
                .execute(self.connection())
                .await?;
        }
        rows.iter()
            .map(|row| {
                Ok(Parked {
                    id: row.try_get(0)?,
                    key: row.try_get(1)?,
                    record: row.try_get(2)?,
                    attempts: row.try_get(3)?,
                    why: row.try_get(4)?,
                    parked_at: UNIX_EPOCH + Duration::from_secs_f64(row.try_get::<f64, _>(5)?.max(0.0)),
                    lease: row.try_get(6)?,
                    lapsed: row.try_get(7)?,
                })
            })
            .collect()
    }

    pub(crate) async fn unpark(&mut self, stage: &str, ids: &[i64]) -> Result<(), StoreError> {
        for id in ids {
            sqlx::query("delete from parked where stage = ?1 and id = ?2")
                .bind(stage)
                .bind(id)
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn prune(
        &mut self,
        Table(table): Table,
        retention: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let sql = format!(
            "delete from {table} where key in
                 (select key from {table} where decided_at < unixepoch() - ?1 limit ?2)"
        );
        let retention = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
        let done = sqlx::query(AssertSqlSafe(sql)).bind(retention).bind(limit).execute(self.connection()).await?;
        Ok(done.rows_affected())
    }
}

fn push_list<'a>(query: &mut QueryBuilder<sqlx::Sqlite>, keys: &'a [&'a str]) {
    let mut list = query.separated(", ");
    for key in keys {
        list.push_bind((*key).to_owned());
    }
    list.push_unseparated(")");
}
