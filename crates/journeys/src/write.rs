//! Records and spans in bulk.
//!
//! A new file is filled in another way (`fill.rs`). Else what is new is inserted blindly: a statement a few hundred rows. Only
//! where some record was there already, or stands twice, is asked which one stands earlier.

use crate::row::{COLUMNS, SpanRow};
use crate::target::{ReadTo, Target};
use crate::{JourneysError, Told};
use sqlx::{AssertSqlSafe, PgConnection, SqliteConnection};
use std::collections::HashMap;

/// Rows a statement: a statement costs as much as some dozen rows, and SQLite takes at most 32,766 parameters.
const CHUNK: usize = 256;

/// Where a record stands, and in this order.
type Position = (i32, i64);

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows of stage spans that are new.
    pub rows: u64,
    /// Records that stand later than another with their id.
    pub repeats: u64,
}

impl Target {
    /// Begins a transaction: what follows is kept as a whole, or not at all.
    pub(crate) async fn begin(&mut self) -> Result<(), JourneysError> {
        match self {
            // One that has read already cannot write any more once another process has.
            Target::Sqlite(_) => self.run("begin immediate").await,
            Target::Postgres(_) => self.run("begin").await,
        }
    }

    /// Keeps it.
    pub(crate) async fn commit(&mut self) -> Result<(), JourneysError> {
        self.run("commit").await
    }

    /// Writes what records tell.
    ///
    /// # Errors
    /// The target does not answer.
    pub async fn write(&mut self, mut told: Vec<Told>) -> Result<Written, JourneysError> {
        let mut repeats = 0;
        if self.insert_records(&told).await? < told.len() as u64 {
            let first = self.first(&told).await?;
            let before = told.len();
            told.retain(|t| first.get(&(t.ce_id.clone(), t.topic.clone())) == Some(&(t.partition, t.offset)));
            repeats = (before - told.len()) as u64;
        }
        let spans = told.into_iter().flat_map(|told| told.spans).collect();
        Ok(Written { rows: self.insert_spans(spans).await?, repeats })
    }

    async fn insert_records(&mut self, mut told: &[Told]) -> Result<u64, JourneysError> {
        let mut new = 0;
        while !told.is_empty() {
            let (chunk, rest) = told.split_at(chunk(told.len()));
            new += match self {
                Target::Sqlite(db) => sqlite_records(db, chunk).await?,
                Target::Postgres(db) => postgres_records(db, chunk).await?,
            };
            told = rest;
        }
        Ok(new)
    }

    /// Where the first record of each of these ids stands, of all that were ever read. Those that had been taken for the
    /// first go, with their spans.
    async fn first(&mut self, told: &[Told]) -> Result<HashMap<(String, String), Position>, JourneysError> {
        let mut first = HashMap::new();
        for told in told.chunks(CHUNK) {
            first.extend(self.stored(told).await?);
        }
        let mut later: HashMap<(String, String), Position> = HashMap::new();
        for t in told {
            let (key, position) = ((t.ce_id.clone(), t.topic.clone()), (t.partition, t.offset));
            if let Some(stored) = first.get_mut(&key).filter(|stored| position < **stored) {
                later.entry(key).or_insert(*stored);
                *stored = position;
            }
        }
        for t in told {
            let key = (t.ce_id.clone(), t.topic.clone());
            let is_first = first.get(&key) == Some(&(t.partition, t.offset));
            if let Some((partition, offset)) = later.get(&key).filter(|_| is_first) {
                let sql = "delete from stage_spans where topic = $1 and partition_id = $2 and record_offset = $3";
                self.change(sql, &[&t.topic], &[(*partition).into(), *offset]).await?;
                let sql = "delete from records where topic = $1 and ce_id = $2";
                self.change(sql, &[&t.topic, &t.ce_id], &[]).await?;
                self.insert_records(std::slice::from_ref(t)).await?;
            }
        }
        Ok(first)
    }

    async fn change(&mut self, sql: &'static str, texts: &[&str], numbers: &[i64]) -> Result<(), JourneysError> {
        self.ask::<(i64,)>(sql, texts, numbers).await.map(drop)
    }

