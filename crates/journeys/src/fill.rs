//! How a new file is filled.
//!
//! An index over random ids costs more than all else where rows come one by one: every row has a page of its own to change, and
//! the more rows there are, the fewer of these pages are in memory. So a file is filled without indexes, and rows are put behind
//! one another. When all is read, the indexes are made in one go, from ids that are sorted on disk; only then is looked for what
//! stands twice, since then it stands side by side.
//!
//! - A file without indexes is being filled. Who asks it a question ends that first.
//! - Indexes are made in one transaction with the removal of what stands twice. A replay that dies in it has filled, and no more.
//! - How far was read is kept in the transaction of the rows, as everywhere.

use crate::target::{ReadTo, Target};
use crate::{JourneysError, SpanRow, Told};
use rusqlite::{Connection, Statement, params};
use sqlx::sqlite::SqliteConnection;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// How long a transaction is open.
const KEEP: Duration = Duration::from_secs(2);

/// A file that is being filled. sqlx copies each value twice and costs twice what SQLite does, so this is SQLite's own way of
/// inserting: a row a statement, its text where it stands.
pub(crate) struct Filling {
    db: Connection,
    /// Since when the transaction is open.
    since: Option<Instant>,
    /// How far was read; not kept by a run over some of the records, which says nothing about the others.
    read_to: Option<ReadTo>,
}

const RECORD: &str = "insert into records (ce_id, topic, partition_id, record_offset, time_ns, order_id, reason)
    values (?, ?, ?, ?, ?, ?, ?)";
const SPAN: &str = "insert into stage_spans (trace_id, span_id, parent_span_id, trace_flags, stage, scope, version, name, kind,
        start_ns, decided_ns, end_ns, stamp, order_id, input, attributes, status, links, events, children, topic, partition_id,
        record_offset)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const READ_TO: &str = "insert into read_to (topic, partition_id, next_offset) values (?, ?, ?)
    on conflict (topic, partition_id) do update set next_offset = excluded.next_offset";

impl Filling {
    pub(crate) fn open(file: &str, whole: bool) -> Result<Self, JourneysError> {
        let db = Connection::open(file)?;
        // Rows go to the last page, so little is needed in memory.
        db.execute_batch("pragma synchronous = off; pragma cache_size = -8192; pragma busy_timeout = 10000")?;
        Ok(Filling { db, since: None, read_to: whole.then(ReadTo::new) })
    }

    /// Puts what records tell behind what is there, and keeps it from time to time.
    pub(crate) fn write(&mut self, told: &[Told<Cow<'_, str>>], read_to: ReadTo) -> Result<(), JourneysError> {
        let since = match self.since {
            Some(since) => since,
            None => {
                // A question may have made indexes meanwhile.
                self.db.execute_batch(
                    "begin immediate; drop index if exists records_by_id; drop index if exists stage_spans_by_id",
                )?;
                *self.since.insert(Instant::now())
            }
        };
        let (mut records, mut spans) = (self.db.prepare(RECORD)?, self.db.prepare(SPAN)?);
        for t in told {
            records.execute(params![t.ce_id, t.topic, t.partition, t.offset, t.time_ns, t.order_id, t.reason])?;
            for span in &t.spans {
                insert(&mut spans, span)?;
            }
        }
        drop((records, spans));
        if let Some(known) = &mut self.read_to {
            known.extend(read_to);
        }
        if since.elapsed() > KEEP { self.keep() } else { Ok(()) }
    }

    /// Ends the transaction.
    pub(crate) fn keep(&mut self) -> Result<(), JourneysError> {
        if self.since.take().is_none() {
            return Ok(());
        }
        let mut statement = self.db.prepare(READ_TO)?;
        for ((topic, partition), next) in self.read_to.iter().flatten() {
            statement.execute(params![topic, partition, next])?;
        }
        drop(statement);
        Ok(self.db.execute_batch("commit")?)
    }
}

fn insert(statement: &mut Statement<'_>, s: &SpanRow<Cow<'_, str>>) -> rusqlite::Result<usize> {
    statement.execute(params![
        s.trace_id,
        s.span_id,
        s.parent_span_id,
        s.trace_flags,
        s.stage,
        s.scope,
        s.version,
        s.name,
        s.kind,
        s.start_ns,
        s.decided_ns,
        s.end_ns,
        s.stamp,
        s.order_id,
        s.input,
        s.attributes,
        s.status,
        s.links,
        s.events,
        s.children,
        s.topic,
        s.partition_id,
        s.record_offset,
    ])
}

/// What stood twice and is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Rows of stage spans.
    pub rows: u64,
    /// Records that stood later than another with their id.
    pub repeats: u64,
}

