//! `waybill produce orders`: plays the checkout, to try the rest alone.

use crate::config::Config;
use crate::exit::Ended;
use crate::{catalogue, kafka, orders_file};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use opentelemetry::KeyValue;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use waybill_events::OrderPlaced;
use waybill_spine::{Event, KafkaSink, Message, Outbound, Sink, system_clock};
use waybill_telemetry::{Incoming, SpanExport, SpanKind, SpanRecord, Telemetry, Waybill};

/// Messages handed over at a time.
const CHUNK: usize = 500;

/// What to send.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// How many test orders [default: 1000, or the whole file with --from]
    #[arg(long, short = 'n')]
    count: Option<u64>,
    /// Orders a second; 0 sends as fast as the broker takes them
    #[arg(long, default_value_t = 0.0, value_parser = rate)]
    rate: f64,
    /// A seed gives the same orders and ids; sending one twice must change nothing downstream
    #[arg(long, default_value_t = 1, conflicts_with = "from")]
    seed: u64,
    /// Lines an order [default: one to five]
    #[arg(long, conflicts_with = "from", value_parser = clap::value_parser!(u32).range(1..=200))]
    lines: Option<u32>,
    /// Real orders: NDJSON (one orders.new event a line) or CSV (one order line a line); bad ones are listed
    #[arg(long, value_name = "FILE.ndjson|FILE.csv")]
    from: Option<PathBuf>,
}

/// A number of things a second.
pub fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|r: &f64| r.is_finite() && *r >= 0.0).ok_or_else(|| "not a rate".to_owned())
}

/// Runs the command.
pub fn produce(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let entered = runtime.enter();
    let telemetry = Telemetry::start(&config.telemetry("checkout"))?;
    telemetry.bridge();
    let kafka = config.kafka();
    let missing = kafka::missing(&kafka, &[OrderPlaced::TOPIC])?;
    anyhow::ensure!(missing.is_empty(), "topic {} does not exist: run `waybill topics apply`", missing.join(", "));
    let mut sink = KafkaSink::connect(&kafka, "produce")?;
    let mut ended = Ended::Done;
    match &args.from {
        None => {
            let count = args.count.unwrap_or(1_000);
            let orders = (0..count).map(|number| catalogue::order(args.seed, number, args.lines));
            send(orders, count, args.rate, &mut sink, telemetry.spans())?;
        }
        Some(file) => {
            let (mut orders, bad) = orders_file::read(file)?;
            bad.iter().for_each(|bad| eprintln!("{}:{bad}", file.display()));
            orders.truncate(args.count.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)));
            let count = orders.len() as u64;
            let orders = orders.into_iter().map(|order| (order, StdRng::from_rng(&mut rand::rng())));
            send(orders, count, args.rate, &mut sink, telemetry.spans())?;
            if !bad.is_empty() {
                eprintln!("{} bad lines were left out", bad.len());
                ended = Ended::InPart;
            }
        }
    }
    let dropped = telemetry.close();
    let spans = dropped.queue_full + dropped.export_failed;
    if spans > 0 {
        eprintln!("{spans} spans did not reach a collector; the orders did reach the topic");
    }
    drop(entered);
    Ok(ended)
}

/// A progress bar on stderr; nothing where that is no terminal.
pub fn bar(length: u64, what: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:>10} {bar:32} {human_pos:>9}/{human_len} {rate:>9} {eta:>4}  {prefix}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // Nothing to do about a terminal that takes no text.
                let _ = write!(out, "{:.0}/s", state.per_sec());
            });
    let bar = ProgressBar::new(length).with_message(what.to_owned());
    bar.set_style(style);
    bar
}

fn send(
    orders: impl Iterator<Item = (OrderPlaced, StdRng)>,
    count: u64,
    rate: f64,
    sink: &mut KafkaSink,
    export: &SpanExport,
) -> anyhow::Result<()> {
    let bar = bar(count, "orders");
    let begun = Instant::now();
    let mut orders = orders.peekable();
    let mut sent = 0_u64;
    while orders.peek().is_some() {
        // At a rate, what is due by now: one order at a time at a low rate, so that a burst never hides a steady flow.
        let chunk = if rate > 0.0 {
            let due = begun + Duration::from_secs_f64(sent as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Truncates: the part of an order that is due is not an order yet.
            (begun.elapsed().as_secs_f64() * rate) as usize + 1 - usize::try_from(sent).unwrap_or(0)
        } else {
            CHUNK
        };
        let chunk = chunk.clamp(1, CHUNK);
        let sold = orders.by_ref().take(chunk).map(|(order, rng)| checkout(order, rng, export));
        let (messages, spans): (Vec<Message>, Vec<SpanRecord>) =
            sold.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        publish(sink, &messages)?;
        sent += messages.len() as u64;
        bar.inc(messages.len() as u64);
        export.finish(spans);
    }
    bar.finish();
    println!("{sent} orders sent in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Sends and awaits all in-sync replicas.
pub fn publish(sink: &mut impl Sink, messages: &[Message]) -> anyhow::Result<()> {
    sink.send(messages);
    let begun = Instant::now();
    loop {
        match sink.wait(Duration::from_secs(1))? {
            Some(failed) if failed.indexes.is_empty() => return Ok(()),
            Some(failed) => anyhow::bail!("{} records were not taken: {}", failed.indexes.len(), failed.error),
            None => {}
        }
        let waited = begun.elapsed();
        anyhow::ensure!(waited < Duration::from_secs(60), "the broker has not acknowledged anything for {waited:.0?}");
    }
}

/// An order as the checkout publishes it, and the span that completes the checkout.
fn checkout(mut order: OrderPlaced, mut rng: StdRng, export: &SpanExport) -> serde_json::Result<(Message, SpanRecord)> {
    let start = system_clock();
    let mut span =
        SpanRecord::new(&mut rng, "checkout", "waybill.checkout", "checkout.complete", SpanKind::Producer, start);
    span.attributes = vec![
        KeyValue::new("order.id", order.order_id.clone()),
        KeyValue::new("order.item_count", i64::try_from(order.lines.len()).unwrap_or(i64::MAX)),
    ];
    export.sample(&mut span, None);
    span.end = system_clock();
    let mut waybill = Waybill::default();
    waybill.push(span.stamp());
    let copy = span.publish()?;
    let key = order.order_id.clone();
    let outbound = Outbound { stage: "checkout", key: &key, span: &span, incoming: &Incoming::default(), begins: true };
    let message = outbound.message(&mut order, &waybill, &copy)?;
    Ok((message, span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_telemetry::{Carrier, TelemetryConfig};

    #[test]
    fn a_seed_gives_the_same_ids() {
        let telemetry = Telemetry::start(&TelemetryConfig::silent("test")).unwrap();
        let ids = || {
            let (order, rng) = catalogue::order(7, 3, None);
            let (message, span) = checkout(order, rng, telemetry.spans()).unwrap();
            let id = message.content.header("ce_id").map(str::to_owned);
            (id, span.trace_id, span.span_id, message.content.key().map(<[u8]>::to_vec))
        };
        assert_eq!(ids(), ids());
    }
}