    /// Where these records stand by what is kept.
    async fn stored(&mut self, told: &[Told]) -> Result<Vec<((String, String), Position)>, JourneysError> {
        let rows: Vec<(String, String, i32, i64)> = match self {
            Target::Sqlite(db) => {
                let ids = serde_json::Value::from_iter(told.iter().map(|t| serde_json::json!([t.ce_id, t.topic])));
                let sql = "select r.ce_id, r.topic, r.partition_id, r.record_offset from json_each(?1) i
                           cross join records r on r.ce_id = i.value ->> 0 and r.topic = i.value ->> 1";
                sqlx::query_as(sql).bind(ids.to_string()).fetch_all(db).await?
            }
            Target::Postgres(db) => {
                let sql = "select distinct r.ce_id, r.topic, r.partition_id, r.record_offset
                           from unnest($1::text[], $2::text[]) i (ce_id, topic) join records r using (ce_id, topic)";
                let (ids, topics): (Vec<&str>, Vec<&str>) = told.iter().map(|t| (&*t.ce_id, &*t.topic)).unzip();
                sqlx::query_as(sql).bind(ids).bind(topics).fetch_all(db).await?
            }
        };
        Ok(rows.into_iter().map(|(id, topic, partition, offset)| ((id, topic), (partition, offset))).collect())
    }

    async fn insert_spans(&mut self, mut spans: Vec<SpanRow>) -> Result<u64, JourneysError> {
        let mut written = 0;
        while !spans.is_empty() {
            let rest = spans.split_off(chunk(spans.len()));
            written += match self {
                Target::Sqlite(db) => sqlite_spans(db, spans).await?,
                Target::Postgres(db) => postgres_spans(db, &spans).await?,
            };
            spans = rest;
        }
        Ok(written)
    }

    /// Remembers how far partitions were read.
    pub(crate) async fn set_read_to(&mut self, read_to: &ReadTo) -> Result<(), JourneysError> {
        for ((topic, partition), next) in read_to {
            let sql = "insert into read_to (topic, partition_id, next_offset) values ($1, $2, $3)
                       on conflict (topic, partition_id) do update set next_offset = excluded.next_offset";
            self.change(sql, &[topic], &[(*partition).into(), *next]).await?;
        }
        Ok(())
    }
}

/// How many of `rows` go into one statement. A number of rows is a statement of its own to SQLite, prepared and kept: powers
/// of two are few.
fn chunk(rows: usize) -> usize {
    rows.checked_ilog2().map_or(0, |log| CHUNK.min(1 << log))
}

/// `(?, …), (?, …)`.
fn values(columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    vec![row; rows].join(", ")
}

const RECORDS: &str = "insert into records (ce_id, topic, partition_id, record_offset, time_ns, order_id, reason)";

async fn sqlite_records(db: &mut SqliteConnection, told: &[Told]) -> Result<u64, sqlx::Error> {
    let sql = format!("{RECORDS} values {} on conflict do nothing", values(7, told.len()));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for t in told {
        query = query.bind(&t.ce_id).bind(&t.topic).bind(t.partition).bind(t.offset).bind(t.time_ns);
        query = query.bind(&t.order_id).bind(&t.reason);
    }
    Ok(query.execute(db).await?.rows_affected())
}

