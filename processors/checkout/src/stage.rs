//! Checkout: from a request to an order, or to a refusal that leaves nothing behind.
//! Consumes `checkout.requested`; `orders.short` and `orders.cancelled` for what is to be paid back; `orders.picked`, `.packed`, `.shipped` for the
//! order's status; all keyed by order.
//! Produces `orders.new` and `checkout.completed`, or `checkout.rejected`.
//! Replay: a request that was answered repeats its answer; a call that was made before a crash is made again under its key.

use crate::after;
use crate::carts::Cart;
use crate::input::CheckoutInput;
use crate::measures::Measures;
use crate::open_orders;
use crate::payment::{Answered, Payment, PaymentAnswer, RefundReason};
use crate::saga::{Awaits, Failure, Saga, Status, cost};
use crate::settings::Settings;
use crate::spans;
use crate::till::Till;
use jiff::Timestamp;
use opentelemetry::metrics::Meter;
use std::time::Duration;
use waybill_events::{CheckoutCompleted, CheckoutRejected, CheckoutRequested, Rejection, Service, Step};
use waybill_inventory::{Confirmed, Lines, Reserved};
use waybill_money::{Money, MoneyError};
use waybill_payment::{Charged, Refunded};
use waybill_spine::{Decision, Details, Emit, Gauge, Outcome, Refusal, Stage, Trace};
use waybill_store::{StoreError, Table, Tx};
use waybill_telemetry::SpanRecord;

/// Waits before a card that declined for now is charged again; then no more.
const SOFT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// First and longest wait before a payment of unknown outcome is asked for again.
const UNKNOWN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// The stage.
#[derive(Clone, Debug, Default)]
pub struct Checkout {
    settings: Settings,
    measures: Option<Measures>,
}

impl Checkout {
    /// With these settings, which were checked.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Checkout { settings, measures: None }
    }
}

pub(crate) type Said = Outcome<Saga, Payment>;

impl Stage for Checkout {
    const NAME: &'static str = "checkout";
    const FLOW: &'static str = "checkout";
    const SPAN: &'static str = "checkout.process";
    const TABLE: Table = Table("checkouts");
    const GAUGE: Option<Gauge> = Some(Gauge {
        name: "fulfilment.open_order.max_age",
        unit: "s",
        about: "Since the oldest order on its way was asked for",
        attribute: "order.status",
    });
    type Event = CheckoutInput;
    type State = Saga;
    type Shared = Till;
    type Call = Payment;

    fn meter(&mut self, meter: &Meter) {
        self.measures = Some(Measures::new(meter));
    }

    fn ended(&self, span: &SpanRecord) {
        if let Some(measures) = &self.measures {
            measures.ended(span);
        }
    }

    async fn gauge(&self, tx: &mut Tx<'_>) -> Result<Vec<(String, i64)>, StoreError> {
        open_orders::ages(tx).await
    }

    fn span(input: &CheckoutInput) -> (&'static str, Trace) {
        match input {
            CheckoutInput::Requested(_) => (Checkout::SPAN, Trace::Continued),
            CheckoutInput::Short(_)
            | CheckoutInput::Cancelled(_)
            | CheckoutInput::Picked(_)
            | CheckoutInput::Packed(_)
            | CheckoutInput::Shipped(_) => ("checkout.compensate", Trace::Linked),
        }
    }

    fn decide(&self, till: &mut Till, saga: Option<&Saga>, input: &CheckoutInput, time: Timestamp) -> Said {
        let now = match input {
            CheckoutInput::Requested(_) if saga.is_some() => return Outcome::Repeat,
            CheckoutInput::Requested(request) => return validate(till, request, time, self.settings),
            CheckoutInput::Short(short) => return after::short(saga, short),
            CheckoutInput::Cancelled(order) => return after::cancelled(saga, order),
            CheckoutInput::Picked(_) => Status::Picked,
            CheckoutInput::Packed(_) => Status::Packed,
            CheckoutInput::Shipped(_) => Status::Shipped,
        };
        match saga {
            Some(saga) if saga.status >= Status::Confirmed && saga.status < now => {
                Outcome::Keep(Saga { status: now, ..saga.clone() })
            }
            Some(_) => Outcome::Ignore("the order is further than that"),
            None => Outcome::Ignore("the order did not come from a checkout"),
        }
    }

