//! An order that is not to be shipped any more.

use crate::rules;
use serde::{Deserialize, Serialize};
use waybill_spine::Event;
use waybill_telemetry::Waybill;

/// `orders.cancel_requested`: the customer does not want it any more. Whether it comes in time, ship decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequested {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
}

/// `orders.cancelled`: it is not shipped, and never will be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// The spans known when it was cancelled; the spine writes it.
    #[serde(default)]
    pub waybill: Waybill,
}

impl Event for CancelRequested {
    const TOPIC: &'static str = "orders.cancel_requested";
    const SCHEMA: &'static str = "orders.cancel_requested.v1";

    fn key(&self) -> &str {
        &self.order_id
    }
    fn check(&self) -> Result<(), String> {
        rules::id("order_id", &self.order_id)?;
        rules::id("customer_id", &self.customer_id)
    }
}

impl Event for OrderCancelled {
    const TOPIC: &'static str = "orders.cancelled";
    const SCHEMA: &'static str = "orders.cancelled.v1";

    fn key(&self) -> &str {
        &self.order_id
    }
    fn waybill(&self) -> &Waybill {
        &self.waybill
    }
    fn set_waybill(&mut self, waybill: &Waybill) {
        self.waybill.clone_from(waybill);
    }
    fn check(&self) -> Result<(), String> {
        rules::id("order_id", &self.order_id)?;
        rules::id("customer_id", &self.customer_id)?;
        rules::waybill(&self.waybill)
    }
}
