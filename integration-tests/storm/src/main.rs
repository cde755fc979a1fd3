//! A seeded storm over the whole chain: three brokers, Postgres, nine stage processes, orders flowing, and everything
//! that can fail, failing. In the end the independent checker must find nothing, and all must be drained soon.
//!
//! The seed decides which faults come in which order; when exactly each hits is the machine's doing.

mod faults;
mod soak;
mod world;

use anyhow::{Context, ensure};
use clap::{ArgGroup, Parser};
use faults::Fault;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use waybill_harness::{KafkaServer, PostgresServer};
use waybill_storm::checkouts::{Ashes, Fire};
use waybill_storm::crowd::{Crowd, Verdict};
use world::World;

/// Everything must be drained so soon after the last fault.
const DRAIN: Duration = Duration::from_secs(30);
/// No shipped order for so long, with orders waiting, is a standstill.
const STANDSTILL: Duration = Duration::from_secs(60);

/// A seeded storm over the whole chain.
#[derive(Debug, Parser)]
#[command(group(ArgGroup::new("fire").args(["checkouts", "subscribers"])))]
struct Args {
    /// Decides the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long faults are injected
    #[arg(long, default_value_t = 12)]
    minutes: u64,
    /// Orders sent over that time
    #[arg(long, default_value_t = 200_000)]
    orders: u64,
    /// The binary under test
    #[arg(long, default_value = "target/release/waybill")]
    binary: PathBuf,
    /// Instead: so many checkouts from the request to their end, processes killed at random
    #[arg(long, conflicts_with_all = ["minutes", "orders"])]
    checkouts: Option<usize>,
    /// Instead: so many minutes of the whole flow under load, every process restarted in turn and every server away for a while
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["minutes", "orders", "checkouts", "subscribers", "seed"])]
    soak: Option<u64>,
    /// Instead: so many people who wait for one product and are told that it is back, processes killed at random
    #[arg(long, conflicts_with_all = ["minutes", "orders"])]
    subscribers: Option<usize>,
    /// How often something is killed while they run
    #[arg(long, requires = "fire", default_value_t = 25)]
    kills: usize,
    /// Processes of fanout, email and push each: a run for each number
    #[arg(long, requires = "subscribers", value_delimiter = ',', default_value = "1,2,4")]
    replicas: Vec<usize>,
    /// Messages a second by mail, and as many by push, over all processes
    #[arg(long, requires = "subscribers", default_value_t = 1_000.0)]
    rate: f64,
}

/// Checkouts under fire, on one broker and a Postgres of their own.
async fn checkouts(args: &Args, checkouts: usize) -> anyhow::Result<()> {
    let kafka = KafkaServer::start()?;
    let mut postgres = PostgresServer::start()?;
    let fire = Fire {
        binary: args.binary.clone(),
        bootstrap: kafka.bootstrap().to_owned(),
        prefix: String::new(),
        seed: args.seed,
        checkouts,
        kills: args.kills,
        collector: None,
    };
    let Ashes { books, killed, canaries, took, drained } = fire.run(&mut postgres).await?;
    println!("{} kills: {killed:?}", killed.len());
    println!("taken in {:.1} s, all ended {:.1} s later", took.as_secs_f64(), drained.as_secs_f64());
    print!("{books}");
    ensure!(books.violations.is_empty(), "the checker found violations");
    ensure!(canaries.is_empty(), "payment methods were told: {canaries:?}");
    println!("seed {}: stock, money and orders agree", args.seed);
    Ok(())
}

