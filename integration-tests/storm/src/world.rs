//! The servers, the processes and the orders of a storm, and of a soak.

use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use waybill_checker::{Chain, OffsetWatch};
use waybill_harness::{Collector, Database, KafkaCluster, Manner, PostgresServer, Process, count_topic, read_topic};

/// The stages under the storm.
pub const STAGES: [&str; 3] = ["pick", "pack", "ship"];
/// The topics between them, and how many partitions each has.
pub const TOPICS: [&str; 4] = ["orders.new", "orders.picked", "orders.packed", "orders.shipped"];
pub const PARTITIONS: i32 = 6;
/// Processes of each at the start.
const EACH: usize = 3;
/// Units in each of the 400 bins: enough for every order.
const BIN: i64 = 1_000_000;

/// Committed offsets looked at, and those that were ahead of their effects.
type Watched = (u64, Vec<String>);

/// Everything that runs.
pub struct World {
    binary: PathBuf,
    pub cluster: KafkaCluster,
    pub postgres: PostgresServer,
    /// Stage and process.
    pub processes: Vec<(&'static str, Process)>,
    pub database: Database,
    /// Further settings of every process.
    settings: Vec<(&'static str, String)>,
    orders: Option<Process>,
    pub collector: Collector,
    /// The collector is a black hole now.
    pub collector_away: bool,
    stop_watch: Arc<AtomicBool>,
    watch: Option<JoinHandle<anyhow::Result<Watched>>>,
}

impl World {
    /// Servers, topics, bins, nine processes.
    pub async fn start(binary: &Path, orders: u64) -> anyhow::Result<Self> {
        let mut world = World::open(binary, Vec::new()).await?;
        println!("three brokers at {}, Postgres, {orders} orders to come", world.cluster.bootstrap());
        for stage in STAGES.iter().flat_map(|stage| std::iter::repeat_n(*stage, EACH)) {
            let process = world.run(stage)?;
            world.processes.push((stage, process));
        }
        Ok(world)
    }

    /// Servers, topics, bins and the watch over offsets; no process yet.
    pub async fn open(binary: &Path, settings: Vec<(&'static str, String)>) -> anyhow::Result<Self> {
        let cluster = KafkaCluster::start(3)?;
        let postgres = PostgresServer::start()?;
        let database = postgres.create_database("storm").await?;
        let mut world = World {
            binary: binary.to_owned(),
            cluster,
            postgres,
            processes: Vec::new(),
            database,
            settings,
            orders: None,
            collector: Collector::start()?,
            collector_away: false,
            stop_watch: Arc::default(),
            watch: None,
        };
        world.collector.meet(Manner::Forget);
        world.done(&["topics", "apply"])?;
        world.done(&["bins", "load", "--test-goods", &BIN.to_string()])?;
        world.watch = Some(world.watch_offsets());
        Ok(world)
    }

    /// What the checker is to look at.
    pub fn chain(&self) -> Chain {
        Chain {
            bootstrap: self.cluster.bootstrap(),
            prefix: String::new(),
            database: self.database.url().to_owned(),
            units: 400 * BIN,
        }
    }

    fn args(&self, args: &[&str]) -> Vec<String> {
        let settings =
            ["--brokers".to_owned(), self.cluster.bootstrap(), "--database".to_owned(), self.database.url().to_owned()];
        args.iter().map(|a| (*a).to_owned()).chain(settings).collect()
    }

    /// Runs a command that must succeed; what it printed.
    pub fn done(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.binary).args(self.args(args)).env("OTEL_SDK_DISABLED", "true").output()?;
        ensure!(output.status.success(), "waybill {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// One more process of a stage.
    pub fn run(&self, stage: &str) -> anyhow::Result<Process> {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", self.collector.endpoint());
        Process::spawn(&self.binary, self.args(&["run", stage]), self.settings.iter().cloned().chain([endpoint]))
    }

    /// Starts a command of somebody outside.
    pub fn play(&self, args: &[&str]) -> anyhow::Result<Process> {
        Process::spawn(&self.binary, self.args(args), [("OTEL_SDK_DISABLED", "true")])
    }

    /// Begins to send orders.
    pub fn send_orders(&mut self, seed: u64, orders: u64, rate: f64) -> anyhow::Result<()> {
        let (seed, orders, rate) = (seed.to_string(), orders.to_string(), rate.to_string());
        let args = ["produce", "orders", "--count", &orders, "--seed", &seed, "--rate", &rate];
        self.orders = Some(self.play(&args)?);
        Ok(())
    }

    /// Waits until all orders are on their topic.
    pub async fn orders_are_sent(&mut self) -> anyhow::Result<()> {
        let orders = self.orders.as_mut().context("no orders were to be sent")?;
        let status = orders.wait(Duration::from_secs(300)).await?;
        ensure!(status.success(), "the orders were not sent: {}", orders.log()?);
        Ok(())
    }

    /// Records on `orders.shipped`.
    pub fn shipped(&self) -> anyhow::Result<i64> {
        count_topic(&self.cluster.bootstrap(), "orders.shipped")
    }

    /// Distinct orders on `orders.shipped`; only counted once there may be enough.
    pub fn shipped_distinct(&self, enough: u64) -> anyhow::Result<u64> {
        let records = u64::try_from(self.shipped().unwrap_or(0))?;
        if records < enough {
            return Ok(records);
        }
        let records = read_topic(&self.cluster.bootstrap(), "orders.shipped")?;
        Ok(records.iter().filter_map(|r| r.key.as_deref()).collect::<std::collections::BTreeSet<_>>().len() as u64)
    }

    /// Nine processes again; whatever is paused or away is back already.
    pub async fn make_whole(&mut self) -> anyhow::Result<()> {
        for stage in STAGES {
            while self.processes.iter().filter(|(s, _)| *s == stage).count() < EACH {
                let process = self.run(stage)?;
                self.processes.push((stage, process));
            }
        }
        for (stage, process) in &mut self.processes {
            let ended = process.ended()?;
            ensure!(ended.is_none(), "{stage} ended by itself, {ended:?}: {}", process.log()?);
        }
        Ok(())
    }

    /// Ends all processes as they are asked to, so that the groups have committed what was shipped.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        for (_, process) in &mut self.processes {
            process.terminate()?;
        }
        for (stage, process) in &mut self.processes {
            let status = process.wait(Duration::from_secs(60)).await?;
            ensure!(status.success(), "{stage} ended with {status}: {}", process.log()?);
        }
        Ok(())
    }

    /// A thread that compares offsets with tables all along.
    fn watch_offsets(&self) -> JoinHandle<anyhow::Result<Watched>> {
        let (chain, stop) = (self.chain(), self.stop_watch.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let mut watch = OffsetWatch::new(&chain)?;
            let mut ahead = Vec::new();
            loop {
                let last = stop.load(Relaxed);
                match runtime.block_on(watch.look()) {
                    Ok(found) => ahead.extend(found),
                    // A server is away: look again when it is back. The last look must succeed.
                    Err(error) if last => return Err(error),
                    Err(_) => {}
                }
                if last {
                    return Ok((watch.seen, ahead));
                }
                std::thread::park_timeout(Duration::from_secs(1));
            }
        })
    }

    /// How many committed offsets were looked at, and those that were ahead of their effects.
    pub fn stop_watching(&mut self) -> anyhow::Result<Watched> {
        self.stop_watch.store(true, Relaxed);
        let watch = self.watch.take().context("nothing was watched")?;
        watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?
    }

    /// The state of everything, for whoever finds out why it stands still.
    pub fn dump(&mut self) {
        for topic in TOPICS.into_iter().chain(["dead.pick", "dead.pack", "dead.ship"]) {
            println!("{topic}: {:?}", count_topic(&self.cluster.bootstrap(), topic));
        }
        for (stage, process) in &mut self.processes {
            let log = process.log().unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(8).collect();
            println!("{stage} ({:?}):", process.ended());
            tail.iter().rev().for_each(|line| println!("  {line}"));
        }
    }
}
