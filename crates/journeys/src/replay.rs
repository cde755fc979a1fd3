//! The replay: one thread reads and understands records, the caller's task writes what they tell.

use crate::target::{ReadTo, Target};
use crate::topics::{Gone, Span, Topics};
use crate::{JourneysError, Told};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use waybill_spine::{KafkaConfig, Record};

/// Records that are handed over at a time, and how many such batches may wait: what memory holds.
const BATCH: usize = 1_024;
const WAITING: usize = 3;
/// Bytes of a batch after which it is handed over early.
const BYTES: usize = 16 * 1024 * 1024;
/// How long a transaction of the target is open.
const KEEP: Duration = Duration::from_secs(2);
/// Bad records that are listed; all are counted.
const LISTED: usize = 100;

/// What to read.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The cluster, and the deployment's prefix.
    pub kafka: KafkaConfig,
    /// Topics, without prefix.
    pub topics: Vec<String>,
    /// These orders; all if it is empty.
    pub orders: Vec<String>,
    /// Of this time.
    pub span: Span,
    /// From the beginning, though the target knows how far it was read.
    pub again: bool,
}

/// A record that tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// Topic, without prefix.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Why.
    pub why: String,
}

/// What a replay came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Records read.
    pub records: u64,
    /// Records of the orders that were asked for.
    pub told: u64,
    /// Stage spans, with the parts they have, that the target did not know; without a target, all that were told. A
    /// span's children are not counted.
    pub spans: u64,
    /// Records whose id an earlier one has: they do not count.
    pub repeats: u64,
    /// Records that no span travels with.
    pub without_span: u64,
    /// Records that tell nothing.
    pub bad: u64,
    /// The first of them.
    pub bad_listed: Vec<Bad>,
    /// Topics that do not exist, with prefix.
    pub absent: Vec<String>,
    /// Records that cannot be read any more.
    pub gone: Vec<Gone>,
    /// Stamps on waybills whose span no record told, by stage.
    pub missing: BTreeMap<String, u64>,
    /// Whether the topics hold no record at all.
    pub empty: bool,
    /// How long it took.
    pub seconds: f64,
}

/// Some records, understood.
#[derive(Default)]
struct Batch {
    records: u64,
    bytes: usize,
    told: Vec<Told>,
    without_span: u64,
    bad: Vec<Bad>,
    read_to: ReadTo,
}

