//! A member of a consumer group.

use super::{CONSUMER, KafkaConfig, Refusals, fatal, lock, log};
use crate::broker::{BrokerError, Lags, Limits, Source};
use crate::failpoint::Failpoint;
use crate::record::{Content, Record};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What librdkafka's callbacks tell the loop.
#[derive(Default)]
struct Member {
    stage: String,
    owned: Mutex<BTreeSet<(String, i32)>>,
    /// The assignment changed since partitions were last paused or resumed.
    changed: AtomicBool,
    lags: Lags,
    refusals: Refusals,
}

impl ClientContext for Member {
    fn stats_raw(&self, json: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Stats {
            topics: BTreeMap<String, Topic>,
        }
        #[derive(serde::Deserialize)]
        struct Topic {
            partitions: BTreeMap<String, Partition>,
        }
        #[derive(serde::Deserialize)]
        struct Partition {
            partition: i32,
            consumer_lag_stored: i64,
        }
        let Ok(stats) = serde_json::from_slice::<Stats>(json) else { return };
        let owned = lock(&self.owned);
        let mut lags = lock(&self.lags);
        lags.clear();
        for (topic, t) in stats.topics {
            for p in t.partitions.into_values() {
                if p.consumer_lag_stored >= 0 && owned.contains(&(topic.clone(), p.partition)) {
                    lags.push((topic.clone(), p.partition, p.consumer_lag_stored));
                }
            }
        }
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.refusals.warn(&error, reason);
    }
}

impl ConsumerContext for Member {
    /// librdkafka keeps a pause beyond the assignment: a partition that came back would never be read again.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance
            && let Err(error) = consumer.resume(list)
        {
            tracing::warn!(%error, "partitions that are taken away stay paused");
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        Failpoint::DuringRebalance.pass();
        let mut owned = lock(&self.owned);
        let pairs = |list: &TopicPartitionList| {
            list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect::<Vec<_>>()
        };
        match rebalance {
            Rebalance::Assign(list) => {
                owned.extend(pairs(list));
                self.refusals.over();
            }
            Rebalance::Revoke(list) => {
                for pair in pairs(list) {
                    owned.remove(&pair);
                }
                lock(&self.lags).retain(|(topic, partition, _)| owned.contains(&(topic.clone(), *partition)));
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance"),
        }
        self.changed.store(true, Relaxed);
        tracing::info!(stage = self.stage, partitions = owned.len(), "assignment changed");
    }

    fn commit_callback(&self, result: Result<(), KafkaError>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets not committed; the records come again");
        }
    }
}

/// A record of its own, for as long as it is needed; `topic` is without the deployment's prefix.
#[must_use]
pub fn detach(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Record {
    let mut content = Content::new(message.key(), message.payload());
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        content.push(header.key, header.value);
    }
    Record {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        content,
    }
}

/// A member of a stage's consumer group.
pub struct KafkaSource {
    consumer: BaseConsumer<Member>,
    prefix: String,
    topics: Vec<Arc<str>>,
    /// Records that arrived while nothing was to be taken.
    held: VecDeque<Record>,
    paused: bool,
}

impl KafkaSource {
    /// Joins the group `waybill.<stage>` on `topics`.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn join(config: &KafkaConfig, stage: &str, topics: &[&str]) -> Result<Self, BrokerError> {
        let mut client = config.client(&CONSUMER, stage);
        client.set("group.id", format!("{}waybill.{stage}", config.prefix));
        let member = Member { stage: stage.to_owned(), refusals: config.refusals().clone(), ..Member::default() };
        let consumer: BaseConsumer<Member> = client.create_with_context(member).map_err(fatal)?;
        let names: Vec<String> = topics.iter().map(|t| format!("{}{t}", config.prefix)).collect();
        consumer.subscribe(&names.iter().map(String::as_str).collect::<Vec<_>>()).map_err(fatal)?;
        Ok(KafkaSource {
            consumer,
            prefix: config.prefix.clone(),
            topics: topics.iter().map(|t| Arc::from(*t)).collect(),
            held: VecDeque::new(),
            paused: false,
        })
    }

    fn detach(&self, message: &BorrowedMessage<'_>) -> Record {
        let name = message.topic().strip_prefix(self.prefix.as_str()).unwrap_or(message.topic());
        // The names of a source's topics are shared, not copied with each record.
        let topic = self.topics.iter().find(|t| &***t == name).cloned().unwrap_or_else(|| name.into());
        detach(message, topic)
    }

    /// One record, if one comes within `wait`.
    fn next(&self, wait: Duration) -> Result<Option<Record>, BrokerError> {
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(self.detach(&message))),
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => Err(fatal(format!("fatal: {code}"))),
            // Everything else mends itself: librdkafka goes on trying.
            Some(Err(error)) => {
                tracing::debug!(%error, "kafka");
                Ok(None)
            }
        }
    }

    fn set_paused(&mut self, paused: bool) -> Result<(), BrokerError> {
        let changed = self.consumer.context().changed.swap(false, Relaxed);
        if paused == self.paused && !(changed && paused) {
            return Ok(());
        }
        let assignment = self.consumer.assignment().map_err(fatal)?;
        let result = if paused { self.consumer.pause(&assignment) } else { self.consumer.resume(&assignment) };
        self.paused = paused;
        result.map_err(fatal)
    }
}

impl Source for KafkaSource {
    fn poll(&mut self, limits: Limits, wait: Duration, batch: &mut Vec<Record>) -> Result<(), BrokerError> {
        self.set_paused(false)?;
        let mut bytes = 0;
        let mut wait = wait;
        while batch.len() < limits.records && bytes < limits.bytes {
            let record = match self.held.pop_front() {
                Some(record) => record,
                None => match self.next(wait)? {
                    Some(record) => record,
                    None => break,
                },
            };
            bytes += record.content.size();
            batch.push(record);
            // The first may be waited for; a lone record is never held back to fill a batch.
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn idle(&mut self, wait: Duration) -> Result<(), BrokerError> {
        let until = Instant::now() + wait;
        loop {
            self.set_paused(true)?;
            // Pausing takes effect a moment later, and a rebalance may bring partitions that are not paused yet.
            let left = until.saturating_duration_since(Instant::now());
            if let Some(record) = self.next(left)? {
                self.held.push_back(record);
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    fn done(&mut self, next: &[(Arc<str>, i32, i64)]) -> Result<(), BrokerError> {
        let owned = lock(&self.consumer.context().owned);
        let mut list = TopicPartitionList::with_capacity(next.len());
        for (topic, partition, offset) in next {
            let topic = format!("{}{topic}", self.prefix);
            if owned.contains(&(topic.clone(), *partition)) {
                list.add_partition_offset(&topic, *partition, Offset::Offset(*offset)).map_err(fatal)?;
            }
        }
        drop(owned);
        if list.count() > 0
            && let Err(error) = self.consumer.store_offsets(&list)
        {
            // The partition has just gone to another member, which will repeat the answers.
            tracing::debug!(%error, "offsets not stored");
        }
        Ok(())
    }

    fn assigned(&self) -> bool {
        !lock(&self.consumer.context().owned).is_empty()
    }

    fn lags(&self) -> Lags {
        self.consumer.context().lags.clone()
    }

    fn close(self) {
        // Dropping commits too; said here so that a failure is seen.
        match self.consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => tracing::warn!(%error, "last offsets not committed; the records come again"),
        }
    }
}
