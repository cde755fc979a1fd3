//! One batch: from records to a plan of what to keep and what to publish, in one transaction.

use crate::dead::dead_letter;
use crate::envelope::{Accepted, Outbound, headers};
use crate::failpoint;
use crate::item::{Item, Kept, Waited};
use crate::record::{Message, kept_answer};
use crate::run::LEASE;
use crate::span::{Open, Spans, parts};
use crate::stage::{Call, Decision, Details, Input, Outcome, Refusal, Shared, Stage, Trace, Work};
use crate::{Clock, Policy};
use jiff::Timestamp;
use opentelemetry::KeyValue;
use rand::Rng;
use serde::Serialize;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use waybill_store::{Decided, Park, Repark, Store, StoreError, Tx};
use waybill_telemetry::{SpanRecord, Status};

/// The answer of a key that has said nothing yet: no message.
const NO_ANSWER: [u8; 1] = [0];

/// What became of one record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Answered { age_s: Option<f64> },
    Repeated,
    Kept,
    Ignored(&'static str),
    Dead(&'static str),
    Parked,
}

/// What a batch comes to, its effects being durable.
pub(crate) struct Plan<C: Call> {
    pub messages: Vec<Message>,
    pub spans: Vec<SpanRecord>,
    /// One for each record.
    pub fates: Vec<Fate>,
    /// Parked rows that are answered once the messages are acknowledged.
    pub unpark: Vec<i64>,
    /// Calls to make now: index of the item, and how it waits.
    pub calls: Vec<(usize, Waited<C>)>,
}

impl<C: Call> Default for Plan<C> {
    fn default() -> Self {
        Plan { messages: vec![], spans: vec![], fates: vec![], unpark: vec![], calls: vec![] }
    }
}

/// Why an attempt at a batch came to nothing; nothing was kept of it.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The database is away, or somebody else was first: try again.
    Store(StoreError),
    /// Some record of the batch cannot be answered, so it is sought one by one.
    Refused(Refusal),
}

impl From<StoreError> for Attempt {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(source) => {
                Attempt::Refused(Refusal::new("store_refused", format!("the database refuses the data: {source}")))
            }
            other => Attempt::Store(other),
        }
    }
}

pub(crate) fn bug(what: &str, error: impl std::fmt::Display) -> Attempt {
    Attempt::Refused(Refusal::new("bug", format!("{what}: {error}")))
}

/// A subject's row, as it is read and as the batch changes it.
struct Row<S> {
    version: i32,
    state: Option<S>,
    /// The messages of the last decision, as they are kept.
    answer: Option<Vec<u8>>,
    changed: bool,
}

impl<S> Default for Row<S> {
    fn default() -> Self {
        Row { version: 0, state: None, answer: None, changed: false }
    }
}

/// What waits of a key.
#[derive(Clone, Copy, Default)]
struct Queue {
    /// Records of the key are parked: what comes from Kafka waits behind them.
    parked: bool,
    /// The first of the parked records waits again, and so do the others.
    held: bool,
}

/// What is known of a batch's subjects, and what waits of its keys.
struct Rows<'k, S> {
    of_subjects: HashMap<&'k str, Row<S>>,
    of_keys: HashMap<&'k str, Queue>,
}

pub(crate) struct Desk<S> {
    pub stage: S,
    pub spans: Spans,
    pub policy: Policy,
    pub clock: Clock,
}

