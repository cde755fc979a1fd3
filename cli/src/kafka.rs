//! Reading topics without a group, for commands that look.

use anyhow::Context;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};
use waybill_spine::{KafkaConfig, Reader, Record, detach, watermarks};

/// How long a cluster may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The topics among `names` that the cluster does not have.
///
/// # Errors
/// No broker answers, they turn us away, or we may not see one of the topics.
pub fn missing(kafka: &KafkaConfig, names: &[&str]) -> anyhow::Result<Vec<String>> {
    let consumer = reader(kafka)?;
    let metadata = kafka.metadata(&consumer, ANSWER).map_err(|error| away(kafka, error))?;
    // One whose leader is being elected is there, too.
    let there = |name: &String| metadata.topics().iter().any(|t| t.name() == name);
    let missing: Vec<String> = names.iter().map(|n| format!("{}{n}", kafka.prefix)).filter(|n| !there(n)).collect();
    for name in &missing {
        // What we may not see is left out of the list of all. Asked for by name it is not made: this is a consumer.
        let asked = consumer.fetch_metadata(Some(name), ANSWER).map_err(|error| away(kafka, error))?;
        let code = asked.topics().first().and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
        if code == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
            anyhow::bail!("Kafka refuses: {}", kafka.may_not(&format!("see topic {name}")));
        }
    }
    Ok(missing)
}

/// Ends a command that the cluster turns away at once, with the reason and what to do.
///
/// # Errors
/// As [`missing`].
pub fn let_in(kafka: &KafkaConfig) -> anyhow::Result<()> {
    missing(kafka, &[]).map(drop)
}

/// The error where a question came to nothing.
fn away(kafka: &KafkaConfig, error: KafkaError) -> anyhow::Error {
    match kafka.refused(&error) {
        Some(reason) => anyhow::anyhow!("Kafka refuses: {reason}"),
        None => anyhow::Error::new(error).context(unreachable(kafka)),
    }
}

/// Whether the cluster did not answer; it may, later. One that turned us away did answer.
pub fn is_away(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(KafkaError::MetadataFetch(_)))
}

/// Hands every record that stands on `topics` now and passes `wanted` (by its key) to `take`.
pub fn scan(
    kafka: &KafkaConfig,
    topics: &[&str],
    wanted: impl Fn(Option<&[u8]>) -> bool,
    mut take: impl FnMut(Record),
) -> anyhow::Result<()> {
    let consumer = reader(kafka)?;
    let metadata = kafka.metadata(&consumer, ANSWER).map_err(|error| away(kafka, error))?;
    let mut assignment = TopicPartitionList::new();
    let mut left = 0;
    let mut ends = std::collections::HashMap::new();
    for name in topics {
        let name = format!("{}{name}", kafka.prefix);
        let Some(topic) = metadata.topics().iter().find(|t| t.name() == name && t.error().is_none()) else { continue };
        for partition in topic.partitions().iter().map(|p| p.id()) {
            let (low, high) = watermarks(&consumer, &name, partition, ANSWER).map_err(|error| away(kafka, error))?;
            if high > low {
                assignment.add_partition_offset(&name, partition, Offset::Offset(low))?;
                ends.insert((name.clone(), partition), high);
                left += 1;
            }
        }
    }
    consumer.assign(&assignment)?;
    let mut last = Instant::now();
    while left > 0 {
        anyhow::ensure!(last.elapsed() < ANSWER * 3, "the brokers stopped answering: {}", unreachable(kafka));
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        last = Instant::now();
        if wanted(message.key()) {
            let topic = message.topic().strip_prefix(&kafka.prefix).unwrap_or(message.topic());
            take(detach(&message, topic.into()));
        }
        let end = ends.get(&(message.topic().to_owned(), message.partition())).copied().unwrap_or(0);
        if message.offset() + 1 == end {
            left -= 1;
        }
    }
    Ok(())
}

fn reader(kafka: &KafkaConfig) -> anyhow::Result<Reader> {
    let mut config = kafka.admin();
    config.set("group.id", kafka.reader_group());
    config.set("enable.auto.commit", "false").set("check.crcs", "true").set("fetch.wait.max.ms", "50");
    config.create_with_context(kafka.refusals().clone()).context("kafka.*: librdkafka refuses the settings")
}

/// What to do when no broker answers.
pub fn unreachable(kafka: &KafkaConfig) -> String {
    let servers = kafka.unreachable();
    format!(
        "no Kafka broker answers at {servers} (start one with `docker compose up -d kafka`, or name yours with --brokers)"
    )
}
