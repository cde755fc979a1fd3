//! A Kafka cluster as this crate needs it: which topics it has, how they are set, and what it says when it cannot be asked.
//!
//! Three things librdkafka and its binding do shape this file:
//! - Asking for one topic by name may create it where the cluster creates topics by itself; asking for all never does.
//! - The binding drops the error of a single topic in the answers to describe and alter: an empty description stands for
//!   "may not be read", and only reading back tells that an alteration was refused.
//! - An admin client never serves its error events, so *why* a broker cannot be reached is learned from a consumer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::Instant;

use crate::error::ClusterError;
use crate::reconcile::Config;

/// How long a cluster may take to answer, or to act as it said it would.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often it is asked in the meantime.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Asks again every now and then, until the cluster has had the time it may take.
pub(crate) struct Patience(Instant);

impl Patience {
    pub(crate) fn new() -> Self {
        Self(Instant::now() + ANSWER_WITHIN)
    }

    /// Waits for the next try; false when there is none.
    pub(crate) async fn once_more(&self) -> bool {
        tokio::time::sleep(ASK_EVERY).await;
        Instant::now() < self.0
    }
}

/// The partitions of a topic on the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub partitions: i32,
    /// The fewest copies any partition has.
    pub replication: i32,
    pub all_led: bool,
}

/// A connection to the cluster. To be [closed](Self::close): dropping it waits for threads.
pub(crate) struct Cluster {
    pub(crate) servers: String,
    pub(crate) admin: AdminClient<DefaultClientContext>,
    reader: Arc<BaseConsumer<Reason>>,
}

impl Cluster {
    /// Connects, and returns once a broker has answered.
    pub(crate) async fn connect(config: &ClientConfig) -> Result<Self, ClusterError> {
        let servers = config.get("bootstrap.servers").or_else(|| config.get("metadata.broker.list"));
        let servers = servers.filter(|s| !s.trim().is_empty()).ok_or(ClusterError::NoServers)?.to_owned();
        let config = config.clone();
        blocking(move || {
            // Without a group it is never assigned anything, and its errors come through `poll`.
            let reader: BaseConsumer<Reason> = config
                .clone()
                .remove("group.id")
                .create_with_context(Reason::default())
                .map_err(ClusterError::Settings)?;
            if let Err(error) = reader.fetch_metadata(None, ANSWER_WITHIN) {
                // The reason waits in a queue, behind log lines that a poll without time takes for the end of it.
                while reader.poll(ASK_EVERY).is_some() {}
                let reason = reader.context().take().unwrap_or_else(|| error.to_string());
                return Err(ClusterError::Unreachable { servers, reason });
            }
            let admin = config.create().map_err(ClusterError::Settings)?;
            Ok(Self { servers, admin, reader: Arc::new(reader) })
        })
        .await?
    }

    /// Disconnects, off the runtime's threads.
    pub(crate) async fn close(self) {
        // There is nothing to be said if this fails: it was asked for the last time.
        let _ = blocking(move || drop(self)).await;
    }

    pub(crate) fn failed(&self, request: &'static str) -> impl FnOnce(KafkaError) -> ClusterError {
        let servers = self.servers.clone();
        move |source| ClusterError::Request { servers, request, source }
    }

    /// All topics that exist.
    pub(crate) async fn names(&self) -> Result<Vec<String>, ClusterError> {
        let reader = Arc::clone(&self.reader);
        let names = blocking(move || {
            let all = reader.fetch_metadata(None, ANSWER_WITHIN)?;
            let there = all.topics().iter().filter(|t| !t.partitions().is_empty());
            Ok(there.map(|t| t.name().to_owned()).collect())
        });
        names.await?.map_err(self.failed("Metadata"))
    }

    /// Those of these topics that exist, and how.
    pub(crate) async fn shapes(&self, names: &[String]) -> Result<BTreeMap<String, Shape>, ClusterError> {
        let reader = Arc::clone(&self.reader);
        let names = names.to_vec();
        let shapes = blocking(move || {
            let all = reader.fetch_metadata(None, ANSWER_WITHIN)?;
            let declared =
                all.topics().iter().filter(|t| !t.partitions().is_empty() && names.iter().any(|n| n == t.name()));
            Ok(declared.map(|t| (t.name().to_owned(), shape(t))).collect())
        });
        shapes.await?.map_err(self.failed("Metadata"))
    }

    /// The settings of these topics, all of which exist.
    pub(crate) async fn configs(&self, names: &[String]) -> Result<BTreeMap<String, Vec<Config>>, ClusterError> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let patience = Patience::new();
        loop {
            let configs = self.described(names).await?;
            // Also what the broker asked does not know of yet comes back empty, where another one has just created it.
            let empty = names.iter().find(|name| configs.get(*name).is_none_or(Vec::is_empty));
            match empty {
                None => return Ok(configs),
                Some(_) if patience.once_more().await => {}
                Some(topic) => {
                    return Err(ClusterError::NotReadable { topic: topic.clone() });
                }
            }
        }
    }

    async fn described(&self, names: &[String]) -> Result<BTreeMap<String, Vec<Config>>, ClusterError> {
        let topics: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let answer = self.admin.describe_configs(&topics, &options).await.map_err(self.failed("DescribeConfigs"))?;
        let mut configs = BTreeMap::new();
        for resource in answer.into_iter().flatten() {
            let OwnedResourceSpecifier::Topic(name) = resource.specifier else {
                continue;
            };
            let entries = resource.entries.into_iter().map(|entry| Config {
                set_on_topic: match entry.source {
                    ConfigSource::DynamicTopic => true,
                    ConfigSource::Unknown => !entry.is_default,
                    ConfigSource::DynamicBroker
                    | ConfigSource::DynamicDefaultBroker
                    | ConfigSource::StaticBroker
                    | ConfigSource::Default => false,
                },
                key: entry.name,
                value: entry.value,
            });
            configs.insert(name, entries.collect());
        }
        Ok(configs)
    }

    /// How many records a topic holds by its offsets, or nothing where a partition cannot be asked.
    pub(crate) async fn records(&self, name: String, partitions: i32) -> Result<Option<u64>, ClusterError> {
        let reader = Arc::clone(&self.reader);
        blocking(move || {
            let mut records = 0;
            for partition in 0..partitions {
                match reader.fetch_watermarks(&name, partition, ANSWER_WITHIN) {
                    Ok((low, high)) => records += u64::try_from(high - low).unwrap_or(0),
                    Err(error) => {
                        tracing::warn!(topic = name, partition, %error, "the offsets cannot be read");
                        return None;
                    }
                }
            }
            Some(records)
        })
        .await
    }
}

fn shape(topic: &rdkafka::metadata::MetadataTopic) -> Shape {
    let partitions = topic.partitions();
    Shape {
        partitions: count(partitions.len()),
        replication: partitions.iter().map(|p| count(p.replicas().len())).min().unwrap_or(0),
        all_led: partitions.iter().all(|p| p.leader() >= 0),
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// librdkafka's calls wait in C: they must not hold up the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(work).await.map_err(ClusterError::BrokenOff)
}

/// Keeps the first reason librdkafka gives for not reaching a broker. That all are down is no reason.
#[derive(Default)]
struct Reason(Mutex<Option<String>>);

impl Reason {
    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Reason {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        }
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }
}

impl ConsumerContext for Reason {}
