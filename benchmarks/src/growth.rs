//! How the cost of an order grows.

use crate::chain::{Load, Throughput, line, median, throughput};
use crate::side::Side;
use crate::world::World;
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// Bounds of the measurement.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The most orders; a tenth and a hundredth of it are measured too
    #[arg(long, default_value_t = 1_000_000)]
    orders: u64,
    /// Repetitions; medians are printed
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// The binary under test
    #[arg(long, default_value = "target/release/waybill")]
    waybill: PathBuf,
}

/// Measures; the last lines are a table in Markdown.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let world = World::start(&args.waybill)?;
    let middle = args.orders / 10;
    let mut loads = vec![];
    loads.extend([1, 3, 30].map(|lines| Load { orders: middle, lines, processes: 1 }));
    loads.extend([args.orders / 100, args.orders].map(|orders| Load { orders, lines: 3, processes: 1 }));
    loads.extend([2, 4].map(|processes| Load { orders: middle, lines: 3, processes }));
    let mut rows = Vec::new();
    for load in loads {
        // A million orders tell enough at once.
        let repetitions = if load.orders > middle { 1 } else { args.repetitions };
        let mut results = Vec::new();
        for _ in 0..repetitions {
            let result = throughput(&world, &Side::Waybill, load).await?;
            println!("{}", line(&format!("{} × {}", load.orders, load.lines), &result));
            results.push(result);
        }
        rows.push(row(load, &results));
    }
    println!("| orders | lines | processes | orders/s | CPU s / 1k orders | Postgres CPU s / 1k | memory, MiB |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}

fn row(load: Load, results: &[Throughput]) -> String {
    let of = |get: fn(&Throughput) -> f64| median(results.iter().map(get));
    format!(
        "| {} | {} | {} | {:.0} | {:.4} | {:.4} | {:.0} |",
        load.orders,
        load.lines,
        load.processes,
        of(|t| t.orders_per_s),
        of(|t| t.cpu),
        of(|t| t.db_cpu),
        of(|t| t.peak_rss_mb)
    )
}
