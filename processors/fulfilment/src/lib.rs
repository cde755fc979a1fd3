//! Fulfilment: pick, pack, ship. Each stage is one file; what it knows of the warehouse or the carriers is beside it.
//!
//! `orders.new` → pick → `orders.picked` (and `orders.short`) → pack → `orders.packed` → ship → `orders.shipped` or `orders.cancelled`

mod bins;
mod boxes;
mod carriers;
mod pack;
mod pick;
mod serials;
mod ship;

pub use bins::{Bin, Bins, list_bins, load_bins};
pub use carriers::is_valid_tracking_number;
pub use pack::{Pack, Packed};
pub use pick::{Pick, Picked};
pub use serials::Serials;
pub use ship::{Asked, Ship, Shipment};

/// Scope of the spans and prefix of the metrics.
const FLOW: &str = "fulfilment";

/// An event as it is published, with an empty waybill.
#[cfg(test)]
fn published(event: &mut dyn waybill_spine::Emit) -> serde_json::Value {
    let mut json = Vec::new();
    event.write(&waybill_telemetry::Waybill::default(), &mut json).unwrap();
    serde_json::from_slice(&json).unwrap()
}
