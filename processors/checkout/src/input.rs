//! What the checkout reads: the request, and what becomes of the order afterwards.

use serde_json::from_slice;
use waybill_events::{CheckoutRequested, OrderCancelled, OrderPacked, OrderPicked, OrderShipped, OrderShort};
use waybill_spine::{Event, Input};
use waybill_telemetry::Waybill;

/// One of the checkout's events, all keyed by order.
#[derive(Clone, Debug)]
pub enum CheckoutInput {
    /// A customer asks to check out a cart.
    Requested(CheckoutRequested),
    /// The order was picked.
    Picked(OrderPicked),
    /// Something of it was not found.
    Short(OrderShort),
    /// It was cancelled before it was shipped.
    Cancelled(OrderCancelled),
    /// It was packed.
    Packed(OrderPacked),
    /// It was handed to a carrier.
    Shipped(OrderShipped),
}

impl Input for CheckoutInput {
    const TOPICS: &'static [(&'static str, &'static str)] = &[
        (CheckoutRequested::TOPIC, CheckoutRequested::SCHEMA),
        (OrderPicked::TOPIC, OrderPicked::SCHEMA),
        (OrderShort::TOPIC, OrderShort::SCHEMA),
        (OrderPacked::TOPIC, OrderPacked::SCHEMA),
        (OrderShipped::TOPIC, OrderShipped::SCHEMA),
        (OrderCancelled::TOPIC, OrderCancelled::SCHEMA),
    ];

    fn read(schema: &str, payload: &[u8]) -> serde_json::Result<Self> {
        match schema {
            OrderPicked::SCHEMA => from_slice(payload).map(CheckoutInput::Picked),
            OrderShort::SCHEMA => from_slice(payload).map(CheckoutInput::Short),
            OrderCancelled::SCHEMA => from_slice(payload).map(CheckoutInput::Cancelled),
            OrderPacked::SCHEMA => from_slice(payload).map(CheckoutInput::Packed),
            OrderShipped::SCHEMA => from_slice(payload).map(CheckoutInput::Shipped),
            _ => from_slice(payload).map(CheckoutInput::Requested),
        }
    }

    fn key(&self) -> &str {
        match self {
            CheckoutInput::Requested(event) => &event.order_id,
            CheckoutInput::Picked(event) => &event.order_id,
            CheckoutInput::Short(event) => &event.order_id,
            CheckoutInput::Cancelled(event) => &event.order_id,
            CheckoutInput::Packed(event) => &event.order_id,
            CheckoutInput::Shipped(event) => &event.order_id,
        }
    }

    fn waybill(&self) -> &Waybill {
        match self {
            CheckoutInput::Requested(event) => Event::waybill(event),
            CheckoutInput::Picked(event) => &event.waybill,
            CheckoutInput::Short(event) => &event.waybill,
            CheckoutInput::Cancelled(event) => &event.waybill,
            CheckoutInput::Packed(event) => &event.waybill,
            CheckoutInput::Shipped(event) => &event.waybill,
        }
    }

    fn check(&self) -> Result<(), String> {
        match self {
            CheckoutInput::Requested(event) => Event::check(event),
            CheckoutInput::Picked(event) => Event::check(event),
            CheckoutInput::Short(event) => Event::check(event),
            CheckoutInput::Cancelled(event) => Event::check(event),
            CheckoutInput::Packed(event) => Event::check(event),
            CheckoutInput::Shipped(event) => Event::check(event),
        }
    }
}
