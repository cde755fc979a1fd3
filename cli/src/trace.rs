//! `waybill trace ORDER`: one order's journey.

use crate::config::Config;
use crate::exit::Ended;
use crate::journey::Journey;
use crate::waterfall;
use clap::Args as ClapArgs;

/// Which order, and how to show it.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Order id
    order: String,
    /// The spans, links and events as JSON, times to the nanosecond
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn trace(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let journey = Journey::read(&config.kafka(), &args.order)?;
    if journey.events.is_empty() && journey.dead.is_empty() {
        eprintln!("no topic knows of order {}: is the id right, and --brokers and --prefix?", args.order);
        return Ok(Ended::NotFound);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&journey)?);
    } else {
        print!("{}", waterfall::draw(&journey, usize::from(console::Term::stdout().size().1)));
    }
    Ok(Ended::Done)
}
