//! The seam to the broker: where records come from and where messages go.

use crate::record::{Message, Record};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many records wait, as last heard: topic (with prefix), partition, records.
pub type Lags = Arc<Mutex<Vec<(String, i32, i64)>>>;

/// The broker cannot go on: the process must end and be started again.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// librdkafka calls the error fatal, or refuses the configuration.
    #[error("kafka: {0}")]
    Fatal(String),
}

/// Bounds of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most records.
    pub records: usize,
    /// Bytes after which no further record is added.
    pub bytes: usize,
}

/// Where records come from: one member of a consumer group.
pub trait Source {
    /// Waits up to `wait` for a record, then adds what is there already, within the limits.
    ///
    /// # Errors
    /// Only fatal ones; a broker that is away delivers nothing until it is back.
    fn poll(&mut self, limits: Limits, wait: Duration, batch: &mut Vec<Record>) -> Result<(), BrokerError>;

    /// Stays a member for `wait` without taking records: the back-pressure while the platform is away.
    ///
    /// # Errors
    /// Only fatal ones.
    fn idle(&mut self, wait: Duration) -> Result<(), BrokerError>;

    /// Moves past records whose effects are durable and whose answers are acknowledged:
    /// topic, partition, next offset.
    ///
    /// # Errors
    /// Only fatal ones; a partition that belongs to another member by now is left alone.
    fn done(&mut self, next: &[(Arc<str>, i32, i64)]) -> Result<(), BrokerError>;

    /// Whether the group has given this member partitions.
    fn assigned(&self) -> bool;

    /// The lag of the partitions that this member owns, kept up to date by it.
    fn lags(&self) -> Lags {
        Lags::default()
    }

    /// Commits what is done and leaves the group.
    fn close(self);
}

/// Where messages go.
pub trait Sink {
    /// Hands over messages, in order, without waiting for the broker.
    fn send(&mut self, messages: &[Message]);

    /// Waits until all in-sync replicas have every message handed over, for `limit` at most.
    /// Yields `None` when some are still on their way, else the indexes (into the last [`Sink::send`])
    /// of those that failed, with the error of the first.
    ///
    /// # Errors
    /// Only fatal ones.
    fn wait(&mut self, limit: Duration) -> Result<Option<Failed>, BrokerError>;
}

/// Messages that the broker did not take.
#[derive(Debug, Default)]
pub struct Failed {
    /// Indexes, ascending.
    pub indexes: Vec<usize>,
    /// Why the first was not taken.
    pub error: String,
}
