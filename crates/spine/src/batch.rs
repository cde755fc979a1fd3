//! One batch: from records to a plan of what to keep and what to publish, in one transaction.

use crate::envelope::{self, Accepted, Outbound};
use crate::record::{Message, Record};
use crate::span::Spans;
use crate::stage::{Decision, Details, Event, Outcome, Refusal, Shared, Stage};
use crate::{Clock, Policy};
use jiff::Timestamp;
use opentelemetry::KeyValue;
use rand::Rng;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use waybill_store::{Decided, Park, Parked, Store, StoreError, Tx};
use waybill_telemetry::{Incoming, SpanRecord, Status};

/// A record in hand, decoded once, however often it is tried.
pub(crate) struct Item<E> {
    pub record: Record,
    pub incoming: Incoming,
    pub work: Result<Accepted<E>, Refusal>,
    pub parked: Option<Waited>,
}

/// What is known of a record that was parked.
pub(crate) struct Waited {
    pub id: i64,
    pub since: Timestamp,
    pub attempts: i32,
    pub why: String,
}

impl<E: Event> Item<E> {
    pub(crate) fn received(record: Record, baggage: &[String]) -> Self {
        let incoming = Incoming::read(&record.content, baggage);
        Item { incoming, work: envelope::accept(&record), record, parked: None }
    }

    /// A parked record is one that was accepted when it came.
    pub(crate) fn unparked(parked: Parked, baggage: &[String]) -> Result<Self, postcard::Error> {
        let mut item = Item::received(postcard::from_bytes(&parked.record)?, baggage);
        item.parked = Some(Waited {
            id: parked.id,
            since: Timestamp::try_from(parked.parked_at).unwrap_or(Timestamp::UNIX_EPOCH),
            attempts: parked.attempts,
            why: parked.why,
        });
        Ok(item)
    }
}

/// What became of one record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Answered { age_s: Option<f64> },
    Repeated,
    Ignored,
    Dead(&'static str),
    Parked,
}

/// What a batch comes to, its effects being durable.
#[derive(Default)]
pub(crate) struct Plan {
    pub messages: Vec<Message>,
    pub spans: Vec<SpanRecord>,
    /// One for each record.
    pub fates: Vec<Fate>,
    /// Parked rows that are answered once the messages are acknowledged.
    pub unpark: Vec<i64>,
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

fn bug(what: &str, error: impl std::fmt::Display) -> Attempt {
    Attempt::Refused(Refusal::new("bug", format!("{what}: {error}")))
}

/// A key's row, as it is read and as the batch changes it.
struct Row<S> {
    version: i32,
    state: Option<S>,
    /// The messages of the last decision, as they are kept.
    answer: Option<Vec<u8>>,
    changed: bool,
    /// Records of the key are parked: what comes from Kafka waits behind them.
    parked: bool,
    /// The first of the parked records waits again, and so do the others.
    held: bool,
}

impl<S> Default for Row<S> {
    fn default() -> Self {
        Row { version: 0, state: None, answer: None, changed: false, parked: false, held: false }
    }
}

pub(crate) struct Desk<S> {
    pub stage: S,
    pub spans: Spans,
    pub policy: Policy,
    pub clock: Clock,
}

impl<S: Stage> Desk<S> {
    /// Decides a batch and makes its effects durable; nothing is published yet.
    pub(crate) async fn attempt(&self, store: &mut Store, items: &[Item<S::Event>]) -> Result<Plan, Attempt> {
        let events: Vec<&S::Event> =
            items.iter().filter_map(|i| i.work.as_ref().ok()).map(|accepted| &accepted.event).collect();
        if events.is_empty() {
            return Ok(self.all_dead(items));
        }
        let mut tx = store.begin().await?;
        let mut rows = self.rows(&mut tx, &events).await?;
        let mut shared = S::Shared::load(&mut tx, &events).await?;
        let mut batch = Batch { desk: self, rows: &mut rows, plan: Plan::default(), park: vec![], again: vec![] };
        // A panic is a defect, but no reason to stop everyone else's orders.
        catch_unwind(AssertUnwindSafe(|| items.iter().try_for_each(|item| batch.take(&mut shared, item))))
            .unwrap_or_else(|_| Err(bug("the stage panicked", "see its log")))?;
        let Batch { plan, park, again, .. } = batch;
        tx.save(S::TABLE, &changed(rows)?).await?;
        tx.park(S::NAME, &park).await?;
        for (id, why, wait) in again {
            tx.park_again(S::NAME, id, &why, wait).await?;
        }
        shared.save(&mut tx).await?;
        tx.commit().await?;
        Ok(plan)
    }

