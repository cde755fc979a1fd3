//! Letters on their way back, or put aside.

use crate::OpsError;
use crate::at::{ANSWER, reader};
use crate::letters::{DROPPED, Letter, Position};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use waybill_journeys::{Range, Topics};
use waybill_spine::{BrokerError, Content, DeadLetter, KafkaConfig, KafkaSink, Message, Record, Sink, redrive_topic};

/// Letters handed over at a time, and bytes after which a batch is handed over early.
const BATCH: (usize, usize) = (500, 4 << 20);
/// How long the brokers may take for a batch.
const ACKNOWLEDGE: Duration = Duration::from_secs(30);

/// What became of letters that were to be moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// They stand on the other topic, on all in-sync replicas.
    pub letters: u64,
    /// They are not there any more, or are no letters.
    pub gone: u64,
}

/// Sends `letters` back to their stages, each record as it was, those of a key in the order of the letters. Effects happen
/// once even where a letter goes twice. `by` says who does it; `progress` is told how many are done.
///
/// # Errors
/// The brokers do not answer; what went until then, went.
pub fn redrive(
    kafka: &KafkaConfig,
    letters: &[Letter],
    by: &str,
    progress: impl FnMut(u64),
) -> Result<Moved, OpsError> {
    // The topic says whose letter it is, whatever stands in its headers.
    let to = |position: &Position| redrive_topic(position.topic.trim_start_matches("dead."));
    each_moved(kafka, letters, progress, to, |record| {
        let mut content = DeadLetter::redriven(&record.content).ok()?;
        content.push_text("redriven_by", by);
        Some(content)
    })
}

/// Marks `letters` as not to be redriven, with who says so and why. They stay where they stand.
///
/// # Errors
/// The brokers do not answer; what is marked until then, is marked.
pub fn drop_letters(
    kafka: &KafkaConfig,
    letters: &[Letter],
    (by, why): (&str, &str),
    progress: impl FnMut(u64),
) -> Result<Moved, OpsError> {
    let to = |_: &Position| DROPPED.to_owned();
    each_moved(kafka, letters, progress, to, |record| {
        let headers = DeadLetter::redriven(&record.content).ok()?;
        // The payload stands on the dead letter's topic.
        let mut content = Content::new(record.content.key(), None);
        headers.headers().for_each(|(name, value)| content.push(name, value));
        content.push_text("dropped_by", by);
        content.push_text("dropped_why", why);
        Some(content)
    })
}

fn each_moved(
    kafka: &KafkaConfig,
    letters: &[Letter],
    mut progress: impl FnMut(u64),
    to: impl Fn(&Position) -> String,
    content: impl Fn(&Record) -> Option<Content>,
) -> Result<Moved, OpsError> {
    let wanted: HashMap<&Position, String> = letters.iter().map(|l| (&l.position, to(&l.position))).collect();
    exist(kafka, wanted.values())?;
    let mut ranges: HashMap<(String, i32), Range> = HashMap::new();
    for Position { topic, partition, offset } in wanted.keys() {
        let range = ranges.entry((topic.clone(), *partition)).or_insert(Range { from: *offset, to: *offset + 1 });
        *range = Range { from: range.from.min(*offset), to: range.to.max(*offset + 1) };
    }
    let mut moved = Moved::default();
    if ranges.is_empty() {
        return Ok(moved);
    }
    let mut topics = Topics::between(kafka, &ranges)?;
    let failed = |done| move |source| OpsError::Write { done, all: letters.len() as u64, source };
    let mut sink = KafkaSink::connect(kafka, "redrive").map_err(failed(0))?;
    // Within a partition, and so within a key, records come in their order.
    let (mut batch, mut bytes) = (Vec::new(), 0);
    loop {
        let record = topics.read()?;
        let end = record.is_none();
        let found = record.and_then(|record| {
            let position =
                Position { topic: record.topic.to_string(), partition: record.partition, offset: record.offset };
            let topic = wanted.get(&position)?.clone().into();
            Some(Message { topic, content: content(&record)? })
        });
        if let Some(found) = found {
            bytes += found.content.size();
            batch.push(found);
        }
        if batch.len() >= BATCH.0 || bytes >= BATCH.1 || (end && !batch.is_empty()) {
            publish(&mut sink, &batch).map_err(failed(moved.letters))?;
            moved.letters += batch.len() as u64;
            progress(moved.letters);
            (batch, bytes) = (Vec::new(), 0);
        }
        if end {
            moved.gone = letters.len() as u64 - moved.letters;
            return Ok(moved);
        }
    }
}

/// Whether the cluster has these topics: a record for one that it has not would wait for ever.
fn exist<'a>(kafka: &KafkaConfig, mut topics: impl Iterator<Item = &'a String>) -> Result<(), OpsError> {
    let ask = || kafka.metadata(&reader(kafka, &kafka.reader_group())?, ANSWER);
    let metadata = ask().map_err(|error| OpsError::away(kafka, error))?;
    let missing = |topic: &&String| {
        let full = format!("{}{topic}", kafka.prefix);
        !metadata.topics().iter().any(|t| t.name() == full)
    };
    match topics.find(missing) {
        Some(topic) => Err(OpsError::NoTopic(format!("{}{topic}", kafka.prefix))),
        None => Ok(()),
    }
}

/// Returns once all in-sync replicas have the batch.
fn publish(sink: &mut KafkaSink, batch: &[Message]) -> Result<(), BrokerError> {
    sink.send(batch);
    let until = Instant::now() + ACKNOWLEDGE;
    loop {
        match sink.wait(Duration::from_millis(100))? {
            Some(failed) if failed.indexes.is_empty() => return Ok(()),
            Some(failed) => return Err(BrokerError::Fatal(failed.error)),
            None if Instant::now() < until => {}
            None => return Err(BrokerError::Fatal("the brokers do not acknowledge".to_owned())),
        }
    }
}