impl<S: Stage> Desk<S> {
    /// Decides a batch and makes its effects durable; nothing is published yet.
    pub(crate) async fn attempt(&self, store: &mut Store, items: &[Item<S>]) -> Result<Plan<S::Call>, Attempt> {
        let accepted: Vec<(&S::Event, &Item<S>)> =
            items.iter().filter_map(|item| Some((&item.work.as_ref().ok()?.event, item))).collect();
        if accepted.is_empty() {
            return Ok(self.all_dead(items));
        }
        let mut tx = store.begin().await?;
        // Only who holds the last lease settles: an answer that comes too late is the next one's to get.
        let leases = items.iter().filter(|item| item.answer().is_some()).filter_map(|item| item.parked.as_ref());
        let leases: Vec<(i64, i32)> = leases.map(|parked| (parked.id, parked.lease)).collect();
        let held = tx.held(S::NAME, &leases).await?;
        let lost =
            |item: &Item<S>| item.answer().is_some() && item.parked.as_ref().is_some_and(|p| !held.contains(&p.id));
        let mut rows = self.rows(&mut tx, &accepted).await?;
        let mut shared = {
            let work = accepted.iter().map(|&(event, item)| Work {
                event,
                state: rows.of_subjects.get(event.subject()).and_then(|row| row.state.as_ref()),
                answer: item.answer().map(|(answer, _)| answer),
            });
            let work: Vec<Work<'_, S>> = work.collect();
            S::Shared::load(&mut tx, &work).await?
        };
        let mut batch = Batch::new(self, &mut rows);
        // A panic is a defect, but no reason to stop everyone else's orders.
        catch_unwind(AssertUnwindSafe(|| {
            items.iter().enumerate().try_for_each(|(index, item)| {
                if lost(item) {
                    batch.held(item);
                    return Ok(());
                }
                batch.take(&mut shared, index, item)
            })
        }))
        .unwrap_or_else(|_| Err(bug("the stage panicked", "see its log")))?;
        let Batch { mut plan, park, again, repark, begun, .. } = batch;
        tx.save(S::TABLE, &changed(rows.of_subjects)?).await?;
        let new: HashMap<String, i64> =
            tx.park(S::NAME, &park).await?.into_iter().map(|(id, origin)| (origin, id)).collect();
        for (id, why, wait) in again {
            tx.park_again(S::NAME, id, &why, wait).await?;
        }
        tx.repark(S::NAME, &repark).await?;
        shared.save(&mut tx).await?;
        tx.commit().await?;
        // A record that is parked already has its call made by whoever parked it.
        plan.calls.extend(begun.into_iter().filter_map(|(index, origin, mut waited)| {
            waited.id = *new.get(&origin)?;
            Some((index, waited))
        }));
        Ok(plan)
    }

    /// Gives up on a record that only ever fails.
    pub(crate) fn refuse(&self, item: &Item<S>, refusal: Refusal) -> Plan<S::Call> {
        let mut plan = Plan::default();
        self.dead(&mut plan, item, &refusal);
        plan
    }

    async fn rows<'a>(
        &self,
        tx: &mut Tx<'_>,
        accepted: &[(&'a S::Event, &'a Item<S>)],
    ) -> Result<Rows<'a, S::State>, Attempt> {
        let mut rows = Rows {
            of_subjects: accepted.iter().map(|(event, _)| (event.subject(), Row::default())).collect(),
            of_keys: accepted.iter().map(|(event, _)| (event.key(), Queue::default())).collect(),
        };
        let others = rows.of_keys.keys().filter(|key| !rows.of_subjects.contains_key(*key));
        let keys: Vec<&str> = rows.of_subjects.keys().chain(others).copied().collect();
        let known = tx.known(S::TABLE, S::NAME, &keys).await?;
        for Decided { key, version, state, answer } in known.decided {
            if let Some(row) = rows.of_subjects.get_mut(key.as_str()) {
                row.version = version;
                row.state = Some(serde_json::from_str(&state).map_err(|e| bug("the stored state cannot be read", e))?);
                row.answer = Some(answer);
            }
        }
        for key in known.parked {
            if let Some(queue) = rows.of_keys.get_mut(key.as_str()) {
                queue.parked = true;
            }
        }
        Ok(rows)
    }

    fn all_dead(&self, items: &[Item<S>]) -> Plan<S::Call> {
        let mut plan = Plan::default();
        for item in items {
            if let Err(refusal) = &item.work {
                self.dead(&mut plan, item, refusal);
            }
        }
        plan
    }

    fn dead(&self, plan: &mut Plan<S::Call>, item: &Item<S>, refusal: &Refusal) {
        let now = (self.clock)();
        let details = Details {
            attributes: vec![KeyValue::new("error.type", refusal.reason)],
            status: Status::Error(refusal.reason.to_owned()),
            ..Details::default()
        };
        let mut span = self.spans.finished(item, (now, now), details);
        let copy = span.publish().unwrap_or_default();
        let attempts = item.parked.as_ref().map_or(0, |p| p.attempts) + 1;
        let record = (&item.record, item.redriven.as_ref());
        plan.messages.push(dead_letter(S::NAME, record, refusal, attempts, &span, &copy));
        plan.spans.push(span);
        plan.fates.push(Fate::Dead(refusal.reason));
        plan.unpark.extend(item.parked.as_ref().map(|p| p.id));
    }
}