    fn settle(
        &self,
        till: &mut Till,
        saga: Option<&Saga>,
        input: &CheckoutInput,
        answer: &PaymentAnswer,
        now: Timestamp,
    ) -> Said {
        let Some(saga) = saga else {
            return Outcome::Reject(Refusal::new("bug", "an answer came to what is no checkout"));
        };
        let request = match input {
            CheckoutInput::Requested(request) => request,
            CheckoutInput::Short(short) => return after::refunded(saga, after::Back::short(saga, short), answer, now),
            CheckoutInput::Cancelled(order) => {
                return after::refunded(saga, after::Back::cancelled(saga, order), answer, now);
            }
            CheckoutInput::Picked(_) | CheckoutInput::Packed(_) | CheckoutInput::Shipped(_) => {
                return Outcome::Reject(Refusal::new("bug", "an answer came to what makes no calls"));
            }
        };
        let mut next = Settling { settings: self.settings, till, request, saga: saga.clone(), answer, now };
        match (saga.awaits, &answer.what) {
            (Some(Awaits::Charge), Answered::Charged(attempt)) => next.charged(&attempt.answer),
            (Some(Awaits::Refund), Answered::Refunded(attempt)) => next.refunded(&attempt.answer),
            _ => Outcome::Reject(Refusal::new("bug", "an answer came that the checkout does not wait for")),
        }
    }
}

/// The first step: everything that the database alone decides.
fn validate(till: &mut Till, request: &CheckoutRequested, requested_at: Timestamp, settings: Settings) -> Said {
    let saga = Saga {
        status: Status::Running,
        step: Step::ValidatingCart,
        customer_id: request.customer_id.clone(),
        cart_id: request.cart_id.clone(),
        total: None,
        item_count: 0,
        failure: None,
        country: String::new(),
        service: Service::Standard,
        lines: Vec::new(),
        awaits: None,
        requested_at,
        attempt: 0,
        unknown: 0,
        unknown_since: None,
        charge_id: None,
        refunded_minor: 0,
        abort: false,
    };
    let cart = till.carts.get(&request.cart_id).filter(|cart| cart.customer_id == request.customer_id).cloned();
    let Some(cart) = cart else {
        let span = spans::validated(till, request, &[], None, &saga);
        return reject(till, request, saga, (Rejection::NoSuchCart, vec![]), span);
    };
    let stale = stale(&cart);
    let saga = Saga {
        item_count: u32::try_from(cart.lines.len()).unwrap_or(u32::MAX),
        country: cart.country,
        service: cart.service,
        lines: cart.lines.iter().map(|line| line.bought.clone()).collect(),
        ..saga
    };
    // A sum beyond all money is no price either.
    let total = if stale.is_empty() { total(&saga).ok() } else { None };
    let Some(total) = total else {
        let span = spans::validated(till, request, &cart.lines, None, &saga);
        return reject(till, request, saga, (Rejection::StalePrices, stale), span);
    };
    let saga = Saga { total: Some(cost(total)), ..saga };
    let reserved = reserve(till, &saga.pieces(&request.order_id), settings);
    let span = spans::validated(till, request, &cart.lines, Some(&reserved), &saga);
    match reserved {
        Reserved::Insufficient(shortages) => {
            let products = shortages.into_iter().map(|shortage| shortage.product_id).collect();
            reject(till, request, saga, (Rejection::InsufficientStock, products), span)
        }
        Reserved::Held { .. } if total.amount == 0 => sell(till, request, saga, span),
        Reserved::Held { .. } => {
            charge(request, Saga { step: Step::ProcessingPayment, attempt: 1, ..saga }, Duration::ZERO, span)
        }
    }
}

/// Products whose price is not the one the customer saw.
fn stale(cart: &Cart) -> Vec<String> {
    let stale = cart.lines.iter().filter(|line| line.price != Some(line.bought.price));
    stale.map(|line| line.bought.line.product_id.clone()).collect()
}

fn total(saga: &Saga) -> Result<Money, MoneyError> {
    let mut prices = saga.lines.iter().map(|bought| bought.price.checked_mul(bought.line.quantity));
    let first = prices.next().unwrap_or(Err(MoneyError::Overflow))?;
    prices.try_fold(first, |sum, price| sum.checked_add(price?))
}

