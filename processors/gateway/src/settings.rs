//! What can be set.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Settings of the gateway. Durations are written `10s`, `500ms`, `24h`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long a checkout waits for its outcome before it is answered 202.
    pub wait: SignedDuration,
    /// How long an idempotency key is kept.
    pub keep: SignedDuration,
    /// Requests to make a cart or to check one out that a user may send a minute, on average.
    pub rate: u32,
    /// How many of them may come at once.
    pub burst: u32,
    /// Requests in flight, beyond which the next is refused.
    pub inflight: u32,
    /// Connections to the database.
    pub connections: u32,
    /// Most bytes of a body.
    pub body: u32,
    /// Days after which a subscription ends that says no other number.
    #[serde(rename = "subscriptiondays")]
    pub subscription_days: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            wait: SignedDuration::from_secs(10),
            keep: SignedDuration::from_hours(24),
            rate: 60,
            burst: 20,
            inflight: 1_024,
            connections: 8,
            body: 64 * 1024,
            subscription_days: 180,
        }
    }
}

impl Settings {
    /// Names the first setting that means nothing.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let durations = [("wait", self.wait), ("keep", self.keep)];
        let numbers = [
            ("rate", self.rate),
            ("burst", self.burst),
            ("inflight", self.inflight),
            ("connections", self.connections),
            ("body", self.body),
            ("subscriptiondays", self.subscription_days),
        ];
        let bad_duration = durations.into_iter().find(|(_, value)| !value.is_positive()).map(|(name, _)| name);
        let bad_number = numbers.into_iter().find(|(_, value)| *value == 0).map(|(name, _)| name);
        bad_duration.or(bad_number).map_or(Ok(()), Err)
    }

    pub(crate) fn wait(&self) -> Duration {
        self.wait.unsigned_abs()
    }

    pub(crate) fn keep(&self) -> Duration {
        self.keep.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_with_defaults_and_wrong_ones_are_named() {
        let settings: Settings = serde_json::from_str(r#"{"wait": "500ms"}"#).unwrap();
        assert_eq!((settings.wait(), settings.keep()), (Duration::from_millis(500), Duration::from_secs(86_400)));
        assert_eq!(settings.check(), Ok(()));
        assert!(serde_json::from_str::<Settings>(r#"{"waits": "1s"}"#).is_err());
        for (json, name) in [(r#"{"wait": "-1s"}"#, "wait"), (r#"{"keep": "0s"}"#, "keep"), (r#"{"rate": 0}"#, "rate")]
        {
            assert_eq!(serde_json::from_str::<Settings>(json).unwrap().check(), Err(name));
        }
    }
}
