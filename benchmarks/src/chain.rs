//! pick → pack → ship, beside the same chain on Kafka Streams.

use crate::meter::Meter;
use crate::side::{Aim, Side, Started};
use crate::usage;
use crate::world::World;
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Orders that go through before anything is measured: connections, caches, the peer's compiler.
pub const WARM: u64 = 20_000;
/// Paced orders before those that are measured.
const WARM_PACED: u64 = 2_000;
/// Orders by which servers are brought to the state of those that have run for a while, and how many a second: a broker compiles
/// its code by the number of requests, which lone orders make.
const USED: (u64, u64) = (10_000, 2_000);
/// How long the last spans may take to the collector.
const EXPORT: Duration = Duration::from_secs(15);

/// Bounds of the comparison.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Orders that wait in `orders.new`
    #[arg(long, default_value_t = 100_000)]
    orders: u64,
    /// Lines of an order
    #[arg(long, default_value_t = 3)]
    lines: u32,
    /// Repetitions, the sides in turn; medians are printed
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Orders a second of the paced runs
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// Seconds measured of a paced run; 0 leaves them out
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The binary under test
    #[arg(long, default_value = "target/release/waybill")]
    waybill: PathBuf,
    /// The peer
    #[arg(long, default_value = "benchmarks/kafka-streams/target/waybill-peer-kafka-streams.jar")]
    peer: PathBuf,
    /// The peer's heap: the smallest that keeps its speed
    #[arg(long, default_value = "1g")]
    peer_heap: String,
    /// Leave the peer out
    #[arg(long)]
    alone: bool,
    /// Add three hops that only carry the records: what the client library alone costs
    #[arg(long)]
    carry: bool,
}

/// What is done in one run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub orders: u64,
    pub lines: u32,
    pub processes: usize,
}

/// What one run at full speed showed.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// After the warm-up.
    pub orders_per_s: f64,
    /// From the start of the processes, warm-up and all.
    pub orders_per_s_from_start: f64,
    /// CPU seconds a thousand orders of the stage processes, from their start.
    pub cpu_from_start: f64,
    /// CPU seconds a thousand orders: of the stage processes, of Postgres, of the broker.
    pub cpu: f64,
    pub db_cpu: f64,
    pub broker_cpu: f64,
    /// Of this program: the meter and the collector.
    pub bench_cpu: f64,
    /// Processors that something else on the machine kept busy.
    pub others: f64,
    pub peak_rss_mb: f64,
    pub spans: u64,
    pub links: u64,
    pub spans_dropped: u64,
    pub duplicates: u64,
}

/// Compares.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let world = World::start(&args.waybill)?;
    warm(&world).await?;
    let mut sides = vec![Side::Waybill];
    if !args.alone {
        sides.push(Side::KafkaStreams { jar: args.peer.clone(), heap: args.peer_heap.clone() });
    }
    if args.carry {
        sides.push(Side::Carry);
    }
    let load = Load { orders: args.orders, lines: args.lines, processes: 1 };
    let mut fast: Vec<Vec<Throughput>> = vec![Vec::new(); sides.len()];
    let mut paced: Vec<Vec<(f64, f64)>> = vec![Vec::new(); sides.len()];
    println!("{} orders of {} lines after {WARM} to warm up; CPU in seconds a 1,000 orders", load.orders, load.lines);
    for _ in 0..args.repetitions {
        for (side, results) in sides.iter().zip(&mut fast) {
            let result = throughput(&world, side, load).await?;
            println!("{}", line(side.name(), &result));
            results.push(result);
        }
    }
    if args.seconds > 0 {
        println!(
            "{} orders/s for {} s, from the record in orders.new to that in orders.shipped",
            args.rate, args.seconds
        );
        for _ in 0..args.repetitions {
            for (side, results) in sides.iter().zip(&mut paced) {
                let (p50, p99, max) = latency(&world, side, args).await?;
                println!("  {:<14} p50 {p50:7.1} ms   p99 {p99:7.1} ms   max {max:7.1} ms", side.name());
                results.push((p50, p99));
            }
        }
    }
    let mut results = fast.iter().zip(&paced).map(|(fast, paced)| summary(fast, paced));
    let mut result = results.next().unwrap_or_default();
    for (side, other) in sides[1..].iter().zip(results) {
        print_ratios(side.name(), &result, &other);
        result[if let Side::Carry = side { "carry" } else { "peer" }] = other;
    }
    println!("{result}");
    Ok(())
}

