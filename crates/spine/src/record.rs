//! Records as they come and messages as they go.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use waybill_telemetry::Carrier;

/// A header of a record: bytes, or nothing at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name; names may repeat.
    pub name: Cow<'static, str>,
    /// Its value.
    #[serde(with = "serde_bytes")]
    pub value: Option<Vec<u8>>,
}

impl Header {
    /// A text header.
    pub fn new(name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        Header { name: Cow::Borrowed(name), value: Some(value.into()) }
    }
}

/// A record, detached from the client, its bytes untouched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Topic, without the deployment's prefix.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Kafka's own timestamp, ms since 1970.
    pub timestamp_ms: i64,
    /// Key.
    #[serde(with = "serde_bytes")]
    pub key: Option<Vec<u8>>,
    /// Payload.
    #[serde(with = "serde_bytes")]
    pub payload: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<Header>,
}

impl Record {
    /// Bytes of key, payload and headers: what it weighs in a batch.
    #[must_use]
    pub fn size(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|h| h.name.len() + len(&h.value)).sum();
        len(&self.key) + len(&self.payload) + headers
    }
}

impl Carrier for Record {
    fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers.iter().filter(|h| h.name == name);
        values.filter_map(|h| std::str::from_utf8(h.value.as_deref()?).ok()).next()
    }
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Topic, without the deployment's prefix.
    pub topic: Cow<'static, str>,
    /// Key: decides the partition.
    #[serde(with = "serde_bytes")]
    pub key: Option<Vec<u8>>,
    /// Payload.
    #[serde(with = "serde_bytes")]
    pub payload: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<Header>,
}
