//! What is said of the stock.

use crate::rules;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use waybill_spine::Event;

/// Most pieces of one adjustment, in either direction.
pub const MAX_DELTA: i64 = 1_000_000;

/// `inventory.adjustments`: pieces that came in, or are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockAdjustment {
    /// The adjustment, booked once however often it is sent.
    pub adjustment_id: String,
    /// The product; key of all that is said of its stock.
    pub product_id: String,
    /// Pieces; negative where they are gone.
    pub delta: i64,
    /// Why.
    pub reason: AdjustmentReason,
}

/// Why the stock is adjusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustmentReason {
    /// Goods came in.
    Received,
    /// A customer sent them back.
    Returned,
    /// They were counted.
    Recount,
    /// They cannot be sold any more.
    Damaged,
}

impl Event for StockAdjustment {
    const TOPIC: &'static str = "inventory.adjustments";
    const SCHEMA: &'static str = "inventory.adjustments.v1";

    fn key(&self) -> &str {
        &self.product_id
    }
    fn check(&self) -> Result<(), String> {
        rules::id("adjustment_id", &self.adjustment_id)?;
        rules::id("product_id", &self.product_id)?;
        if self.delta != 0 && (-MAX_DELTA..=MAX_DELTA).contains(&self.delta) {
            return Ok(());
        }
        Err(format!("delta must be from -{MAX_DELTA} to {MAX_DELTA} and not 0; it is {}", self.delta))
    }
}

/// `inventory.levels`: another quantity of a product is available than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLevel {
    /// The product.
    pub product_id: String,
    /// Counts the product's levels from 1, without a gap.
    pub version: i64,
    /// Pieces to be had.
    pub available: i64,
    /// The last version, this one included, that left nothing; 0 if none did.
    pub last_zero_version: i64,
    /// When it changed.
    pub changed_at: Timestamp,
}

impl Event for StockLevel {
    const TOPIC: &'static str = "inventory.levels";
    const SCHEMA: &'static str = "inventory.levels.v1";

    fn key(&self) -> &str {
        &self.product_id
    }
    fn check(&self) -> Result<(), String> {
        rules::id("product_id", &self.product_id)?;
        if self.version < 1 || self.available < 0 || !(0..=self.version).contains(&self.last_zero_version) {
            return Err("version counts from 1, available from 0, last_zero_version from 0 to version".to_owned());
        }
        Ok(())
    }
}
