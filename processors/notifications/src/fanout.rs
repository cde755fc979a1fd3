//! Fanout: tells the people who wait for a product that it is back, wave by wave, in batches.
//!
//! Consumes `inventory.restocked`, keyed by product, and `notifications.email.results` and `.push.results`, keyed by batch.
//! Publishes `notifications.email` and `.push` from its outbox, the table of batches.
//! A restock's record carries its campaign from step to step, as an order's request carries its saga: later restocks of the
//! product wait behind it, and any process resumes it.
//! Replay: a campaign that has ended stays so; a batch is planned once under its number, and its results are taken once.

use crate::campaign::{Campaign, Doing, Kept, Next, subject};
use crate::campaign_rows;
use crate::results_rows::{self, Taken};
use crate::step::{Looked, Step};
use jiff::{SignedDuration, Timestamp};
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use waybill_events::{EmailResults, PushResults, Restocked, Results};
use waybill_spine::{BareEvent, Decision, Details, Event, Input, Outcome, Refusal, Stage};
use waybill_store::{StoreError, Table, Tx};
use waybill_telemetry::Waybill;

/// How many are told at once, and how fast. Durations are written `10m`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FanoutSettings {
    /// People of a wave for each piece in stock, or `all`.
    pub factor: Factor,
    /// Between the end of a wave and the next one.
    pub pause: SignedDuration,
    /// Between two batches of a channel.
    pub spacing: SignedDuration,
    /// Most subscriptions that a step looks at: it bounds how long campaigns wait for each other.
    pub portion: i64,
}

/// People of a wave for each piece in stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// Everyone, however few pieces there are.
    All,
    /// So many; from 1.
    #[serde(untagged)]
    Times(u32),
}

impl Factor {
    /// People of a wave.
    pub(crate) fn of(self, available: i64) -> i64 {
        match self {
            Factor::All => i64::MAX,
            Factor::Times(times) => available.saturating_mul(times.into()),
        }
    }
}

impl Default for FanoutSettings {
    fn default() -> Self {
        FanoutSettings {
            factor: Factor::Times(3),
            pause: SignedDuration::from_mins(10),
            spacing: SignedDuration::from_millis(500),
            portion: 20_000,
        }
    }
}

/// A setting that does not work; it names the settings key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FanoutSettingsError {
    /// Nobody would be told.
    #[error("fanout.factor counts from 1, or is `all`")]
    Factor,
    /// Less than no time.
    #[error("fanout.pause must not be negative")]
    Pause,
    /// Less than no time.
    #[error("fanout.spacing must not be negative")]
    Spacing,
    /// No step would come to an end, or none in its time.
    #[error("fanout.portion must be from 100 to 1000000")]
    Portion,
}

impl FanoutSettings {
    /// Whether these work.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn check(&self) -> Result<(), FanoutSettingsError> {
        if self.factor == Factor::Times(0) {
            return Err(FanoutSettingsError::Factor);
        }
        if self.pause.is_negative() {
            return Err(FanoutSettingsError::Pause);
        }
        if self.spacing.is_negative() {
            return Err(FanoutSettingsError::Spacing);
        }
        if !(100..=1_000_000).contains(&self.portion) {
            return Err(FanoutSettingsError::Portion);
        }
        Ok(())
    }

    pub(crate) fn pause(&self) -> Duration {
        self.pause.unsigned_abs()
    }

    pub(crate) fn spacing(&self) -> Duration {
        self.spacing.unsigned_abs()
    }
}

/// What fanout hears of.
#[derive(Clone, Debug)]
pub enum News {
    /// A product is back.
    Back {
        /// `<product>/<zero version>`, which no batch can have: an id has no slash.
        subject: String,
        /// The restock.
        restocked: Restocked,
    },
    /// What became of a batch.
    Told(Results),
}

impl From<Restocked> for News {
    fn from(restocked: Restocked) -> Self {
        News::Back { subject: subject(&restocked), restocked }
    }
}

impl Input for News {
    const TOPICS: &'static [(&'static str, &'static str)] = &[
        (Restocked::TOPIC, Restocked::SCHEMA),
        (EmailResults::TOPIC, EmailResults::SCHEMA),
        (PushResults::TOPIC, PushResults::SCHEMA),
    ];

    fn read(schema: &str, payload: &[u8]) -> serde_json::Result<Self> {
        Ok(match schema {
            Restocked::SCHEMA => serde_json::from_slice::<Restocked>(payload)?.into(),
            EmailResults::SCHEMA => News::Told(serde_json::from_slice::<EmailResults>(payload)?.0),
            _ => News::Told(serde_json::from_slice::<PushResults>(payload)?.0),
        })
    }
    fn key(&self) -> &str {
        match self {
            News::Back { restocked, .. } => Event::key(restocked),
            News::Told(results) => &results.batch_id,
        }
    }
    fn subject(&self) -> &str {
        match self {
            News::Back { subject, .. } => subject,
            News::Told(results) => &results.batch_id,
        }
    }
    fn waybill(&self) -> &Waybill {
        match self {
            News::Back { restocked, .. } => Event::waybill(restocked),
            News::Told(results) => &results.waybill,
        }
    }
    fn check(&self) -> Result<(), String> {
        match self {
            News::Back { restocked, .. } => Event::check(restocked),
            News::Told(results) => results.check(),
        }
    }
}

