//! Kafka through librdkafka.
//!
//! Defaults that librdkafka does not have, each with its reason, are in [`KafkaConfig`]; any of its
//! properties can be set over them.

mod member;
mod refusals;
mod sink;
mod source;

pub use refusals::Refusals;
pub use sink::KafkaSink;
pub use source::{KafkaSource, detach};

use crate::broker::BrokerError;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::TopicPartitionList;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A consumer that joins no group and knows why it is turned away.
pub type Reader = BaseConsumer<Refusals>;

/// How long a first question waits before the reasons are looked at.
const FIRST: Duration = Duration::from_secs(2);
/// Log lines stand before the reasons, and a poll without time takes one for the end.
const LOOK: Duration = Duration::from_millis(50);

/// How to reach the cluster: librdkafka's properties, and the deployment's prefix.
#[derive(Clone)]
pub struct KafkaConfig {
    /// Properties by their own names, `bootstrap.servers` among them; they win over the defaults.
    pub properties: BTreeMap<String, String>,
    /// Stands before every topic and group name; empty for most.
    pub prefix: String,
    refusals: Refusals,
}

const CONSUMER: [(&str, &str); 14] = [
    ("auto.offset.reset", "earliest"), // a new group begins with the first event, not with the next
    ("enable.auto.offset.store", "false"), // an offset is stored when its effects are there
    ("enable.auto.commit", "true"),    // commits what is stored: in the background, on revoke, on close
    ("auto.commit.interval.ms", "200"),
    ("partition.assignment.strategy", "cooperative-sticky"), // a rebalance stops only what moves
    ("session.timeout.ms", "6000"),                          // a killed process is replaced within 10 s
    ("heartbeat.interval.ms", "1000"),
    ("max.poll.interval.ms", "60000"), // a stuck process is replaced within a minute
    ("queued.max.messages.kbytes", "2048"), // some batches; more only waits in memory
    ("fetch.message.max.bytes", "262144"), // of each partition, compressed; one record may be larger all the same
    ("fetch.queue.backoff.ms", "10"),  // with the bound above: 1 s, the default, stalls the fetcher
    ("fetch.wait.max.ms", "100"),
    ("statistics.interval.ms", "5000"), // for the lag
    ("socket.keepalive.enable", "true"),
];

const PRODUCER: [(&str, &str); 9] = [
    ("enable.idempotence", "true"), // off by default, and retries then change the order within a key
    ("partitioner", "murmur2_random"), // as Java's, so that all clients agree on a key's partition
    ("linger.ms", "0"),             // a batch is handed over whole and awaited at once
    // What is handed over meanwhile gathers: fewer, larger requests, and no wait for a lone record. With more than one, an idempotent
    // producer polls without a pause while five records of a partition are under way: a tenth of a stage's CPU.
    ("max.in.flight", "1"),
    ("message.timeout.ms", "0"), // while the broker is away we wait; giving up would only mean asking again
    ("compression.type", "lz4"),
    ("message.max.bytes", "8000000"), // a dead letter is as large as the record (4 MiB, a shipped order), and our headers
    ("queue.buffering.max.kbytes", "65536"),
    ("socket.keepalive.enable", "true"),
];

/// The first offset of a partition and the one after its last; a leader that has just changed is waited for, so long as `limit`.
///
/// # Errors
/// Nobody answers.
pub fn watermarks(reader: &Reader, topic: &str, partition: i32, limit: Duration) -> KafkaResult<(i64, i64)> {
    let begun = Instant::now();
    loop {
        match reader.fetch_watermarks(topic, partition, limit) {
            Err(_) if begun.elapsed() < limit => std::thread::sleep(LOOK),
            answer => return answer,
        }
    }
}

/// Values may be secrets, so only the keys are shown.
impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConfig").field("prefix", &self.prefix).field("keys", &self.properties.keys()).finish()
    }
}

impl KafkaConfig {
    /// These properties, and this prefix.
    #[must_use]
    pub fn new(properties: BTreeMap<String, String>, prefix: String) -> Self {
        let of = |key: &str, what: &str| properties.get(key).map(|name| format!("{what} {name}"));
        let who = of("sasl.username", "user").or_else(|| of("ssl.certificate.location", "certificate"));
        KafkaConfig { refusals: Refusals::new(who.unwrap_or_else(|| "this client".to_owned())), properties, prefix }
    }

    /// The same for a role of its own: what brokers refuse it, they do not refuse others.
    #[must_use]
    pub fn apart(&self) -> Self {
        KafkaConfig { refusals: self.refusals.anew(), ..self.clone() }
    }

    /// What the brokers refuse the clients made of this.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Why `error` came, where the brokers turned this client away or did not let it do what it asked for.
    #[must_use]
    pub fn refused(&self, error: &KafkaError) -> Option<String> {
        self.refusals.reason().or_else(|| self.refusals.sentence(error.rdkafka_error_code(), &error.to_string()))
    }

    /// The sentence that says that the cluster does not let this client do `what`.
    #[must_use]
    pub fn may_not(&self, what: &str) -> String {
        self.refusals.may_not(what)
    }

    /// Why no broker answers, as far as librdkafka tells.
    #[must_use]
    pub fn unreachable(&self) -> String {
        let why = self.refusals.away().map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{}{why}", self.servers())
    }

    /// What the cluster says of all its topics, within `limit`; sooner an error where it turns this client away.
    ///
    /// # Errors
    /// No broker answers, or none lets this client in: [`Self::refused`] tells which.
    pub fn metadata(&self, reader: &Reader, limit: Duration) -> KafkaResult<Metadata> {
        self.ask(reader, limit, |limit| reader.fetch_metadata(None, limit))
    }

    /// What the group of `reader` has committed of these partitions, within `limit`; sooner an error where it may not be told.
    ///
    /// # Errors
    /// As of [`Self::metadata`].
    pub fn committed(
        &self,
        reader: &Reader,
        partitions: &TopicPartitionList,
        limit: Duration,
    ) -> KafkaResult<TopicPartitionList> {
        self.ask(reader, limit, |limit| reader.committed_offsets(partitions.clone(), limit))
    }

    /// A question waits in C for all its time, also where the answer is no. The reasons come with a poll.
    fn ask<T>(
        &self,
        reader: &Reader,
        limit: Duration,
        question: impl Fn(Duration) -> KafkaResult<T>,
    ) -> KafkaResult<T> {
        let look = || {
            while let Some(polled) = reader.poll(LOOK) {
                // What a group's coordinator refuses comes as if it were a record; all else is heard already, with better words.
                if let Err(error) = polled
                    && self.refused(&error).is_some()
                    && self.refusals.reason().is_none()
                {
                    self.refusals.hear(error.rdkafka_error_code(), &error.to_string());
                }
            }
        };
        question(limit.min(FIRST)).or_else(|error| {
            look();
            if self.refusals.reason().is_some() || limit <= FIRST {
                return Err(error);
            }
            question(limit - FIRST).inspect_err(|_| look())
        })
    }

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

    /// The brokers to begin with, for messages to people; empty where none are named.
    #[must_use]
    pub fn servers(&self) -> &str {
        self.properties.get("bootstrap.servers").map_or("", String::as_str)
    }

    /// What a reader without a group calls its group: librdkafka wants a name all the same, and nothing is committed.
    #[must_use]
    pub fn reader_group(&self) -> String {
        format!("{}waybill.reader", self.prefix)
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

/// librdkafka's own log: its errors also come as events, which [`Refusals`] tells.
fn log(facility: &str, message: &str) {
    tracing::debug!(target: "librdkafka", facility, "{message}");
}
