//! `waybill produce checkouts`: plays customers, over the gateway's HTTP API.

mod plan;
mod shopper;
mod tally;

pub use plan::{Scenario, Visit, visit};
pub use shopper::Shopper;
pub use tally::Tally;

use crate::exit::Ended;
use crate::{catalogue, produce};
use anyhow::Context;
use clap::Args as ClapArgs;
use indicatif::ProgressBar;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tally::Visited;
use tokio::task::{JoinError, JoinSet};

/// What to do.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Each checkout is a cart of test goods of a customer of its own. What the gateway asks to repeat \
(409 in_progress, 429, 503) is repeated under the same key, after Retry-After; a 202 is followed by its status URL to the \
end. A seed that is sent again within 24 h gets the answers of the first time.\n\n\
The shop must be running (`waybill run all`, with a payment provider: `waybill run payment-simulator`) and have goods: \
`waybill produce stock --quantity 1000`, and for the warehouse `waybill bins load --test-goods 1000`.\n\n\
It exits with 3 where a checkout ended in neither an order nor a refusal that names its reason."
)]
pub struct Args {
    /// How many checkouts
    #[arg(long, short = 'n', default_value_t = 1_000)]
    count: u64,
    /// Checkouts a second; 0 sends the next one as soon as one is answered
    #[arg(long, default_value_t = 0.0, value_parser = produce::rate)]
    rate: f64,
    /// A seed gives the same customers, carts, keys and cards
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What is hard about it
    #[arg(long, value_enum, default_value_t = Scenario::Normal)]
    scenario: Scenario,
    /// The gateway
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Customers at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
}

/// Runs the command.
pub fn checkouts(args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let shopper = Shopper::new(&args.url)?;
        let what_to_do = "start one with `waybill run all`, or name yours with --url";
        let products = Arc::new(shopper.make_products(catalogue::goods()).await.context(what_to_do)?);
        let bar = produce::bar(args.count, "checkouts");
        let begun = Instant::now();
        let visits = (0..args.count).map(|number| visit(args.scenario, args.seed, number));
        let pace = Pace { rate: args.rate, concurrency: args.concurrency.into() };
        let tally = send(&shopper, &products, visits, pace, &bar).await;
        let took = begun.elapsed();
        bar.finish();
        if args.scenario == Scenario::StalePrices {
            put_prices_back(&shopper, &products).await?;
        }
        println!("{}", tally.table(took));
        Ok(advise(args, &tally))
    })
}

/// How fast.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Visits begun a second; 0 is as fast as they are over.
    pub rate: f64,
    /// At a time.
    pub concurrency: usize,
}

/// Sends customers their way, and counts what it came to.
pub async fn send(
    shopper: &Shopper,
    products: &Arc<BTreeMap<String, Value>>,
    visits: impl Iterator<Item = Visit>,
    pace: Pace,
    bar: &ProgressBar,
) -> Tally {
    let (mut tally, mut out) = (Tally::default(), JoinSet::new());
    let mut told = |ended: Option<Result<Visited, _>>| {
        let Some(ended) = ended else { return };
        tally.add(ended.unwrap_or_else(|error: JoinError| Visited::failed(0, Duration::ZERO, error.to_string())));
        bar.set_prefix(tally.short());
        bar.inc(1);
    };
    let begun = Instant::now();
    for (number, visit) in visits.enumerate() {
        if pace.rate > 0.0 {
            let due = begun + Duration::from_secs_f64(number as f64 / pace.rate);
            tokio::time::sleep_until(due.into()).await;
        }
        while out.len() >= pace.concurrency {
            told(out.join_next().await);
        }
        let (shopper, products) = (shopper.clone(), products.clone());
        out.spawn(async move { shopper.visit(&visit, &products).await });
    }
    while !out.is_empty() {
        told(out.join_next().await);
    }
    tally
}

async fn put_prices_back(shopper: &Shopper, products: &BTreeMap<String, Value>) -> anyhow::Result<()> {
    for id in plan::repriced() {
        if let Some(product) = products.get(&id) {
            shopper.put_product(&id, product).await.context("prices are not as they were")?;
        }
    }
    Ok(())
}

/// Tells what went wrong, and what is missing where the scenario did not come about.
fn advise(args: &Args, tally: &Tally) -> Ended {
    let short = tally.refused("insufficient_stock");
    if short > 0 && args.scenario != Scenario::SoldOut {
        eprintln!(
            "{short} checkouts found too little in stock: book goods in with `waybill produce stock --quantity 1000 --seed …` \
             (a new seed each time), and send another seed"
        );
    } else if short == 0 && args.scenario == Scenario::SoldOut {
        eprintln!(
            "nothing sold out: send more checkouts than there are pieces of p-0200, or take some away with \
             `waybill produce stock --product p-0200 --delta -…`"
        );
    }
    if tally.failed() == 0 {
        return Ended::Done;
    }
    tally.failures().for_each(|failure| eprintln!("{failure}"));
    eprintln!("{} checkouts ended in neither an order nor a refusal", tally.failed());
    Ended::InPart
}
