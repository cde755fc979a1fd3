//! `waybill lag`: how far each stage is behind.

use crate::config::Config;
use crate::exit::Ended;
use clap::Args as ClapArgs;
use jiff::SignedDuration;
use std::fmt::Write as _;
use waybill_journeys::human;
use waybill_ops::{PartitionLag, StageLag};
use waybill_topics::Catalogue;

/// Which stages, and how to show them.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only these stages
    #[arg(long = "stage", value_name = "STAGE", num_args = 1.., value_delimiter = ',')]
    stages: Vec<String>,
    /// Every partition, as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn lag(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let lags = waybill_ops::lag(&config.kafka(), &Catalogue::built_in()?, &args.stages)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&lags)?);
    } else {
        print!("{}", table(&lags));
    }
    Ok(Ended::Done)
}

/// A line a stage, and below it each partition that waits and what is amiss.
fn table(lags: &[StageLag]) -> String {
    let mut text = format!("{:<32}{:>9}{:>12}  oldest\n", "stage", "processes", "waiting");
    for lag in lags {
        let processes = lag.members.map_or("?".to_owned(), |members| members.to_string());
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<32}{processes:>9}{:>12}  {}", lag.stage, lag.records, age(lag.age_s));
        for topic in &lag.missing {
            let _ = writeln!(text, "    there is no topic {topic}: run `waybill topics apply`");
        }
        for partition in &lag.leaderless {
            let _ = writeln!(text, "    no broker leads {partition}: nobody knows what waits there");
        }
        if !lag.committed && lag.records > 0 {
            let _ = writeln!(text, "    has never committed: it will begin with the first record there is");
        }
        for PartitionLag { topic, partition, committed, end, .. } in &lag.partitions {
            if let Some(committed) = committed.filter(|committed| committed > end) {
                let _ = writeln!(
                    text,
                    "    {topic}/{partition} ends at {end}, and {committed} is committed: its records were lost"
                );
            }
        }
        for PartitionLag { topic, partition, committed, end, records, age_s, .. } in
            lag.partitions.iter().filter(|partition| partition.records > 0)
        {
            let at = committed.map_or("nothing".to_owned(), |offset| offset.to_string());
            let place = format!("    {topic}/{partition}");
            let _ = writeln!(text, "{place:<41}{records:>12}  {}  (committed {at} of {end})", age(*age_s));
        }
    }
    text
}

fn age(seconds: Option<f64>) -> String {
    seconds.map_or(String::new(), |seconds| human(SignedDuration::from_millis((seconds * 1_000.0) as i64)))
}
