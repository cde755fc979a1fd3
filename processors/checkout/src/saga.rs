//! What is kept of a checkout, and of the order it becomes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use waybill_events::{Cost, Line, OrderPlaced, Rejection, Service, Step};
use waybill_money::Money;
use waybill_telemetry::Waybill;

/// How long a payment of unknown outcome is asked for. Stripe forgets a key after 24 h, and would then charge again.
const SETTLE: Duration = Duration::from_secs(23 * 60 * 60);

/// Where a checkout, and then its order, has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The saga goes on.
    Running,
    /// It ended without an order.
    Rejected,
    /// Reserved, paid, published.
    Confirmed,
    /// Taken from the bins.
    Picked,
    /// In its parcels.
    Packed,
    /// With the carrier.
    Shipped,
    /// Cancelled before it was shipped.
    Cancelled,
}

/// Why a checkout came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub step: Step,
    /// Why.
    pub reason: Rejection,
    /// The products it failed on.
    pub products: Vec<String>,
}

/// A line of the cart, as it is bought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bought {
    /// Product and pieces.
    #[serde(flatten)]
    pub line: Line,
    /// Of one piece.
    pub price: Money,
}

/// The call that a saga waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaits {
    /// The customer's money.
    Charge,
    /// That it went back.
    Refund,
}

/// The state of a checkout. Other processes read `status`, `customer_id`, `cart_id`, `total`, `item_count` and `failure`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// How it stands.
    pub status: Status,
    /// The step it is at, or was at when it ended.
    pub step: Step,
    /// Whose it is.
    pub customer_id: String,
    /// What is bought.
    pub cart_id: String,
    /// What it costs; none where the cart was never read.
    pub total: Option<Cost>,
    /// Lines.
    pub item_count: u32,
    /// Why it came to nothing, or is about to.
    pub failure: Option<Failure>,
    /// Where it goes, ISO 3166-1 alpha-2.
    pub country: String,
    /// How fast.
    pub service: Service,
    /// What is bought, by line.
    pub lines: Vec<Bought>,
    /// The call it waits for; none where it is at its end.
    pub awaits: Option<Awaits>,
    /// When the customer asked, UTC.
    pub requested_at: Timestamp,
    /// The charge's number, from 1: a new one after a decline.
    pub attempt: u32,
    /// Calls of this charge or refund whose outcome is not known,
    pub unknown: u32,
    /// and when the first of them was.
    pub unknown_since: Option<Timestamp>,
    /// The charge, once it is made.
    pub charge_id: Option<String>,
    /// Paid back, minor units.
    #[serde(default)]
    pub refunded_minor: i64,
    /// Somebody on call ends it: its next step undoes what was done.
    #[serde(default)]
    pub abort: bool,
}

impl Saga {
    /// What is to be paid.
    pub(crate) fn amount(&self) -> Option<Money> {
        let cost = self.total.as_ref()?;
        Some(Money::new(cost.amount_minor, waybill_money::Currency::from_code(&cost.currency)?))
    }

    /// One more call whose outcome is not known; none where it has been asked for too long.
    pub(crate) fn asked_in_vain(&self, now: Timestamp) -> Option<Self> {
        let since = self.unknown_since.unwrap_or(now);
        let asked = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        (asked <= SETTLE).then(|| Saga { unknown: self.unknown + 1, unknown_since: Some(since), ..self.clone() })
    }

    /// The outcome of its call is known.
    pub(crate) fn known(&self) -> Self {
        Saga { awaits: None, unknown: 0, unknown_since: None, ..self.clone() }
    }

    /// The order, as the warehouse gets it.
    pub(crate) fn order(&self, order_id: &str) -> OrderPlaced {
        OrderPlaced {
            order_id: order_id.to_owned(),
            customer_id: self.customer_id.clone(),
            country: self.country.clone(),
            service: self.service,
            lines: self.lines.iter().map(|bought| bought.line.clone()).collect(),
            waybill: Waybill::default(),
        }
    }

    /// Its lines for the stock.
    pub(crate) fn pieces<'a>(&'a self, order_id: &'a str) -> waybill_inventory::Lines<'a> {
        let lines = self.lines.iter().map(|b| (b.line.product_id.as_str(), b.line.quantity)).collect();
        waybill_inventory::Lines { order_id, lines }
    }
}

/// An amount as events tell it.
pub(crate) fn cost(money: Money) -> Cost {
    Cost { amount_minor: money.amount, currency: money.currency.code().to_owned() }
}
