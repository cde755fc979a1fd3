//! The replay: threads read and understand records, each those of its own partitions.
//!
//! - Into a new file they write as well, one at a time: a record's text goes from the client's buffer into the file and is never
//!   copied in between. What is written to in another way is written by the caller's task, which gets text of its own.
//! - What waits is bounded by count and bytes: the clients' queues, a batch a thread, a few batches between threads and task.

use crate::fill::Filling;
use crate::target::{ReadTo, Target};
use crate::topics::{Found, Gone, Span, TOPICS, Topics};
use crate::{JourneysError, Told};
use rdkafka::message::Message;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use waybill_spine::KafkaConfig;

/// Threads that read, where there are as many cores: as many keep the one that writes busy.
const THREADS: usize = 3;
/// Records that are understood and written at a time, and how many such batches may wait for the task.
const BATCH: usize = 1_024;
const WAITING: usize = 3;
/// Bytes of keys and payloads after which a batch is done; headers weigh as much again.
const BYTES: usize = 4 * 1024 * 1024;
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
    /// Those of the orders that were asked for, and their stage spans.
    told: u64,
    spans: u64,
    without_span: u64,
    bad: Vec<Bad>,
    /// What the task is to write.
    write: Vec<Told>,
    read_to: ReadTo,
}

/// Where goes what records tell.
#[derive(Clone)]
enum Sink {
    /// It is counted.
    Nowhere,
    /// A file that the threads fill.
    File(Arc<Mutex<Filling>>),
    /// The task, which writes.
    Task,
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
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let parts = Topics::parts(&self.kafka, &self.topics, &read_to, self.span, cores.min(THREADS))?;
        let total = parts.iter().map(|part| part.total).sum();
        let (absent, empty) = parts.first().map(|part| (part.absent.clone(), part.empty)).unwrap_or_default();
        let mut summary = Summary { absent, empty, ..Summary::default() };
        let sink = self.sink(target.as_deref_mut(), total, whole).await?;
        let (sender, receiver) = channel(WAITING);
        let threads: Vec<_> = parts.into_iter().map(|part| self.thread(part, &sink, &sender)).collect();
        drop(sender);
        let writing = target.as_deref_mut().filter(|_| matches!(sink, Sink::Task));
        let written = write(receiver, writing, whole, &mut summary, |read| progress(read, total)).await;
        let read: Vec<_> = threads.into_iter().map(|thread| thread.join().map_err(|_| JourneysError::Reader)).collect();
        written?;
        if let Sink::File(file) = sink {
            lock(&file).keep()?;
        }
        for gone in read {
            summary.gone.extend(gone??);
        }
        summary.gone.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        if let Some(target) = target {
            let settled = target.settle().await?;
            summary.spans = summary.spans.saturating_sub(settled.rows);
            summary.repeats += settled.repeats;
            if !(whole && self.is_all() && read_to.is_empty() && summary.is_unbroken()) {
                summary.missing = target.missing().await?;
            }
        }
        summary.seconds = begun.elapsed().as_secs_f64();
        Ok(summary)
    }

    /// Whether it reads every topic that tells of orders.
    fn is_all(&self) -> bool {
        TOPICS.iter().all(|topic| self.topics.iter().any(|asked| asked == topic))
    }

    async fn sink(&self, target: Option<&mut Target>, total: u64, whole: bool) -> Result<Sink, JourneysError> {
        let Some(target) = target else { return Ok(Sink::Nowhere) };
        Ok(match target.file_to_fill(total, self.again).await? {
            Some(file) => Sink::File(Arc::new(Mutex::new(Filling::open(&file, whole)?))),
            None => Sink::Task,
        })
    }

    fn thread(
        &self,
        part: Topics,
        sink: &Sink,
        sender: &Sender<Batch>,
    ) -> JoinHandle<Result<Vec<Gone>, JourneysError>> {
        let (orders, sink, sender) = (self.orders.clone(), sink.clone(), sender.clone());
        thread::spawn(move || read(part, &orders, &sink, &sender))
    }
}

/// Ends early where nobody takes batches any more: the task has failed and says so.
fn read(mut part: Topics, orders: &[String], sink: &Sink, sender: &Sender<Batch>) -> Result<Vec<Gone>, JourneysError> {
    let (consumer, places) = part.split();
    let mut ended = false;
    while !ended {
        let (mut messages, mut bytes) = (Vec::with_capacity(BATCH), 0);
        while messages.len() < BATCH && bytes < BYTES && !ended {
            match places.next(consumer)? {
                Some(found) => {
                    bytes += found.message.key_len() + found.message.payload_len();
                    messages.push(found);
                }
                None => ended = true,
            }
        }
        let (mut batch, told) = Batch::of(&messages, orders);
        match sink {
            Sink::Nowhere => (),
            Sink::File(file) => lock(file).write(&told, places.read_to())?,
            Sink::Task => {
                batch.write = told.into_iter().map(Told::into_owned).collect();
                batch.read_to = places.read_to();
            }
        }
        if sender.blocking_send(batch).is_err() {
            return Ok(Vec::new());
        }
    }
    Ok(places.gone().collect())
}

fn lock(file: &Mutex<Filling>) -> MutexGuard<'_, Filling> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Batch {
    fn of<'a>(messages: &'a [Found<'_>], orders: &[String]) -> (Self, Vec<Told<Cow<'a, str>>>) {
        let (mut batch, mut told) = (Batch::default(), Vec::with_capacity(messages.len()));
        for Found { message, topic } in messages {
            batch.records += 1;
            if !orders.is_empty() && !orders.iter().any(|order| Some(order.as_bytes()) == message.key()) {
                continue;
            }
            match Told::of(message, topic) {
                Ok(one) => {
                    batch.told += 1;
                    batch.spans += one.spans.len() as u64;
                    // A letter that goes back never brings one.
                    batch.without_span += u64::from(one.spans.is_empty() && !topic.starts_with("redrive."));
                    told.push(one);
                }
                Err(why) => {
                    let (topic, partition, offset) = (topic.to_string(), message.partition(), message.offset());
                    batch.bad.push(Bad { topic, partition, offset, why });
                }
            }
        }
        (batch, told)
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
            None => summary.spans += batch.spans,
            Some(target) => {
                let (since, mut read_to) = match open.take() {
                    Some(open) => open,
                    None => {
                        target.begin().await?;
                        (Instant::now(), ReadTo::new())
                    }
                };
                let written = target.write(batch.write).await?;
                summary.spans += written.rows;
                summary.repeats += written.repeats;
                read_to.extend(batch.read_to);
                open = Some((since, read_to));
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
    /// Whether every record that there ever was told its spans. Where all were read, no span that others link to is missing.
    fn is_unbroken(&self) -> bool {
        self.gone.is_empty() && self.bad == 0 && self.without_span == 0
    }

    fn add(&mut self, batch: &Batch) {
        self.records += batch.records;
        self.told += batch.told;
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
