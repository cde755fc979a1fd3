//! What is sent.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// An encrypted message is 4,096 bytes at most (RFC 8291, section 4): 86 of header, 16 of tag and 1 delimiter are not
/// the payload's. FCM's own limit, 4,096 bytes without any of that, is not met by less.
pub(crate) const PAYLOAD_LIMIT: usize = 4_096 - 86 - 16 - 1;

/// No service keeps a message for longer than four weeks, and some refuse to be asked.
const LONGEST_TTL: u64 = 28 * 24 * 60 * 60;

/// A notification. A service worker gets it as JSON: `title`, `body`, `url` and, where there is a topic, `tag`; an app
/// gets a notification with `url` among its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub title: String,
    /// The text.
    pub body: String,
    /// Where a click leads.
    pub url: String,
    /// Messages of one topic replace each other while they wait, and on the screen. It travels as a hash.
    pub topic: Option<String>,
    /// How long the service keeps the message for a device that is away; whole seconds, four weeks at most.
    pub ttl: Duration,
    /// Whether a device wakes up for it.
    pub urgency: Urgency,
}

/// How urgent a message is (RFC 8030, section 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Urgency {
    /// On power and a wireless network.
    VeryLow,
    /// On either.
    Low,
    /// On neither.
    #[default]
    Normal,
    /// Even with a low battery.
    High,
}

impl Urgency {
    /// As the `Urgency` header has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Urgency::VeryLow => "very-low",
            Urgency::Low => "low",
            Urgency::Normal => "normal",
            Urgency::High => "high",
        }
    }
}

impl Message {
    /// As the service worker gets it.
    pub(crate) fn payload(&self) -> Value {
        let mut payload = json!({ "title": self.title, "body": self.body, "url": self.url });
        if let Some(topic) = self.hashed_topic() {
            payload["tag"] = topic.into();
        }
        payload
    }

    /// The topic as every service takes it: 32 characters of base64url (RFC 8030, section 5.4).
    pub(crate) fn hashed_topic(&self) -> Option<String> {
        let hash = Sha256::digest(self.topic.as_ref()?);
        Some(Base64UrlUnpadded::encode_string(&hash[..24]))
    }

    /// In seconds, as every service takes it.
    pub(crate) fn ttl_seconds(&self) -> u64 {
        self.ttl.as_secs().min(LONGEST_TTL)
    }
}