/// The stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fanout {
    settings: FanoutSettings,
}

impl Fanout {
    /// With these settings, which were checked.
    #[must_use]
    pub fn new(settings: FanoutSettings) -> Self {
        Fanout { settings }
    }
}

type Said = Outcome<Kept, Step>;

impl Stage for Fanout {
    const NAME: &'static str = "fanout";
    const FLOW: &'static str = "notifications";
    const SPAN: &'static str = "back_in_stock.process_restock";
    const TABLE: Table = Table("campaigns");
    const CHORES: bool = true;

    type Event = News;
    type State = Kept;
    type Shared = Taken;
    type Call = Step;

    fn decide(&self, taken: &mut Taken, kept: Option<&Kept>, news: &News, _: Timestamp) -> Said {
        match (news, kept) {
            (News::Back { restocked, .. }, None) => step(restocked, Campaign::of(restocked), Duration::ZERO),
            (News::Back { .. }, Some(Kept::Campaign(campaign))) if campaign.doing == Doing::Ended => Outcome::Repeat,
            (News::Back { restocked, .. }, Some(Kept::Campaign(campaign))) => {
                step(restocked, campaign.clone(), Duration::ZERO)
            }
            (News::Told(results), None) => told(taken, results),
            (News::Told(_), Some(Kept::Taken)) => Outcome::Repeat,
            (News::Back { .. }, Some(Kept::Taken)) | (News::Told(_), Some(Kept::Campaign(_))) => {
                Outcome::Reject(Refusal::new("bug", "a campaign and a batch under one subject"))
            }
        }
    }

    fn settle(&self, _: &mut Taken, kept: Option<&Kept>, news: &News, looked: &Looked, _: Timestamp) -> Said {
        let (News::Back { restocked, .. }, Some(Kept::Campaign(campaign))) = (news, kept) else {
            return Outcome::Reject(Refusal::new("bug", "a step of no campaign"));
        };
        match campaign.clone().next(looked, &self.settings) {
            Next::Step(campaign, wait) => step(restocked, campaign, wait),
            Next::End(campaign) => {
                let span = Details { attributes: attributes(restocked, &campaign), ..Details::default() };
                Outcome::Emit(Decision { state: Kept::Campaign(campaign), events: vec![], span })
            }
        }
    }

    async fn tend(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        campaign_rows::sweep(tx).await
    }

    async fn outbox(&self, tx: &mut Tx<'_>, most: i64) -> Result<Vec<BareEvent>, StoreError> {
        results_rows::outbox(tx, most).await
    }

    async fn forget(&self, tx: &mut Tx<'_>, published: &[BareEvent]) -> Result<(), StoreError> {
        let batches: Vec<(&str, i32)> = published.iter().filter_map(|batch| numbered(&batch.subject)).collect();
        results_rows::forget(tx, &batches).await
    }
}

fn step(restocked: &Restocked, campaign: Campaign, wait: Duration) -> Said {
    let call = Step { restocked: restocked.clone(), campaign: campaign.clone() };
    Outcome::Call { state: Kept::Campaign(campaign), call, wait, span: Details::default() }
}

fn told(taken: &mut Taken, results: &Results) -> Said {
    match numbered(&results.batch_id).filter(|(campaign_id, _)| *campaign_id == results.campaign_id) {
        Some((_, number)) => {
            taken.take(number, results);
            Outcome::Keep(Kept::Taken)
        }
        None => Outcome::Reject(Refusal::new("unknown_batch", "the batch is none of the campaign's")),
    }
}

/// Campaign and number of a batch.
fn numbered(batch_id: &str) -> Option<(&str, i32)> {
    let (campaign_id, number) = batch_id.rsplit_once('.')?;
    Some((campaign_id, number.parse().ok()?))
}

fn attributes(restocked: &Restocked, campaign: &Campaign) -> Vec<KeyValue> {
    let tally = campaign.tally;
    vec![
        KeyValue::new("product.id", restocked.product_id.clone()),
        KeyValue::new("inventory.new_quantity", restocked.available),
        KeyValue::new("notification.subscriber_count", tally.people),
        KeyValue::new("notification.skipped", campaign.planned == 0),
        KeyValue::new("notification.batch_count", tally.batches),
        KeyValue::new("notification.sent_count", tally.sent),
        KeyValue::new("notification.error_count", tally.errors),
    ]
}

#[cfg(test)]
#[path = "fanout_decisions.rs"]
mod decisions;