async fn postgres_records(db: &mut PgConnection, told: &[Told]) -> Result<u64, sqlx::Error> {
    let sql = format!(
        "{RECORDS} select * from unnest($1::text[], $2::text[], $3::int4[], $4::int8[], $5::int8[], $6::text[], $7::text[])
         on conflict do nothing"
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(told.iter().map(|t| &*t.ce_id).collect::<Vec<_>>())
        .bind(told.iter().map(|t| &*t.topic).collect::<Vec<_>>())
        .bind(told.iter().map(|t| t.partition).collect::<Vec<_>>())
        .bind(told.iter().map(|t| t.offset).collect::<Vec<_>>())
        .bind(told.iter().map(|t| t.time_ns).collect::<Vec<_>>())
        .bind(told.iter().map(|t| t.order_id.as_deref()).collect::<Vec<_>>())
        .bind(told.iter().map(|t| t.reason.as_deref()).collect::<Vec<_>>());
    Ok(query.execute(db).await?.rows_affected())
}

/// Two events of one answer tell of the same span: the one that stands first by topic, partition and offset says where.
fn on_conflict() -> String {
    let set = COLUMNS[2..].iter().map(|c| format!("{c} = excluded.{c}")).collect::<Vec<_>>().join(", ");
    format!(
        "on conflict (trace_id, span_id) do update set {set}
         where (excluded.topic, excluded.partition_id, excluded.record_offset)
             < (stage_spans.topic, stage_spans.partition_id, stage_spans.record_offset)"
    )
}

async fn sqlite_spans(db: &mut SqliteConnection, spans: Vec<SpanRow>) -> Result<u64, sqlx::Error> {
    let (columns, values, conflict) = (COLUMNS.join(", "), values(COLUMNS.len(), spans.len()), on_conflict());
    let mut query =
        sqlx::query(AssertSqlSafe(format!("insert into stage_spans ({columns}) values {values} {conflict}")));
    for s in spans {
        query = query.bind(s.trace_id).bind(s.span_id).bind(s.parent_span_id).bind(s.trace_flags).bind(s.stage);
        query = query
            .bind(s.scope)
            .bind(s.version)
            .bind(s.name)
            .bind(s.kind)
            .bind(s.start_ns)
            .bind(s.decided_ns)
            .bind(s.end_ns);
        query = query.bind(s.stamp).bind(s.order_id).bind(s.input).bind(s.attributes).bind(s.status).bind(s.links);
        query = query.bind(s.events).bind(s.children).bind(s.topic).bind(s.partition_id).bind(s.record_offset);
    }
    Ok(query.execute(db).await?.rows_affected())
}

async fn postgres_spans(db: &mut PgConnection, spans: &[SpanRow]) -> Result<u64, sqlx::Error> {
    let (columns, conflict) = (COLUMNS.join(", "), on_conflict());
    // One statement may not change a row twice.
    let sql = format!(
        "insert into stage_spans ({columns})
         select distinct on (c.trace_id, c.span_id) c.trace_id, c.span_id, c.parent_span_id, c.trace_flags, c.stage, c.scope,
             c.version, c.name, c.kind, c.start_ns, c.decided_ns, c.end_ns, c.stamp, c.order_id, c.input::json, c.attributes::json,
             c.status, c.links::json, c.events::json, c.children::json, c.topic, c.partition_id, c.record_offset
         from unnest($1::text[], $2::text[], $3::text[], $4::int8[], $5::text[], $6::text[], $7::text[], $8::text[],
             $9::text[], $10::int8[], $11::int8[], $12::int8[], $13::bool[], $14::text[], $15::text[], $16::text[],
             $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::int4[], $23::int8[]) c ({columns})
         order by c.trace_id, c.span_id, c.topic, c.partition_id, c.record_offset {conflict}"
    );
    let text = |of: fn(&SpanRow) -> &str| spans.iter().map(of).collect::<Vec<_>>();
    let optional = |of: fn(&SpanRow) -> Option<&str>| spans.iter().map(of).collect::<Vec<_>>();
    let number = |of: fn(&SpanRow) -> i64| spans.iter().map(of).collect::<Vec<_>>();
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(text(|s| &s.trace_id))
        .bind(text(|s| &s.span_id))
        .bind(optional(|s| s.parent_span_id.as_deref()))
        .bind(number(|s| s.trace_flags))
        .bind(text(|s| &s.stage))
        .bind(text(|s| &s.scope))
        .bind(text(|s| &s.version))
        .bind(text(|s| &s.name))
        .bind(text(|s| &s.kind))
        .bind(number(|s| s.start_ns))
        .bind(number(|s| s.decided_ns))
        .bind(number(|s| s.end_ns))
        .bind(spans.iter().map(|s| s.stamp).collect::<Vec<_>>())
        .bind(optional(|s| s.order_id.as_deref()))
        .bind(optional(|s| s.input.as_deref()))
        .bind(text(|s| &s.attributes))
        .bind(optional(|s| s.status.as_deref()))
        .bind(text(|s| &s.links))
        .bind(text(|s| &s.events))
        .bind(text(|s| &s.children))
        .bind(text(|s| &s.topic))
        .bind(spans.iter().map(|s| s.partition_id).collect::<Vec<_>>())
        .bind(number(|s| s.record_offset));
    Ok(query.execute(db).await?.rows_affected())
}