fn reserve(till: &mut Till, pieces: &Lines<'_>, settings: Settings) -> Reserved {
    match &mut till.ledger {
        Some(ledger) => ledger.reserve(pieces, settings.hold()),
        None => Reserved::Insufficient(vec![]),
    }
}

fn charge(request: &CheckoutRequested, saga: Saga, wait: Duration, span: Details) -> Said {
    let Some(amount) = saga.amount() else {
        return Outcome::Reject(Refusal::new("bug", "a checkout without a total"));
    };
    let call = Payment::Charge { order_id: request.order_id.clone(), amount, attempt: saga.attempt };
    Outcome::Call { state: Saga { awaits: Some(Awaits::Charge), ..saga }, call, wait, span }
}

/// The last step: the goods are this customer's, and the warehouse is told.
fn sell(till: &mut Till, request: &CheckoutRequested, saga: Saga, mut span: Details) -> Said {
    till.ended.push(request.order_id.clone());
    let Some(total) = saga.total.clone() else {
        return Outcome::Reject(Refusal::new("bug", "a checkout without a total"));
    };
    if let Some(ledger) = &mut till.ledger {
        ledger.confirm(&request.order_id);
    }
    spans::completed(till, request, &saga, &mut span);
    let saga = Saga { status: Status::Confirmed, step: Step::CreatingOrder, awaits: None, failure: None, ..saga };
    let completed = CheckoutCompleted {
        order_id: request.order_id.clone(),
        customer_id: saga.customer_id.clone(),
        total,
        item_count: saga.item_count,
    };
    let events: Vec<Box<dyn Emit>> = vec![Box::new(saga.order(&request.order_id)), Box::new(completed)];
    Outcome::Emit(Decision { state: saga, events, span })
}

/// Undoes what the database can undo, and tells.
fn reject(
    till: &mut Till,
    request: &CheckoutRequested,
    saga: Saga,
    (reason, products): (Rejection, Vec<String>),
    mut span: Details,
) -> Said {
    till.ended.push(request.order_id.clone());
    let released = till.ledger.as_mut().map_or(0, |ledger| ledger.release(&request.order_id));
    spans::rejected(till, request, &saga, released, &mut span);
    let rejected = CheckoutRejected {
        order_id: request.order_id.clone(),
        customer_id: saga.customer_id.clone(),
        step: saga.step,
        reason,
        products: products.clone(),
    };
    let failure = Some(Failure { step: saga.step, reason, products });
    let state = Saga { status: Status::Rejected, awaits: None, failure, ..saga };
    Outcome::Emit(Decision { state, events: vec![Box::new(rejected)], span })
}

/// A payment's answer, and what it is about.
struct Settling<'a> {
    settings: Settings,
    till: &'a mut Till,
    request: &'a CheckoutRequested,
    saga: Saga,
    answer: &'a PaymentAnswer,
    now: Timestamp,
}