impl Replay {
    /// Reads, and writes to `target`; without one it only counts. `progress` is told how many records were read, of how many.
    ///
    /// # Errors
    /// The brokers or the target do not answer. What was kept until then is whole, and the next run goes on from there.
    pub async fn run(
        &self,
        mut target: Option<&mut Target>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Summary, JourneysError> {
        let begun = Instant::now();
        // A run over some records says nothing about the others.
        let whole = self.orders.is_empty() && self.span.since.is_none() && self.span.until.is_none();
        let read_to = match &mut target {
            Some(target) if whole && !self.again => target.read_to().await?,
            _ => ReadTo::new(),
        };
        let topics = Topics::open(&self.kafka, &self.topics, &read_to, self.span)?;
        let (total, absent, empty) = (topics.total, topics.absent.clone(), topics.empty);
        let mut summary = Summary { absent, empty, ..Summary::default() };
        let (sender, receiver) = channel(WAITING);
        let orders = self.orders.clone();
        let reader = std::thread::spawn(move || read(topics, &orders, &sender));
        let written = write(receiver, target.as_deref_mut(), whole, &mut summary, |read| progress(read, total)).await;
        let reader = reader.join().map_err(|_| JourneysError::Reader)?;
        written?;
        summary.gone = reader?;
        if let Some(target) = target {
            summary.missing = target.missing().await?;
        }
        summary.seconds = begun.elapsed().as_secs_f64();
        Ok(summary)
    }
}

/// Ends early where nobody takes batches any more: the writer has failed and says so.
fn read(mut topics: Topics, orders: &[String], sender: &Sender<Batch>) -> Result<Vec<Gone>, JourneysError> {
    let mut batch = Batch::default();
    while let Some(record) = topics.read()? {
        batch.take(&record, orders);
        if batch.records as usize >= BATCH || batch.bytes >= BYTES {
            batch.read_to = topics.read_to();
            if sender.blocking_send(std::mem::take(&mut batch)).is_err() {
                return Ok(Vec::new());
            }
        }
    }
    batch.read_to = topics.read_to();
    // Nobody takes it: see above.
    let _ = sender.blocking_send(batch);
    Ok(topics.gone())
}

impl Batch {
    fn take(&mut self, record: &Record, orders: &[String]) {
        self.records += 1;
        self.bytes += record.content.size();
        if !orders.is_empty() && !orders.iter().any(|order| Some(order.as_bytes()) == record.content.key()) {
            return;
        }
        match Told::read(record) {
            Ok(told) => {
                // A letter that goes back never brings one.
                let brings = !told.topic.starts_with("redrive.");
                self.without_span += u64::from(brings && told.spans.is_empty());
                self.told.push(told);
            }
            Err(why) => {
                let (topic, partition, offset) = (record.topic.to_string(), record.partition, record.offset);
                self.bad.push(Bad { topic, partition, offset, why });
            }
        }
    }
}

/// Many batches are one transaction: a page that many rows go to is then written once.
async fn write(
    mut batches: Receiver<Batch>,
    mut target: Option<&mut Target>,
    whole: bool,
    summary: &mut Summary,
    mut progress: impl FnMut(u64),
) -> Result<(), JourneysError> {
    let mut open: Option<(Instant, ReadTo)> = None;
    while let Some(batch) = batches.recv().await {
        summary.add(&batch);
        match &mut target {
            None => summary.spans += batch.told.iter().map(|told| told.spans.len() as u64).sum::<u64>(),
            Some(target) => {
                let since = match &open {
                    Some((since, _)) => *since,
                    None => {
                        target.begin().await?;
                        Instant::now()
                    }
                };
                let written = target.write(batch.told).await?;
                summary.spans += written.rows;
                summary.repeats += written.repeats;
                open = Some((since, batch.read_to));
                if since.elapsed() > KEEP {
                    keep(target, open.take(), whole).await?;
                }
            }
        }
        progress(summary.records);
    }
    if let Some(target) = target {
        keep(target, open, whole).await?;
    }
    Ok(())
}

async fn keep(target: &mut Target, open: Option<(Instant, ReadTo)>, whole: bool) -> Result<(), JourneysError> {
    let Some((_, read_to)) = open else { return Ok(()) };
    if whole {
        target.set_read_to(&read_to).await?;
    }
    target.commit().await
}

impl Summary {
    fn add(&mut self, batch: &Batch) {
        self.records += batch.records;
        self.told += batch.told.len() as u64;
        self.without_span += batch.without_span;
        self.bad += batch.bad.len() as u64;
        let room = LISTED.saturating_sub(self.bad_listed.len());
        self.bad_listed.extend(batch.bad.iter().take(room).cloned());
    }
}

impl Target {
    /// Stamps whose span is not there, by stage. A waybill only grows: where every span has the one before it, none is
    /// missing, and that is asked first.
    async fn missing(&mut self) -> Result<BTreeMap<String, u64>, JourneysError> {
        let last = match self {
            Target::Sqlite(_) => ["s.links ->> '$[#-1].trace_id'", "s.links ->> '$[#-1].span_id'"],
            Target::Postgres(_) => ["s.links -> -1 ->> 'trace_id'", "s.links -> -1 ->> 'span_id'"],
        };
        let [trace_id, span_id] = last;
        let sql = format!(
            "select 1 from stage_spans s where cast(s.links as text) <> '[]' and not exists (
                 select 1 from stage_spans p where p.trace_id = {trace_id} and p.span_id = {span_id}) limit 1"
        );
        if self.ask::<(i32,)>(&sql, &[], &[]).await?.is_empty() {
            return Ok(BTreeMap::new());
        }
        let sql = "select stage, count(*) from (
                       select distinct l.stage, l.linked_trace_id, l.linked_span_id from span_links l
                       where l.type = 'follows_from' and not exists (
                           select 1 from stage_spans s where s.trace_id = l.linked_trace_id and s.span_id = l.linked_span_id)) m
                   group by stage order by stage";
        let rows: Vec<(String, i64)> = self.ask(sql, &[], &[]).await?;
        Ok(rows.into_iter().map(|(stage, count)| (stage, count.try_into().unwrap_or(0))).collect())
    }
}
