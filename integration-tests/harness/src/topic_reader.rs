//! A topic read on and on, up to offsets that somebody else says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::reader::{Rec, consumer, partitions};

const LIMIT: Duration = Duration::from_secs(30);

/// Reads all partitions of a topic without a group, and keeps what was read until it is accepted.
pub struct TopicReader {
    consumer: BaseConsumer,
    /// Next offset of each partition.
    position: BTreeMap<i32, i64>,
    held: Vec<Rec>,
    /// What the last [`TopicReader::read_to`] showed.
    shown: BTreeMap<i32, i64>,
}

impl TopicReader {
    /// From the first record.
    pub fn from_beginning(bootstrap: &str, topic: &str) -> anyhow::Result<Self> {
        let consumer = consumer(bootstrap, "waybill-harness")?;
        let mut assignment = TopicPartitionList::new();
        let mut position = BTreeMap::new();
        for partition in partitions(&consumer, topic)? {
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
            position.insert(partition, 0);
        }
        consumer.assign(&assignment).context("cannot assign the partitions")?;
        Ok(Self { consumer, position, held: Vec::new(), shown: BTreeMap::new() })
    }

    /// The records below these offsets (by partition) that are not accepted yet; waits until they are there.
    pub fn read_to(&mut self, offsets: &[(i32, i64)]) -> anyhow::Result<Vec<&Rec>> {
        let deadline = Instant::now() + LIMIT;
        let mut last = None;
        while offsets.iter().any(|(partition, offset)| self.position.get(partition).is_some_and(|p| p < offset)) {
            let at = &self.position;
            ensure!(Instant::now() < deadline, "the records below {offsets:?} do not come; at {at:?}, told {last:?}");
            match self.consumer.poll(Duration::from_millis(100)) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                // Also of a connection that broke before this call: librdkafka connects again by itself.
                Some(Err(error)) => last = Some(error),
                Some(Ok(message)) => {
                    self.position.insert(message.partition(), message.offset() + 1);
                    self.held.push(Rec::new(&message));
                }
            }
        }
        self.shown = offsets.iter().copied().collect();
        Ok(self.held.iter().filter(|r| below(r, &self.shown)).collect())
    }

    /// What the last [`TopicReader::read_to`] showed is not shown again.
    pub fn accept(&mut self) {
        let shown = std::mem::take(&mut self.shown);
        self.held.retain(|record| !below(record, &shown));
    }
}

fn below(record: &Rec, offsets: &BTreeMap<i32, i64>) -> bool {
    offsets.get(&record.partition).is_some_and(|offset| record.offset < *offset)
}