impl Settling<'_> {
    fn charged(&mut self, charged: &Charged) -> Said {
        let span = spans::payment(self.request, &self.saga, self.answer);
        match charged {
            Charged::Succeeded { charge_id } => self.paid(charge_id, span),
            Charged::Declined { soft: true, .. } if self.may_try_again() => {
                let wait = SOFT.get(self.saga.attempt as usize - 1).copied().unwrap_or_default();
                let saga = Saga { attempt: self.saga.attempt + 1, ..self.saga.known() };
                charge(self.request, saga, wait, span)
            }
            Charged::Declined { .. } => self.reject(Rejection::Declined, span),
            // Nothing was taken under this key before either: to be refused says nothing of earlier calls.
            Charged::Refused { why } if self.saga.unknown == 0 && !self.answer.again => {
                if !self.saga.abort {
                    tracing::error!(
                        order = self.request.order_id,
                        why,
                        "the payment provider refuses what it is asked"
                    );
                }
                self.reject(Rejection::PaymentUnavailable, span)
            }
            Charged::Refused { why } => self.ask_again(why, None, span),
            Charged::Unknown { why, retry_after } => self.ask_again(why, *retry_after, span),
        }
    }

    /// Whether a card that declined for now is worth another attempt.
    fn may_try_again(&self) -> bool {
        let tries = self.saga.attempt as usize;
        !self.saga.abort && tries <= SOFT.len() && self.age() < self.settings.deadline()
    }

    /// Since the request.
    fn age(&self) -> Duration {
        Duration::try_from(self.now.duration_since(self.saga.requested_at)).unwrap_or_default()
    }

    fn reject(&mut self, reason: Rejection, span: Details) -> Said {
        let reason = if self.saga.abort { Rejection::Aborted } else { reason };
        reject(self.till, self.request, self.saga.clone(), (reason, vec![]), span)
    }

    /// The money is here: now the goods, held or taken again.
    fn paid(&mut self, charge_id: &str, span: Details) -> Said {
        let saga = Saga { charge_id: Some(charge_id.to_owned()), ..self.saga.known() };
        if saga.abort {
            return pay_back(self.request, saga, Rejection::Aborted, span);
        }
        let order_id = &self.request.order_id;
        let confirmed = self.till.ledger.as_mut().map_or(Confirmed::Lapsed, |ledger| ledger.confirm(order_id));
        let held = match confirmed {
            Confirmed::Sold => true,
            Confirmed::Lapsed => {
                matches!(reserve(self.till, &saga.pieces(order_id), self.settings), Reserved::Held { .. })
            }
        };
        if held {
            return sell(self.till, self.request, saga, span);
        }
        pay_back(self.request, Saga { step: Step::CreatingOrder, ..saga }, Rejection::ReservationLapsed, span)
    }

    fn refunded(&mut self, refunded: &Refunded) -> Said {
        let span = spans::payment(self.request, &self.saga, self.answer);
        match refunded {
            Refunded::Succeeded { .. } => {
                let reason = self.saga.failure.as_ref().map_or(Rejection::Aborted, |failure| failure.reason);
                self.reject(reason, span)
            }
            Refunded::Refused { why } => {
                let why = format!("the provider refuses to refund charge {:?}: {why}", self.saga.charge_id);
                self.give_up("refund_refused", why)
            }
            Refunded::Unknown { why, retry_after } => self.ask_again(why, *retry_after, span),
        }
    }

    /// A person has to look: at the provider, where the payment method of the order is no longer needed.
    fn give_up(&mut self, reason: &'static str, why: String) -> Said {
        self.till.ended.push(self.request.order_id.clone());
        Outcome::Reject(Refusal::new(reason, why))
    }

    /// The same call again, under the same key: that is how an unknown outcome becomes known.
    fn ask_again(&mut self, why: &str, retry_after: Option<Duration>, span: Details) -> Said {
        let wait = next_try(self.saga.unknown, retry_after);
        let Some(saga) = self.saga.asked_in_vain(self.now) else {
            let why = format!("nobody knows whether money has moved, look it up at the provider: {why}");
            return self.give_up("payment_unknown", why);
        };
        match saga.awaits {
            Some(Awaits::Refund) => refund(self.request, saga, wait, span),
            Some(Awaits::Charge) | None => charge(self.request, saga, wait, span),
        }
    }
}

/// How long to wait before a call is repeated whose outcome has been unknown so many times before.
pub(crate) fn next_try(unknown: u32, retry_after: Option<Duration>) -> Duration {
    let doubled = UNKNOWN.0.saturating_mul(1 << unknown.min(16));
    doubled.min(UNKNOWN.1).max(retry_after.unwrap_or_default())
}

/// The first refund of a charge that no order comes of.
fn pay_back(request: &CheckoutRequested, saga: Saga, reason: Rejection, span: Details) -> Said {
    let failure = Some(Failure { step: saga.step, reason, products: vec![] });
    refund(request, Saga { failure, ..saga }, Duration::ZERO, span)
}

fn refund(request: &CheckoutRequested, saga: Saga, wait: Duration, span: Details) -> Said {
    let (Some(amount), Some(charge_id)) = (saga.amount(), saga.charge_id.clone()) else {
        return Outcome::Reject(Refusal::new("bug", "a refund without a charge"));
    };
    let aborted = saga.failure.as_ref().is_some_and(|failure| failure.reason == Rejection::Aborted);
    let reason = if aborted { RefundReason::Aborted } else { RefundReason::Lapsed };
    let call = Payment::Refund { order_id: request.order_id.clone(), charge_id, amount, reason };
    Outcome::Call { state: Saga { awaits: Some(Awaits::Refund), ..saga }, call, wait, span }
}
