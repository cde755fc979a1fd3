//! The sides: Waybill, the same chain on Kafka Streams, and librdkafka that only carries records.

use crate::usage;
use crate::world::{Work, World};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use waybill_harness::Process;

/// Who does the work.
#[derive(Clone, Debug)]
pub enum Side {
    /// `waybill run fulfilment`, as it comes.
    Waybill,
    /// The peer, one process with two stream threads.
    KafkaStreams {
        /// Built by `mvn package`.
        jar: PathBuf,
        /// `-Xmx`.
        heap: String,
    },
    /// Three hops without any work: see `carry.rs`.
    Carry,
}

/// What a run is to show; the peer is tuned for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    Throughput,
    Latency,
}

impl Side {
    /// Its name in the tables.
    pub fn name(&self) -> &'static str {
        match self {
            Side::Waybill => "waybill",
            Side::KafkaStreams { .. } => "kafka-streams",
            Side::Carry => "carry",
        }
    }

    /// Spans that an order of so many lines makes: one a stage, and one a line.
    pub fn spans_of_an_order(&self, lines: u32) -> u64 {
        match self {
            Side::Waybill | Side::KafkaStreams { .. } => u64::from(3 + lines),
            Side::Carry => 0,
        }
    }

    /// Starts its processes.
    pub fn start(&self, world: &World, work: &Work, aim: Aim, processes: usize) -> anyhow::Result<Started> {
        let mut started = Started::new(Vec::new())?;
        for number in 0..processes {
            let state = started.state.path().join(number.to_string());
            started.processes.push(self.process(world, work, aim, &state)?);
        }
        Ok(started)
    }

    fn process(&self, world: &World, work: &Work, aim: Aim, state: &Path) -> anyhow::Result<Process> {
        let endpoint = world.collector.endpoint();
        match self {
            Side::Waybill => {
                let args = world.args(work, &["run", "fulfilment"]);
                Process::spawn(&world.waybill, args, [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)])
            }
            Side::KafkaStreams { jar, heap } => {
                ensure!(jar.exists(), "{} is missing: run `mvn -q -B package` in its folder", jar.display());
                let mut args = vec![
                    format!("-Xms{heap}"),
                    format!("-Xmx{heap}"),
                    "-jar".to_owned(),
                    format!("{}", jar.display()),
                    format!("--brokers={}", world.kafka.bootstrap()),
                    format!("--prefix={}", work.scope.prefix()),
                    format!("--otlp={endpoint}"),
                    format!("--state-dir={}", state.display()),
                    "--threads=2".to_owned(),
                    "--stage=all".to_owned(),
                ];
                args.extend(tuning(aim).iter().map(|setting| format!("--conf.{setting}")));
                Process::spawn("java".as_ref(), args, [("LC_ALL", "C")])
            }
            Side::Carry => {
                let args = ["carry", "--brokers", world.kafka.bootstrap(), "--prefix", work.scope.prefix()];
                Process::spawn(&std::env::current_exe()?, args.map(str::to_owned), [("LC_ALL", "C")])
            }
        }
    }
}

/// The processes of a side, killed when this is dropped.
pub struct Started {
    pub processes: Vec<Process>,
    state: TempDir,
}

impl Started {
    /// These processes.
    pub fn new(processes: Vec<Process>) -> anyhow::Result<Self> {
        Ok(Started { processes, state: tempfile::tempdir()? })
    }

    /// An error, with what it printed, where one has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.ended()? {
                anyhow::bail!("a process ended with {status}: {}", process.log()?);
            }
        }
        Ok(())
    }

    /// Seconds of CPU of all of them so far.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|p| usage::cpu(p.pid())).sum()
    }

    /// Most memory each has had resident so far, added up; MiB.
    pub fn peak_rss(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|p| usage::peak_rss(p.pid())).sum()
    }

    /// Asks them to end as an operator would, and waits for it.
    pub async fn end(mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.terminate()?;
        }
        for process in &mut self.processes {
            process.wait(Duration::from_secs(60)).await?;
        }
        self.state.close().context("cannot remove the state of the peer")
    }
}

/// The strongest settings found for Kafka Streams: large batches for throughput, short commits for latency.
fn tuning(aim: Aim) -> &'static [&'static str] {
    match aim {
        Aim::Throughput => &["producer.batch.size=131072", "producer.linger.ms=20", "max.poll.records=2000"],
        Aim::Latency => &["commit.interval.ms=20", "poll.ms=10"],
    }
}