    /// Gives up on a record that only ever fails.
    pub(crate) fn refuse(&self, item: &Item<S::Event>, refusal: Refusal) -> Plan {
        let mut plan = Plan::default();
        self.dead(&mut plan, item, &refusal);
        plan
    }

    async fn rows<'a>(
        &self,
        tx: &mut Tx<'_>,
        events: &[&'a S::Event],
    ) -> Result<HashMap<&'a str, Row<S::State>>, Attempt> {
        let mut rows: HashMap<&str, Row<S::State>> = HashMap::with_capacity(events.len());
        for event in events {
            rows.insert(event.key(), Row::default());
        }
        let keys: Vec<&str> = rows.keys().copied().collect();
        let known = tx.known(S::TABLE, S::NAME, &keys).await?;
        for Decided { key, version, state, answer } in known.decided {
            if let Some(row) = rows.get_mut(key.as_str()) {
                row.version = version;
                row.state = Some(serde_json::from_str(&state).map_err(|e| bug("the stored state cannot be read", e))?);
                row.answer = Some(answer);
            }
        }
        for key in known.parked {
            if let Some(row) = rows.get_mut(key.as_str()) {
                row.parked = true;
            }
        }
        Ok(rows)
    }

    fn all_dead(&self, items: &[Item<S::Event>]) -> Plan {
        let mut plan = Plan::default();
        for item in items {
            if let Err(refusal) = &item.work {
                self.dead(&mut plan, item, refusal);
            }
        }
        plan
    }

    fn dead(&self, plan: &mut Plan, item: &Item<S::Event>, refusal: &Refusal) {
        let now = (self.clock)();
        let details = Details { attributes: vec![KeyValue::new("error.type", refusal.reason)], ..Details::default() };
        let status = Status::Error(refusal.reason.to_owned());
        let mut span = self.spans.finished::<S>(item, (now, now), details, status);
        let copy = span.publish().unwrap_or_default();
        let attempts = item.parked.as_ref().map_or(0, |p| p.attempts) + 1;
        plan.messages.push(envelope::dead_letter(S::NAME, &item.record, refusal, attempts, &span, &copy));
        plan.spans.push(span);
        plan.fates.push(Fate::Dead(refusal.reason));
        plan.unpark.extend(item.parked.as_ref().map(|p| p.id));
    }
}

