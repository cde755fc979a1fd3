//! The order topics, read without a group.

use crate::JourneysError;
use crate::target::ReadTo;
use jiff::Timestamp;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
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
    /// With the deployment's prefix, and without.
    full: String,
    topic: Arc<str>,
    partition: i32,
    /// The next offset.
    next: i64,
    /// Where reading ends.
    end: i64,
    gone: i64,
}

/// Partitions that are being read, and how far.
pub(crate) struct Places {
    servers: String,
    open: Vec<Open>,
    /// The one that the last record was of: the next one mostly is, too.
    last: usize,
    /// Partitions that are not at their end.
    left: usize,
    heard: Instant,
}

/// A message where the client has it, for as long as it is needed.
pub(crate) struct Found<'a> {
    pub message: BorrowedMessage<'a>,
    /// Without the deployment's prefix.
    pub topic: Arc<str>,
}

/// Reads what stands on topics when it is opened, without a group.
pub struct Topics {
    consumer: Reader,
    places: Places,
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
        let (consumer, open, about) = found(kafka, topics, read_to, span)?;
        let topics = Topics::assign(consumer, kafka, open).map_err(|error| JourneysError::away(kafka, error))?;
        Ok(Topics { empty: about.empty, absent: about.absent, ..topics })
    }

    /// The same in at most `most` parts, each with some of the partitions and a client of its own: to be read side by side.
    ///
    /// # Errors
    /// As [`Topics::open`].
    pub(crate) fn parts(
        kafka: &KafkaConfig,
        topics: &[String],
        read_to: &ReadTo,
        span: Span,
        most: usize,
    ) -> Result<Vec<Self>, JourneysError> {
        let (consumer, mut open, about) = found(kafka, topics, read_to, span)?;
        let mut parts: Vec<Vec<Open>> = (0..most.clamp(1, open.len())).map(|_| Vec::new()).collect();
        // The largest first, each to the part that has least.
        open.sort_by_key(|at| at.next - at.end);
        for at in open {
            if let Some(least) = parts.iter_mut().min_by_key(|part| part.iter().map(|at| at.end - at.next).sum::<i64>())
            {
                least.push(at);
            }
        }
        let away = |error| JourneysError::away(kafka, error);
        let mut consumers = vec![consumer];
        for _ in 1..parts.len() {
            consumers.push(self::consumer(kafka).map_err(away)?);
        }
        let parts = consumers.into_iter().zip(parts).map(|(consumer, open)| {
            let part = Topics::assign(consumer, kafka, open).map_err(away)?;
            Ok(Topics { empty: about.empty, absent: about.absent.clone(), ..part })
        });
        parts.collect()
    }

    /// These ranges of partitions, by topic (without the deployment's prefix) and partition.
    ///
    /// # Errors
    /// No broker answers, or a partition does not exist.
    pub fn between(kafka: &KafkaConfig, ranges: &HashMap<(String, i32), Range>) -> Result<Self, JourneysError> {
        let away = |error| JourneysError::away(kafka, error);
        let consumer = consumer(kafka).map_err(away)?;
        let mut open = Vec::new();
        for ((name, partition), Range { from, to }) in ranges {
            let (full, partition) = (format!("{}{name}", kafka.prefix), *partition);
            let (low, end) = watermarks(&consumer, &full, partition, ANSWER).map_err(away)?;
            let (next, end) = (low.max(*from), end.min(*to));
            let gone = (next.min(*to) - from).max(0);
            open.push(Open { full, topic: Arc::from(name.as_str()), partition, next, end, gone });
        }
        Topics::assign(consumer, kafka, open).map_err(away)
    }

    fn assign(consumer: Reader, kafka: &KafkaConfig, open: Vec<Open>) -> Result<Self, KafkaError> {
        let mut assignment = TopicPartitionList::new();
        for at in open.iter().filter(|at| at.next < at.end) {
            assignment.add_partition_offset(&at.full, at.partition, Offset::Offset(at.next))?;
        }
        consumer.assign(&assignment)?;
        let total = open.iter().map(|at| u64::try_from(at.end - at.next).unwrap_or(0)).sum();
        let (servers, left) = (kafka.servers().to_owned(), assignment.count());
        let places = Places { servers, open, last: 0, left, heard: Instant::now() };
        Ok(Topics { consumer, places, total, empty: total == 0, absent: Vec::new() })
    }

    /// The next record, if there is one; none at the end.
    ///
    /// # Errors
    /// The brokers stopped answering.
    pub fn read(&mut self) -> Result<Option<Record>, JourneysError> {
        let found = self.places.next(&self.consumer)?;
        Ok(found.map(|Found { message, topic }| detach(&message, topic)))
    }

    /// For who holds several messages at a time.
    pub(crate) fn split(&mut self) -> (&Reader, &mut Places) {
        (&self.consumer, &mut self.places)
    }
}

