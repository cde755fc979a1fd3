//! Records a test writes itself.
#![expect(clippy::disallowed_types, reason = "a test's record comes from outside the spine")]

use std::time::Duration;

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;

use crate::reader::Rec;

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// Where to; by the key where none.
    pub partition: Option<i32>,
    /// Milliseconds since 1970; now where none.
    pub timestamp_ms: Option<i64>,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The payload's bytes; a tombstone where none.
    pub payload: Option<Vec<u8>>,
    /// In this order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Draft {
    /// A record with a key and any bytes.
    pub fn new(key: &str, payload: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), payload: Some(payload.into()), ..Self::default() }
    }

    /// A record with a key and a JSON payload.
    pub fn json(key: &str, payload: &serde_json::Value) -> Self {
        Self::new(key, payload.to_string())
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With this timestamp, milliseconds since 1970.
    #[must_use]
    pub fn at(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }
}

/// The same record again: for writing what was read a second time.
impl From<Rec> for Draft {
    fn from(record: Rec) -> Self {
        Self {
            partition: Some(record.partition),
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            payload: record.payload,
            headers: record.headers,
        }
    }
}

/// Writes the records in order and returns where each stands (partition, offset), once the broker has them all.
pub async fn produce(bootstrap: &str, topic: &str, records: Vec<Draft>) -> anyhow::Result<Vec<(i32, i64)>> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        // As every client but librdkafka does it, and as the stages do.
        .set("partitioner", "murmur2_random")
        .set("delivery.timeout.ms", "30000")
        .create()
        .context("cannot make a producer")?;
    let mut deliveries = Vec::with_capacity(records.len());
    for draft in &records {
        deliveries.push(send(&producer, topic, draft).await?);
    }
    let mut places = Vec::with_capacity(records.len());
    for delivery in deliveries {
        let delivered = delivery.await.context("the producer is gone")?;
        let delivery = delivered.map_err(|(error, _)| error);
        let delivery = delivery.with_context(|| format!("cannot write to {topic}"))?;
        places.push((delivery.partition, delivery.offset));
    }
    Ok(places)
}

/// Hands a record over without waiting for its delivery; a full queue is waited for.
async fn send(producer: &FutureProducer, topic: &str, draft: &Draft) -> anyhow::Result<DeliveryFuture> {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &draft.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut record = FutureRecord {
        topic,
        partition: draft.partition,
        payload: draft.payload.as_deref(),
        key: draft.key.as_deref(),
        timestamp: draft.timestamp_ms,
        headers: Some(headers),
    };
    loop {
        match producer.send_result(record) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err((error, _)) => {
                return Err(error).with_context(|| format!("cannot write to {topic}"));
            }
        }
    }
}
