//! From the placed order to the shipped one.

use crate::rules::{self, MAX_LINES, MAX_QUANTITY, MAX_UNITS};
use serde::{Deserialize, Serialize};
use waybill_spine::Event;
use waybill_telemetry::Waybill;

/// How fast the customer wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// The cheapest way.
    Standard,
    /// The faster way.
    Express,
}

/// `orders.new`: a customer's order, paid and ready for the warehouse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// The order; key of all its events.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// Where it goes, ISO 3166-1 alpha-2.
    pub country: String,
    /// How fast.
    pub service: Service,
    /// What was bought.
    pub lines: Vec<Line>,
    /// The spans so far; the spine writes it.
    #[serde(default)]
    pub waybill: Waybill,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its number on the order, from 1.
    pub line: u32,
    /// The product.
    pub product_id: String,
    /// The shop's article number.
    pub sku: String,
    /// Units.
    pub quantity: u32,
    /// Weight of one unit, g.
    pub weight_g: u32,
    /// Length, width, height of one unit, mm.
    pub size_mm: [u32; 3],
}

/// `orders.picked`: what was taken from the bins. A line of which there was nothing is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderPicked {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// Where it goes.
    pub country: String,
    /// How fast.
    pub service: Service,
    /// What was taken.
    pub lines: Vec<PickedLine>,
    /// The spans so far; the spine writes it.
    #[serde(default)]
    pub waybill: Waybill,
}

/// The picked part of a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PickedLine {
    /// Its number on the order.
    pub line: u32,
    /// The product.
    pub product_id: String,
    /// The shop's article number.
    pub sku: String,
    /// Units taken; at least 1.
    pub quantity: u32,
    /// Weight of one unit, g.
    pub weight_g: u32,
    /// Length, width, height of one unit, mm.
    pub size_mm: [u32; 3],
    /// Where from.
    pub bins: Vec<BinTake>,
}

/// Units taken from one bin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinTake {
    /// Warehouse zone.
    pub zone: String,
    /// Bin.
    pub bin: String,
    /// Units.
    pub quantity: u32,
}

/// `orders.short`: lines of which the bins did not hold enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderShort {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// The short lines.
    pub lines: Vec<ShortLine>,
    /// The spans so far; the spine writes it.
    #[serde(default)]
    pub waybill: Waybill,
}

/// A short line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortLine {
    /// Its number on the order.
    pub line: u32,
    /// The product.
    pub product_id: String,
    /// The shop's article number.
    pub sku: String,
    /// Units ordered.
    pub requested: u32,
    /// Units taken; fewer.
    pub picked: u32,
}

/// `orders.packed`: the parcels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderPacked {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// Where it goes.
    pub country: String,
    /// How fast.
    pub service: Service,
    /// Number of the packing slip, which lists what each parcel holds.
    pub slip: String,
    /// The parcels.
    pub parcels: Vec<Parcel>,
    /// The spans so far; the spine writes it.
    #[serde(default)]
    pub waybill: Waybill,
}

/// A packed parcel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parcel {
    /// Its number within the order, from 1.
    pub parcel: u32,
    /// The box, or `own` for goods that travel in their own packaging.
    #[serde(rename = "box")]
    pub box_size: String,
    /// Weight of goods and box, g.
    pub weight_g: u32,
    /// Outer length, width, height, mm.
    pub size_mm: [u32; 3],
    /// What is inside.
    pub items: Vec<ParcelItem>,
}

/// Units of a line in a parcel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParcelItem {
    /// Line of the order.
    pub line: u32,
    /// The product.
    pub product_id: String,
    /// The shop's article number.
    pub sku: String,
    /// Units.
    pub quantity: u32,
}

/// `orders.shipped`: handed over to a carrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderShipped {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// Where it goes.
    pub country: String,
    /// How fast.
    pub service: Service,
    /// The carrier.
    pub carrier: String,
    /// What the carrier charges for all parcels.
    pub cost: Cost,
    /// Expected day of delivery, ISO 8601.
    pub estimated_delivery: jiff::civil::Date,
    /// The parcels, each with its label.
    pub parcels: Vec<ShippedParcel>,
    /// The spans so far; the spine writes it.
    #[serde(default)]
    pub waybill: Waybill,
}

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// In minor units (cents).
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
}

