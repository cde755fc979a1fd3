//! Order mail: tells customers that their order is confirmed, and that it is on its way.
//! Consumes `checkout.completed` and `orders.shipped`, keyed by order. Produces mails alone.
//! Replay: an order's mail that went out is not written again. A mail of unknown outcome is: under the same Message-ID, by
//! which mail servers and readers know a repeat.

use super::lane;
use super::marks::Marks;
use super::orders_rows::{self, Customer};
use super::outlet::{Outlet, Provider};
use super::part::{CUTOFF, DATABASE_AWAY, lane_closed};
use super::people::Reach;
use super::stage::TICK;
use super::{Verdict, spans};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use waybill_events::{CheckoutCompleted, Cost, OrderShipped, Tell};
use waybill_mail::{Content, OrderConfirmed, Parcel};
use waybill_money::{Currency, Money};
use waybill_spine::{Call, Decision, Details, Event, Input, Outcome, Part, Refusal, Stage, system_clock};
use waybill_store::{Store, StoreError, Table, Tx};
use waybill_telemetry::{SpanKind, Status, Waybill};

/// First and longest wait before a mail is tried again, and for how long it is.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60 * 60));
const PATIENCE: SignedDuration = SignedDuration::from_hours(24);

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct OrderMail;

/// What a customer is written about. Each has a subject of its own: an id has no slash.
#[derive(Clone, Debug)]
pub enum OrderEvent {
    /// The order is confirmed.
    Confirmed {
        /// `confirmed/<order>`.
        subject: String,
        /// The order.
        order: CheckoutCompleted,
    },
    /// It is on its way.
    Shipped {
        /// `shipped/<order>`.
        subject: String,
        /// The order.
        order: OrderShipped,
    },
}

impl Input for OrderEvent {
    const TOPICS: &'static [(&'static str, &'static str)] =
        &[(CheckoutCompleted::TOPIC, CheckoutCompleted::SCHEMA), (OrderShipped::TOPIC, OrderShipped::SCHEMA)];

    fn read(schema: &str, payload: &[u8]) -> serde_json::Result<Self> {
        Ok(if schema == OrderShipped::SCHEMA {
            let order: OrderShipped = serde_json::from_slice(payload)?;
            OrderEvent::Shipped { subject: format!("shipped/{}", order.order_id), order }
        } else {
            let order: CheckoutCompleted = serde_json::from_slice(payload)?;
            OrderEvent::Confirmed { subject: format!("confirmed/{}", order.order_id), order }
        })
    }
    fn key(&self) -> &str {
        match self {
            OrderEvent::Confirmed { order, .. } => &order.order_id,
            OrderEvent::Shipped { order, .. } => &order.order_id,
        }
    }
    fn subject(&self) -> &str {
        match self {
            OrderEvent::Confirmed { subject, .. } | OrderEvent::Shipped { subject, .. } => subject,
        }
    }
    fn waybill(&self) -> &Waybill {
        match self {
            OrderEvent::Confirmed { order, .. } => Event::waybill(order),
            OrderEvent::Shipped { order, .. } => Event::waybill(order),
        }
    }
    fn check(&self) -> Result<(), String> {
        match self {
            OrderEvent::Confirmed { order, .. } => Event::check(order),
            OrderEvent::Shipped { order, .. } => Event::check(order),
        }
    }
}

/// A mail to be sent: who wrote it down knows no address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderLetter {
    order_id: String,
    customer_id: String,
    /// When it happened.
    date: Timestamp,
    /// How often the mail server was away in a row.
    away: u32,
    about: About,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum About {
    Confirmed { total: Cost },
    Shipped { carrier: String, tracking_numbers: Vec<String>, expected_on: Date },
}

impl OrderLetter {
    fn new(event: &OrderEvent, date: Timestamp) -> Self {
        let (order_id, customer_id, about) = match event {
            OrderEvent::Confirmed { order, .. } => {
                (&order.order_id, &order.customer_id, About::Confirmed { total: order.total.clone() })
            }
            OrderEvent::Shipped { order, .. } => {
                let tracking_numbers = order.parcels.iter().map(|parcel| parcel.tracking_number.clone()).collect();
                let (carrier, expected_on) = (order.carrier.clone(), order.estimated_delivery);
                (&order.order_id, &order.customer_id, About::Shipped { carrier, tracking_numbers, expected_on })
            }
        };
        OrderLetter { order_id: order_id.clone(), customer_id: customer_id.clone(), date, away: 0, about }
    }