/// Uses the servers, unmeasured: a broker that has just started takes twice the CPU for a request.
async fn warm(world: &World) -> anyhow::Result<()> {
    let work = world.work("warm").await?;
    let meter = Meter::start(world.kafka.bootstrap(), None, work.scope.topic("orders.shipped"))?;
    let mut started = Side::Waybill.start(world, &work, Aim::Latency, 1)?;
    let mut orders = world.paced_orders(&work, USED.0, 1, USED.1)?;
    meter.until(USED.0, &mut started).await?;
    orders.wait(Duration::from_secs(10)).await?;
    started.end().await?;
    meter.stop()?;
    Ok(())
}

/// One run at full speed over orders that wait already.
pub async fn throughput(world: &World, side: &Side, load: Load) -> anyhow::Result<Throughput> {
    let work = world.work("chain").await?;
    world.orders(&work, WARM + load.orders, load.lines)?;
    let meter = Meter::start(world.kafka.bootstrap(), None, work.scope.topic("orders.shipped"))?;
    let (spans, links) = world.collector.received();
    let begun = Instant::now();
    let mut started = side.start(world, &work, Aim::Throughput, load.processes)?;
    let bench = std::process::id();
    let cpu = |started: &Started| -> anyhow::Result<[f64; 5]> {
        let (kafka, postgres) = (world.kafka.pid(), world.postgres.pid());
        Ok([started.cpu()?, usage::cpu_of_family(postgres)?, usage::cpu(kafka)?, usage::cpu(bench)?, usage::machine()?])
    };
    let warm = meter.until(WARM, &mut started).await?;
    let before = cpu(&started)?;
    let done = meter.until(WARM + load.orders, &mut started).await?;
    let wanted = (WARM + load.orders) * side.spans_of_an_order(load.lines);
    let exported = Instant::now();
    while world.collector.received().0 - spans < wanted && exported.elapsed() < EXPORT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = warm.elapsed().as_secs_f64();
    let after = cpu(&started)?;
    let peak_rss_mb = started.peak_rss()?;
    let duplicates = meter.duplicates();
    started.end().await?;
    meter.stop()?;
    let received = world.collector.received();
    let used = |i: usize| after[i] - before[i];
    let thousands = load.orders as f64 / 1_000.0;
    Ok(Throughput {
        orders_per_s: load.orders as f64 / (done - warm).as_secs_f64(),
        orders_per_s_from_start: (WARM + load.orders) as f64 / (done - begun).as_secs_f64(),
        cpu_from_start: after[0] * 1_000.0 / (WARM + load.orders) as f64,
        cpu: used(0) / thousands,
        db_cpu: used(1) / thousands,
        broker_cpu: used(2) / thousands,
        bench_cpu: used(3) / thousands,
        others: (used(4) - used(0) - used(1) - used(2) - used(3)) / seconds,
        peak_rss_mb,
        spans: received.0 - spans,
        links: received.1 - links,
        spans_dropped: wanted.saturating_sub(received.0 - spans),
        duplicates,
    })
}

