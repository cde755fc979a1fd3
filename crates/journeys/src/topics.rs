//! The order topics, read without a group.

use crate::JourneysError;
use crate::target::ReadTo;
use jiff::Timestamp;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use waybill_spine::{KafkaConfig, Reader, Record, detach, watermarks};

/// The topics that tell of orders, in the order of a journey.
pub const TOPICS: [&str; 18] = [
    "checkout.requested",
    "checkout.rejected",
    "checkout.completed",
    "orders.new",
    "orders.picked",
    "orders.short",
    "orders.packed",
    "orders.shipped",
    "orders.cancel_requested",
    "orders.cancelled",
    "dead.checkout",
    "dead.pick",
    "dead.pack",
    "dead.ship",
    "redrive.checkout",
    "redrive.pick",
    "redrive.pack",
    "redrive.ship",
];

/// How long a cluster may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A silence after which the ends are looked up again.
const SILENCE: Duration = Duration::from_secs(20);

/// A span of time, by the records' own timestamps; open where it is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// From here on.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
}

/// Records that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// Topic, without the deployment's prefix.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// How many: removed by retention or compaction, or with the topic.
    pub records: i64,
}

/// A range of offsets.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The first.
    pub from: i64,
    /// The one behind the last.
    pub to: i64,
}

/// A partition that is being read.
#[derive(Debug)]
struct Open {
    topic: Arc<str>,
    /// The next offset.
    next: i64,
    /// Where reading ends.
    end: i64,
    gone: i64,
}

/// Reads what stands on topics when it is opened, without a group.
pub struct Topics {
    consumer: Reader,
    servers: String,
    open: HashMap<(String, i32), Open>,
    /// Partitions that are not at their end.
    left: usize,
    heard: Instant,
    /// Records to read.
    pub total: u64,
    /// Whether the topics hold any record at all.
    pub empty: bool,
    /// Topics that do not exist.
    pub absent: Vec<String>,
}

impl Topics {
    /// From where `read_to` says, else from the beginning; within `span`.
    ///
    /// # Errors
    /// No broker answers, or none of the topics exists.
    pub fn open(kafka: &KafkaConfig, topics: &[String], read_to: &ReadTo, span: Span) -> Result<Self, JourneysError> {
        let servers = kafka.servers().to_owned();
        let away = |error| JourneysError::away(kafka, error);
        let consumer = consumer(kafka).map_err(away)?;
        let metadata = kafka.metadata(&consumer, ANSWER).map_err(away)?;
        let (mut open, mut absent, mut empty) = (HashMap::new(), Vec::new(), true);
        for name in topics {
            let topic: Arc<str> = Arc::from(name.as_str());
            let full = format!("{}{name}", kafka.prefix);
            let Some(found) = metadata.topics().iter().find(|t| t.name() == full && t.error().is_none()) else {
                absent.push(full);
                continue;
            };
            for partition in found.partitions().iter().map(|p| p.id()) {
                let (low, end) = watermarks(&consumer, &full, partition, ANSWER).map_err(away)?;
                empty &= low == end;
                // A topic that ends before what was read of it was made anew.
                let known = read_to.get(&(name.clone(), partition)).copied().filter(|next| *next <= end);
                let next = known.unwrap_or(0);
                let gone = (low - next).max(0);
                open.insert((full.clone(), partition), Open { topic: topic.clone(), next: next.max(low), end, gone });
            }
        }
        if open.is_empty() {
            return Err(JourneysError::NoTopics(absent.join(", ")));
        }
        within(&consumer, &mut open, span).map_err(away)?;
        let mut topics = Topics::assign(consumer, servers.clone(), open).map_err(away)?;
        (topics.empty, topics.absent) = (empty, absent);
        Ok(topics)
    }

    /// These ranges of partitions, by topic (without the deployment's prefix) and partition.
    ///
    /// # Errors
    /// No broker answers, or a partition does not exist.
    pub fn between(kafka: &KafkaConfig, ranges: &HashMap<(String, i32), Range>) -> Result<Self, JourneysError> {
        let servers = kafka.servers().to_owned();
        let away = |error| JourneysError::away(kafka, error);
        let consumer = consumer(kafka).map_err(away)?;
        let mut open = HashMap::new();
        for ((name, partition), Range { from, to }) in ranges {
            let full = format!("{}{name}", kafka.prefix);
            let (low, end) = watermarks(&consumer, &full, *partition, ANSWER).map_err(away)?;
            let (next, end) = (low.max(*from), end.min(*to));
            let gone = (next.min(*to) - from).max(0);
            open.insert((full, *partition), Open { topic: Arc::from(name.as_str()), next, end, gone });
        }
        Topics::assign(consumer, servers.clone(), open).map_err(away)
    }

