//! `waybill replay`: every order's journey, rebuilt from the topics.

use crate::config::Config;
use crate::exit::Ended;
use crate::produce;
use anyhow::Context;
use clap::Args as ClapArgs;
use clap::builder::PossibleValuesParser;
use indicatif::ProgressBar;
use jiff::Timestamp;
use std::io::BufReader;
use std::path::PathBuf;
use tempfile::TempDir;
use waybill_journeys::{Replay, Sending, Sent, Span, Summary, TOPICS, Target, Verified};

/// What to read, and what becomes of it.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    goal: Goal,
    /// With --to: read from the beginning, not from where the last run ended
    #[arg(long, requires = "to")]
    again: bool,
    /// With --otlp: most spans a second
    #[arg(long, requires = "otlp", value_name = "SPANS", value_parser = rate)]
    rate: Option<f64>,
    /// What it came to as JSON
    #[arg(long)]
    json: bool,
}

/// Which records.
#[derive(Debug, ClapArgs)]
struct What {
    /// Records from this time on, by the broker's timestamps, for example 2026-11-21T10:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Records before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Only these orders
    #[arg(long = "order", value_name = "ID", num_args = 1..)]
    orders: Vec<String>,
    /// Only these topics, without --prefix [default: all that tell of orders]
    #[arg(long, value_name = "TOPIC", num_args = 1.., value_delimiter = ',', value_parser = PossibleValuesParser::new(TOPICS))]
    topics: Vec<String>,
}

/// One of them.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
struct Goal {
    /// Keep spans, span_links and span_events there; the next run goes on where this one ended
    #[arg(long, value_name = "FILE.db|postgres://…")]
    to: Option<String>,
    /// Send the spans to an OTLP/gRPC endpoint, with their ids and times and waybill.replayed=true
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Compare with what was exported: a file of the collector's file exporter, OTLP's JSON
    #[arg(long, value_name = "FILE")]
    verify: Option<PathBuf>,
    /// Read and count, and write nothing
    #[arg(long)]
    dry_run: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    produce::rate(text).and_then(|rate| if rate > 0.0 { Ok(rate) } else { Err("not a rate".to_owned()) })
}

/// A target for one command, gone with it.
pub struct Temporary {
    pub target: Target,
    _folder: TempDir,
}

impl Temporary {
    pub async fn open() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let file = folder.path().join("journeys.db");
        Ok(Temporary { target: Target::open(&format!("sqlite://{}", file.display())).await?, _folder: folder })
    }
}

/// Replays everything that the topics hold, for a question.
pub async fn all(config: &Config, target: &mut Target) -> anyhow::Result<Summary> {
    let what = What { since: None, until: None, orders: Vec::new(), topics: Vec::new() };
    let summary = run(config, &what, false, Some(target)).await?;
    notes(&summary).iter().for_each(|note| eprintln!("{note}"));
    Ok(summary)
}

/// Runs the command.
pub fn replay(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(replayed(config, args))
}

async fn replayed(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    let Args { what, goal, again, .. } = args;
    let (mut sent, mut verified) = (None, None);
    let summary = match goal {
        Goal { to: Some(to), .. } => {
            let mut target = Target::open(to).await.with_context(|| format!("cannot keep journeys at {to}"))?;
            run(config, what, *again, Some(&mut target)).await?
        }
        Goal { otlp: Some(endpoint), .. } => {
            let mut temporary = Temporary::open().await?;
            let summary = run(config, what, false, Some(&mut temporary.target)).await?;
            sent = Some(send(&mut temporary.target, endpoint, args.rate).await?);
            summary
        }
        Goal { verify: Some(file), .. } => {
            let export = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
            let mut temporary = Temporary::open().await?;
            let summary = run(config, what, false, Some(&mut temporary.target)).await?;
            let compared = Verified::compare(&mut temporary.target, BufReader::new(export)).await;
            verified = Some(compared.with_context(|| format!("cannot compare with {}", file.display()))?);
            summary
        }
        Goal { to: None, otlp: None, verify: None, .. } => run(config, what, false, None).await?,
    };
    if args.json {
        println!("{}", serde_json::json!({"replay": summary, "sent": sent, "verified": verified}));
    } else {
        print!("{}", told(&summary));
        sent.iter().for_each(|sent| println!("{} spans sent, {} requests made once more", sent.spans, sent.retries));
        verified.iter().for_each(|verified| print!("{}", compared(verified)));
    }
    Ok(ended(what, &summary, verified.as_ref()))
}