/// The rows a batch changed, ready to save.
fn changed<St: serde::Serialize>(rows: HashMap<&str, Row<St>>) -> Result<Vec<Decided>, Attempt> {
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

/// The decisions of one attempt, in memory.
struct Batch<'d, 'k, S: Stage> {
    desk: &'d Desk<S>,
    rows: &'d mut HashMap<&'k str, Row<S::State>>,
    plan: Plan,
    park: Vec<Park>,
    again: Vec<(i64, String, Duration)>,
}

impl<S: Stage> Batch<'_, '_, S> {
    fn take(&mut self, shared: &mut S::Shared, item: &Item<S::Event>) -> Result<(), Attempt> {
        let accepted = match &item.work {
            Ok(accepted) => accepted,
            Err(refusal) => {
                self.desk.dead(&mut self.plan, item, refusal);
                return Ok(());
            }
        };
        let key = accepted.event.key();
        let Some(row) = self.rows.get(key) else { return Err(bug("no row was made for", key)) };
        if row.held && item.parked.is_some() {
            self.plan.fates.push(Fate::Parked);
            return Ok(());
        }
        if row.parked && item.parked.is_none() {
            return self.wait(item, key, Duration::ZERO, "an earlier record of this key waits".to_owned());
        }
        let start = (self.desk.clock)();
        match self.desk.stage.decide(shared, row.state.as_ref(), &accepted.event, accepted.time) {
            Outcome::Emit(decision) => return self.answer(item, accepted, start, decision),
            Outcome::Repeat => return self.repeat(item, key),
            Outcome::Ignore(_) => self.done(item, Fate::Ignored),
            Outcome::Reject(refusal) => self.desk.dead(&mut self.plan, item, &refusal),
            Outcome::Park { wait, why } => return self.wait(item, key, wait, why),
        }
        Ok(())
    }

    fn answer(
        &mut self,
        item: &Item<S::Event>,
        accepted: &Accepted<S::Event>,
        start: Timestamp,
        decision: Decision<S::State>,
    ) -> Result<(), Attempt> {
        let key = accepted.event.key();
        let end = (self.desk.clock)();
        let mut span = self.desk.spans.finished::<S>(item, (start, end), decision.span, Status::Unset);
        let mut waybill = accepted.event.waybill().clone();
        let age_s = waybill.stamps().first().map(|s| end.duration_since(s.ended_at).as_secs_f64());
        waybill.push(span.stamp());
        let copy = span.publish().map_err(|e| bug("the span cannot be written", e))?;
        let outbound = Outbound { stage: S::NAME, key, span: &span, incoming: &item.incoming };
        let mut messages = Vec::with_capacity(decision.events.len());
        for mut event in decision.events {
            let message = outbound.message(event.as_mut(), &waybill, &copy);
            let message = message.map_err(|e| bug("the answer cannot be written", e))?;
            let length = message.content.payload().map_or(0, <[u8]>::len);
            if length > self.desk.policy.largest_answer {
                let why = format!("the answer on {} would be {length} bytes long", event.topic());
                return Err(Attempt::Refused(Refusal::new("answer_too_large", why)));
            }
            messages.push(message);
        }
        if let Some(row) = self.rows.get_mut(key) {
            row.state = Some(decision.state);
            row.answer = Some(kept(&messages)?);
            row.changed = true;
        }
        self.plan.messages.append(&mut messages);
        self.plan.spans.push(span);
        self.done(item, Fate::Answered { age_s });
        Ok(())
    }

    fn repeat(&mut self, item: &Item<S::Event>, key: &str) -> Result<(), Attempt> {
        match self.rows.get(key).map(|row| &row.answer) {
            Some(Some(bytes)) => {
                let messages: Vec<Message> =
                    postcard::from_bytes(bytes).map_err(|e| bug("the stored answer cannot be read", e))?;
                self.plan.messages.extend(messages);
            }
            Some(None) | None => return Err(bug("the stage repeats", "an answer it never gave")),
        }
        self.done(item, Fate::Repeated);
        Ok(())
    }

    fn done(&mut self, item: &Item<S::Event>, fate: Fate) {
        self.plan.fates.push(fate);
        self.plan.unpark.extend(item.parked.as_ref().map(|p| p.id));
    }

    /// Parks a record, or lets a parked one wait again, until the stage's patience ends.
    fn wait(&mut self, item: &Item<S::Event>, key: &str, wait: Duration, why: String) -> Result<(), Attempt> {
        if let Some(parked) = &item.parked {
            let waited = (self.desk.clock)().duration_since(parked.since);
            if waited.unsigned_abs() > S::PATIENCE {
                let refusal = Refusal::new("gave_up", format!("waited for {waited:#}: {why}"));
                self.desk.dead(&mut self.plan, item, &refusal);
                return Ok(());
            }
            self.again.push((parked.id, why, jittered(wait)));
        } else {
            let record = postcard::to_stdvec(&item.record).map_err(|e| bug("the record cannot be parked", e))?;
            let Record { topic, partition, offset, .. } = &item.record;
            let origin = format!("{topic}/{partition}/{offset}");
            self.park.push(Park { key: key.to_owned(), origin, record, why, wait: jittered(wait) });
        }
        if let Some(row) = self.rows.get_mut(key) {
            row.parked = true;
            row.held = true;
        }
        self.plan.fates.push(Fate::Parked);
        Ok(())
    }
}

/// Up to a quarter longer, so that what failed together does not come back together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + rand::rng().random_range(0.0..0.25))
}
