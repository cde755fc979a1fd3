//! Where journeys are kept: a SQLite file or a Postgres database.

use crate::JourneysError;
use crate::row::{COLUMNS, SpanRow};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, FromRow};
use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// A place for journeys; one connection.
#[derive(Debug)]
pub enum Target {
    /// A file.
    Sqlite(SqliteConnection),
    /// A database.
    Postgres(PgConnection),
}

/// Of the tables, where they are kept: another one with every change of them.
const LAYOUT: i32 = 2;

/// The next offset to read of each partition, by topic and partition.
pub type ReadTo = HashMap<(String, i32), i64>;

/// The columns of a [`SpanRow`], JSON as text.
pub(crate) fn columns() -> String {
    let column = |name: &&str| match *name {
        json @ ("input" | "attributes" | "links" | "events" | "children") => {
            format!("cast(s.{json} as text) as {json}")
        }
        name => format!("s.{name}"),
    };
    COLUMNS.iter().map(column).collect::<Vec<_>>().join(", ")
}

impl Target {
    /// Opens `FILE.db`, `sqlite://FILE` or `postgres://…`, and makes the tables if they are not there.
    ///
    /// # Errors
    /// A target of another kind or another version, or one that cannot be opened.
    pub async fn open(name: &str) -> Result<Self, JourneysError> {
        let mut target = if name.starts_with("postgres://") || name.starts_with("postgresql://") {
            Target::Postgres(PgConnectOptions::from_str(name)?.disable_statement_logging().connect().await?)
        } else if let Some(file) = name.strip_prefix("sqlite://") {
            Target::file(file.as_ref()).await?
        } else if name.contains("://") || Path::new(name).extension().is_none() {
            return Err(JourneysError::Target);
        } else {
            Target::file(name.as_ref()).await?
        };
        let layout = match target.layout().await? {
            Some(layout) => layout,
            None => target.make().await?,
        };
        if layout == LAYOUT { Ok(target) } else { Err(JourneysError::Layout(name.to_owned())) }
    }

    /// Makes the tables; yields the version of what is there then.
    async fn make(&mut self) -> Result<i32, JourneysError> {
        self.begin().await?;
        // Somebody else may have been quicker.
        if let Some(layout) = self.layout().await? {
            self.commit().await?;
            return Ok(layout);
        }
        let tables = match self {
            Target::Sqlite(_) => format!("{}; pragma user_version = {LAYOUT}", include_str!("tables_sqlite.sql")),
            Target::Postgres(_) => {
                format!("{}; comment on table stage_spans is '{LAYOUT}'", include_str!("tables_postgres.sql"))
            }
        };
        self.run(&tables).await?;
        self.commit().await?;
        self.settle().await?;
        Ok(LAYOUT)
    }

    /// Which tables there are: none, or those of a version. What is not from here is of no version.
    async fn layout(&mut self) -> Result<Option<i32>, JourneysError> {
        let sql = match self {
            Target::Sqlite(_) => {
                "select user_version from pragma_user_version where exists (select 1 from sqlite_master)"
            }
            Target::Postgres(_) => {
                "select case when obj_description(oid, 'pg_class') ~ '^[0-9]+$'
                            then obj_description(oid, 'pg_class')::integer else 0 end
                        from pg_class where oid = to_regclass('stage_spans')"
            }
        };
        Ok(self.ask::<(i32,)>(sql, &[], &[]).await?.pop().map(|(layout,)| layout))
    }

    /// Opens a target that a replay has made.
    ///
    /// # Errors
    /// As [`Target::open`]; also where there is no such file.
    pub async fn existing(name: &str) -> Result<Self, JourneysError> {
        let file = name.strip_prefix("sqlite://").unwrap_or(name);
        if !file.contains("://") && !Path::new(file).exists() {
            return Err(JourneysError::NoTarget(name.to_owned()));
        }
        let mut target = Target::open(name).await?;
        // A replay may have died before it had filled it.
        target.settle().await?;
        Ok(target)
    }

    /// What a crash of the machine takes from a projection is made again, so nothing waits for the disk.
    async fn file(file: &Path) -> Result<Self, JourneysError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Off)
            // A third of the pages to write of indexes over random ids.
            .page_size(16_384)
            .pragma("cache_size", "-65536")
            // A second core sorts ids while the first one reads them.
            .pragma("threads", "1")
            .busy_timeout(Duration::from_secs(10))
            .disable_statement_logging();
        Ok(Target::Sqlite(options.connect().await?))
    }

    /// Runs statements that need no answer.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), JourneysError> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Target::Sqlite(db) => sqlx::raw_sql(sql).execute(db).await.map(drop)?,
            Target::Postgres(db) => sqlx::raw_sql(sql).execute(db).await.map(drop)?,
        }
        Ok(())
    }

    /// The rows of a question that both databases understand; `$1` and so on are `texts`, then `numbers`.
    pub(crate) async fn ask<T>(&mut self, sql: &str, texts: &[&str], numbers: &[i64]) -> Result<Vec<T>, JourneysError>
    where
        T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(match self {
            Target::Sqlite(db) => {
                let query = texts.iter().fold(sqlx::query_as(sql), |query, text| query.bind((*text).to_owned()));
                numbers.iter().fold(query, |query, number| query.bind(*number)).fetch_all(db).await?
            }
            Target::Postgres(db) => {
                let query = texts.iter().fold(sqlx::query_as(sql), |query, text| query.bind((*text).to_owned()));
                numbers.iter().fold(query, |query, number| query.bind(*number)).fetch_all(db).await?
            }
        })
    }

    /// How far each partition was read.
    pub(crate) async fn read_to(&mut self) -> Result<ReadTo, JourneysError> {
        let rows: Vec<(String, i32, i64)> =
            self.ask("select topic, partition_id, next_offset from read_to", &[], &[]).await?;
        Ok(rows.into_iter().map(|(topic, partition, next)| ((topic, partition), next)).collect())
    }

    /// All stage spans, by their ids.
    ///
    /// # Errors
    /// The target does not answer.
    pub async fn all_spans(&mut self) -> Result<Vec<SpanRow>, JourneysError> {
        let sql = format!("select {} from stage_spans s order by s.trace_id, s.span_id", columns());
        self.ask(&sql, &[], &[]).await
    }

    /// The stage spans of these traces.
    pub(crate) async fn spans(&mut self, traces: &[String]) -> Result<Vec<SpanRow>, JourneysError> {
        let columns = columns();
        Ok(match self {
            Target::Sqlite(db) => {
                let sql = format!(
                    "select {columns} from stage_spans s where s.trace_id in (select value from json_each(?1))"
                );
                let traces = serde_json::Value::from(traces).to_string();
                sqlx::query_as(AssertSqlSafe(sql)).bind(traces).fetch_all(db).await?
            }
            Target::Postgres(db) => {
                let sql = format!("select {columns} from stage_spans s where s.trace_id = any($1)");
                sqlx::query_as(AssertSqlSafe(sql)).bind(traces).fetch_all(db).await?
            }
        })
    }
}