/// A crowd under fire, with so many processes in turn, each time in a shop of its own; the last line is one JSON object.
async fn crowds(args: &Args, people: usize) -> anyhow::Result<()> {
    let plausible = people >= 2 && args.rate >= 1.0 && !args.replicas.contains(&0);
    ensure!(plausible, "two subscribers, one message a second and one process of each are the least");
    let kafka = KafkaServer::start()?;
    let postgres = PostgresServer::start()?;
    let mut runs = Vec::new();
    for (run, replicas) in args.replicas.iter().copied().enumerate() {
        let database = postgres.create_database("crowd").await?;
        let crowd = Crowd {
            binary: args.binary.clone(),
            bootstrap: kafka.bootstrap().to_owned(),
            prefix: format!("crowd-{run}."),
            database: database.url().to_owned(),
            seed: args.seed,
            people,
            kills: args.kills,
            replicas,
            rate: args.rate,
        };
        let verdict = crowd.run().await?;
        print!("{verdict}");
        runs.push(verdict);
    }
    let violations: usize = runs.iter().map(|verdict| verdict.violations.len()).sum();
    let told: Vec<Value> = runs.iter().map(Verdict::json).collect();
    println!(
        "{}",
        json!({"subscribers": people, "rate": args.rate, "seed": args.seed, "violations": violations, "runs": told})
    );
    ensure!(violations == 0, "the crowd was not told as it must be");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.binary.exists(), "{} is missing: run `cargo build --release`", args.binary.display());
    if let Some(number) = args.checkouts {
        return checkouts(&args, number).await;
    }
    if let Some(people) = args.subscribers {
        return crowds(&args, people).await;
    }
    if let Some(minutes) = args.soak {
        return soak::soak(&args.binary, minutes).await;
    }
    let mut rng = StdRng::seed_from_u64(args.seed);
    let mut world = World::start(&args.binary, args.orders).await?;
    let length = Duration::from_secs(args.minutes * 60);
    // All orders are sent a little before the last fault, so that the drain is the chain's own.
    let rate = args.orders as f64 / (length.as_secs_f64() * 0.9);
    world.send_orders(args.seed, args.orders, rate)?;
    let begun = Instant::now();
    let mut counts = std::collections::BTreeMap::<Fault, usize>::new();
    let mut progress = Progress::new();
    while begun.elapsed() < length {
        let fault = Fault::draw(&mut rng);
        let note = world.inject(fault, &mut rng).await.with_context(|| format!("{fault:?}"))?;
        *counts.entry(fault).or_default() += 1;
        let shipped = progress.look(&mut world, args.orders)?;
        println!("{:6.1} s  {shipped:>8} shipped  {fault:?} {note}", begun.elapsed().as_secs_f64());
        let calm = Duration::from_millis(rng.random_range(100..1_000));
        tokio::time::sleep(calm).await;
    }
    let last_fault = Instant::now();
    world.make_whole().await?;
    world.orders_are_sent().await?;
    while world.shipped_distinct(args.orders)? < args.orders {
        progress.look(&mut world, args.orders)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let drained = last_fault.elapsed();
    let faults: usize = counts.values().sum();
    println!("{faults} faults: {counts:?}\ndrained {:.1} s after the last fault", drained.as_secs_f64());
    world.settle().await?;
    let (seen, ahead) = world.stop_watching()?;
    println!("{seen} committed offsets looked at as they moved");
    let report = world.chain().check().await?;
    print!("{report}");
    ensure!(ahead.is_empty(), "offsets were ahead of effects: {ahead:?}");
    ensure!(report.violations.is_empty(), "the checker found violations");
    ensure!(drained <= DRAIN, "not drained within {DRAIN:?}");
    println!("seed {}: nothing lost, no effect twice", args.seed);
    Ok(())
}

/// A run that stops making progress is detected and dumps its state.
struct Progress {
    best: i64,
    since: Instant,
}

impl Progress {
    fn new() -> Self {
        Progress { best: 0, since: Instant::now() }
    }

    fn look(&mut self, world: &mut World, orders: u64) -> anyhow::Result<i64> {
        // While a broker is being replaced the count cannot be read: that is no progress, either.
        let shipped = world.shipped().unwrap_or(self.best);
        if shipped > self.best || shipped >= i64::try_from(orders)? {
            *self = Progress { best: shipped, since: Instant::now() };
        }
        if self.since.elapsed() > STANDSTILL {
            world.dump();
            anyhow::bail!("no progress for {STANDSTILL:?}, {shipped} records on orders.shipped");
        }
        Ok(shipped)
    }
}