/// The rows a batch changed, ready to save.
fn changed<St: Serialize>(rows: HashMap<&str, Row<St>>) -> Result<Vec<Decided>, Attempt> {
    let mut list = Vec::with_capacity(rows.len());
    for (key, row) in rows {
        let (true, Some(state), Some(answer)) = (row.changed, row.state, row.answer) else { continue };
        let state = serde_json::to_string(&state).map_err(|e| bug("the state cannot be stored", e))?;
        list.push(Decided { key: key.to_owned(), version: row.version + 1, state, answer });
    }
    // Everybody locks rows in the same order.
    list.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(list)
}

/// An answer as it is kept.
fn kept(messages: &[Message]) -> Result<Vec<u8>, Attempt> {
    let size: usize = messages.iter().map(|m| m.content.size() + 128).sum();
    postcard::to_extend(messages, Vec::with_capacity(size)).map_err(|e| bug("the answer cannot be stored", e))
}

/// The copies of a stage span's parts, and of the span itself where a part of it publishes; none where it has no parts.
fn copies<S: Stage>(
    item: &Item<S>,
    span: &SpanRecord,
    parts: &[(SpanRecord, bool)],
) -> Result<Option<Vec<u8>>, Attempt> {
    let before = item.parts();
    if before.is_empty() && parts.is_empty() {
        return Ok(None);
    }
    let span = parts.iter().any(|(_, publishes)| *publishes).then_some(span);
    let parts = parts.iter().filter(|(_, publishes)| !publishes).map(|(part, _)| part);
    let copies: Vec<&SpanRecord> = span.into_iter().chain(before).chain(parts).collect();
    serde_json::to_vec(&copies).map(Some).map_err(|e| bug("the spans cannot be written", e))
}

/// The decisions of one attempt, in memory.
struct Batch<'d, 'k, S: Stage> {
    desk: &'d Desk<S>,
    rows: &'d mut Rows<'k, S::State>,
    plan: Plan<S::Call>,
    park: Vec<Park>,
    again: Vec<(i64, String, Duration)>,
    repark: Vec<Repark>,
    /// Calls of records that are parked now: index of the item, origin of the record.
    begun: Vec<(usize, String, Waited<S::Call>)>,
}

impl<'d, 'k, S: Stage> Batch<'d, 'k, S> {
    fn new(desk: &'d Desk<S>, rows: &'d mut Rows<'k, S::State>) -> Self {
        Batch { desk, rows, plan: Plan::default(), park: vec![], again: vec![], repark: vec![], begun: vec![] }
    }

    fn take(&mut self, shared: &mut S::Shared, index: usize, item: &Item<S>) -> Result<(), Attempt> {
        let accepted = match &item.work {
            Ok(accepted) => accepted,
            Err(refusal) => {
                self.desk.dead(&mut self.plan, item, refusal);
                return Ok(());
            }
        };
        let (key, subject) = (accepted.event.key(), accepted.event.subject());
        let queue = self.rows.of_keys.get(key).copied().unwrap_or_default();
        if queue.held && item.parked.is_some() {
            self.plan.fates.push(Fate::Parked);
            return Ok(());
        }
        if queue.parked && item.parked.is_none() {
            return self.wait(item, key, Duration::ZERO, "an earlier record of this key waits".to_owned());
        }
        let record = &item.record;
        tracing::debug!(stage = S::NAME, topic = %record.topic, partition = record.partition, offset = record.offset, "decides");
        failpoint::at_key(key);
        let start = (self.desk.clock)();
        let state = self.rows.of_subjects.get(subject).and_then(|row| row.state.as_ref());
        let stage = &self.desk.stage;
        let outcome = match item.answer() {
            Some((answer, time)) => stage.settle(shared, state, &accepted.event, answer, *time),
            None => stage.decide(shared, state, &accepted.event, accepted.time),
        };
        match outcome {
            Outcome::Emit(decision) => return self.answer(item, accepted, start, decision),
            Outcome::Repeat => return self.repeat(item, subject),
            Outcome::Keep(state) => {
                self.change(subject, state, None);
                self.settled(item)?;
                self.done(item, Fate::Kept);
            }
            Outcome::Ignore(why) => self.done(item, Fate::Ignored(why)),
            Outcome::Reject(refusal) => self.desk.dead(&mut self.plan, item, &refusal),
            Outcome::Park { wait, why } => return self.wait(item, key, wait, why),
            Outcome::Call { state, call, wait, span } => {
                self.change(subject, state, None);
                return self.call(item, index, (start, span), call, wait);
            }
        }
        Ok(())
    }