/// Milliseconds through the chain while orders come one by one: p50, p99, the longest.
async fn latency(world: &World, side: &Side, args: &Args) -> anyhow::Result<(f64, f64, f64)> {
    let work = world.work("paced").await?;
    world.orders(&work, WARM, args.lines)?;
    let (first, last) = (work.scope.topic("orders.new"), work.scope.topic("orders.shipped"));
    let meter = Meter::start(world.kafka.bootstrap(), Some(first), last)?;
    let mut started = side.start(world, &work, Aim::Latency, 1)?;
    meter.until(WARM, &mut started).await?;
    let paced = WARM_PACED + args.rate * args.seconds;
    // Other orders than those of the warm-up: the seed decides.
    let mut orders = world.paced_orders(&work, paced, args.lines, args.rate)?;
    meter.until(WARM + paced, &mut started).await?;
    orders.wait(Duration::from_secs(10)).await?;
    started.end().await?;
    let mut latencies = meter.stop()?.latencies(usize::try_from(WARM + WARM_PACED)?);
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
    Ok((at(0.5), at(0.99), at(1.0)))
}

/// One run, for people.
pub fn line(name: &str, t: &Throughput) -> String {
    format!(
        "  {name:<14} {:7.0} orders/s ({:6.0} from start)   CPU {:.3} ({:.3} from start) + {:.3} Postgres + {:.3} broker + {:.3} bench   {:5.0} MiB   \
         {} spans, {} links, {} dropped, {} duplicates   others {:.2} cores",
        t.orders_per_s,
        t.orders_per_s_from_start,
        t.cpu,
        t.cpu_from_start,
        t.db_cpu,
        t.broker_cpu,
        t.bench_cpu,
        t.peak_rss_mb,
        t.spans,
        t.links,
        t.spans_dropped,
        t.duplicates,
        t.others
    )
}

/// The middle one of all repetitions.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn summary(fast: &[Throughput], paced: &[(f64, f64)]) -> Value {
    let round = |value: f64, digits: i32| (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
    let of = |get: fn(&Throughput) -> f64, digits| round(median(fast.iter().map(get)), digits);
    json!({
        "orders_per_s": of(|t| t.orders_per_s, 0),
        "orders_per_s_from_start": of(|t| t.orders_per_s_from_start, 0),
        "cpu_s_per_1k_orders": of(|t| t.cpu, 4),
        "cpu_s_per_1k_orders_from_start": of(|t| t.cpu_from_start, 4),
        "db_cpu_s_per_1k_orders": of(|t| t.db_cpu, 4),
        "broker_cpu_s_per_1k_orders": of(|t| t.broker_cpu, 4),
        "peak_rss_mb": of(|t| t.peak_rss_mb, 1),
        "p50_ms": round(median(paced.iter().map(|p| p.0)), 1),
        "p99_ms": round(median(paced.iter().map(|p| p.1)), 1),
        "spans": of(|t| t.spans as f64, 0) as u64,
        "links": of(|t| t.links as f64, 0) as u64,
        "spans_dropped": fast.iter().map(|t| t.spans_dropped).sum::<u64>(),
        "duplicates": fast.iter().map(|t| t.duplicates).sum::<u64>(),
    })
}

fn print_ratios(name: &str, ours: &Value, peer: &Value) {
    let ratio = |key: &str| ours[key].as_f64().unwrap_or(f64::NAN) / peer[key].as_f64().unwrap_or(f64::NAN);
    let with_db = |side: &Value| {
        side["cpu_s_per_1k_orders"].as_f64().unwrap_or(f64::NAN)
            + side["db_cpu_s_per_1k_orders"].as_f64().unwrap_or(f64::NAN)
    };
    println!(
        "waybill / {name}: throughput {:.2} (from start {:.2}), CPU {:.3} (from start {:.3}, with Postgres {:.3}), memory {:.3}, p50 {:.3}, p99 {:.3}",
        ratio("orders_per_s"),
        ratio("orders_per_s_from_start"),
        ratio("cpu_s_per_1k_orders"),
        ratio("cpu_s_per_1k_orders_from_start"),
        with_db(ours) / with_db(peer),
        ratio("peak_rss_mb"),
        ratio("p50_ms"),
        ratio("p99_ms"),
    );
}