    /// The same, however often it is sent.
    fn delivery(&self) -> String {
        match self.about {
            About::Confirmed { .. } => format!("confirmed-{}", self.order_id),
            About::Shipped { .. } => format!("shipped-{}", self.order_id),
        }
    }

    fn content(&self, shop: &super::Shop, customer: Customer) -> Option<Content> {
        let (order, url) = (self.order_id.clone(), shop.order(&self.order_id));
        let (shop, name) = (shop.name.clone(), customer.name);
        Some(match &self.about {
            About::Confirmed { total } => Content::OrderConfirmed(OrderConfirmed {
                shop,
                customer: name,
                order,
                placed_on: self.date.to_zoned(TimeZone::UTC).date(),
                lines: customer.lines,
                total: Money::new(total.amount_minor, Currency::from_code(&total.currency)?),
                url,
            }),
            About::Shipped { carrier, tracking_numbers, expected_on } => {
                let parcel = |number: &String| Parcel {
                    carrier: carrier.clone(),
                    tracking_number: number.clone(),
                    tracking_url: None,
                };
                Content::OrderShipped(waybill_mail::OrderShipped {
                    shop,
                    customer: name,
                    order,
                    parcels: tracking_numbers.iter().map(parcel).collect(),
                    expected_on: Some(*expected_on),
                    url,
                })
            }
        })
    }

    async fn send(&self, outlet: &Outlet, store: &mut Store, cutoff: Instant) -> Result<Came, StoreError> {
        let Provider::Mail(mailer) = outlet.provider() else { return Ok(Came::NoContact) };
        let confirmed = matches!(self.about, About::Confirmed { .. });
        let Some(customer) = orders_rows::customer(store, &self.customer_id, &self.order_id, confirmed).await? else {
            return Ok(Came::NoContact);
        };
        let slots = match outlet.slots(store, 1).await? {
            Ok(slots) => slots,
            Err(wait) => return Ok(Came::NotYet(wait.min(RETRY.1))),
        };
        let now = system_clock();
        let address = customer.email.clone();
        if customer.suppressed {
            let verdict = Verdict::Dead("nothing is sent to this address any more".to_owned());
            return Ok(Came::Sent { interval: (now, now), verdict, address });
        }
        let reach = Reach { id: String::new(), place: customer.email.clone(), name: customer.name.clone() };
        let Some(content) = self.content(outlet.shop(), customer) else {
            let verdict = Verdict::Refused("the total is in no currency".to_owned());
            return Ok(Came::Sent { interval: (now, now), verdict, address });
        };
        sleep_until(slots.nth(0)).await;
        let Some(_leave) = outlet.leave(cutoff).await else { return Ok(Came::NotYet(Duration::ZERO)) };
        let began = system_clock();
        let delivery = self.delivery();
        let verdict = mailer.deliver(&delivery, &reach, self.date, None, &content, cutoff).await;
        if let Verdict::Closed { why, wait } = &verdict {
            outlet.close(store, (*wait).max(lane_closed(self.away)), why).await;
        }
        Ok(Came::Sent { interval: (began, system_clock()), verdict, address })
    }
}

/// What a mail came to.
pub struct OrderAnswer(Came);

enum Came {
    /// Nothing was sent: the same again after this wait.
    NotYet(Duration),
    /// There is nobody to write to.
    NoContact,
    Sent {
        interval: (Timestamp, Timestamp),
        verdict: Verdict,
        address: String,
    },
}

impl Call for OrderLetter {
    type Means = Outlet;
    type Answer = OrderAnswer;

    async fn make(self, outlet: Outlet, _: bool) -> OrderAnswer {
        let cutoff = Instant::now() + CUTOFF;
        let Some(_turn) = outlet.turn().await else { return OrderAnswer(Came::NotYet(Duration::ZERO)) };
        let mut store = outlet.connect();
        match self.send(&outlet, &mut store, cutoff).await {
            Ok(came) => {
                outlet.give_back(store);
                OrderAnswer(came)
            }
            Err(error) => {
                tracing::warn!(%error, "a customer cannot be looked up; the mail goes later");
                OrderAnswer(Came::NotYet(DATABASE_AWAY))
            }
        }
    }
}

/// What has become of a mail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderMailed {
    /// The event's time: the mail's date.
    date: Timestamp,
    /// How often it was tried in vain.
    tries: u32,
    /// How often the mail server was away in a row.
    away: u32,
    /// Since when it has been tried in vain.
    since: Option<Timestamp>,
    /// What became of it, for good.
    result: Option<Tell>,
}

type Said = Outcome<OrderMailed, OrderLetter>;

