//! Email and push: tell the people of a batch that a product is back.
//! Consumes `notifications.email` or `.push`, keyed by batch. Produces `notifications.email.results` or `.push.results`.
//! Replay: a batch that was told repeats its results. A call that was made before a crash finds what was begun and counts it
//! as `unknown`.

use super::lane;
use super::marks::Marks;
use super::measures::Measures;
use super::part::{Came, Part, PartAnswer};
use super::settings::Rates;
use super::spans;
use super::telling::Telling;
use jiff::Timestamp;
use opentelemetry::metrics::Meter;
use std::marker::PhantomData;
use std::time::Duration;
use waybill_events::{Batch, EmailBatch, EmailResults, PushBatch, PushResults, Results};
use waybill_spine::{Decision, Details, Emit, Event, Outcome, Refusal, Stage};
use waybill_store::{StoreError, Table, Tx};
use waybill_telemetry::{SpanRecord, Waybill};

/// Most people of a part: what a process that dies leaves unknown. A tenth of a second's messages, but from 20 to 100.
const TENTH: f64 = 0.1;
const MOST: (f64, f64) = (20.0, 100.0);
/// The messages of a part go out within this: a call has to end while its record is leased.
const SPREAD: f64 = 5.0;
/// Shortest wait of what has not begun: other batches go first.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// A way to reach people.
pub trait Channel: Send + Sync + 'static {
    /// Of the stage, the channel and the lane.
    const NAME: &'static str;
    /// See [`Stage::TABLE`].
    const TABLE: Table;
    /// Whom to tell.
    type Batch: Event;

    /// What a batch says.
    fn batch(event: &Self::Batch) -> &Batch;
    /// What became of it.
    fn results(results: Results) -> Box<dyn Emit>;
    /// Its messages a second.
    fn rate(rates: &Rates) -> f64;
    /// Notes that a user is at this place no more; `id` names it where it is kept.
    fn dead(marks: &mut Marks, user_id: &str, id: &str, place: &str);
}

/// By mail.
#[derive(Debug)]
pub struct Email;

/// By push message.
#[derive(Debug)]
pub struct Push;

impl Channel for Email {
    const NAME: &'static str = "email";
    const TABLE: Table = Table("email_batches");
    type Batch = EmailBatch;

    fn batch(event: &EmailBatch) -> &Batch {
        &event.0
    }
    fn results(results: Results) -> Box<dyn Emit> {
        Box::new(EmailResults(results))
    }
    fn rate(rates: &Rates) -> f64 {
        rates.email
    }
    fn dead(marks: &mut Marks, _: &str, _: &str, place: &str) {
        marks.suppress(place);
    }
}

impl Channel for Push {
    const NAME: &'static str = "push";
    const TABLE: Table = Table("push_batches");
    type Batch = PushBatch;

    fn batch(event: &PushBatch) -> &Batch {
        &event.0
    }
    fn results(results: Results) -> Box<dyn Emit> {
        Box::new(PushResults(results))
    }
    fn rate(rates: &Rates) -> f64 {
        rates.push
    }
    fn dead(marks: &mut Marks, user_id: &str, id: &str, _: &str) {
        marks.forget(user_id, id);
    }
}

/// The stage.
#[derive(Clone, Debug)]
pub struct Tell<C> {
    most: u32,
    measures: Option<Measures>,
    channel: PhantomData<C>,
}

impl<C: Channel> Tell<C> {
    /// With these rates, which were checked.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 100")]
    pub fn new(rates: &Rates) -> Self {
        let rate = C::rate(rates);
        let most = (rate * SPREAD).clamp(1.0, (rate * TENTH).clamp(MOST.0, MOST.1)) as u32;
        Tell { most, measures: None, channel: PhantomData }
    }

    /// The next part, or the results.
    fn go_on(&self, telling: Telling, batch: &Batch, mut span: Details, now: Timestamp) -> Outcome<Telling, Part> {
        if let Some((call, wait)) = telling.next(batch, self.most, now) {
            return Outcome::Call { state: telling, call, wait, span };
        }
        span.attributes = spans::batch(C::NAME, batch, &telling);
        let results = Results {
            batch_id: batch.batch_id.clone(),
            campaign_id: batch.campaign_id.clone(),
            product_id: batch.product_id.clone(),
            people: telling.told.clone(),
            sold_out: telling.sold_out,
            waybill: Waybill::none(),
        };
        Outcome::Emit(Decision { state: telling, events: vec![C::results(results)], span })
    }
}

impl<C: Channel> Stage for Tell<C> {
    const NAME: &'static str = C::NAME;
    const FLOW: &'static str = spans::FLOW;
    const SPAN: &'static str = "back_in_stock.send_batch";
    const TABLE: Table = C::TABLE;
    const CHORES: bool = true;
    const GATHER: Duration = super::GATHER;

    type Event = C::Batch;
    type State = Telling;
    type Shared = Marks;
    type Call = Part;

    fn meter(&mut self, meter: &Meter) {
        self.measures = Some(Measures::new(meter));
    }

    fn ended(&self, span: &SpanRecord) {
        if let Some(measures) = &self.measures {
            measures.ended(span);
        }
    }

    fn decide(
        &self,
        _: &mut Marks,
        state: Option<&Telling>,
        event: &C::Batch,
        time: Timestamp,
    ) -> Outcome<Telling, Part> {
        if state.is_some() {
            return Outcome::Repeat;
        }
        let batch = C::batch(event);
        self.go_on(Telling::new(batch, time), batch, Details::default(), time)
    }

    fn settle(
        &self,
        marks: &mut Marks,
        state: Option<&Telling>,
        event: &C::Batch,
        answer: &PartAnswer,
        now: Timestamp,
    ) -> Outcome<Telling, Part> {
        let batch = C::batch(event);
        let Some(mut telling) = state.filter(|telling| telling.part == answer.part.number).cloned() else {
            return Outcome::Reject(Refusal::new("bug", "an answer came that the batch does not wait for"));
        };
        let mut span = Details::default();
        match &answer.came {
            Came::NotYet(wait) => {
                let (state, call) = (telling, answer.part.clone());
                return Outcome::Call { state, call, wait: (*wait).max(TICK), span };
            }
            Came::SoldOut => telling.sold_out(),
            Came::Tried(tried, closed) => {
                for (one, reach) in tried.iter().flat_map(|one| one.dead.iter().map(move |reach| (one, reach))) {
                    C::dead(marks, &one.waiting.user_id, &reach.id, &reach.place);
                }
                let settled = telling.took(batch, &answer.part.whom, tried, *closed, now);
                span.parts = settled.iter().map(|one| spans::single(C::NAME, batch, one)).collect();
            }
        }
        self.go_on(telling, batch, span, now)
    }

    async fn tend(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        lane::prune(tx, C::NAME).await
    }
}
