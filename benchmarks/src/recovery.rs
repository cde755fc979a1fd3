//! How long partitions stand still after a `kill -9`.

use crate::chain::median;
use crate::side::{Aim, Side};
use crate::world::World;
use clap::Args as ClapArgs;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use waybill_harness::{count_topic, read_topic};

/// Stage processes; one of them is killed.
const PROCESSES: usize = 3;
/// Orders a second: each partition gets one every few milliseconds.
const RATE: u64 = 600;
/// A longer silence on a partition than this is the kill's doing.
const SILENCE_MS: i64 = 500;

/// Bounds of the measurement.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Processes killed, one after the other
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// The binary under test
    #[arg(long, default_value = "target/release/waybill")]
    waybill: PathBuf,
}

/// Measures: the longest silence on each partition of `orders.picked`, by the timestamps of its records.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let world = World::start(&args.waybill)?;
    let mut silences = Vec::new();
    for repetition in 1..=args.repetitions {
        let work = world.work("recovery").await?;
        let picked = work.scope.topic("orders.picked");
        let mut started = Side::Waybill.start(&world, &work, Aim::Latency, PROCESSES)?;
        // 40 s of orders: some before the kill, then the session's 6 s and what comes after it.
        let mut orders = world.paced_orders(&work, 40 * RATE, 3, RATE)?;
        while count_topic(world.kafka.bootstrap(), &picked)? < i64::try_from(10 * RATE)? {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        started.processes.remove(0).kill()?;
        orders.wait(Duration::from_secs(120)).await?;
        while count_topic(world.kafka.bootstrap(), &picked)? < i64::try_from(40 * RATE)? {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut last = BTreeMap::<i32, i64>::new();
        let mut longest = BTreeMap::<i32, i64>::new();
        for record in read_topic(world.kafka.bootstrap(), &picked)? {
            let at = record.timestamp_ms.unwrap_or(0);
            let silence = last.insert(record.partition, at).map_or(0, |before| at - before);
            let most = longest.entry(record.partition).or_default();
            *most = silence.max(*most);
        }
        let dead: Vec<i64> = longest.values().copied().filter(|silence| *silence > SILENCE_MS).collect();
        println!("kill {repetition}: silent partitions of {}: {dead:?} ms", longest.len());
        anyhow::ensure!(!dead.is_empty(), "the process that was killed had no partition");
        silences.extend(dead.iter().map(|ms| *ms as f64 / 1_000.0));
        started.end().await?;
    }
    let longest = silences.iter().copied().fold(0.0, f64::max);
    println!(
        "partitions are worked again {:.1} s (median) after a kill -9, {longest:.1} s at most",
        median(silences.iter().copied())
    );
    Ok(())
}