    /// A new state, and a new answer where there is one.
    fn change(&mut self, subject: &str, state: S::State, answer: Option<Vec<u8>>) {
        if let Some(row) = self.rows.of_subjects.get_mut(subject) {
            row.state = Some(state);
            row.answer = answer.or(row.answer.take()).or(Some(NO_ANSWER.to_vec()));
            row.changed = true;
        }
    }

    fn answer(
        &mut self,
        item: &Item<S>,
        accepted: &Accepted<S::Event>,
        start: Timestamp,
        mut decision: Decision<S::State>,
    ) -> Result<(), Attempt> {
        let subject = accepted.event.subject();
        let end = (self.desk.clock)();
        let inner = std::mem::take(&mut decision.span.parts);
        let mut span = self.desk.spans.finished(item, (start, end), decision.span);
        let mut parts = parts::<S>(&span.context(), inner);
        let mut waybill = accepted.event.waybill().clone();
        let age_s = waybill.stamps().first().map(|s| end.duration_since(s.ended_at).as_secs_f64());
        let mut copies = copies(item, &span, &parts)?;
        let source = parts.iter_mut().find(|(_, publishes)| *publishes).map_or(&mut span, |(part, _)| part);
        waybill.push(source.stamp());
        let copy = source.publish().map_err(|e| bug("the span cannot be written", e))?;
        let outbound = Outbound {
            stage: S::NAME,
            key: subject,
            span: source,
            incoming: &item.incoming,
            begins: S::span(&accepted.event).1 == Trace::Continued,
        };
        let mut messages = Vec::with_capacity(decision.events.len());
        for mut event in decision.events {
            let message = outbound.message(event.as_mut(), &waybill, &copy);
            let mut message = message.map_err(|e| bug("the answer cannot be written", e))?;
            if let Some(copies) = copies.take() {
                message.content.push(headers::PARTS, Some(&copies));
            }
            let length = message.content.payload().map_or(0, <[u8]>::len);
            if length > self.desk.policy.largest_answer {
                let why = format!("the answer on {} would be {length} bytes long", event.topic());
                return Err(Attempt::Refused(Refusal::new("answer_too_large", why)));
            }
            messages.push(message);
        }
        let answer = if messages.is_empty() { None } else { Some(kept(&messages)?) };
        self.change(subject, decision.state, answer);
        self.settled(item)?;
        self.plan.messages.append(&mut messages);
        self.plan.spans.push(span);
        self.plan.spans.extend(parts.into_iter().map(|(part, _)| part));
        self.done(item, Fate::Answered { age_s });
        Ok(())
    }

