//! What stands in a topic, and how far a group has come. These block: a probe may call them, a hot path not.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const LIMIT: Duration = Duration::from_secs(10);

/// No single topic of a test takes longer to read.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// A record as it stands in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rec {
    /// Where it stands: the topic,
    pub topic: String,
    /// the partition,
    pub partition: i32,
    /// the offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since 1970; none in records of old formats.
    pub timestamp_ms: Option<i64>,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The payload's bytes; none in a tombstone.
    pub payload: Option<Vec<u8>>,
    /// In the order of the record; a header without a value has no bytes.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Rec {
    /// The first header of that name, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The payload, as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        let place = || format!("{}[{}]@{}", self.topic, self.partition, self.offset);
        let payload = self.payload.as_deref().with_context(place)?;
        serde_json::from_slice(payload).with_context(place)
    }

    /// The key, where it is text.
    pub fn key_str(&self) -> Option<&str> {
        std::str::from_utf8(self.key.as_deref()?).ok()
    }

    pub(crate) fn new(message: &BorrowedMessage<'_>) -> Self {
        let headers = message
            .headers()
            .map(|headers| headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect());
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }
}

/// All records from the beginning to the end as it is now, partition by partition.
pub fn read_topic(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<Rec>> {
    let consumer = consumer(bootstrap, "waybill-harness")?;
    let mut open = watermarks(&consumer, topic)?;
    open.retain(|part| part.low < part.high);
    let mut assignment = TopicPartitionList::new();
    for part in &open {
        assignment.add_partition_offset(topic, part.partition, Offset::Offset(part.low))?;
    }
    consumer.assign(&assignment).context("cannot assign the partitions")?;

    let deadline = Instant::now() + READ_LIMIT;
    let mut records = Vec::new();
    while !open.is_empty() {
        ensure!(Instant::now() < deadline, "{topic} not read within {READ_LIMIT:?}");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            // The last offsets may hold no record: compacted away, or a transaction's marker.
            Some(Err(KafkaError::PartitionEOF(end))) => open.retain(|part| part.partition != end),
            // A broker has just died, maybe the only one connected to; another one leads its partitions in a moment.
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
            ))) => {}
            Some(Err(error)) => return Err(error).with_context(|| format!("cannot read {topic}")),
            Some(Ok(message)) => {
                let at = message.offset();
                let Some(part) = open.iter().find(|p| p.partition == message.partition()) else {
                    continue;
                };
                if at < part.high {
                    records.push(Rec::new(&message));
                }
                if at + 1 >= part.high {
                    open.retain(|part| part.partition != message.partition());
                }
            }
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

/// The topics whose names begin with `prefix`.
pub fn topics(bootstrap: &str, prefix: &str) -> anyhow::Result<Vec<String>> {
    let consumer = consumer(bootstrap, "waybill-harness")?;
    let metadata = consumer.fetch_metadata(None, LIMIT).context("cannot list the topics")?;
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    // Kafka's own begin with two underscores.
    Ok(names.filter(|name| name.starts_with(prefix) && !name.starts_with("__")).collect())
}

/// How many records a topic holds, by its watermarks: exact where nothing was compacted or transactional.
pub fn count_topic(bootstrap: &str, topic: &str) -> anyhow::Result<i64> {
    let parts = watermarks(&consumer(bootstrap, "waybill-harness")?, topic)?;
    Ok(parts.iter().map(|part| part.high - part.low).sum())
}

/// The offsets a group has committed, by partition; a partition without one is not in the list.
pub fn committed(bootstrap: &str, group: &str, topic: &str) -> anyhow::Result<Vec<(i32, i64)>> {
    let consumer = consumer(bootstrap, group)?;
    let mut asked = TopicPartitionList::new();
    for partition in partitions(&consumer, topic)? {
        asked.add_partition(topic, partition);
    }
    let answer =
        consumer.committed_offsets(asked, LIMIT).with_context(|| format!("cannot ask for the offsets of {group}"))?;
    Ok(answer
        .elements()
        .iter()
        .filter_map(|element| Some((element.partition(), element.offset().to_raw()?)))
        .filter(|(_, offset)| *offset >= 0)
        .collect())
}

struct Watermarks {
    partition: i32,
    low: i64,
    high: i64,
}

fn watermarks(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<Watermarks>> {
    partitions(consumer, topic)?
        .into_iter()
        .map(|partition| {
            let (low, high) = watermarks_of(consumer, topic, partition)
                .with_context(|| format!("no watermarks of {topic}[{partition}]"))?;
            Ok(Watermarks { partition, low, high })
        })
        .collect()
}

/// A partition that is new, or whose leader is moving or has just died, has one in a moment.
fn watermarks_of(consumer: &BaseConsumer, topic: &str, partition: i32) -> KafkaResult<(i64, i64)> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match consumer.fetch_watermarks(topic, partition, LIMIT) {
            Err(_) if Instant::now() < deadline => std::thread::park_timeout(Duration::from_millis(50)),
            answer => return answer,
        }
    }
}

pub(crate) fn partitions(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).with_context(|| format!("no metadata of {topic}"))?;
    let found = metadata.topics().first().context("no metadata")?;
    ensure!(found.error().is_none(), "there is no topic {topic}");
    Ok(found.partitions().iter().map(|part| part.id()).collect())
}

/// It joins no group: the name is only for asking what that group has committed.
pub(crate) fn consumer(bootstrap: &str, group: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        // At the end of a partition the broker would hold the fetch for 500 ms before it says so.
        .set("fetch.wait.max.ms", "10")
        .create()
        .context("cannot make a consumer")
}