impl Stage for OrderMail {
    const NAME: &'static str = "order-mail";
    const FLOW: &'static str = spans::FLOW;
    const SPAN: &'static str = "order_mail.send";
    const TABLE: Table = Table("order_mails");
    const CHORES: bool = true;
    const GATHER: Duration = super::GATHER;

    type Event = OrderEvent;
    type State = OrderMailed;
    type Shared = Marks;
    type Call = OrderLetter;

    fn decide(&self, _: &mut Marks, state: Option<&OrderMailed>, event: &OrderEvent, time: Timestamp) -> Said {
        if state.is_some() {
            return Outcome::Repeat;
        }
        let state = OrderMailed { date: time, tries: 0, away: 0, since: None, result: None };
        call(state, event, Duration::ZERO, Details::default())
    }

    fn settle(
        &self,
        marks: &mut Marks,
        state: Option<&OrderMailed>,
        event: &OrderEvent,
        OrderAnswer(came): &OrderAnswer,
        now: Timestamp,
    ) -> Said {
        let Some(state) = state.cloned() else {
            return Outcome::Reject(Refusal::new("bug", "an answer came to what is no mail"));
        };
        match came {
            Came::NotYet(wait) => call(state, event, (*wait).max(TICK), Details::default()),
            Came::NoContact => Outcome::Ignore("there is nobody to write to"),
            Came::Sent { interval, verdict, address } => {
                settled(marks, state, event, (*interval, verdict, address), now)
            }
        }
    }

    async fn tend(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        lane::prune(tx, "orders").await
    }
}

fn call(state: OrderMailed, event: &OrderEvent, wait: Duration, span: Details) -> Said {
    let call = OrderLetter { away: state.away, ..OrderLetter::new(event, state.date) };
    Outcome::Call { state, call, wait, span }
}

fn settled(
    marks: &mut Marks,
    state: OrderMailed,
    event: &OrderEvent,
    (interval, verdict, address): ((Timestamp, Timestamp), &Verdict, &str),
    now: Timestamp,
) -> Said {
    let since = state.since.unwrap_or(now);
    let tired = now.duration_since(since) > PATIENCE;
    let doubled = RETRY.0.saturating_mul(1 << state.tries.min(16)).min(RETRY.1);
    let again = OrderMailed { since: Some(since), ..state.clone() };
    let (result, why) = match verdict {
        Verdict::Sent => (Tell::Sent, ""),
        Verdict::Closed { why, wait } if !tired => {
            let state = OrderMailed { away: again.away + 1, ..again };
            return call(state, event, *wait, tried(interval, why));
        }
        Verdict::Unknown(why) if !tired => {
            let state = OrderMailed { tries: again.tries + 1, away: 0, ..again };
            return call(state, event, doubled, tried(interval, why));
        }
        Verdict::Later { why, after } if !tired => {
            let state = OrderMailed { tries: again.tries + 1, away: 0, ..again };
            return call(state, event, doubled.max(after.unwrap_or_default().min(RETRY.1)), tried(interval, why));
        }
        Verdict::Unknown(why) => (Tell::Unknown, &**why),
        Verdict::Later { why, .. } | Verdict::Closed { why, .. } | Verdict::Refused(why) => (Tell::Failed, &**why),
        Verdict::Dead(why) => {
            marks.suppress(address);
            (Tell::Unreachable, &**why)
        }
    };
    let mut span = if result == Tell::Sent { Details::default() } else { tried(interval, why) };
    if result == Tell::Sent {
        span.parts = vec![smtp(interval, Status::Unset)];
    } else {
        span.status = Status::Error(why.to_owned());
    }
    let about = match event {
        OrderEvent::Confirmed { .. } => "order_confirmed",
        OrderEvent::Shipped { .. } => "order_shipped",
    };
    span.attributes = vec![
        KeyValue::new("order.id", event.key().to_owned()),
        KeyValue::new("mail.template", about),
        KeyValue::new(spans::RESULT, result.as_str()),
    ];
    Outcome::Emit(Decision { state: OrderMailed { result: Some(result), ..state }, events: Vec::new(), span })
}

/// A try in vain.
fn tried(interval: (Timestamp, Timestamp), why: &str) -> Details {
    Details { parts: vec![smtp(interval, Status::Error(why.to_owned()))], ..Details::default() }
}

/// One sending.
fn smtp(interval: (Timestamp, Timestamp), status: Status) -> Part {
    Part {
        name: "order_mail.smtp",
        kind: SpanKind::Client,
        within: None,
        interval,
        attributes: Vec::new(),
        events: Vec::new(),
        links: Vec::new(),
        status,
        publishes: false,
    }
}