    /// Leaves the stage span open, and the record parked until the call is answered.
    fn call(
        &mut self,
        item: &Item<S>,
        index: usize,
        (start, mut details): (Timestamp, Details),
        call: S::Call,
        wait: Duration,
    ) -> Result<(), Attempt> {
        let inner = std::mem::take(&mut details.parts);
        let mut span = self.desk.spans.finished(item, (start, (self.desk.clock)()), details);
        let inner: Vec<SpanRecord> = parts::<S>(&span.context(), inner).into_iter().map(|(part, _)| part).collect();
        self.plan.spans.extend(inner.iter().cloned());
        let open = Open::leave(&mut span, item.parts().iter().cloned().chain(inner).collect());
        let record = Kept::encode(&item.record, Some(&open), Some(&call))?;
        let lease = if wait.is_zero() { LEASE } else { Duration::ZERO };
        let (why, wait_for) = ("waits for the answer of a call".to_owned(), wait);
        let mut waited = Waited {
            id: 0,
            since: start,
            attempts: 1,
            why: why.clone(),
            lease: 1,
            lapsed: false,
            open: Some(open),
            call: Some(call),
            answer: None,
        };
        match &item.parked {
            Some(parked) => {
                self.repark.push(Repark { id: parked.id, record, why, wait, lease });
                (waited.id, waited.lease, waited.since, waited.attempts) =
                    (parked.id, parked.lease + 1, parked.since, parked.attempts);
                if wait_for.is_zero() {
                    self.plan.calls.push((index, waited));
                }
            }
            None => {
                let origin = item.record.origin();
                let key = item.work.as_ref().map_or("", |accepted| accepted.event.key()).to_owned();
                self.park.push(Park { key, origin: origin.clone(), record, why, wait, lease });
                if wait_for.is_zero() {
                    self.begun.push((index, origin, waited));
                }
            }
        }
        self.held(item);
        Ok(())
    }

    /// The call of a parked record is answered and its answer kept: it is not made again, whatever happens to the messages.
    /// Nor is it settled again where nobody knows whether the commit was done: the lease is used up with it.
    fn settled(&mut self, item: &Item<S>) -> Result<(), Attempt> {
        if let Some(parked) = item.parked.as_ref().filter(|parked| parked.answer.is_some()) {
            let record = Kept::encode::<S::Call>(&item.record, None, None)?;
            let why = "its answer is on the way".to_owned();
            self.repark.push(Repark { id: parked.id, record, why, wait: Duration::ZERO, lease: LEASE });
        }
        Ok(())
    }

    fn repeat(&mut self, item: &Item<S>, subject: &str) -> Result<(), Attempt> {
        match self.rows.of_subjects.get(subject).map(|row| &row.answer) {
            Some(Some(bytes)) => {
                let messages = kept_answer(bytes).map_err(|e| bug("the stored answer cannot be read", e))?;
                self.plan.messages.extend(messages);
            }
            Some(None) | None => return Err(bug("the stage repeats", "an answer it never gave")),
        }
        self.done(item, Fate::Repeated);
        Ok(())
    }

    fn done(&mut self, item: &Item<S>, fate: Fate) {
        self.plan.fates.push(fate);
        self.plan.unpark.extend(item.parked.as_ref().map(|p| p.id));
    }

    /// Parks a record, or lets a parked one wait again, until the stage's patience ends.
    fn wait(&mut self, item: &Item<S>, key: &str, wait: Duration, why: String) -> Result<(), Attempt> {
        if let Some(parked) = &item.parked {
            let waited = (self.desk.clock)().duration_since(parked.since);
            if waited.unsigned_abs() > S::PATIENCE {
                let refusal = Refusal::new("gave_up", format!("waited for {waited:#}: {why}"));
                self.desk.dead(&mut self.plan, item, &refusal);
                return Ok(());
            }
            self.again.push((parked.id, why, jittered(wait)));
        } else {
            let record = Kept::encode::<S::Call>(&item.record, None, None)?;
            let (origin, lease) = (item.record.origin(), Duration::ZERO);
            self.park.push(Park { key: key.to_owned(), origin, record, why, wait: jittered(wait), lease });
        }
        self.held(item);
        Ok(())
    }

    /// The record waits, and so do later ones of its key.
    fn held(&mut self, item: &Item<S>) {
        let key = item.work.as_ref().map_or("", |accepted| accepted.event.key());
        if let Some(queue) = self.rows.of_keys.get_mut(key) {
            *queue = Queue { parked: true, held: true };
        }
        self.plan.fates.push(Fate::Parked);
    }
}

/// Up to a quarter longer, so that what failed together does not come back together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + rand::rng().random_range(0.0..0.25))
}
