//! `waybill demand`: what people wait for.

use crate::config::Config;
use crate::exit::Ended;
use crate::stock;
use clap::Args as ClapArgs;
use std::fmt::Write as _;
use waybill_notifications::demand::{self, Demand};

/// Which products.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Products [default: all that somebody waits for]
    #[arg(value_name = "PRODUCT", value_parser = stock::product)]
    products: Vec<String>,
    /// Most products, the most wanted first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn demand(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(async {
        let mut store = config.migrated_store().await?;
        let products: Vec<&str> = args.products.iter().map(String::as_str).collect();
        let mut tx = store.begin().await?;
        let found = demand::demand(&mut tx, &products, args.limit).await?;
        tx.commit().await?;
        anyhow::Ok(found)
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        println!("{}", table(&found));
    }
    Ok(Ended::Done)
}

fn table(found: &[Demand]) -> String {
    if found.is_empty() {
        return "nobody waits".to_owned();
    }
    let mut text =
        format!("{:<24}{:>9}{:>9}{:>9}{:>9}  {}", "product", "people", "email", "push", "pieces", "waiting since");
    for Demand { product_id, people, email, push, pieces, oldest } in found {
        let oldest = oldest.map(|oldest| format!("{oldest:.0}")).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = write!(text, "\n{product_id:<24}{people:>9}{email:>9}{push:>9}{pieces:>9}  {oldest}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_a_row() {
        let oldest = "2026-11-21T10:00:00.123456Z".parse().ok();
        let one = Demand { product_id: "p-1".to_owned(), people: 3, email: 2, push: 2, pieces: 7, oldest };
        let table = table(&[one]);
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["p-1", "3", "2", "2", "7", "2026-11-21T10:00:00Z"]);
        assert_eq!(super::table(&[]), "nobody waits");
    }
}
