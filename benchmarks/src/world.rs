//! The servers that both sides use, and the work they are given.

use anyhow::ensure;
use std::path::{Path, PathBuf};
use std::process::Command;
use waybill_harness::{Collector, Database, KafkaServer, Manner, PostgresServer, Process, Scope};

/// One broker, one Postgres (fsync on), one collector.
pub struct World {
    pub waybill: PathBuf,
    pub kafka: KafkaServer,
    pub postgres: PostgresServer,
    pub collector: Collector,
}

/// The topics of one run, with its orders on the first of them, and its database.
pub struct Work {
    pub scope: Scope,
    pub database: Database,
}

impl World {
    /// Starts the servers.
    pub fn start(waybill: &Path) -> anyhow::Result<Self> {
        ensure!(waybill.exists(), "{} is missing: run `cargo build --release`", waybill.display());
        let world = World {
            waybill: waybill.to_owned(),
            kafka: KafkaServer::start()?,
            postgres: PostgresServer::start()?,
            collector: Collector::start()?,
        };
        // Spans are counted; nobody looks at them.
        world.collector.meet(Manner::Forget);
        Ok(world)
    }

    /// New topics, a new database with full bins.
    pub async fn work(&self, name: &str) -> anyhow::Result<Work> {
        let work = Work {
            scope: Scope::new(self.kafka.bootstrap(), name),
            database: self.postgres.create_database(name).await?,
        };
        self.waybill(&work, &["topics", "apply"])?;
        // 10⁹ units a bin: no order comes short.
        self.waybill(&work, &["bins", "load", "--test-goods", "1000000000"])?;
        Ok(work)
    }

    /// Orders on `orders.new`: the same for a seed, whoever is to work on them.
    pub fn orders(&self, work: &Work, orders: u64, lines: u32) -> anyhow::Result<()> {
        let (orders, lines) = (orders.to_string(), lines.to_string());
        self.waybill(work, &["produce", "orders", "--count", &orders, "--lines", &lines, "--seed", "1"])
    }

    /// Orders that come one by one; others than those of [`World::orders`].
    pub fn paced_orders(&self, work: &Work, orders: u64, lines: u32, rate: u64) -> anyhow::Result<Process> {
        let (orders, lines, rate) = (orders.to_string(), lines.to_string(), rate.to_string());
        let args = ["produce", "orders", "--count", &orders, "--lines", &lines, "--rate", &rate, "--seed", "2"];
        Process::spawn(&self.waybill, self.args(work, &args), [("OTEL_SDK_DISABLED", "true")])
    }

    /// Arguments of `waybill` for this run.
    pub fn args(&self, work: &Work, args: &[&str]) -> Vec<String> {
        let settings =
            ["--brokers", self.kafka.bootstrap(), "--database", work.database.url(), "--prefix", work.scope.prefix()];
        args.iter().chain(&settings).map(|a| (*a).to_owned()).collect()
    }

    fn waybill(&self, work: &Work, args: &[&str]) -> anyhow::Result<()> {
        let output =
            Command::new(&self.waybill).args(self.args(work, args)).env("OTEL_SDK_DISABLED", "true").output()?;
        ensure!(output.status.success(), "waybill {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
