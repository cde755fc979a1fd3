//! The loop that runs every stage, one batch at a time:
//!
//! poll → decode → load the keys' rows → decide → one transaction → publish, await the reports → offsets.
//!
//! What always holds, and why:
//! - *An accepted event is never lost.* Offsets move last ([`Source::done`]), after the transaction and the
//!   reports. Whatever ends the process before, the records come again.
//! - *An effect happens once.* Rows are written on condition (`waybill_store`); a record that comes again finds its
//!   row, and the stage repeats the answer kept there.
//! - *Events of a key are handled in order.* One batch is in hand at a time, decided in order; what waits is parked
//!   in the database, and later records of its key behind it.
//! - *A record that cannot be accepted goes to `dead.<stage>`*, and the loop goes on. Where it shows only in the
//!   transaction, the batch is tried record by record, so that one bad record costs no other.
//! - *The platform's faults lose nothing.* While the database or the broker is away, the loop stays a member of its
//!   group, takes no records, and tries again.
//! - *A row of an outbox is published at least once and in order.* See [`chores`].
//! - *Telemetry never holds up a record.* Spans are handed over after the reports, to a queue that never waits.

mod chores;

use crate::batch::{Attempt, Desk, Plan};
use crate::broker::{BrokerError, Limits, Sink, Source};
use crate::calls::{Caller, Calls, MOST};
use crate::dead::redrive_topic;
use crate::failpoint::Failpoint;
use crate::health::Pulse;
use crate::item::Item;
use crate::metrics::Metrics;
use crate::record::{Message, Record};
use crate::shutdown::Shutdown;
use crate::span::{Spans, scope};
use crate::stage::{Call, Input, Refusal, Stage};
use jiff::Timestamp;
use rand::Rng;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use waybill_store::{Parked, Store, StoreError};
use waybill_telemetry::{SpanExport, Telemetry};

/// Longest wait for a first record; also how soon a stop is seen.
const POLL: Duration = Duration::from_millis(100);
/// How often parked records are looked for.
const TIMER: Duration = Duration::from_millis(250);
/// How long parked records are leased: longer than any batch takes.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Keys with parked records that are taken at a time.
const DUE_KEYS: i64 = 100;
/// How often old decisions are looked for, and how many are deleted at a time.
const PRUNE: (Duration, i64) = (Duration::from_secs(600), 10_000);
/// First and longest wait while the platform is away.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a stop waits for what is in hand; what is not finished by then comes again.
const LAST_BATCH: Duration = Duration::from_secs(5);

/// Where the time of spans comes from.
pub type Clock = fn() -> Timestamp;

/// The wall clock: for spans only, never for a decision.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where a stage's process reads the wall clock")]
pub fn system_clock() -> Timestamp {
    Timestamp::now()
}

/// The bounds of a stage's work.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Bounds of one batch.
    pub batch: Limits,
    /// Most bytes of one event's payload.
    pub largest_answer: usize,
    /// How long decisions are kept: longer than any topic keeps the event that may be repeated.
    pub retention: Duration,
    /// Records that become dead letters without a look into them, each as `topic/partition/offset`: for one that ends the
    /// process whenever it comes.
    pub refuse: Arc<[String]>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            batch: Limits { records: 500, bytes: 4 << 20 },
            largest_answer: 512 << 10,
            retention: Duration::from_secs(400 * 24 * 60 * 60),
            refuse: Arc::default(),
        }
    }
}

/// Why a loop ended.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The broker's client cannot go on.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The database can never be used as it is configured.
    #[error(transparent)]
    Store(StoreError),
    /// A row of the outbox makes no event: a defect that no other try mends.
    #[error("{0}: a row of the outbox cannot be written as an event")]
    Outbox(&'static str, #[source] serde_json::Error),
}

/// A stage with all it needs to run.
pub struct Runner<S: Stage, I, O> {
    desk: Desk<S>,
    calls: Calls<S>,
    chores: chores::Chores,
    source: I,
    sink: O,
    store: Store,
    metrics: Metrics,
    export: SpanExport,
    baggage: Arc<[String]>,
    pulse: Pulse,
    shutdown: Shutdown,
    next_timer: Instant,
    next_prune: Instant,
    /// While the database is away.
    outage: Option<Outage>,
}