impl Places {
    /// The next message, if there is one; none at the end.
    pub(crate) fn next<'a>(&mut self, consumer: &'a Reader) -> Result<Option<Found<'a>>, JourneysError> {
        while self.left > 0 {
            let Some(message) = consumer.poll(Duration::from_millis(100)) else {
                if self.heard.elapsed() > SILENCE {
                    self.look_again(consumer)?;
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
            let (topic, partition) = (message.topic(), message.partition());
            let is_of = |at: &Open| at.partition == partition && at.full == topic;
            if !self.open.get(self.last).is_some_and(is_of) {
                let Some(place) = self.open.iter().position(is_of) else { continue };
                self.last = place;
            }
            let Some(at) = self.open.get_mut(self.last) else { continue };
            let offset = message.offset();
            if at.next >= at.end {
                continue;
            }
            at.gone += offset.min(at.end) - at.next;
            at.next = (offset + 1).min(at.end);
            self.left -= usize::from(at.next >= at.end);
            if offset < at.end {
                return Ok(Some(Found { topic: at.topic.clone(), message }));
            }
        }
        Ok(None)
    }

    /// Nothing came for a while: what was removed meanwhile will not come.
    fn look_again(&mut self, consumer: &Reader) -> Result<(), JourneysError> {
        for at in self.open.iter_mut().filter(|at| at.next < at.end) {
            let marks = watermarks(consumer, &at.full, at.partition, ANSWER);
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
        self.open.iter().map(|at| ((at.topic.to_string(), at.partition), at.next)).collect()
    }

    /// What could not be read.
    pub(crate) fn gone(&self) -> impl Iterator<Item = Gone> {
        let gone = self.open.iter().filter(|at| at.gone > 0);
        gone.map(|at| Gone { topic: at.topic.to_string(), partition: at.partition, records: at.gone })
    }
}

/// What is known of topics before they are read.
struct About {
    absent: Vec<String>,
    empty: bool,
}

fn found(
    kafka: &KafkaConfig,
    topics: &[String],
    read_to: &ReadTo,
    span: Span,
) -> Result<(Reader, Vec<Open>, About), JourneysError> {
    let away = |error| JourneysError::away(kafka, error);
    let consumer = consumer(kafka).map_err(away)?;
    let metadata = kafka.metadata(&consumer, ANSWER).map_err(away)?;
    let (mut open, mut absent, mut empty) = (Vec::new(), Vec::new(), true);
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
            let (gone, next) = ((low - next).max(0), next.max(low));
            open.push(Open { full: full.clone(), topic: topic.clone(), partition, next, end, gone });
        }
    }
    if open.is_empty() {
        return Err(JourneysError::NoTopics(absent.join(", ")));
    }
    within(&consumer, &mut open, span).map_err(away)?;
    Ok((consumer, open, About { absent, empty }))
}

/// Narrows what is read to a span of time.
fn within(consumer: &Reader, open: &mut [Open], span: Span) -> Result<(), KafkaError> {
    let since = span.since.map(|time| first_at(consumer, open, time)).transpose()?;
    let until = span.until.map(|time| first_at(consumer, open, time)).transpose()?;
    for at in open {
        // None where no record is as late.
        let (full, partition) = (at.full.as_str(), at.partition);
        let offset = |times: &TopicPartitionList| {
            let found = times.find_partition(full, partition)?.offset();
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
fn first_at(consumer: &Reader, open: &[Open], time: Timestamp) -> Result<TopicPartitionList, KafkaError> {
    let mut times = TopicPartitionList::new();
    for at in open {
        times.add_partition_offset(&at.full, at.partition, Offset::Offset(time.as_millisecond()))?;
    }
    consumer.offsets_for_times(times, ANSWER)
}

fn consumer(kafka: &KafkaConfig) -> Result<Reader, KafkaError> {
    let mut config = kafka.admin();
    config.set("group.id", kafka.reader_group());
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest").set("fetch.wait.max.ms", "50");
    // Bounds of what waits in memory, over all partitions; with the back-off, since the fetcher stalls for a second otherwise.
    // An answer may be over them by what the brokers send of each partition, which takes several times as much unpacked.
    config.set("queued.max.messages.kbytes", "2048").set("fetch.queue.backoff.ms", "10");
    config.set("fetch.message.max.bytes", "65536");
    config.create_with_context(kafka.refusals().clone())
}
