//! Records as they come and messages as they go.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write as _;
use std::sync::Arc;
use waybill_telemetry::Carrier;

/// Key, payload and headers, all in one block of memory: a record is copied, kept and freed as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Key, payload, then name and value of each header.
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    key: Option<u32>,
    payload: Option<u32>,
    /// Lengths of name and value.
    headers: Vec<(u32, Option<u32>)>,
}

impl Content {
    /// Without headers yet.
    #[must_use]
    pub fn new(key: Option<&[u8]>, payload: Option<&[u8]>) -> Self {
        let mut content = Content::default();
        content.key = key.map(|key| content.append(key));
        content.payload = payload.map(|payload| content.append(payload));
        content
    }

    /// With a payload that `write` appends.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn written<E>(key: &str, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Self, E> {
        // What an event of three lines and its headers take.
        let mut content = Content { bytes: Vec::with_capacity(4_096), ..Content::default() };
        content.key = Some(content.append(key.as_bytes()));
        let before = content.bytes.len();
        write(&mut content.bytes)?;
        content.payload = Some(content.since(before));
        Ok(content)
    }

    /// Adds a header; its value may be nothing at all, and names may repeat.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        let name = self.append(name.as_bytes());
        let value = value.map(|value| self.append(value));
        self.headers.push((name, value));
    }

    /// Adds a header that is text.
    pub fn push_text(&mut self, name: &str, value: impl Display) {
        let name = self.append(name.as_bytes());
        let before = self.bytes.len();
        // Writing to a Vec cannot fail.
        let _ = write!(self.bytes, "{value}");
        let value = self.since(before);
        self.headers.push((name, Some(value)));
    }

    fn append(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.extend_from_slice(bytes);
        // librdkafka itself takes at most 1 GB.
        u32::try_from(bytes.len()).unwrap_or(u32::MAX)
    }

    fn since(&self, before: usize) -> u32 {
        u32::try_from(self.bytes.len() - before).unwrap_or(u32::MAX)
    }

    fn slice(&self, from: usize, len: u32) -> &[u8] {
        self.bytes.get(from..from + len as usize).unwrap_or_default()
    }

    /// Key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.map(|len| self.slice(0, len))
    }

    /// Payload.
    #[must_use]
    pub fn payload(&self) -> Option<&[u8]> {
        self.payload.map(|len| self.slice(self.key.unwrap_or(0) as usize, len))
    }

    /// Names and values, in order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, Option<&[u8]>)> {
        let mut at = (self.key.unwrap_or(0) + self.payload.unwrap_or(0)) as usize;
        self.headers.iter().map(move |(name, value)| {
            let from = at + *name as usize;
            let name = std::str::from_utf8(self.slice(at, *name)).unwrap_or_default();
            at = from + value.unwrap_or(0) as usize;
            (name, value.map(|len| self.slice(from, len)))
        })
    }

    /// The same with its first `count` headers and no others.
    #[must_use]
    pub fn with_headers(&self, count: usize) -> Self {
        let mut content = Content::new(self.key(), self.payload());
        self.headers().take(count).for_each(|(name, value)| content.push(name, value));
        content
    }

    /// Bytes of key, payload and headers: what it weighs in a batch.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl Carrier for Content {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers().filter(|(n, _)| *n == name).find_map(|(_, value)| std::str::from_utf8(value?).ok())
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
    /// Key, payload and headers.
    pub content: Content,
}

impl Record {
    /// Where it stands: `topic/partition/offset`.
    pub(crate) fn origin(&self) -> String {
        format!("{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Topic, without the deployment's prefix.
    pub topic: Cow<'static, str>,
    /// The key, which decides the partition, payload and headers.
    pub content: Content,
}

/// The messages of an answer, as a stage keeps it beside its decision.
///
/// # Errors
/// The bytes are not a kept answer.
pub fn kept_answer(answer: &[u8]) -> Result<Vec<Message>, postcard::Error> {
    postcard::from_bytes(answer)
}
