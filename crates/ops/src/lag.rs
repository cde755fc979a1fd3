//! How far each stage is behind.

use crate::OpsError;
use crate::at::{ANSWER, At, first_at, reader};
use crate::letters::chosen;
use jiff::Timestamp;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use serde::Serialize;
use std::collections::HashMap;
use waybill_spine::{KafkaConfig, system_clock, watermarks};
use waybill_topics::Catalogue;

/// What waits for a stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageLag {
    /// The stage.
    pub stage: String,
    /// Its consumer group, with the deployment's prefix.
    pub group: String,
    /// Processes in the group; none where the cluster does not tell.
    pub members: Option<usize>,
    /// Whether the group has committed anything yet. One that has not begins with the first record there is.
    pub committed: bool,
    /// Topics that the stage reads and the cluster does not have, with the deployment's prefix.
    pub missing: Vec<String>,
    /// Partitions that no broker leads, as `topic/partition`: nobody knows what waits there.
    pub leaderless: Vec<String>,
    /// What waits, over all partitions.
    pub records: i64,
    /// How long the oldest of it has waited, in seconds, by the record's own timestamp; none where nothing waits.
    pub age_s: Option<f64>,
    /// Each partition, also those without lag.
    pub partitions: Vec<PartitionLag>,
}

/// What waits of a partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartitionLag {
    /// Topic, without the deployment's prefix.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The offset that the group has committed; none where it has not.
    pub committed: Option<i64>,
    /// The offset behind the last record.
    pub end: i64,
    /// Records that wait.
    pub records: i64,
    /// When the oldest of them was written, by its own timestamp; none where nothing waits, or it did not come in time.
    pub oldest_at: Option<Timestamp>,
    /// How long ago that is, in seconds.
    pub age_s: Option<f64>,
}

/// How far `stages` are behind; all stages if none is named. In the order of `catalogue`.
///
/// # Errors
/// No broker answers, or there is no such stage.
pub fn lag(kafka: &KafkaConfig, catalogue: &Catalogue, stages: &[String]) -> Result<Vec<StageLag>, OpsError> {
    let stages = chosen(catalogue, stages)?;
    let away = |error| OpsError::away(kafka, error);
    let mut lags = ask(kafka, catalogue, &stages).map_err(away)?;
    ages(kafka, &mut lags).map_err(away)?;
    Ok(lags)
}

fn ask(kafka: &KafkaConfig, catalogue: &Catalogue, stages: &[String]) -> Result<Vec<StageLag>, KafkaError> {
    let consumer = reader(kafka, &kafka.reader_group())?;
    let metadata = kafka.metadata(&consumer, ANSWER)?;
    // How many processes there are is good to know, and no reason to tell nothing.
    let groups = consumer.fetch_group_list(None, ANSWER).ok();
    let mut marks = HashMap::new();
    let mut lags = Vec::new();
    for stage in stages {
        let group = format!("{}waybill.{stage}", kafka.prefix);
        let (mut partitions, mut missing, mut leaderless) = (Vec::new(), Vec::new(), Vec::new());
        for topic in catalogue.consumed_by(stage) {
            let full = format!("{}{}", kafka.prefix, topic.name);
            let of_topic = partitions_of(&metadata, &full);
            if of_topic.is_empty() {
                missing.push(full.clone());
            }
            for (partition, led) in of_topic {
                if !led {
                    leaderless.push(format!("{full}/{partition}"));
                    continue;
                }
                let key = (full.clone(), partition);
                if !marks.contains_key(&key) {
                    marks.insert(key.clone(), watermarks(&consumer, &full, partition, ANSWER)?);
                }
                partitions.push((topic.name.clone(), key));
            }
        }
        let committed = committed(kafka, &group, partitions.iter().map(|(_, key)| key))?;
        let partitions: Vec<PartitionLag> = partitions
            .into_iter()
            .map(|(topic, key)| {
                let (low, end) = marks.get(&key).copied().unwrap_or_default();
                let committed = committed.get(&key).copied();
                // What retention has removed does not wait any more.
                let records = (end - committed.unwrap_or(low).max(low)).max(0);
                PartitionLag { topic, partition: key.1, committed, end, records, oldest_at: None, age_s: None }
            })
            .collect();
        let found = groups.as_ref().map(|list| list.groups().iter().find(|g| g.name() == group));
        lags.push(StageLag {
            stage: stage.clone(),
            members: found.map(|found| found.map_or(0, |group| group.members().len())),
            committed: partitions.iter().any(|p| p.committed.is_some()),
            records: partitions.iter().map(|p| p.records).sum(),
            age_s: None,
            group,
            missing,
            leaderless,
            partitions,
        });
    }
    Ok(lags)
}

/// Each with whether somebody leads it.
fn partitions_of(metadata: &Metadata, topic: &str) -> Vec<(i32, bool)> {
    let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
    found.map(|topic| topic.partitions().iter().map(|p| (p.id(), p.leader() >= 0)).collect()).unwrap_or_default()
}

/// What a group has committed, of these partitions.
fn committed<'a>(
    kafka: &KafkaConfig,
    group: &str,
    partitions: impl Iterator<Item = &'a (String, i32)>,
) -> Result<HashMap<(String, i32), i64>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    for (topic, partition) in partitions {
        asked.add_partition(topic, *partition);
    }
    if asked.count() == 0 {
        return Ok(HashMap::new());
    }
    // A client asks for the offsets of its own group only; it does not join it.
    let consumer = reader(kafka, group)?;
    let answer = kafka.committed(&consumer, &asked, ANSWER)?;
    let known = answer.elements().into_iter().filter_map(|element| {
        let offset = element.offset().to_raw().filter(|offset| *offset >= 0)?;
        Some(((element.topic().to_owned(), element.partition()), offset))
    });
    Ok(known.collect())
}

/// The age of the oldest record of each partition: the one that the group is to read next.
fn ages(kafka: &KafkaConfig, lags: &mut [StageLag]) -> Result<(), KafkaError> {
    let mut waiting: Vec<&mut PartitionLag> =
        lags.iter_mut().flat_map(|lag| &mut lag.partitions).filter(|partition| partition.records > 0).collect();
    let positions: Vec<At> =
        waiting.iter().map(|p| (format!("{}{}", kafka.prefix, p.topic), p.partition, p.end - p.records)).collect();
    let found = first_at(kafka, &positions)?;
    let now = system_clock();
    for (partition, record) in waiting.iter_mut().zip(found) {
        partition.oldest_at = record.and_then(|record| Timestamp::from_millisecond(record.timestamp_ms).ok());
        // Clocks differ: what comes from the future has not waited yet.
        partition.age_s = partition.oldest_at.map(|at| now.duration_since(at).as_secs_f64().max(0.0));
    }
    for lag in lags {
        lag.age_s = lag.partitions.iter().filter_map(|p| p.age_s).max_by(f64::total_cmp);
    }
    Ok(())
}