const RECORDS_BY_ID: &str = "create unique index records_by_id on records (ce_id, topic)";
const SPANS_BY_ID: &str = "create unique index stage_spans_by_id on stage_spans (trace_id, span_id)";

/// Records behind the first of their id. The first, read twice, is behind itself and not later.
const BEHIND: &str = "
    create temporary table behind as
    select id, topic, partition_id, record_offset, (partition_id, record_offset) <> (first_partition, first_offset) as later
    from (
        select rowid as id, topic, partition_id, record_offset, row_number() over one as place,
            first_value(partition_id) over one as first_partition, first_value(record_offset) over one as first_offset
        from records
        window one as (partition by ce_id, topic order by partition_id, record_offset)
    )
    where place > 1";
const LATER: &str = "
    delete from stage_spans where (topic, partition_id, record_offset) in (
        select topic, partition_id, record_offset from behind where later)";
/// Two events of one answer tell of the same span: the one that stands first by topic, partition and offset says where.
const SPANS_BEHIND: &str = "
    delete from stage_spans where rowid in (
        select id
        from (
            select rowid as id, row_number() over (
                partition by trace_id, span_id order by topic, partition_id, record_offset) as place
            from stage_spans
        )
        where place > 1)";

impl Target {
    /// The file to fill, where that is the way for `records` more; none where rows are better written one by one.
    pub(crate) async fn file_to_fill(&mut self, records: u64, again: bool) -> Result<Option<String>, JourneysError> {
        if !matches!(self, Target::Sqlite(_)) {
            return Ok(None);
        }
        let known: Vec<(i64,)> = self.ask("select count(*) from records", &[], &[]).await?;
        let known = known.first().map_or(0, |(known,)| u64::try_from(*known).unwrap_or(0));
        // What was read already and is read again would stand twice for as long as it is filled.
        let much = records > known && (known == 0 || !again);
        if !much && !self.is_filling().await? {
            return Ok(None);
        }
        let sql = "select file from pragma_database_list where name = 'main'";
        Ok(self.ask::<(String,)>(sql, &[], &[]).await?.pop().map(|(file,)| file))
    }

    /// Whether it is a file without indexes.
    async fn is_filling(&mut self) -> Result<bool, JourneysError> {
        match self {
            Target::Sqlite(_) => {
                let sql = "select 1 from sqlite_master where name = 'stage_spans_by_id'";
                Ok(self.ask::<(i32,)>(sql, &[], &[]).await?.is_empty())
            }
            Target::Postgres(_) => Ok(false),
        }
    }

    /// Ends the filling: what stands twice goes, indexes are made. Nothing where there are some.
    pub(crate) async fn settle(&mut self) -> Result<Settled, JourneysError> {
        if !self.is_filling().await? {
            return Ok(Settled::default());
        }
        self.begin().await?;
        // Another process may have been quicker.
        let filling = self.is_filling().await?;
        let settled = match self {
            Target::Sqlite(db) if filling => settle(db).await?,
            Target::Sqlite(_) | Target::Postgres(_) => Settled::default(),
        };
        self.commit().await?;
        Ok(settled)
    }
}

async fn settle(db: &mut SqliteConnection) -> Result<Settled, sqlx::Error> {
    let mut settled = Settled::default();
    // As much is taken once more for ids to sort, and nothing is looked up.
    run(db, "pragma cache_size = -16384").await?;
    if !index(db, RECORDS_BY_ID).await? {
        run(db, BEHIND).await?;
        let later: i64 = sqlx::query_scalar("select count(*) from behind where later").fetch_one(&mut *db).await?;
        settled.repeats = u64::try_from(later).unwrap_or(0);
        settled.rows = run(db, LATER).await?;
        run(db, "delete from records where rowid in (select id from behind)").await?;
        run(db, "drop table behind").await?;
        run(db, RECORDS_BY_ID).await?;
    }
    if !index(db, SPANS_BY_ID).await? {
        settled.rows += run(db, SPANS_BEHIND).await?;
        run(db, SPANS_BY_ID).await?;
    }
    run(db, "pragma cache_size = -65536").await?;
    Ok(settled)
}

async fn run(db: &mut SqliteConnection, sql: &'static str) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query(sql).execute(db).await?.rows_affected())
}

/// Makes an index, unless two rows have one id: whether it is there.
async fn index(db: &mut SqliteConnection, sql: &'static str) -> Result<bool, sqlx::Error> {
    match run(db, sql).await {
        Ok(_) => Ok(true),
        Err(error) if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