impl<S: Stage, I: Source, O: Sink> Runner<S, I, O> {
    /// Puts a stage together. `prefix` stands before every topic and group name of the deployment.
    #[expect(clippy::too_many_arguments, reason = "the parts of a running stage, put together once")]
    pub fn new(
        mut stage: S,
        prefix: &str,
        (source, sink): (I, O),
        store: Store,
        telemetry: &Telemetry,
        pulse: Pulse,
        shutdown: Shutdown,
        policy: Policy,
        clock: Clock,
        caller: Caller<S::Call>,
    ) -> Self {
        let group = format!("{prefix}waybill.{}", S::NAME);
        let topics = S::Event::TOPICS.iter().map(|(topic, _)| Cow::Borrowed(*topic));
        let topics = topics.chain([Cow::Owned(redrive_topic(S::NAME))]);
        let topics = topics.map(|topic| (topic.clone(), format!("{prefix}{topic}")));
        let meter = telemetry.meter("waybill.spine");
        let of_flow = telemetry.meter(scope::<S>());
        stage.meter(&of_flow);
        Metrics::watch_lag(&meter, S::NAME, source.lags());
        let now = Instant::now();
        Runner {
            metrics: Metrics::new(&meter, S::NAME, S::FLOW, topics, &group),
            calls: Calls::new(caller, clock),
            chores: chores::Chores::new(now, S::GAUGE.map(|gauge| gauge.tell(&of_flow))),
            desk: Desk {
                stage,
                spans: Spans { export: telemetry.spans().clone(), group: group.into(), prefix: prefix.into() },
                policy,
                clock,
            },
            source,
            sink,
            store,
            export: telemetry.spans().clone(),
            baggage: telemetry.baggage().into(),
            pulse,
            shutdown,
            next_timer: now,
            next_prune: now + PRUNE.0,
            outage: None,
        }
    }

    /// Runs until a stop is requested, then leaves the group. Blocks its thread: give it one of its own.
    ///
    /// # Errors
    /// Only what another try cannot mend.
    pub async fn run(mut self) -> Result<(), StageError> {
        let mut records = Vec::new();
        let mut stopping = None;
        loop {
            self.pulse.beat(self.source.assigned());
            if self.shutdown.requested() {
                // Calls that are out are settled; those that take longer are made again.
                let begun = *stopping.get_or_insert_with(Instant::now);
                if self.calls.out() == 0 || begun.elapsed() > LAST_BATCH {
                    break;
                }
            }
            if stopping.is_some() || self.calls.out() >= MOST {
                // librdkafka does not wake up for the end of a pause: it costs up to a second of fetching. So the answers are
                // waited for, and the source is paused only where none comes.
                if !self.calls.wait(POLL, S::GATHER) {
                    self.source.idle(S::GATHER)?;
                }
            } else {
                // The answers of calls come from elsewhere.
                let wait = if self.calls.out() > 0 { S::GATHER } else { POLL };
                self.source.poll(self.desk.policy.batch, wait, &mut records)?;
            }
            if !records.is_empty() {
                let refuse = &self.desk.policy.refuse;
                let items = records.drain(..).map(|r| Item::received(r, &self.baggage, refuse)).collect();
                self.work(items).await?;
            }
            let answered = self.calls.answered(self.desk.policy.batch.records);
            if !answered.is_empty() {
                Failpoint::BeforeSettle.pass();
                self.work(answered).await?;
            }
            if stopping.is_none() {
                self.timers().await?;
                self.chores().await?;
            }
        }
        Failpoint::DuringShutdown.pass();
        self.source.close();
        Ok(())
    }

    /// Parked records whose time has come, and decisions whose time is over.
    async fn timers(&mut self) -> Result<(), StageError> {
        let now = Instant::now();
        if now >= self.next_timer {
            self.next_timer = now + TIMER;
            let room = MOST.saturating_sub(self.calls.out());
            match self.store.due(S::NAME, DUE_KEYS.min(i64::try_from(room).unwrap_or(0)), LEASE).await {
                Ok(due) => {
                    self.recovered();
                    if !due.is_empty() {
                        self.unparked(due).await?;
                    }
                }
                Err(error) => {
                    self.pause("parked records", &error)?;
                }
            }
        }
        if now >= self.next_prune {
            self.next_prune = now + PRUNE.0;
            match self.store.prune(S::TABLE, self.desk.policy.retention, PRUNE.1).await {
                Ok(0) => {}
                Ok(deleted) => tracing::info!(stage = S::NAME, deleted, "decisions past their retention are deleted"),
                Err(error) => {
                    self.pause("old decisions", &error)?;
                }
            }
        }
        Ok(())
    }

