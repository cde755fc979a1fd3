//! What can be set.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A provider keeps an idempotency key for so long: goods must not be held beyond it.
const KEY: SignedDuration = SignedDuration::from_hours(24);

/// How long a checkout may take. Durations are written `15m`, `90s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long goods are held for a checkout: longer than the deadline, shorter than 24 h.
    pub hold: SignedDuration,
    /// How long a checkout may take before it gives up on a card that might still pay.
    pub deadline: SignedDuration,
}

/// A setting that does not work; it names the settings key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No time at all.
    #[error("checkout.deadline must be longer than zero")]
    Deadline,
    /// Goods would be given away under a checkout that may still be paid.
    #[error(
        "checkout.hold must be longer than checkout.deadline and shorter than 24 h, for which a provider keeps its keys"
    )]
    Hold,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { hold: SignedDuration::from_mins(15), deadline: SignedDuration::from_mins(10) }
    }
}

impl Settings {
    /// Whether these work.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !self.deadline.is_positive() {
            return Err(SettingsError::Deadline);
        }
        if self.hold <= self.deadline || self.hold >= KEY {
            return Err(SettingsError::Hold);
        }
        Ok(())
    }

    pub(crate) fn hold(&self) -> Duration {
        self.hold.unsigned_abs()
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_comes_before_the_end_of_the_hold_and_that_before_a_day() {
        let check = |json: &str| serde_json::from_str::<Settings>(json).unwrap().check();
        assert_eq!(Settings::default().check(), Ok(()));
        for (json, expected) in [
            (r#"{"hold": "2s", "deadline": "1s"}"#, Ok(())),
            (r#"{"hold": "23h 59m"}"#, Ok(())),
            (r#"{"deadline": "0s"}"#, Err(SettingsError::Deadline)),
            (r#"{"deadline": "-1s"}"#, Err(SettingsError::Deadline)),
            (r#"{"deadline": "15m"}"#, Err(SettingsError::Hold)),
            (r#"{"hold": "10m"}"#, Err(SettingsError::Hold)),
            (r#"{"hold": "24h"}"#, Err(SettingsError::Hold)),
        ] {
            assert_eq!(check(json), expected, "{json}");
        }
        assert!(serde_json::from_str::<Settings>(r#"{"holds": "1s"}"#).is_err());
    }
}
