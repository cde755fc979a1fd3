//! Kafka through librdkafka.
//!
//! Defaults that librdkafka does not have, each with its reason, are in [`KafkaConfig`]; any of its
//! properties can be set over them.

use crate::broker::{BrokerError, Failed, Lags, Limits, Sink, Source};
use crate::record::{Header, Message, Record};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header as KafkaHeader, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How to reach the cluster: librdkafka's properties, and the deployment's prefix.
#[derive(Clone, Debug, Default)]
pub struct KafkaConfig {
    /// Properties by their own names, `bootstrap.servers` among them; they win over the defaults.
    pub properties: BTreeMap<String, String>,
    /// Stands before every topic and group name; empty for most.
    pub prefix: String,
}

const CONSUMER: [(&str, &str); 13] = [
    ("auto.offset.reset", "earliest"), // a new group begins with the first event, not with the next
    ("enable.auto.offset.store", "false"), // an offset is stored when its effects are there
    ("enable.auto.commit", "true"),    // commits what is stored: in the background, on revoke, on close
    ("auto.commit.interval.ms", "200"),
    ("partition.assignment.strategy", "cooperative-sticky"), // a rebalance stops only what moves
    ("session.timeout.ms", "6000"),                          // a killed process is replaced within 10 s
    ("heartbeat.interval.ms", "1000"),
    ("max.poll.interval.ms", "60000"), // a stuck process is replaced within a minute
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.queue.backoff.ms", "10"), // with the bound above: 1 s, the default, stalls the fetcher
    ("fetch.wait.max.ms", "100"),
    ("statistics.interval.ms", "5000"), // for the lag
    ("socket.keepalive.enable", "true"),
];

const PRODUCER: [(&str, &str); 8] = [
    ("enable.idempotence", "true"), // off by default, and retries then change the order within a key
    ("partitioner", "murmur2_random"), // as Java's, so that all clients agree on a key's partition
    ("linger.ms", "0"),             // a batch is handed over whole and awaited at once
    ("message.timeout.ms", "0"),    // while the broker is away we wait; giving up would only mean asking again
    ("compression.type", "lz4"),
    ("message.max.bytes", "4000000"), // a dead letter is as large as the record, and our headers
    ("queue.buffering.max.kbytes", "65536"),
    ("socket.keepalive.enable", "true"),
];

impl KafkaConfig {
    fn client(&self, defaults: &[(&str, &str)], name: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", format!("waybill-{name}"));
        config.set_log_level(RDKafkaLogLevel::Warning);
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
    }

    /// For an admin client or a reader without a group.
    #[must_use]
    pub fn admin(&self) -> ClientConfig {
        self.client(&[], "admin")
    }

    /// For a producer.
    #[must_use]
    pub fn producer(&self, name: &str) -> ClientConfig {
        self.client(&PRODUCER, name)
    }
}

fn fatal(error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Fatal(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// librdkafka's own log: its errors also come as events, which [`Told`] tells.
fn log(facility: &str, message: &str) {
    tracing::debug!(target: "librdkafka", facility, "{message}");
}

/// Says once in a while that the broker is out of reach: librdkafka reports it many times a second.
#[derive(Default)]
struct Told(Mutex<Option<Instant>>);

impl Told {
    const AGAIN: Duration = Duration::from_secs(10);

    fn warn(&self, error: &KafkaError, reason: &str) {
        let mut last = lock(&self.0);
        if last.is_none_or(|last| last.elapsed() > Self::AGAIN) {
            *last = Some(Instant::now());
            tracing::warn!(reason, "kafka");
        } else {
            tracing::debug!(%error, reason, "kafka");
        }
    }
}

/// What librdkafka's callbacks tell the loop.
#[derive(Default)]
struct Member {
    stage: String,
    owned: Mutex<BTreeSet<(String, i32)>>,
    /// The assignment changed since partitions were last paused or resumed.
    changed: AtomicBool,
    lags: Lags,
    told: Told,
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
        self.told.warn(&error, reason);
    }
}

impl ConsumerContext for Member {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut owned = lock(&self.owned);
        let pairs = |list: &TopicPartitionList| {
            list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect::<Vec<_>>()
        };
        match rebalance {
            Rebalance::Assign(list) => owned.extend(pairs(list)),
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
        let consumer: BaseConsumer<Member> =
            client.create_with_context(Member { stage: stage.to_owned(), ..Member::default() }).map_err(fatal)?;
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
        let topic = self.topics.iter().find(|t| &***t == name).cloned().unwrap_or_else(|| name.into());
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|h| Header { name: h.key.to_owned().into(), value: h.value.map(<[u8]>::to_vec) })
                .collect()
        });
        Record {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers,
        }
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
            bytes += record.size();
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

/// The reports that are still to come for one [`Sink::send`].
#[derive(Default)]
struct Reports {
    state: Mutex<Open>,
    all_in: Condvar,
    told: Told,
}

#[derive(Default)]
struct Open {
    left: usize,
    failed: BTreeMap<usize, String>,
    fatal: Option<String>,
}

impl Reports {
    fn report(&self, index: usize, error: Option<&KafkaError>) {
        let mut open = lock(&self.state);
        open.left -= 1;
        if let Some(error) = error {
            open.failed.insert(index, error.to_string());
        }
        if open.left == 0 {
            self.all_in.notify_one();
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            lock(&self.state).fatal = Some(reason.to_owned());
            self.all_in.notify_one();
        }
        self.told.warn(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        self.report(index, result.as_ref().err().map(|(error, _)| error));
    }
}

/// An idempotent producer.
pub struct KafkaSink {
    producer: ThreadedProducer<Reports>,
    prefix: String,
}

impl KafkaSink {
    /// Connects.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn connect(config: &KafkaConfig, name: &str) -> Result<Self, BrokerError> {
        let producer = config.producer(name).create_with_context(Reports::default()).map_err(fatal)?;
        Ok(KafkaSink { producer, prefix: config.prefix.clone() })
    }
}

impl Sink for KafkaSink {
    fn send(&mut self, messages: &[Message]) {
        let context = self.producer.context();
        {
            let mut open = lock(&context.state);
            open.left = messages.len();
            open.failed.clear();
        }
        for (index, message) in messages.iter().enumerate() {
            let topic = format!("{}{}", self.prefix, message.topic);
            let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
            for Header { name, value } in &message.headers {
                headers = headers.insert(KafkaHeader { key: name, value: value.as_deref() });
            }
            let mut record: BaseRecord<'_, [u8], [u8], usize> =
                BaseRecord::with_opaque_to(&topic, index).headers(headers);
            if let Some(key) = &message.key {
                record = record.key(key);
            }
            if let Some(payload) = &message.payload {
                record = record.payload(payload);
            }
            if let Err((error, _)) = self.producer.send(record) {
                context.report(index, Some(&error));
            }
        }
    }

    fn wait(&mut self, limit: Duration) -> Result<Option<Failed>, BrokerError> {
        let context = self.producer.context();
        let open = lock(&context.state);
        let (mut open, _) = context
            .all_in
            .wait_timeout_while(open, limit, |open| open.left > 0 && open.fatal.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &open.fatal {
            return Err(BrokerError::Fatal(why.clone()));
        }
        if open.left > 0 {
            return Ok(None);
        }
        let failed = std::mem::take(&mut open.failed);
        let error = failed.values().next().cloned().unwrap_or_default();
        Ok(Some(Failed { indexes: failed.into_keys().collect(), error }))
    }
}
