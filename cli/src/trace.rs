//! `waybill trace ORDER`: one order's journey. `waybill trace --product ID`: a product's.

use crate::config::Config;
use crate::exit::Ended;
use crate::journey;
use crate::product::Product;
use crate::waterfall;
use clap::Args as ClapArgs;

/// Which order or product, and how to show it.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Order id
    #[arg(required_unless_present = "product")]
    order: Option<String>,
    /// A product instead: sold out, asked for, restocked, told, bought again
    #[arg(long, value_name = "ID", conflicts_with = "order")]
    product: Option<String>,
    /// The spans, links and events as JSON, times to the nanosecond
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn trace(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    match (&args.order, &args.product) {
        (_, Some(product)) => of_product(config, product, args.json),
        (Some(order), None) => of_order(config, order, args.json),
        (None, None) => anyhow::bail!("name an order, or a product with --product"),
    }
}

fn of_order(config: &Config, order: &str, json: bool) -> anyhow::Result<Ended> {
    let journey = journey::read(&config.kafka(), order)?;
    if journey.is_empty() {
        eprintln!("no topic knows of order {order}: is the id right, and --brokers and --prefix?");
        return Ok(Ended::NotFound);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&journey)?);
    } else {
        print!("{}", waterfall::draw(&journey, usize::from(console::Term::stdout().size().1)));
    }
    Ok(Ended::Done)
}

fn of_product(config: &Config, product: &str, json: bool) -> anyhow::Result<Ended> {
    let journey = Product::read(&config.kafka(), product)?;
    if !journey.is_known() {
        eprintln!(
            "product {product} never sold out, or no topic knows of it: is the id right, and --brokers and --prefix?"
        );
        return Ok(Ended::NotFound);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&journey)?);
    } else {
        print!("{}", journey.tell());
    }
    Ok(Ended::Done)
}
