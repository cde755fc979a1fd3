//! What a stage is: one pure decision, and the closed set of what it may say.

use crate::envelope::BareEvent;
use crate::gauge::Gauge;
use jiff::Timestamp;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;
use waybill_store::{StoreError, Table, Tx};
use waybill_telemetry::{SpanEvent, SpanKind, SpanLink, SpanRecord, Status, Waybill};

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

/// What a stage reads: the event of one topic, or of one of several that share their business key.
pub trait Input: Sized + Send + 'static {
    /// The topics, each with the schema of its events.
    const TOPICS: &'static [(&'static str, &'static str)];

    /// Reads an event of `schema`, which is one of [`Input::TOPICS`].
    ///
    /// # Errors
    /// The payload is not such an event.
    fn read(schema: &str, payload: &[u8]) -> serde_json::Result<Self>;
    /// See [`Event::key`]. What waits, waits behind earlier records of its key.
    fn key(&self) -> &str;
    /// What the record is about: state is kept and decided once under it, and the ids of the answer derive from it.
    /// It is the key, unless a topic is keyed for an order of its own: stock by product, a change of it by its number.
    fn subject(&self) -> &str {
        self.key()
    }
    /// See [`Event::waybill`].
    fn waybill(&self) -> &Waybill;
    /// See [`Event::check`].
    ///
    /// # Errors
    /// What is wrong, in words for whoever reads the dead letter.
    fn check(&self) -> Result<(), String>;
}

impl<E: Event> Input for E {
    const TOPICS: &'static [(&'static str, &'static str)] = &[(E::TOPIC, E::SCHEMA)];

    fn read(_: &str, payload: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(payload)
    }
    fn key(&self) -> &str {
        Event::key(self)
    }
    fn waybill(&self) -> &Waybill {
        Event::waybill(self)
    }
    fn check(&self) -> Result<(), String> {
        Event::check(self)
    }
}

/// An event that a stage publishes, whatever its type.
pub trait Emit: Send {
    /// See [`Event::TOPIC`].
    fn topic(&self) -> &'static str;
    /// See [`Event::SCHEMA`].
    fn schema(&self) -> &'static str;
    /// See [`Event::key`].
    fn key(&self) -> &str;
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
    fn key(&self) -> &str {
        Event::key(self)
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
    /// Parts with a time of their own.
    pub parts: Vec<Part>,
    /// How it went.
    pub status: Status,
}

/// A part of the work that has a span of its own, within the stage span or within an earlier part.
#[derive(Debug)]
pub struct Part {
    /// Span name.
    pub name: &'static str,
    /// Span kind.
    pub kind: SpanKind,
    /// Index of the part it belongs to; none is the stage span itself.
    pub within: Option<usize>,
    /// When it began and ended, UTC.
    pub interval: (Timestamp, Timestamp),
    /// Its attributes.
    pub attributes: Vec<KeyValue>,
    /// Its events, with their times.
    pub events: Vec<SpanEvent>,
    /// Spans of other traces that it goes back to.
    pub links: Vec<SpanLink>,
    /// How it went.
    pub status: Status,
    /// Whether the events of the decision come from it: their `traceparent` names it, and the waybill gets its stamp.
    pub publishes: bool,
}

/// A new decision: what to keep, what to publish, what to tell.
pub struct Decision<S> {
    /// The subject's state from now on.
    pub state: S,
    /// The answer, published in this order; where there is none, the key's last answer stays what a repeat repeats.
    pub events: Vec<Box<dyn Emit>>,
    /// For the stage span.
    pub span: Details,
}

/// Something to be done outside: a charge, a mail. Kept before it is made, and made again after a crash, so it carries
/// what makes it happen once, an idempotency key for example.
pub trait Call: Serialize + DeserializeOwned + Clone + Send + 'static {
    /// What it is made with: clients, settings.
    type Means: Clone + Send + Sync + 'static;
    /// What came of it. Not to know is an answer too.
    type Answer: Send + 'static;

    /// Makes it. Bounded in time by itself. `again` is whether it may have been made before, by a process that died.
    fn make(self, means: Self::Means, again: bool) -> impl Future<Output = Self::Answer> + Send;
}

/// A stage that makes no calls.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum NoCall {}

impl Call for NoCall {
    type Means = ();
    type Answer = NoCall;

    async fn make(self, (): (), _: bool) -> NoCall {
        self
    }
}

/// All that a stage can say to an event, or to the answer of a call.
pub enum Outcome<S, C = NoCall> {
    /// A new decision.
    Emit(Decision<S>),
    /// The subject has been answered before: that answer is published again, byte for byte.
    Repeat,
    /// A new state and nothing to say: no event, no span.
    Keep(S),
    /// Nothing to do, and why: a metric attribute, so one of a few.
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
    /// Something has to be done outside first. The state is kept, then the call is made, then [`Stage::settle`] says what
    /// its answer comes to. The record waits as a parked one does.
    Call {
        /// The subject's state from now on.
        state: S,
        /// What to do.
        call: C,
        /// How long to wait before it.
        wait: Duration,
        /// For the stage span, which stays open.
        span: Details,
    },
}

