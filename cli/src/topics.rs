//! `waybill topics`: the declared topics and a cluster.

use crate::acls;
use crate::config::Config;
use crate::exit::Ended;
use clap::{Args as ClapArgs, Subcommand};
use waybill_topics::{Catalogue, Change};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create what is missing and set what is declared; never deletes, never grows a keyed topic
    Apply(Apply),
    /// Say what apply would do, and which topics nobody declared; ends with 2 where the cluster differs
    Plan,
    /// The declared topics, and how they stand on the cluster
    List,
    /// Print the commands that give each role its rights: to write what it owns, to read what it consumes
    Acls(acls::Args),
}

/// For clusters smaller or larger than topics.yaml means.
#[derive(Debug, ClapArgs)]
pub struct Apply {
    /// Copies of each partition, for new topics [default: as declared]
    #[arg(long)]
    replication: Option<i32>,
    /// Partitions, for new topics [default: as declared]
    #[arg(long)]
    partitions: Option<i32>,
}

/// `created` and `configured`, or the same words for what would be done.
fn tell(change: &Change, (created, configured): (&str, &str)) {
    match change {
        Change::Created { topic, partitions, replication } => {
            println!("{created:<11} {topic} ({partitions} partitions, replication {replication})");
        }
        Change::Configured { topic, settings } => {
            for setting in settings {
                let from = setting.from.as_deref().unwrap_or("?");
                println!("{configured:<11} {topic}: {} {from} → {}", setting.key, setting.to);
            }
        }
        Change::Differs { topic, difference } => println!("differs     {topic} {difference}; left as it is"),
        Change::Unknown { topic } => println!("unknown     {topic}: nobody declared it; apply leaves it"),
        Change::Unchanged { topic } => println!("unchanged   {topic}"),
    }
}

/// Runs the command.
pub fn topics(config: &Config, command: &Command) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let catalogue = Catalogue::built_in()?;
    let kafka = config.kafka();
    if !matches!(command, Command::Acls(_)) {
        // An admin client would wait, and not say what to do.
        crate::kafka::let_in(&kafka)?;
    }
    match command {
        Command::Acls(args) => acls::acls(config, args),
        Command::Apply(Apply { replication, partitions }) => {
            let admin = kafka.admin();
            let apply = waybill_topics::apply(&admin, &catalogue, &kafka.prefix, *replication, *partitions);
            let changes = runtime.block_on(apply)?;
            changes.iter().for_each(|change| tell(change, ("created", "configured")));
            let differs = changes.iter().any(|c| matches!(c, Change::Differs { .. }));
            Ok(if differs { Ended::InPart } else { Ended::Done })
        }
        Command::Plan => {
            let changes = runtime.block_on(waybill_topics::plan(&kafka.admin(), &catalogue, &kafka.prefix))?;
            let differing = || changes.iter().filter(|change| !matches!(change, Change::Unchanged { .. }));
            differing().for_each(|change| tell(change, ("create", "configure")));
            match differing().count() {
                0 => {
                    println!("the cluster is as declared: {} topics", changes.len());
                    Ok(Ended::Done)
                }
                _ => Ok(Ended::Differs),
            }
        }
        Command::List => {
            let listings = runtime.block_on(waybill_topics::list(&kafka.admin(), &catalogue, &kafka.prefix))?;
            println!(
                "{:<24} {:>10} {:>12} {:>10} {:>12}  {:<10} consumers",
                "topic", "partitions", "replication", "retention", "records", "owner"
            );
            for l in &listings {
                let consumers = l.consumers.join(", ");
                match &l.on_cluster {
                    Some(c) => {
                        let retention = c.retention.map_or("?".to_owned(), |r| r.to_string());
                        let records = c.records.map_or("?".to_owned(), |r| r.to_string());
                        println!(
                            "{:<24} {:>10} {:>12} {:>10} {:>12}  {:<10} {consumers}",
                            l.name, c.partitions, c.replication, retention, records, l.owner
                        );
                    }
                    None => println!(
                        "{:<24} {:>10} {:>12} {:>10} {:>12}  {:<10} {consumers}",
                        l.name, "missing", "", "", "", l.owner
                    ),
                }
            }
            if listings.iter().any(|l| l.on_cluster.is_none()) {
                eprintln!("some topics are missing: create them with `waybill topics apply`");
            }
            Ok(Ended::Done)
        }
    }
}
