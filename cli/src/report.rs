//! `waybill report ORDER`: a journey as one HTML file, to be kept or sent on.

use crate::config::Config;
use crate::exit::Ended;
use crate::journey;
use anyhow::Context;
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use waybill_journeys::Journey;

/// Which order, and where to.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Order id
    order: String,
    /// The file, which is written anew
    #[arg(long, short, value_name = "FILE", default_value = "journey.html")]
    output: PathBuf,
}

/// Runs the command.
pub fn report(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let journey = journey::read(&config.kafka(), &args.order)?;
    if journey.is_empty() {
        eprintln!("no topic knows of order {}: is the id right, and --brokers and --prefix?", args.order);
        return Ok(Ended::NotFound);
    }
    write(&journey, &args.output)?;
    println!("{}", args.output.display());
    Ok(Ended::Done)
}

/// Writes the file.
pub fn write(journey: &Journey, file: &Path) -> anyhow::Result<()> {
    let html = waybill_pages::report(journey)?;
    std::fs::write(file, html).with_context(|| format!("cannot write {}", file.display()))
}