    fn assign(consumer: Reader, servers: String, open: HashMap<(String, i32), Open>) -> Result<Self, KafkaError> {
        let mut assignment = TopicPartitionList::new();
        for ((topic, partition), at) in open.iter().filter(|(_, at)| at.next < at.end) {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(at.next))?;
        }
        consumer.assign(&assignment)?;
        let total = open.values().map(|at| u64::try_from(at.end - at.next).unwrap_or(0)).sum();
        let left = assignment.count();
        Ok(Topics {
            consumer,
            servers,
            open,
            left,
            heard: Instant::now(),
            total,
            empty: total == 0,
            absent: Vec::new(),
        })
    }

    /// The next record, if there is one; none at the end.
    ///
    /// # Errors
    /// The brokers stopped answering.
    pub fn read(&mut self) -> Result<Option<Record>, JourneysError> {
        while self.left > 0 {
            let Some(message) = self.consumer.poll(Duration::from_millis(100)) else {
                if self.heard.elapsed() > SILENCE {
                    self.look_again()?;
                }
                continue;
            };
            let message = match message {
                Ok(message) => message,
                // A connection that breaks is made again; a silence after it is looked into.
                Err(_) if self.heard.elapsed() < SILENCE => continue,
                Err(error) => return Err(JourneysError::Kafka(self.servers.clone(), error)),
            };
            self.heard = Instant::now();
            let Some(at) = self.open.get_mut(&(message.topic().to_owned(), message.partition())) else { continue };
            let offset = message.offset();
            if at.next >= at.end {
                continue;
            }
            at.gone += offset.min(at.end) - at.next;
            at.next = (offset + 1).min(at.end);
            self.left -= usize::from(at.next >= at.end);
            if offset < at.end {
                return Ok(Some(detach(&message, at.topic.clone())));
            }
        }
        Ok(None)
    }

    /// Nothing came for a while: what was removed meanwhile will not come.
    fn look_again(&mut self) -> Result<(), JourneysError> {
        for ((topic, partition), at) in self.open.iter_mut().filter(|(_, at)| at.next < at.end) {
            let marks = watermarks(&self.consumer, topic, *partition, ANSWER);
            let (low, _) = marks.map_err(|error| JourneysError::Kafka(self.servers.clone(), error))?;
            // Where the brokers answer and the log has the offset, only compaction explains the silence.
            let gone = if low > at.next { low.min(at.end) } else { at.end } - at.next;
            at.gone += gone;
            at.next += gone;
            self.left -= usize::from(at.next >= at.end);
        }
        self.heard = Instant::now();
        Ok(())
    }

    /// How far each partition was read.
    pub(crate) fn read_to(&self) -> ReadTo {
        self.open.iter().map(|((_, partition), at)| ((at.topic.to_string(), *partition), at.next)).collect()
    }

    /// What could not be read, by topic and partition.
    pub(crate) fn gone(&self) -> Vec<Gone> {
        let gone = self.open.iter().filter(|(_, at)| at.gone > 0);
        let mut gone: Vec<Gone> = gone
            .map(|((_, partition), at)| Gone { topic: at.topic.to_string(), partition: *partition, records: at.gone })
            .collect();
        gone.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        gone
    }
}

/// Narrows what is read to a span of time.
fn within(consumer: &Reader, open: &mut HashMap<(String, i32), Open>, span: Span) -> Result<(), KafkaError> {
    let since = span.since.map(|time| first_at(consumer, open, time)).transpose()?;
    let until = span.until.map(|time| first_at(consumer, open, time)).transpose()?;
    for ((topic, partition), at) in open {
        // None where no record is as late.
        let offset = |times: &TopicPartitionList| {
            let found = times.find_partition(topic, *partition)?.offset();
            if let Offset::Offset(offset) = found { Some(offset) } else { None }
        };
        if let Some(since) = &since {
            // What is before the span is not asked for.
            (at.next, at.gone) = (offset(since).unwrap_or(at.end).max(at.next), 0);
        }
        if let Some(until) = &until {
            at.end = offset(until).unwrap_or(at.end).min(at.end).max(at.next);
        }
    }
    Ok(())
}

/// The first offset of each partition whose record is not before `time`.
fn first_at(
    consumer: &Reader,
    open: &HashMap<(String, i32), Open>,
    time: Timestamp,
) -> Result<TopicPartitionList, KafkaError> {
    let mut times = TopicPartitionList::new();
    for (topic, partition) in open.keys() {
        times.add_partition_offset(topic, *partition, Offset::Offset(time.as_millisecond()))?;
    }
    consumer.offsets_for_times(times, ANSWER)
}

fn consumer(kafka: &KafkaConfig) -> Result<Reader, KafkaError> {
    let mut config = kafka.admin();
    config.set("group.id", kafka.reader_group());
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest").set("fetch.wait.max.ms", "50");
    // Bounds of what waits in memory, over all partitions; with the back-off, since the fetcher stalls for a second otherwise.
    config.set("queued.max.messages.kbytes", "16384").set("fetch.queue.backoff.ms", "10");
    config.set("fetch.message.max.bytes", "262144");
    config.create_with_context(kafka.refusals().clone())
}
