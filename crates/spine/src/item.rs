//! A record in hand: what it says, and what is known of it where it was parked.

use crate::batch::{Attempt, bug};
use crate::dead::{DeadLetter, is_redriven};
use crate::envelope::{self, Accepted};
use crate::record::Record;
use crate::span::Open;
use crate::stage::{Call, Input, Refusal, Stage};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use waybill_store::Parked;
use waybill_telemetry::{Incoming, SpanRecord};

/// A record in hand, decoded once, however often it is tried.
pub(crate) struct Item<S: Stage> {
    pub record: Record,
    pub incoming: Incoming,
    /// What the letter says that it was, if it was redriven.
    pub redriven: Option<DeadLetter>,
    pub work: Result<Accepted<S::Event>, Refusal>,
    pub parked: Option<Waited<S::Call>>,
}

/// What is known of a record that was parked.
pub(crate) struct Waited<C: Call> {
    pub id: i64,
    pub since: Timestamp,
    pub attempts: i32,
    pub why: String,
    /// The number of the lease it is held by.
    pub lease: i32,
    /// Whoever held it before has died, or nearly.
    pub lapsed: bool,
    /// The stage span that its first call left open.
    pub open: Option<Open>,
    /// The call it waits for, not made yet.
    pub call: Option<C>,
    /// The answer of its call, and when it came.
    pub answer: Option<(C::Answer, Timestamp)>,
}

/// A parked record as it is kept. What is open or to be called is JSON: a stage may call with any type.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    record: Record,
    open: Option<String>,
    call: Option<String>,
}

impl Kept {
    pub(crate) fn encode<C: Call>(record: &Record, open: Option<&Open>, call: Option<&C>) -> Result<Vec<u8>, Attempt> {
        let cannot = |e| bug("the record cannot be parked", e);
        let open = open.map(serde_json::to_string).transpose().map_err(cannot)?;
        let call = call.map(serde_json::to_string).transpose().map_err(cannot)?;
        let kept = Kept { record: record.clone(), open, call };
        postcard::to_stdvec(&kept).map_err(|e| bug("the record cannot be parked", e))
    }
}

impl<S: Stage> Item<S> {
    /// `refuse`: positions of records that are to be dead letters without a look into them.
    pub(crate) fn received(record: Record, baggage: &[String], refuse: &[String]) -> Self {
        tracing::debug!(stage = S::NAME, topic = %record.topic, partition = record.partition, offset = record.offset, "reads");
        let incoming = Incoming::read(&record.content, baggage);
        let redriven = is_redriven(&record, S::NAME).then(|| DeadLetter::read(&record.content));
        let refused = !refuse.is_empty() && refuse.contains(&record.origin());
        let (redriven, work) = match redriven {
            None | Some(Ok(_)) if refused => {
                let why = "somebody on call wants this stage to go on without it (waybill run --refuse)";
                (redriven.and_then(Result::ok), Err(Refusal::new("refused", why)))
            }
            None => (None, envelope::accept(&record, &record.topic)),
            Some(Ok(letter)) => {
                let work = envelope::accept(&record, &letter.topic);
                (Some(letter), work)
            }
            Some(Err(why)) => {
                (None, Err(Refusal::new("no_letter", format!("what was redriven is no dead letter: {why}"))))
            }
        };
        Item { incoming, redriven, work, record, parked: None }
    }

    /// A parked record is one that was accepted when it came.
    pub(crate) fn unparked(parked: Parked, baggage: &[String], refuse: &[String]) -> Result<Self, String> {
        let json = |e: serde_json::Error| e.to_string();
        let kept: Kept = postcard::from_bytes(&parked.record).map_err(|e| e.to_string())?;
        let mut item = Item::received(kept.record, baggage, refuse);
        item.parked = Some(Waited {
            id: parked.id,
            since: Timestamp::try_from(parked.parked_at).unwrap_or(Timestamp::UNIX_EPOCH),
            attempts: parked.attempts,
            why: parked.why,
            lease: parked.lease,
            lapsed: parked.lapsed,
            open: kept.open.as_deref().map(serde_json::from_str).transpose().map_err(json)?,
            call: kept.call.as_deref().map(serde_json::from_str).transpose().map_err(json)?,
            answer: None,
        });
        Ok(item)
    }

    /// Its topic, and how many of its contexts were malformed.
    pub(crate) fn malformed(&self) -> (&str, usize) {
        let of_waybill = self.work.as_ref().map_or(0, |accepted| accepted.event.waybill().malformed);
        (&self.record.topic, self.incoming.malformed + of_waybill)
    }

    /// The parts that its stage span had before the call it waited for.
    pub(crate) fn parts(&self) -> &[SpanRecord] {
        self.parked.as_ref().and_then(|parked| parked.open.as_ref()).map_or(&[], |open| &open.parts)
    }

    /// The answer that it waited for.
    pub(crate) fn answer(&self) -> Option<&(<S::Call as Call>::Answer, Timestamp)> {
        self.parked.as_ref().and_then(|parked| parked.answer.as_ref())
    }
}
