//! The events of the order flow, as they stand on their topics. `schemas/` describes the same in JSON Schema.

mod cancellation;
mod checkout;
mod notifications;
mod orders;
mod rules;
mod stock;

pub use cancellation::{CancelRequested, OrderCancelled};
pub use checkout::{CheckoutCompleted, CheckoutRejected, CheckoutRequested, Rejection, Step};
pub use notifications::{
    Batch, EmailBatch, EmailResults, MAX_BATCH, PushBatch, PushResults, Restocked, Results, Tell, Told,
};
pub use orders::{
    BinTake, Cost, Line, OrderPacked, OrderPicked, OrderPlaced, OrderShipped, OrderShort, Parcel, ParcelItem,
    PickedLine, Service, ShippedParcel, ShortLine,
};
pub use rules::{MAX_LINES, MAX_QUANTITY, MAX_UNITS, is_id};
pub use stock::{AdjustmentReason, MAX_DELTA, StockAdjustment, StockLevel};