    /// Parked records in hand: calls that were not answered are made, the others are tried again.
    async fn unparked(&mut self, due: Vec<Parked>) -> Result<(), StageError> {
        let mut ready = Vec::new();
        for of_key in due.chunk_by(|a, b| a.key == b.key) {
            let items = of_key.iter().cloned().filter_map(|parked| {
                let id = parked.id;
                Item::<S>::unparked(parked, &self.baggage, &self.desk.policy.refuse)
                    .inspect_err(|error| tracing::error!(id, error, "a parked record cannot be read"))
                    .ok()
            });
            let items: Vec<Item<S>> = items.collect();
            items.iter().for_each(|item| self.metrics.retried(&item.record.topic));
            let called = |item: &Item<S>| item.work.is_ok() && item.parked.as_ref().is_some_and(|p| p.call.is_some());
            if items.first().is_some_and(called) {
                self.calls.make(items);
            } else {
                ready.extend(items);
            }
        }
        if !ready.is_empty() {
            self.work(ready).await?;
        }
        Ok(())
    }

    /// One failed try of something that a later turn of the loop tries again, after a wait that grows: a database that
    /// refuses us is not asked several times a second. Yields whether no stop was requested meanwhile.
    fn pause(&mut self, what: &str, error: &StoreError) -> Result<bool, StageError> {
        let (kind, why) = (error.to_string(), format!("{what}: {}", chain(error)));
        let outage = self.outage.get_or_insert_with(|| Outage::begin(S::NAME, &self.pulse, &why));
        match &outage.kind {
            // A connection that was cut, and then a password that is not taken: the second is what somebody must know.
            Some(before) if *before != kind => tracing::warn!(stage = S::NAME, why, "still paused, for another reason"),
            _ => {}
        }
        outage.kind = Some(kind);
        Ok(outage.wait(&mut self.source, &self.pulse, &self.shutdown)?)
    }

    /// The database answers.
    fn recovered(&mut self) {
        if let Some(outage) = self.outage.take() {
            outage.over(&self.pulse);
        }
    }

