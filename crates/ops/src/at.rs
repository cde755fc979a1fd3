//! The record at a position.

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use waybill_spine::{KafkaConfig, Reader, Record, detach};

/// How long a cluster may take to answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// How long the records of one round may take to come.
const COME: Duration = Duration::from_secs(5);

/// A topic with its prefix, a partition, an offset.
pub(crate) type At = (String, i32, i64);

/// A reader; with the name of a group it can also be asked how far that has come. It never joins one.
pub(crate) fn reader(kafka: &KafkaConfig, group: &str) -> Result<Reader, KafkaError> {
    let mut config = kafka.admin();
    config.set("group.id", group).set("enable.auto.commit", "false").set("fetch.wait.max.ms", "50");
    // One record is wanted of each partition; one may be larger all the same.
    config.set("fetch.message.max.bytes", "65536").set("queued.max.messages.kbytes", "4096");
    config.set("fetch.queue.backoff.ms", "10");
    config.create_with_context(kafka.refusals().clone())
}

/// The first record at or behind each position, in their order; none where it does not come in time.
pub(crate) fn first_at(kafka: &KafkaConfig, positions: &[At]) -> Result<Vec<Option<Record>>, KafkaError> {
    let consumer = reader(kafka, &kafka.reader_group())?;
    let mut found: Vec<Option<Record>> = vec![None; positions.len()];
    let mut left: Vec<usize> = (0..positions.len()).collect();
    while !left.is_empty() {
        let until = Instant::now() + COME;
        // A consumer is at one offset of a partition at a time: of two, the other has the next round.
        let mut round: HashMap<(String, i32), usize> = HashMap::new();
        left.retain(|index| {
            let (topic, partition, _) = &positions[*index];
            let taken = round.contains_key(&(topic.clone(), *partition));
            if !taken {
                round.insert((topic.clone(), *partition), *index);
            }
            taken
        });
        let mut assignment = TopicPartitionList::new();
        for index in round.values() {
            let (topic, partition, offset) = &positions[*index];
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&assignment)?;
        while !round.is_empty() && Instant::now() < until {
            // A connection that breaks is made again.
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
            if let Some(index) = round.remove(&(message.topic().to_owned(), message.partition())) {
                let topic = message.topic().strip_prefix(&kafka.prefix).unwrap_or(message.topic());
                found[index] = Some(detach(&message, topic.into()));
                let mut enough = TopicPartitionList::new();
                enough.add_partition(message.topic(), message.partition());
                consumer.pause(&enough)?;
            }
        }
        // A pause outlives the assignment.
        consumer.resume(&assignment)?;
    }
    Ok(found)
}
