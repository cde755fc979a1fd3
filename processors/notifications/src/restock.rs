//! Restock: finds the moment at which a product that could not be had can be had again.
//!
//! Consumes `inventory.levels`, keyed by product. Produces `inventory.restocked`.
//! Each level names the last one that left nothing, so a crossing is seen on any later level, whatever compaction took.
//! Replay: a crossing has the subject `<product>/<zero version>`; the level that told it repeats its answer, and nothing
//! that was left behind counts again.

use crate::restock_rows::{Last, Restocks};
use jiff::{SignedDuration, Timestamp};
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use waybill_events::{Restocked, StockLevel};
use waybill_spine::{Decision, Details, Event, Input, NoCall, Outcome, Stage};
use waybill_store::Table;
use waybill_telemetry::Waybill;

/// What counts as back. Durations are written `10m`, `90s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestockSettings {
    /// Fewer pieces are nothing to tell of; from 1.
    pub minimum: i64,
    /// People are told of a product once in so long, however often it comes and goes.
    pub cooldown: SignedDuration,
}

impl Default for RestockSettings {
    fn default() -> Self {
        RestockSettings { minimum: 1, cooldown: SignedDuration::from_mins(10) }
    }
}

/// A setting that does not work; it names the settings key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestockSettingsError {
    /// Nothing would be told of as if it were something.
    #[error("restock.minimum counts from 1")]
    Minimum,
    /// Less than no time.
    #[error("restock.cooldown must not be negative")]
    Cooldown,
}

impl RestockSettings {
    /// Whether these work.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn check(&self) -> Result<(), RestockSettingsError> {
        if self.minimum < 1 {
            return Err(RestockSettingsError::Minimum);
        }
        if self.cooldown.is_negative() {
            return Err(RestockSettingsError::Cooldown);
        }
        Ok(())
    }
}

/// A level, as one of those that follow the product's last lack.
#[derive(Clone, Debug)]
pub struct Back {
    /// `<product>/<zero version>`.
    subject: String,
    level: StockLevel,
}

impl From<StockLevel> for Back {
    fn from(level: StockLevel) -> Self {
        Back { subject: format!("{}/{}", level.product_id, level.last_zero_version), level }
    }
}

impl Input for Back {
    const TOPICS: &'static [(&'static str, &'static str)] = &[(StockLevel::TOPIC, StockLevel::SCHEMA)];

    fn read(_: &str, payload: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice::<StockLevel>(payload).map(Back::from)
    }
    fn key(&self) -> &str {
        Event::key(&self.level)
    }
    fn subject(&self) -> &str {
        &self.subject
    }
    fn waybill(&self) -> &Waybill {
        Event::waybill(&self.level)
    }
    fn check(&self) -> Result<(), String> {
        Event::check(&self.level)
    }
}

impl Back {
    pub(crate) fn product_id(&self) -> &str {
        &self.level.product_id
    }
}

/// What is kept of a crossing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    /// The level that said so.
    version: i64,
    /// Whether it was published; if not, a campaign that was still to start tells of it.
    published: bool,
}

/// The stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restock {
    settings: RestockSettings,
}

impl Restock {
    /// With these settings, which were checked.
    #[must_use]
    pub fn new(settings: RestockSettings) -> Self {
        Restock { settings }
    }
}

impl Stage for Restock {
    const NAME: &'static str = "restock";
    const FLOW: &'static str = "notifications";
    const SPAN: &'static str = "back_in_stock.detect";
    const TABLE: Table = Table("crossings");

    type Event = Back;
    type State = Crossing;
    type Shared = Restocks;
    type Call = NoCall;

    fn decide(
        &self,
        restocks: &mut Restocks,
        crossing: Option<&Crossing>,
        back: &Back,
        _: Timestamp,
    ) -> Outcome<Crossing> {
        let level = &back.level;
        match crossing {
            Some(Crossing { version, published: true }) if *version == level.version => return Outcome::Repeat,
            Some(_) => return Outcome::Ignore("it was to be had before"),
            None if level.available < self.settings.minimum => return Outcome::Ignore("too little to tell of"),
            None => {}
        }
        let last = restocks.last(&level.product_id);
        if last.is_some_and(|last| level.last_zero_version <= last.zero_version) {
            return Outcome::Ignore("older than what is known");
        }
        let crossing = |published| Crossing { version: level.version, published };
        let at = level.changed_at;
        match last {
            // The campaign that is still to start reads the stock of then.
            Some(last) if last.tell_at > at => {
                restocks.set(&level.product_id, Last { zero_version: level.last_zero_version, tell_at: last.tell_at });
                Outcome::Keep(crossing(false))
            }
            last => {
                let tell_at = last.map_or(at, |last| at.max(later(last.tell_at, self.settings.cooldown)));
                restocks.set(&level.product_id, Last { zero_version: level.last_zero_version, tell_at });
                publish(level, tell_at, crossing(true))
            }
        }
    }
}

/// Beyond the end of time is its end.
fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn publish(level: &StockLevel, tell_at: Timestamp, crossing: Crossing) -> Outcome<Crossing> {
    let attributes = vec![
        KeyValue::new("product.id", level.product_id.clone()),
        KeyValue::new("inventory.new_quantity", level.available),
    ];
    let restocked = Restocked {
        product_id: level.product_id.clone(),
        zero_version: level.last_zero_version,
        version: level.version,
        available: level.available,
        restocked_at: level.changed_at,
        tell_at,
        waybill: Waybill::none(),
    };
    let span = Details { attributes, ..Details::default() };
    Outcome::Emit(Decision { state: crossing, events: vec![Box::new(restocked)], span })
}

#[cfg(test)]
#[path = "restock_decisions.rs"]
mod decisions;
