//! What has become of a checkout, as events and the table `checkouts` tell it.

use crate::problem::{Kind, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waybill_events::{CheckoutRejected, Cost, Rejection, Step};
use waybill_store::StoreError;

/// The end of a checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Confirmed,
    Rejected(Failure),
}

/// Why a checkout came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Failure {
    pub step: Step,
    pub reason: Rejection,
    #[serde(default)]
    pub products: Vec<String>,
}

impl Failure {
    /// The same problem whether an event told of it or the database.
    pub(crate) fn problem(self, order_id: String) -> Problem {
        Problem { products: self.products, order_id: Some(order_id), ..Kind::Rejected(self.reason).into() }
    }
}

impl From<CheckoutRejected> for Failure {
    fn from(event: CheckoutRejected) -> Self {
        Failure { step: event.step, reason: event.reason, products: event.products }
    }
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// The checkout is not at its end.
    #[serde(alias = "running")]
    Pending,
    /// It is paid; the warehouse has it.
    Confirmed,
    /// There is no order.
    Rejected,
    /// Its goods are taken from their bins.
    Picked,
    /// It is in its parcels.
    Packed,
    /// A carrier has it.
    Shipped,
    /// It was confirmed, and then cancelled.
    Cancelled,
}

impl Status {
    /// Why an order that stands so cannot be cancelled; nothing where it can.
    pub(crate) fn refuses_to_cancel(self) -> Option<Kind> {
        match self {
            Status::Pending => Some(Kind::OrderPending),
            Status::Confirmed | Status::Picked | Status::Packed => None,
            Status::Rejected => Some(Kind::OrderRejected),
            Status::Shipped => Some(Kind::OrderShipped),
            Status::Cancelled => Some(Kind::OrderCancelled),
        }
    }
}

/// The `state` of a row of `checkouts`, as far as the gateway reads it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Checkout {
    pub status: Status,
    pub customer_id: String,
    #[serde(default)]
    pub total: Option<Cost>,
    #[serde(default)]
    pub item_count: Option<u32>,
    #[serde(default)]
    pub failure: Option<Failure>,
}

impl Checkout {
    /// As the checkout wrote it.
    pub(crate) fn read(state: &str) -> Result<Self, StoreError> {
        serde_json::from_str(state).map_err(|error| sqlx::Error::Decode(error.into()).into())
    }

    /// Asked for; more is not known.
    pub(crate) fn pending(customer_id: String) -> Self {
        Checkout { status: Status::Pending, customer_id, total: None, item_count: None, failure: None }
    }

    /// Nothing while it runs. An order that went on its way, or was cancelled on it, was confirmed.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self.status {
            Status::Pending => None,
            Status::Rejected => {
                // Whoever rejects says why; where that is missing, somebody ended it.
                let unsaid = || Failure { step: Step::CreatingOrder, reason: Rejection::Aborted, products: Vec::new() };
                Some(Outcome::Rejected(self.failure.unwrap_or_else(unsaid)))
            }
            Status::Confirmed | Status::Picked | Status::Packed | Status::Shipped | Status::Cancelled => {
                Some(Outcome::Confirmed)
            }
        }
    }
}