/// A parcel on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippedParcel {
    /// Its number within the order.
    pub parcel: u32,
    /// The box.
    #[serde(rename = "box")]
    pub box_size: String,
    /// Weight, g.
    pub weight_g: u32,
    /// The carrier's number, its last digit a check digit.
    pub tracking_number: String,
    /// The label, ZPL II; no name or address stands on it.
    pub label: String,
}

macro_rules! event {
    ($type:ty, $topic:literal, $check:ident) => {
        impl Event for $type {
            const TOPIC: &'static str = $topic;
            const SCHEMA: &'static str = concat!($topic, ".v1");
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
                rules::waybill(&self.waybill)?;
                $check(self)
            }
        }
    };
}

event!(OrderPlaced, "orders.new", check_placed);
event!(OrderPicked, "orders.picked", check_picked);
event!(OrderShort, "orders.short", check_short);
event!(OrderPacked, "orders.packed", check_packed);
event!(OrderShipped, "orders.shipped", check_shipped);

fn check_placed(order: &OrderPlaced) -> Result<(), String> {
    rules::country(&order.country)?;
    rules::count("lines", order.lines.len(), MAX_LINES)?;
    rules::distinct(order.lines.iter().map(|l| l.line))?;
    order.lines.iter().try_for_each(|l| {
        let goods = Goods { quantity: l.quantity, weight_g: l.weight_g, size_mm: l.size_mm };
        check_line(l.line, &l.product_id, &l.sku, &goods)
    })?;
    rules::units(order.lines.iter().map(|l| l.quantity))
}

fn check_picked(order: &OrderPicked) -> Result<(), String> {
    rules::country(&order.country)?;
    rules::count("lines", order.lines.len(), MAX_LINES)?;
    rules::distinct(order.lines.iter().map(|l| l.line))?;
    order.lines.iter().try_for_each(|l| {
        let goods = Goods { quantity: l.quantity, weight_g: l.weight_g, size_mm: l.size_mm };
        check_line(l.line, &l.product_id, &l.sku, &goods)
    })?;
    rules::units(order.lines.iter().map(|l| l.quantity))
}

fn check_short(order: &OrderShort) -> Result<(), String> {
    rules::count("lines", order.lines.len(), MAX_LINES)?;
    order.lines.iter().try_for_each(|l| {
        rules::id("product_id", &l.product_id)?;
        rules::between("requested", l.requested, 1, MAX_QUANTITY)?;
        if l.picked < l.requested { Ok(()) } else { Err(format!("line {} is not short", l.line)) }
    })
}

fn check_packed(order: &OrderPacked) -> Result<(), String> {
    rules::country(&order.country)?;
    // A unit too large for a box travels alone, so there may be as many parcels as units.
    rules::count("parcels", order.parcels.len(), MAX_UNITS as usize)?;
    rules::distinct(order.parcels.iter().map(|p| p.parcel))
}

fn check_shipped(order: &OrderShipped) -> Result<(), String> {
    rules::country(&order.country)?;
    rules::count("parcels", order.parcels.len(), MAX_UNITS as usize)
}

struct Goods {
    quantity: u32,
    weight_g: u32,
    size_mm: [u32; 3],
}

fn check_line(line: u32, product_id: &str, sku: &str, goods: &Goods) -> Result<(), String> {
    let checks = || {
        rules::between("line", line, 1, u32::MAX)?;
        rules::id("product_id", product_id)?;
        rules::id("sku", sku)?;
        rules::between("quantity", goods.quantity, 1, MAX_QUANTITY)?;
        rules::between("weight_g", goods.weight_g, 0, 1_000_000)?;
        goods.size_mm.iter().try_for_each(|side| rules::between("size_mm", *side, 1, 10_000))
    };
    checks().map_err(|why: String| format!("line {line}: {why}"))
}
