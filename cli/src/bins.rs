//! `waybill bins`: what lies where, until a warehouse system says so itself.

use crate::catalogue;
use crate::config::Config;
use crate::exit::Ended;
use anyhow::Context;
use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;
use waybill_fulfilment::Bin;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set bins to counted quantities; bins that are not named stay as they are
    Load(Load),
    /// List all bins as CSV
    List,
}

/// Where the counts come from.
#[derive(Debug, ClapArgs)]
#[group(required = true)]
pub struct Load {
    /// CSV with the columns product_id, bin, zone, quantity; all of it is loaded, or nothing
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Two bins for each of the 200 products of the test orders, with so many units in each
    #[arg(long, value_name = "UNITS")]
    test_goods: Option<u32>,
}

/// Runs the command.
pub fn bins(config: &Config, command: &Command) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let bins = match command {
        Command::Load(Load { from: Some(file), .. }) => read(file)?,
        Command::Load(Load { test_goods, .. }) => catalogue::bins(test_goods.unwrap_or_default().into()),
        Command::List => Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut store = config.migrated_store().await?;
        match command {
            Command::Load(_) => {
                waybill_fulfilment::load_bins(&mut store, &bins).await?;
                println!("{} bins loaded", bins.len());
            }
            Command::List => {
                let mut out = csv::Writer::from_writer(std::io::stdout());
                for bin in waybill_fulfilment::list_bins(&mut store).await? {
                    out.serialize(bin)?;
                }
                out.flush()?;
            }
        }
        Ok(Ended::Done)
    })
}

fn read(file: &std::path::Path) -> anyhow::Result<Vec<Bin>> {
    let mut reader = csv::Reader::from_path(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut bins = Vec::new();
    for row in reader.deserialize() {
        let bin: Bin = row?;
        anyhow::ensure!(
            [&bin.product_id, &bin.bin, &bin.zone].iter().all(|id| waybill_events::is_id(id)) && bin.quantity >= 0,
            "line {}: product_id, bin and zone are 1 to 64 characters of A-Z a-z 0-9 _ . - and quantity is not negative",
            bins.len() + 2,
        );
        bins.push(bin);
    }
    Ok(bins)
}
