//! `waybill late`, `stuck` and `times`: what is asked of journeys.

use crate::config::Config;
use crate::exit::Ended;
use crate::replay::{self, Temporary};
use clap::Args as ClapArgs;
use clap::builder::PossibleValuesParser;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use waybill_journeys::{Late, Legs, Promise, Stuck, Target, human};
use waybill_spine::system_clock;

/// Where the journeys are.
#[derive(Debug, ClapArgs)]
struct At {
    /// A target of `waybill replay`, as it is [default: the topics, read for this question]
    #[arg(long, value_name = "FILE.db|postgres://…")]
    at: Option<String>,
    /// As JSON, times in nanoseconds
    #[arg(long)]
    json: bool,
}

/// What is late.
#[derive(Debug, ClapArgs)]
pub struct LateArgs {
    #[command(flatten)]
    at: At,
    /// How long it may take, for example 48h
    #[arg(long, value_name = "DURATION", default_value = "48h", value_parser = duration)]
    sla: i64,
    /// From the end of this stage
    #[arg(long, value_name = "STAGE", default_value = "checkout", value_parser = PossibleValuesParser::new(["checkout", "pick"]))]
    from: String,
    /// To the end of this one
    #[arg(long, value_name = "STAGE", default_value = "ship", value_parser = PossibleValuesParser::new(["pick", "pack", "ship"]))]
    to: String,
}

/// What has stopped.
#[derive(Debug, ClapArgs)]
pub struct StuckArgs {
    #[command(flatten)]
    at: At,
    /// Nothing was heard of them for so long, for example 2h
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = duration)]
    older: i64,
}

/// Waits and work.
#[derive(Debug, ClapArgs)]
pub struct TimesArgs {
    #[command(flatten)]
    at: At,
}

/// Nanoseconds.
fn duration(text: &str) -> Result<i64, String> {
    let parsed: Option<SignedDuration> = text.parse().ok();
    let nanos = parsed.filter(|d| !d.is_negative()).and_then(|d| i64::try_from(d.as_nanos()).ok());
    nanos.ok_or_else(|| "not a duration such as 48h or 90m".to_owned())
}

/// Asks `question`; `table` shows the answer, or says that there is nothing to show.
fn ask<T: Serialize>(
    config: &Config,
    at: &At,
    question: impl AsyncFnOnce(&mut Target) -> anyhow::Result<Vec<T>>,
    table: impl FnOnce(&[T]) -> String,
) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answer = match &at.at {
            Some(at) => question(&mut Target::existing(at).await?).await?,
            None => {
                let mut temporary = Temporary::open().await?;
                if replay::all(config, &mut temporary.target).await?.empty {
                    eprintln!("the topics hold no record: are --brokers and --prefix right?");
                    return Ok(Ended::NotFound);
                }
                question(&mut temporary.target).await?
            }
        };
        if at.json {
            println!("{}", serde_json::to_string_pretty(&answer)?);
        } else {
            print!("{}", table(&answer));
        }
        Ok(Ended::Done)
    })
}

/// Runs `waybill late`.
pub fn late(config: &Config, args: &LateArgs) -> anyhow::Result<Ended> {
    let promise = Promise { from: &args.from, to: &args.to, within_ns: args.sla, now_ns: now() };
    let question = async |target: &mut Target| Ok(target.late(promise).await?);
    ask(config, &args.at, question, |late: &[Late]| {
        let mut text = String::new();
        for order in late {
            let how = if order.to_ns.is_some() { "late" } else { "still on its way" };
            let (from, took) = (time(order.from_ns), length(order.took_ns));
            text += &format!("{:<36}  {from}  {took:>14}  {how}\n", order.order_id);
        }
        text + &format!("{} late: more than {} from {} to {}\n", late.len(), length(args.sla), args.from, args.to)
    })
}

/// Runs `waybill stuck`.
pub fn stuck(config: &Config, args: &StuckArgs) -> anyhow::Result<Ended> {
    let question = async |target: &mut Target| Ok(target.stuck(now().saturating_sub(args.older)).await?);
    ask(config, &args.at, question, |stuck: &[Stuck]| {
        let mut text = String::new();
        for order in stuck {
            let why = order.reason.as_deref().unwrap_or("no dead letter tells why");
            text += &format!("{:<36}  {:<8}  {}  {why}\n", order.order_id, order.waits_for, time(order.since_ns));
        }
        text + &format!("{} stopped: nothing heard of them for {}\n", stuck.len(), length(args.older))
    })
}

/// Runs `waybill times`.
pub fn times(config: &Config, args: &TimesArgs) -> anyhow::Result<Ended> {
    let question = async |target: &mut Target| Ok(target.times().await?);
    ask(config, &args.at, question, |legs: &[Legs]| {
        let head = ["p50", "p90", "p99"].map(|p| format!("{p:>14}")).join("");
        let mut text = format!("{:<10}{:<6}{:>10}{head}\n", "stage", "", "orders");
        for leg in legs {
            let times = [leg.p50_ns, leg.p90_ns, leg.p99_ns].map(|ns| format!("{:>14}", length(ns))).join("");
            text += &format!("{:<10}{:<6}{:>10}{times}\n", leg.stage, leg.what, leg.orders);
        }
        text
    })
}

fn now() -> i64 {
    i64::try_from(system_clock().as_nanosecond()).unwrap_or(i64::MAX)
}

fn time(ns: i64) -> String {
    Timestamp::from_nanosecond(ns.into()).map_or_else(|_| "?".to_owned(), |time| format!("{time:.0}"))
}

fn length(ns: i64) -> String {
    human(SignedDuration::from_nanos(ns))
}
