//! `waybill produce restock`: the warehouse receives goods that people wait for.

use crate::config::Config;
use crate::exit::Ended;
use crate::{produce, stock};
use clap::Args as ClapArgs;
use rand::Rng;
use waybill_events::{AdjustmentReason, MAX_DELTA, StockAdjustment};

/// What came.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Each time is another delivery, unlike `waybill produce stock`, which books a seed once.")]
pub struct Args {
    /// Of which product
    #[arg(long, value_name = "ID", value_parser = stock::product)]
    product: String,
    /// Pieces received
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=MAX_DELTA))]
    quantity: i64,
}

/// Runs the command.
pub fn restock(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    produce::publish(&mut stock::sink(config)?, &[stock::message(delivery(&args.product, args.quantity))?])?;
    println!("{} pieces of {} received", args.quantity, args.product);
    Ok(Ended::Done)
}

/// A delivery, as a warehouse system would tell of it.
pub fn delivery(product: &str, quantity: i64) -> StockAdjustment {
    StockAdjustment {
        adjustment_id: format!("delivery-{:032x}", rand::rng().random::<u128>()),
        product_id: product.to_owned(),
        delta: quantity,
        reason: AdjustmentReason::Received,
    }
}
