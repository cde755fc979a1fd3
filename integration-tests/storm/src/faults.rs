//! What can fail.

use crate::world::{PARTITIONS, STAGES, TOPICS, World};
use rand::Rng;
use rand::rngs::StdRng;
use std::time::Duration;
use waybill_harness::{Manner, eventually};

/// How long an election may take.
const ELECTION: Duration = Duration::from_secs(60);

/// A fault, with its weight in [`Fault::draw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of a process; it is started again.
    KillProcess,
    /// SIGSTOP until its session is over, then SIGCONT: a member that does not know it is none.
    PauseProcess,
    /// A stage gets one more process.
    AddProcess,
    /// A process is asked to end, and must end with 0.
    RemoveProcess,
    /// `kill -9` of the broker that leads some partition of the chain; it is started again.
    KillLeader,
    /// Postgres ends without a checkpoint and starts again.
    RestartPostgres,
    /// All connections to Postgres are cut.
    CutConnections,
    /// The collector takes what is sent and never answers; the next time it is itself again.
    BlackHoleCollector,
}

impl Fault {
    /// The next fault of a seed.
    pub fn draw(rng: &mut StdRng) -> Self {
        match rng.random_range(0..22) {
            0..=6 => Fault::KillProcess,
            7..=8 => Fault::PauseProcess,
            9..=10 => Fault::AddProcess,
            11..=12 => Fault::RemoveProcess,
            13..=14 => Fault::KillLeader,
            15..=16 => Fault::RestartPostgres,
            17..=19 => Fault::CutConnections,
            _ => Fault::BlackHoleCollector,
        }
    }
}

impl World {
    /// Injects a fault and, where it is one that passes, ends it; a note for the log.
    pub async fn inject(&mut self, fault: Fault, rng: &mut StdRng) -> anyhow::Result<String> {
        match fault {
            Fault::KillProcess => {
                let index = rng.random_range(0..self.processes.len());
                self.processes[index].1.kill()?;
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
                let stage = self.processes[index].0;
                self.processes[index].1 = self.run(stage)?;
                Ok(stage.to_owned())
            }
            Fault::PauseProcess => {
                let index = rng.random_range(0..self.processes.len());
                self.processes[index].1.stop()?;
                // Longer than the session, 6 s.
                tokio::time::sleep(Duration::from_millis(rng.random_range(7_000..10_000))).await;
                self.processes[index].1.cont()?;
                Ok(self.processes[index].0.to_owned())
            }
            Fault::AddProcess => {
                let stage = STAGES[rng.random_range(0..STAGES.len())];
                if self.processes.iter().filter(|(s, _)| *s == stage).count() < 4 {
                    let process = self.run(stage)?;
                    self.processes.push((stage, process));
                }
                Ok(stage.to_owned())
            }
            Fault::RemoveProcess => {
                let index = rng.random_range(0..self.processes.len());
                let stage = self.processes[index].0;
                if self.processes.iter().filter(|(s, _)| *s == stage).count() < 3 {
                    return Ok(format!("{stage}: too few"));
                }
                let (_, mut process) = self.processes.remove(index);
                process.terminate()?;
                let status = process.wait(Duration::from_secs(30)).await?;
                anyhow::ensure!(status.success(), "{stage} ended with {status}: {}", process.log()?);
                Ok(stage.to_owned())
            }
            Fault::KillLeader => {
                let topic = TOPICS[rng.random_range(0..TOPICS.len())];
                let partition = rng.random_range(0..PARTITIONS);
                // While the last broker that was killed catches up, a partition may have no leader for a moment.
                let leader = || async { self.cluster.leader(topic, partition).map_err(|e| format!("{e:#}")) };
                let broker = eventually("a leader", ELECTION, leader).await;
                self.cluster.kill(broker)?;
                tokio::time::sleep(Duration::from_millis(rng.random_range(500..5_000))).await;
                self.cluster.start_again(broker)?;
                Ok(format!("{}, of {topic}[{partition}]", broker + 1))
            }
            Fault::RestartPostgres => {
                self.postgres.stop_immediate()?;
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
                self.postgres.start_again()?;
                Ok(String::new())
            }
            Fault::CutConnections => {
                let cut = self.postgres.terminate_connections().await?;
                Ok(format!("{cut}"))
            }
            Fault::BlackHoleCollector => {
                self.collector_away = !self.collector_away;
                self.collector.meet(if self.collector_away { Manner::BlackHole } else { Manner::Forget });
                Ok(if self.collector_away { "begins" } else { "ends" }.to_owned())
            }
        }
    }
}