fn ended(what: &What, summary: &Summary, verified: Option<&Verified>) -> Ended {
    if summary.empty {
        eprintln!("the topics hold no record: are --brokers and --prefix right?");
        Ended::NotFound
    } else if !what.orders.is_empty() && summary.told == 0 {
        eprintln!("no topic knows of {}: is the id right, and --brokers and --prefix?", what.orders.join(", "));
        Ended::NotFound
    } else if verified.is_some_and(|verified| verified.differences() > 0) {
        Ended::InPart
    } else {
        Ended::Done
    }
}

async fn run(config: &Config, what: &What, again: bool, target: Option<&mut Target>) -> anyhow::Result<Summary> {
    let topics = if what.topics.is_empty() { TOPICS.map(str::to_owned).into() } else { what.topics.clone() };
    let span = Span { since: what.since, until: what.until };
    let replay = Replay { kafka: config.kafka(), topics, orders: what.orders.clone(), span, again };
    let bar = produce::bar(0, "records");
    let summary = replay.run(target, |read, total| show(&bar, read, total)).await;
    bar.finish_and_clear();
    Ok(summary?)
}

async fn send(target: &mut Target, endpoint: &str, rate: Option<f64>) -> anyhow::Result<Sent> {
    let sending = Sending { endpoint: endpoint.to_owned(), rate };
    let bar = produce::bar(0, "spans");
    let sent = sending.send(target, |sent, total| show(&bar, sent, total)).await;
    bar.finish_and_clear();
    Ok(sent?)
}

fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}

fn told(summary: &Summary) -> String {
    let rate = summary.records as f64 / summary.seconds.max(f64::MIN_POSITIVE);
    let mut lines = vec![format!(
        "{} records read in {:.1} s ({rate:.0} a second), {} stage spans",
        summary.records, summary.seconds, summary.spans
    )];
    if summary.repeats > 0 {
        lines.push(format!("{} records stand twice: the first counts", summary.repeats));
    }
    if summary.without_span > 0 {
        lines.push(format!("{} records came without a span", summary.without_span));
    }
    lines.extend(notes(summary));
    lines.join("\n") + "\n"
}

/// What could not be read or rebuilt.
fn notes(summary: &Summary) -> Vec<String> {
    let mut lines = Vec::new();
    for bad in &summary.bad_listed {
        lines.push(format!("bad: {}/{}/{}: {}", bad.topic, bad.partition, bad.offset, bad.why));
    }
    let unlisted = summary.bad - summary.bad_listed.len() as u64;
    if unlisted > 0 {
        lines.push(format!("bad: and {unlisted} more"));
    }
    lines.extend(summary.absent.iter().map(|topic| format!("missing: there is no topic {topic}")));
    for gone in &summary.gone {
        let (topic, partition, records) = (&gone.topic, gone.partition, gone.records);
        lines.push(format!(
            "missing: {records} records of {topic}/{partition} are there no more (retention, compaction)"
        ));
    }
    for (stage, count) in &summary.missing {
        lines.push(format!("missing: {count} spans of {stage} that later ones link to: their records were not read"));
    }
    lines
}

fn compared(verified: &Verified) -> String {
    let mut lines = Vec::new();
    for differing in &verified.differing_listed {
        let span = &differing.span;
        lines.push(format!("differs: {} {}/{}", span.name, span.trace_id, span.span_id));
        lines.extend(differing.fields.iter().map(|field| format!("    {field}")));
    }
    let named = |what: &str, list: &[waybill_journeys::Named]| {
        let line = |span: &waybill_journeys::Named| format!("{what}: {} {}/{}", span.name, span.trace_id, span.span_id);
        list.iter().map(line).collect::<Vec<_>>()
    };
    lines.extend(named("not published", &verified.unpublished_listed));
    lines.extend(named("never exported", &verified.unexported_listed));
    for (name, count) in &verified.apart {
        lines.push(format!("apart: {count} of {name}, which publishes nothing final"));
    }
    lines.push(format!(
        "{} spans exported: {} equal, {} differ, {} not published; {} published and never exported",
        verified.exported, verified.equal, verified.differing, verified.unpublished, verified.unexported
    ));
    lines.join("\n") + "\n"
}
