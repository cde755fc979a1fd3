//! Journeys rebuilt into SQLite, beside a bare librdkafka consumer that only counts the same records.

use crate::chain::median;
use crate::meter::Meter;
use crate::side::{Aim, Side};
use crate::usage;
use crate::world::{Work, World};
use anyhow::{Context, ensure};
use clap::Args as ClapArgs;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use waybill_harness::{Manner, Process};

/// Orders whose spans are compared with what was exported.
const VERIFIED: u64 = 5_000;
/// Lines of an order.
const LINES: u32 = 3;
/// How long the last spans may take to the collector.
const EXPORT: Duration = Duration::from_secs(60);
/// The topics of a shop without a gateway that hold records.
const TOPICS: [&str; 4] = ["orders.new", "orders.picked", "orders.packed", "orders.shipped"];

/// Bounds of the comparison.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Orders that went through all stages
    #[arg(long, default_value_t = 200_000)]
    orders: u64,
    /// Repetitions, the sides in turn; medians are printed
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// The binary under test
    #[arg(long, default_value = "target/release/waybill")]
    waybill: PathBuf,
}

/// Compares.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let world = World::start(&args.waybill)?;
    let verified = verified(&world).await?;
    println!("{} spans are as they were exported, {} are not", verified["equal"], differences(&verified));
    let work = journeys(&world, "replay", args.orders).await?;
    let (mut ours, mut peer, mut rss) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.repetitions {
        let (records, seconds) = counted(&world, &work)?;
        peer.push(records as f64 / seconds);
        println!("  {:<14} {:8.0} records/s   {records} records", "counting", peer[peer.len() - 1]);
        let (summary, peak) = replayed(&world, &work).await?;
        ensure!(summary["records"] == records, "{} of {records} records were replayed", summary["records"]);
        ensure!(summary["bad"] == 0 && summary["missing"] == json!({}), "{summary}");
        ours.push(records as f64 / summary["seconds"].as_f64().context("no time")?);
        rss.push(peak);
        println!(
            "  {:<14} {:8.0} records/s   {} stage spans, {peak:.0} MiB",
            "waybill replay",
            ours[ours.len() - 1],
            summary["spans"]
        );
    }
    let (ours, peer, peak) = (median(ours.into_iter()), median(peer.into_iter()), median(rss.into_iter()));
    println!("replay / counting: {:.2}", ours / peer);
    let result = json!({
        "records_per_s": ours.round(),
        "peak_rss_mb": peak.round(),
        "verified_spans": verified["equal"],
        "differences": differences(&verified),
        "peer": {"records_per_s": peer.round()},
    });
    println!("{result}");
    Ok(())
}

fn differences(verified: &Value) -> u64 {
    ["differing", "unpublished"].iter().filter_map(|count| verified[count].as_u64()).sum()
}

/// Orders that went through all stages.
async fn journeys(world: &World, name: &str, orders: u64) -> anyhow::Result<Work> {
    let work = world.work(name).await?;
    world.orders(&work, orders, LINES)?;
    let meter = Meter::start(world.kafka.bootstrap(), None, work.scope.topic("orders.shipped"))?;
    let mut started = Side::Waybill.start(world, &work, Aim::Throughput, 1)?;
    meter.until(orders, &mut started).await?;
    started.end().await?;
    meter.stop()?;
    Ok(work)
}

/// What `--verify` says of orders whose spans were kept.
async fn verified(world: &World) -> anyhow::Result<Value> {
    world.collector.meet(Manner::Keep);
    let before = world.collector.received().0;
    let work = journeys(world, "verified", VERIFIED).await?;
    // What produces the orders exports nothing.
    let (wanted, begun) = (VERIFIED * Side::Waybill.spans_of_an_order(LINES), Instant::now());
    while world.collector.received().0 - before < wanted && begun.elapsed() < EXPORT {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.collector.meet(Manner::Forget);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("export.json");
    let lines: Vec<String> =
        world.collector.spans().iter().map(|span| span.otlp_line()).collect::<anyhow::Result<_>>()?;
    std::fs::write(&file, lines.join("\n"))?;
    let file = file.to_str().context("not a path")?;
    let said = said(world, &work, &["replay", "--json", "--verify", file]).await?.0;
    Ok(said["verified"].clone())
}

async fn replayed(world: &World, work: &Work) -> anyhow::Result<(Value, f64)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("journeys.db");
    let (said, peak) = said(world, work, &["replay", "--json", "--to", file.to_str().context("not a path")?]).await?;
    Ok((said["replay"].clone(), peak))
}

/// The JSON that a command prints, and the most memory it had; MiB.
async fn said(world: &World, work: &Work, args: &[&str]) -> anyhow::Result<(Value, f64)> {
    let mut process = Process::spawn(&world.waybill, world.args(work, args), [("OTEL_SDK_DISABLED", "true")])?;
    let mut peak = 0.0_f64;
    while process.ended()?.is_none() {
        // It may have ended since.
        peak = usage::peak_rss(process.pid()).unwrap_or(peak).max(peak);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = process.log()?;
    let line = log.lines().rfind(|line| line.starts_with('{')).with_context(|| format!("{args:?}: {log}"))?;
    Ok((serde_json::from_str(line)?, peak))
}

/// Records, and the seconds it took to count them: with the settings of the replay's own consumer.
fn counted(world: &World, work: &Work) -> anyhow::Result<(u64, f64)> {
    let begun = Instant::now();
    let answer = Duration::from_secs(10);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", world.kafka.bootstrap())
        .set("group.id", "waybill-bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.message.max.bytes", "262144")
        .create()?;
    let (mut assignment, mut left) = (TopicPartitionList::new(), HashMap::new());
    for topic in TOPICS.map(|topic| work.scope.topic(topic)) {
        let metadata = consumer.fetch_metadata(Some(&topic), answer)?;
        for partition in metadata.topics().first().context("no metadata")?.partitions() {
            let (low, high) = consumer.fetch_watermarks(&topic, partition.id(), answer)?;
            if high > low {
                assignment.add_partition_offset(&topic, partition.id(), Offset::Offset(low))?;
                left.insert((topic.clone(), partition.id()), high);
            }
        }
    }
    consumer.assign(&assignment)?;
    let mut records = 0;
    while !left.is_empty() {
        let Some(message) = consumer.poll(answer) else { anyhow::bail!("nothing comes any more") };
        let message = message?;
        records += 1;
        let at = (message.topic().to_owned(), message.partition());
        if left.get(&at) == Some(&(message.offset() + 1)) {
            left.remove(&at);
        }
    }
    Ok((records, begun.elapsed().as_secs_f64()))
}