/// One thing to decide: an event, what is known of its subject, and the answer of the call it waited for.
pub struct Work<'a, S: Stage> {
    /// The event.
    pub event: &'a S::Event,
    /// The subject's state.
    pub state: Option<&'a S::State>,
    /// The answer.
    pub answer: Option<&'a <S::Call as Call>::Answer>,
}

/// Rows that the subjects of a batch share (bins, serial numbers, stock): locked on loading, written on saving, in the batch's
/// own transaction.
pub trait Shared<S: Stage>: Sized {
    /// Locks and reads what this work may need, in a statement or a few, whatever the size of the batch.
    fn load(tx: &mut Tx<'_>, work: &[Work<'_, S>]) -> impl Future<Output = Result<Self, StoreError>>;
    /// Writes what the decisions changed, in one statement a table.
    fn save(self, tx: &mut Tx<'_>) -> impl Future<Output = Result<(), StoreError>>;
}

/// A stage that shares nothing between subjects.
impl<S: Stage> Shared<S> for () {
    async fn load(_: &mut Tx<'_>, _: &[Work<'_, S>]) -> Result<Self, StoreError> {
        Ok(())
    }
    async fn save(self, _: &mut Tx<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Whose trace a stage span belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// One of its own, linked to the spans that led here: across a wait there is no parent.
    Linked,
    /// That of the span that produced the record: the same request.
    Continued,
}

/// A stage: a name, its input, its policy, its decision.
pub trait Stage: Send + Sized + 'static {
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
    /// How long an answer to a call may wait for others, so that they are settled in one transaction: less than anybody waits
    /// for what comes of them.
    const GATHER: Duration = Duration::from_millis(1);
    /// Whether it has chores: [`Stage::tend`], [`Stage::outbox`] and [`Stage::forget`].
    const CHORES: bool = false;
    /// What it tells of its tables, if anything: see [`Stage::gauge`].
    const GAUGE: Option<Gauge> = None;

    /// What it reads.
    type Event: Input;
    /// What it keeps per subject.
    type State: Serialize + DeserializeOwned + Send;
    /// What its subjects share.
    type Shared: Shared<Self>;
    /// What it has done outside.
    type Call: Call;

    /// The span of what it makes of an event: name, and whose trace it belongs to.
    fn span(_: &Self::Event) -> (&'static str, Trace) {
        (Self::SPAN, Trace::Linked)
    }

    /// Makes instruments of its own.
    fn meter(&mut self, _: &Meter) {}

    /// A span of its own has ended, and what it tells of is durable: for its instruments.
    fn ended(&self, _: &SpanRecord) {}

    /// Decides. Pure: same state, shared rows, event and time (`ce_time`), same outcome.
    fn decide(
        &self,
        shared: &mut Self::Shared,
        state: Option<&Self::State>,
        event: &Self::Event,
        time: Timestamp,
    ) -> Outcome<Self::State, Self::Call>;

    /// Decides what the answer of a call comes to; `time` is when it came. As pure as [`Stage::decide`]. The call may have
    /// been made before, by a process that died: an answer that the state does not wait for is one that was settled.
    fn settle(
        &self,
        _: &mut Self::Shared,
        _: Option<&Self::State>,
        _: &Self::Event,
        _: &<Self::Call as Call>::Answer,
        _: Timestamp,
    ) -> Outcome<Self::State, Self::Call> {
        Outcome::Reject(Refusal::new("bug", "this stage makes no calls"))
    }

    /// Does what no record asks for, a bounded part of it, once a second in a transaction of its own.
    fn tend(&self, _: &mut Tx<'_>) -> impl Future<Output = Result<(), StoreError>> {
        async { Ok(()) }
    }

    /// Reads the values of [`Stage::GAUGE`], each with its attribute: a statement every half minute, in a transaction of its
    /// own, so it may look at a whole table but not at every record of a year.
    fn gauge(&self, _: &mut Tx<'_>) -> impl Future<Output = Result<Vec<(String, i64)>, StoreError>> {
        async { Ok(Vec::new()) }
    }

    /// The oldest rows of its outbox, at most `most`, in order; to be published and then forgotten. Whoever changes what
    /// others are told of writes a row in the same transaction; of one key, rows are read in the order they were committed.
    fn outbox(&self, _: &mut Tx<'_>, _most: i64) -> impl Future<Output = Result<Vec<BareEvent>, StoreError>> {
        async { Ok(Vec::new()) }
    }

    /// Forgets rows of its outbox, which are published.
    fn forget(&self, _: &mut Tx<'_>, _published: &[BareEvent]) -> impl Future<Output = Result<(), StoreError>> {
        async { Ok(()) }
    }
}