    /// Carries one batch through; it ends early only where a stop is requested while the platform is away.
    async fn work(&mut self, items: Vec<Item<S>>) -> Result<(), StageError> {
        let taken = Instant::now();
        self.chores.hurry();
        self.metrics.took(items.iter().filter(|item| item.parked.is_none()).map(Item::malformed));
        Failpoint::AfterDecode.pass();
        match self.decide(&items).await? {
            Decided::Plan(plan) => drop(self.finish(items, plan, taken).await?),
            Decided::Stopped => {}
            Decided::Refused(_) => {
                for item in items {
                    // One by one a batch may take long, and every record of it is a turn.
                    self.pulse.beat(self.source.assigned());
                    if !self.work_alone(vec![item], taken).await? {
                        // A later offset of the partition must not move past this one.
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Carries one record through; what cannot be answered becomes a dead letter. Yields whether it is done.
    async fn work_alone(&mut self, alone: Vec<Item<S>>, taken: Instant) -> Result<bool, StageError> {
        match self.decide(&alone).await? {
            Decided::Plan(plan) => self.finish(alone, plan, taken).await,
            Decided::Refused(refusal) => {
                let plan = self.desk.refuse(&alone[0], refusal);
                self.finish(alone, plan, taken).await
            }
            Decided::Stopped => Ok(false),
        }
    }

    /// Decides and keeps, as often as it takes.
    async fn decide(&mut self, items: &[Item<S>]) -> Result<Decided<S::Call>, StageError> {
        loop {
            match self.desk.attempt(&mut self.store, items).await {
                Ok(plan) => {
                    self.recovered();
                    return Ok(Decided::Plan(plan));
                }
                Err(Attempt::Refused(refusal)) => return Ok(Decided::Refused(refusal)),
                // Somebody else wrote one of the keys, or the database broke a deadlock: read again, decide again.
                Err(Attempt::Store(StoreError::Conflict)) => {}
                Err(Attempt::Store(error @ (StoreError::Url | StoreError::InUse | StoreError::Migrate(_)))) => {
                    return Err(StageError::Store(error));
                }
                Err(Attempt::Store(error)) => {
                    if !self.pause("a batch", &error)? {
                        return Ok(Decided::Stopped);
                    }
                }
            }
        }
    }

    /// Publishes, awaits the reports, and only then moves on. Yields whether it did; if not, a stop was requested.
    async fn finish(&mut self, items: Vec<Item<S>>, plan: Plan<S::Call>, taken: Instant) -> Result<bool, StageError> {
        Failpoint::AfterCommit.pass();
        if items.iter().any(|item| item.answer().is_some()) {
            Failpoint::AfterSettle.pass();
        }
        if !self.publish(&plan.messages)? {
            return Ok(false);
        }
        Failpoint::AfterReports.pass();
        if !plan.unpark.is_empty()
            && let Err(error) = self.store.unpark(S::NAME, &plan.unpark).await
        {
            // The lease runs out, the record comes again, and its answer is repeated.
            self.pause("answered records stay parked", &error)?;
        }
        self.source.done(&next_offsets(items.iter().filter(|i| i.parked.is_none()).map(|i| &i.record)))?;
        Failpoint::AfterOffsets.pass();
        plan.spans.iter().for_each(|span| self.desk.stage.ended(span));
        self.export.finish(plan.spans);
        self.metrics.ended(items.iter().map(|item| &*item.record.topic).zip(&plan.fates), taken.elapsed());
        let mut items: Vec<Option<Item<S>>> = items.into_iter().map(Some).collect();
        for (index, waited) in plan.calls {
            if let Some(mut item) = items.get_mut(index).and_then(Option::take) {
                item.parked = Some(waited);
                self.calls.make(vec![item]);
            }
        }
        Ok(true)
    }

    /// Yields whether every message is acknowledged; if not, a stop was requested.
    fn publish(&mut self, messages: &[Message]) -> Result<bool, StageError> {
        if messages.is_empty() {
            return Ok(true);
        }
        let begun = Instant::now();
        let mut left: Vec<Message> = Vec::new();
        let mut outage: Option<Outage> = None;
        self.sink.send(messages);
        Failpoint::AfterProduce.pass();
        loop {
            match self.sink.wait(POLL)? {
                Some(failed) if failed.indexes.is_empty() => break,
                Some(failed) => {
                    let all = if left.is_empty() { messages } else { &left };
                    left = failed.indexes.iter().filter_map(|i| all.get(*i).cloned()).collect();
                    let outage = outage.get_or_insert_with(|| Outage::begin(S::NAME, &self.pulse, &failed.error));
                    if !outage.wait(&mut self.source, &self.pulse, &self.shutdown)? {
                        return Ok(false);
                    }
                    self.sink.send(&left);
                }
                None => {
                    if self.shutdown.requested() && begun.elapsed() > LAST_BATCH {
                        return Ok(false);
                    }
                    if begun.elapsed() > Duration::from_secs(1) {
                        let why = "the broker does not acknowledge";
                        outage.get_or_insert_with(|| Outage::begin(S::NAME, &self.pulse, why));
                        // Stay a member of the group, take nothing.
                        self.source.idle(Duration::ZERO)?;
                    }
                    self.pulse.beat(self.source.assigned());
                }
            }
        }
        self.metrics.published(messages, begun.elapsed());
        if let Some(outage) = outage {
            outage.over(&self.pulse);
        }
        Ok(true)
    }
}

enum Decided<C: Call> {
    Plan(Plan<C>),
    Refused(Refusal),
    /// A stop was requested while the platform was away: the records come again.
    Stopped,
}

/// A time without database or broker: one span, one line at its beginning and one at its end.
struct Outage {
    span: tracing::Span,
    begun: Instant,
    wait: Duration,
    /// Of the database's last error, where it is the database.
    kind: Option<String>,
}

impl Outage {
    fn begin(stage: &'static str, pulse: &Pulse, why: &str) -> Self {
        pulse.away(true);
        tracing::warn!(stage, why, "paused: nothing is lost, it goes on when the platform is back");
        let span = tracing::info_span!("waybill.stage.paused", stage, otel.status_code = "ERROR", reason = why);
        Outage { span, begun: Instant::now(), wait: BACK_OFF.0, kind: None }
    }

    /// Waits, longer each time; yields whether to try again.
    fn wait<I: Source>(&mut self, source: &mut I, pulse: &Pulse, shutdown: &Shutdown) -> Result<bool, BrokerError> {
        let until = Instant::now() + self.wait.mul_f64(rand::rng().random_range(0.5..1.0));
        self.wait = (self.wait * 2).min(BACK_OFF.1);
        while Instant::now() < until {
            if shutdown.requested() && self.begun.elapsed() > LAST_BATCH {
                return Ok(false);
            }
            source.idle(until.saturating_duration_since(Instant::now()).min(POLL))?;
            pulse.beat(source.assigned());
        }
        Ok(true)
    }

    fn over(self, pulse: &Pulse) {
        pulse.away(false);
        let seconds = self.begun.elapsed().as_secs_f64();
        self.span.in_scope(|| tracing::info!(seconds, "goes on"));
    }
}

/// The next offset of each partition of a batch.
fn next_offsets<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<(Arc<str>, i32, i64)> {
    let mut next: BTreeMap<(&Arc<str>, i32), i64> = BTreeMap::new();
    for record in records {
        let offset = next.entry((&record.topic, record.partition)).or_default();
        *offset = (*offset).max(record.offset + 1);
    }
    next.into_iter().map(|((topic, partition), offset)| (topic.clone(), partition, offset)).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
