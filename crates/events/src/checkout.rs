//! From the request to check out a cart to its end.

use crate::orders::Cost;
use crate::rules::{self, MAX_LINES};
use serde::{Deserialize, Serialize};
use waybill_spine::Event;

/// `checkout.requested`: a customer asked to check out a cart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutRequested {
    /// The order that it is to become.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// The cart to be bought.
    pub cart_id: String,
}

/// `checkout.completed`: it ended in an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutCompleted {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// What was charged.
    pub total: Cost,
    /// Lines of the order.
    pub item_count: u32,
}

/// `checkout.rejected`: it ended without an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutRejected {
    /// The order that was to be.
    pub order_id: String,
    /// Whose it was.
    pub customer_id: String,
    /// The step that failed.
    pub step: Step,
    /// Why.
    pub reason: Rejection,
    /// The products it failed on; empty where it was none of them.
    pub products: Vec<String>,
}

/// A step of the checkout; `checkout.step` in spans and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reads the cart, compares its prices, reserves its lines.
    ValidatingCart,
    /// Charges the customer.
    ProcessingPayment,
    /// Makes the reservation a sale.
    CreatingOrder,
}

/// Why a checkout is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// The cart is not there, is empty, or is another customer's.
    NoSuchCart,
    /// Prices have changed since the goods were put into the cart.
    StalePrices,
    /// Fewer pieces are available than the cart asks for.
    InsufficientStock,
    /// The payment was declined.
    Declined,
    /// The provider could not be asked, or did not say, in time.
    PaymentUnavailable,
    /// The reservation ran out before the payment came, and the goods were gone by then.
    ReservationLapsed,
    /// Somebody on call ended it.
    Aborted,
}

macro_rules! event {
    ($type:ty, $topic:literal, $check:expr) => {
        impl Event for $type {
            const TOPIC: &'static str = $topic;
            const SCHEMA: &'static str = concat!($topic, ".v1");
            fn key(&self) -> &str {
                &self.order_id
            }
            fn check(&self) -> Result<(), String> {
                rules::id("order_id", &self.order_id)?;
                rules::id("customer_id", &self.customer_id)?;
                let check: fn(&Self) -> Result<(), String> = $check;
                check(self)
            }
        }
    };
}

event!(CheckoutRequested, "checkout.requested", |event| rules::id("cart_id", &event.cart_id));
event!(CheckoutCompleted, "checkout.completed", |event| {
    rules::count("item_count", event.item_count as usize, MAX_LINES)
});
event!(CheckoutRejected, "checkout.rejected", |event| {
    event.products.iter().try_for_each(|product| rules::id("products", product))
});
