//! `waybill produce stock`: plays the warehouse system that books goods in.

use crate::config::Config;
use crate::exit::Ended;
use crate::{catalogue, kafka, produce};
use clap::Args as ClapArgs;
use waybill_events::{AdjustmentReason, MAX_DELTA, StockAdjustment, is_id};
use waybill_spine::{BareEvent, Event, KafkaSink, Message, event_id, system_clock};
use waybill_telemetry::Waybill;

/// Who writes adjustments: whoever has goods, and that is nobody of ours.
const OWNER: &str = "external";
/// Adjustments handed over at a time.
const CHUNK: usize = 500;

/// What to book.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// How many adjustments; the 200 products of the test orders take turns [default: 200, or 1 with --product]
    #[arg(long, short = 'n')]
    count: Option<u64>,
    /// Pieces received with each
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=MAX_DELTA))]
    quantity: i64,
    /// A seed gives the same adjustments and ids, and one that is sent twice is booked once: another one needs another seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One product instead of the test goods
    #[arg(long, value_name = "ID", value_parser = product, requires = "delta")]
    product: Option<String>,
    /// Pieces of that product, negative where they are gone
    #[arg(long, allow_negative_numbers = true, value_parser = delta, requires = "product", conflicts_with = "quantity")]
    delta: Option<i64>,
}

/// A product on the command line.
pub fn product(text: &str) -> Result<String, String> {
    if is_id(text) { Ok(text.to_owned()) } else { Err("not a product id".to_owned()) }
}

fn delta(text: &str) -> Result<i64, String> {
    let delta = text.parse().ok().filter(|d: &i64| *d != 0 && d.unsigned_abs() <= MAX_DELTA.unsigned_abs());
    delta.ok_or_else(|| format!("not a number from -{MAX_DELTA} to {MAX_DELTA}, or 0"))
}

/// Runs the command.
pub fn stock(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let mut sink = sink(config)?;
    let count = args.count.unwrap_or(if args.product.is_some() { 1 } else { catalogue::PRODUCTS.into() });
    let bar = produce::bar(count, "adjustments");
    let mut numbers = (0..count).peekable();
    while numbers.peek().is_some() {
        let chunk: Result<Vec<Message>, _> =
            numbers.by_ref().take(CHUNK).map(|number| message(adjustment(args, number))).collect();
        let chunk = chunk?;
        produce::publish(&mut sink, &chunk)?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish();
    println!("{count} adjustments sent");
    Ok(Ended::Done)
}

/// Where adjustments are written.
pub fn sink(config: &Config) -> anyhow::Result<KafkaSink> {
    let kafka = config.kafka();
    let missing = kafka::missing(&kafka, &[StockAdjustment::TOPIC])?;
    anyhow::ensure!(missing.is_empty(), "topic {} does not exist: run `waybill topics apply`", missing.join(", "));
    Ok(KafkaSink::connect(&kafka, "produce")?)
}

fn adjustment(args: &Args, number: u64) -> StockAdjustment {
    let product_id = args.product.clone().unwrap_or_else(|| catalogue::product_id(number));
    let delta = args.delta.unwrap_or(args.quantity);
    let named = format!("{}/{number}/{product_id}/{delta}", args.seed);
    StockAdjustment {
        adjustment_id: event_id(OWNER, StockAdjustment::TOPIC, &named).to_string(),
        product_id,
        delta,
        reason: if delta > 0 { AdjustmentReason::Received } else { AdjustmentReason::Recount },
    }
}

/// As it is written.
pub fn message(adjustment: StockAdjustment) -> serde_json::Result<Message> {
    let subject = adjustment.adjustment_id.clone();
    BareEvent { event: Box::new(adjustment), subject, time: system_clock(), waybill: Waybill::none() }.message(OWNER)
}

/// Goods received, so many pieces of each product, as the demo books them in.
pub fn received(pieces: &[(String, i64)]) -> serde_json::Result<Vec<Message>> {
    let adjustments = pieces.iter().map(|(product_id, delta)| StockAdjustment {
        adjustment_id: event_id(OWNER, StockAdjustment::TOPIC, product_id).to_string(),
        product_id: product_id.clone(),
        delta: *delta,
        reason: AdjustmentReason::Received,
    });
    adjustments.map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(product: Option<&str>, delta: Option<i64>, seed: u64) -> Args {
        Args { count: None, quantity: 5, seed, product: product.map(str::to_owned), delta }
    }

    #[test]
    fn a_seed_gives_the_same_adjustments_and_another_one_others() {
        let of_seed = |seed| (0..300).map(|number| adjustment(&args(None, None, seed), number)).collect::<Vec<_>>();
        assert_eq!(of_seed(7), of_seed(7));
        let ids: std::collections::BTreeSet<String> =
            of_seed(7).into_iter().chain(of_seed(8)).map(|a| a.adjustment_id).collect();
        assert_eq!(ids.len(), 600);
        assert!(of_seed(7).iter().all(|a| a.check().is_ok() && a.delta == 5));
    }

    #[test]
    fn a_loss_is_a_recount_of_its_product() {
        let lost = adjustment(&args(Some("p-0001"), Some(-3), 1), 0);
        assert_eq!((lost.product_id.as_str(), lost.delta), ("p-0001", -3));
        assert_eq!(lost.reason, AdjustmentReason::Recount);
        assert_ne!(lost.adjustment_id, adjustment(&args(Some("p-0001"), Some(-4), 1), 0).adjustment_id);
    }
}
