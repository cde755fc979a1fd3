//! What a stage is: one pure decision, and the closed set of what it may say.

use opentelemetry::KeyValue;
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;
use waybill_store::{StoreError, Table, Tx};
use waybill_telemetry::Waybill;

/// An event on a topic of its own.
pub trait Event: Serialize + DeserializeOwned + Send + 'static {
    /// The topic, and the first part of `ce_type`.
    const TOPIC: &'static str;
    /// Name of its schema, `<topic>.v<major>`: the `ce_type`.
    const SCHEMA: &'static str;

    /// The business key; equal to the record's key.
    fn key(&self) -> &str;
    /// The spans of all stages so far; an event outside an order's journey has none.
    fn waybill(&self) -> &Waybill {
        static NONE: Waybill = Waybill::none();
        &NONE
    }
    /// For the spine, which adds the stage's stamp.
    fn set_waybill(&mut self, _: &Waybill) {}
    /// The rules that types alone do not keep.
    ///
    /// # Errors
    /// What is wrong, in words for whoever reads the dead letter.
    fn check(&self) -> Result<(), String>;
}

/// An event that a stage publishes, whatever its type.
pub trait Emit: Send {
    /// See [`Event::TOPIC`].
    fn topic(&self) -> &'static str;
    /// See [`Event::SCHEMA`].
    fn schema(&self) -> &'static str;
    /// Appends the payload, with this waybill.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    fn write(&mut self, waybill: &Waybill, out: &mut Vec<u8>) -> Result<(), serde_json::Error>;
}

impl<E: Event> Emit for E {
    fn topic(&self) -> &'static str {
        E::TOPIC
    }
    fn schema(&self) -> &'static str {
        E::SCHEMA
    }
    fn write(&mut self, waybill: &Waybill, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        self.set_waybill(waybill);
        serde_json::to_writer(out, self)
    }
}

/// Why a record is not accepted: a code for machines, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For example `unreadable`; a metric attribute, so one of a few.
    pub reason: &'static str,
    /// What is wrong with this record.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Refusal { reason, message: message.into() }
    }
}

/// A child span: one item of a stage's work.
#[derive(Debug)]
pub struct Child {
    /// Span name.
    pub name: &'static str,
    /// Its attributes.
    pub attributes: Vec<KeyValue>,
}

/// What a stage adds to its span; the spine adds the rest.
#[derive(Debug, Default)]
pub struct Details {
    /// Attributes.
    pub attributes: Vec<KeyValue>,
    /// Span events.
    pub events: Vec<(&'static str, Vec<KeyValue>)>,
    /// Children, which share the interval of the decision.
    pub children: Vec<Child>,
}

/// A new decision: what to keep, what to publish, what to tell.
pub struct Decision<S> {
    /// The key's state from now on.
    pub state: S,
    /// The answer, published in this order.
    pub events: Vec<Box<dyn Emit>>,
    /// For the stage span.
    pub span: Details,
}

/// All that a stage can say to an event.
pub enum Outcome<S> {
    /// A new decision.
    Emit(Decision<S>),
    /// The key has been answered before: that answer is published again, byte for byte.
    Repeat,
    /// Nothing to do, and why.
    Ignore(&'static str),
    /// Not acceptable: to the dead letters.
    Reject(Refusal),
    /// Not yet: this record and later ones of its key wait, the partition goes on.
    Park {
        /// How long to wait before the next try.
        wait: Duration,
        /// What it waits for.
        why: String,
    },
}

/// Rows that the keys of a batch share (bins, serial numbers): locked on loading, written on saving,
/// in the batch's own transaction.
pub trait Shared<E>: Sized {
    /// Locks and reads what these events may need, in one statement.
    fn load(tx: &mut Tx<'_>, events: &[&E]) -> impl Future<Output = Result<Self, StoreError>>;
    /// Writes what the decisions changed, in one statement.
    fn save(self, tx: &mut Tx<'_>) -> impl Future<Output = Result<(), StoreError>>;
}

/// A stage that shares nothing between keys.
impl<E> Shared<E> for () {
    async fn load(_: &mut Tx<'_>, _: &[&E]) -> Result<Self, StoreError> {
        Ok(())
    }
    async fn save(self, _: &mut Tx<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A stage: a name, its input, its policy, its decision.
pub trait Stage: Send + 'static {
    /// A verb: `pick`. The group is `waybill.<name>`, the dead letters `dead.<name>`.
    const NAME: &'static str;
    /// The flow it belongs to: scope of its spans, `waybill.<flow>`, and prefix of its metrics.
    const FLOW: &'static str;
    /// Name of its span.
    const SPAN: &'static str;
    /// Where its decisions are kept.
    const TABLE: Table;
    /// Longest time a record may be parked, from the first try, before it becomes a dead letter.
    const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

    /// What it reads.
    type Event: Event;
    /// What it keeps per key.
    type State: Serialize + DeserializeOwned + Send;
    /// What its keys share.
    type Shared: Shared<Self::Event>;

    /// Decides. Pure: same state, shared rows, event and time (`ce_time`), same outcome.
    fn decide(
        &self,
        shared: &mut Self::Shared,
        state: Option<&Self::State>,
        event: &Self::Event,
        time: jiff::Timestamp,
    ) -> Outcome<Self::State>;
}
