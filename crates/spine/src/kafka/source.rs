//! A member of a consumer group.

use super::member::Member;
use super::{CONSUMER, KafkaConfig, fatal, lock};
use crate::broker::{BrokerError, Lags, Limits, Source};
use crate::record::{Content, Record};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How often topics are looked at again, once all are known and until then.
const LOOK: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(1));
/// When committed offsets are renewed first, and how often then: well within the week that brokers keep them.
const RENEW: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(6 * 60 * 60));

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
    next_look: Instant,
    next_renewal: Instant,
}

impl KafkaSource {
    /// Joins the group `waybill.<stage>` on `topics`, of which the group divides the first.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn join(config: &KafkaConfig, stage: &str, topics: &[&str]) -> Result<Self, BrokerError> {
        let mut client = config.client(&CONSUMER, stage);
        client.set("group.id", format!("{}waybill.{stage}", config.prefix));
        let names = topics.iter().map(|t| format!("{}{t}", config.prefix)).collect();
        let member = Member::new(stage, names, config.refusals().clone());
        let consumer: BaseConsumer<Member> = client.create_with_context(member).map_err(fatal)?;
        consumer.subscribe(&[consumer.context().first()]).map_err(fatal)?;
        let now = Instant::now();
        Ok(KafkaSource {
            consumer,
            prefix: config.prefix.clone(),
            topics: topics.iter().map(|t| Arc::from(*t)).collect(),
            held: VecDeque::new(),
            paused: false,
            next_look: now + LOOK.1,
            next_renewal: now + RENEW.0,
        })
    }

    /// What nobody tells us: topics that could not be seen before or have grown, and offsets that grow old.
    fn look_around(&mut self) {
        let now = Instant::now();
        let member = self.consumer.context();
        if now >= self.next_look && self.assigned() {
            let all = member.count(&self.consumer);
            member.take(&self.consumer, false);
            self.next_look = now + if all { LOOK.0 } else { LOOK.1 };
        }
        if now >= self.next_renewal {
            self.next_renewal = now + RENEW.1;
            if let Err(error) = member.renew(&self.consumer) {
                tracing::debug!(%error, "offsets are not renewed");
                self.next_renewal = now + RENEW.0;
            }
        }
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
        self.look_around();
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
        let member = self.consumer.context();
        let owned = lock(&member.owned);
        let mut list = TopicPartitionList::with_capacity(next.len());
        for (topic, partition, offset) in next {
            let place = (format!("{}{topic}", self.prefix), *partition);
            if owned.contains(&place) {
                list.add_partition_offset(&place.0, *partition, Offset::Offset(*offset)).map_err(fatal)?;
                lock(&member.moved).insert(place);
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
