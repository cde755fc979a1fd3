//! Three brokers that one test owns: replication 3, two in-sync replicas at least, each broker killable.

use std::time::Duration;

use anyhow::Context;
use rdkafka::consumer::Consumer;

use crate::jars::kafka_jars;
use crate::kafka::{SCRIPT, absolute, started};
use crate::port::free_port;
use crate::reader::consumer;
use crate::supervisor::Supervisor;

const METADATA_LIMIT: Duration = Duration::from_secs(10);

/// A KRaft cluster on loopback; every broker is a controller too.
pub struct KafkaCluster {
    brokers: Vec<Broker>,
}

struct Broker {
    supervisor: Supervisor,
    address: String,
}

impl KafkaCluster {
    /// Returns when every broker answers.
    pub fn start(brokers: usize) -> anyhow::Result<Self> {
        let jars = absolute(kafka_jars()?)?;
        let ports: Vec<(u16, u16)> =
            (0..brokers).map(|_| Ok((free_port()?, free_port()?))).collect::<anyhow::Result<_>>()?;
        let voters: Vec<String> =
            (1..).zip(&ports).map(|(id, (_, controller))| format!("{id}@127.0.0.1:{controller}")).collect();
        let mut cluster = Self { brokers: Vec::new() };
        for (id, (port, controller)) in (1..).zip(&ports) {
            let supervisor = Supervisor::new("kafka", "KILL", &["sh", "-c", SCRIPT, "sh", &jars, "info"])?;
            let data = supervisor.dir().join("data");
            let properties = properties(id, *port, *controller, &voters.join(","), &data.display().to_string());
            std::fs::write(supervisor.dir().join("server.properties"), properties)
                .context("cannot write server.properties")?;
            cluster.brokers.push(Broker { supervisor, address: format!("127.0.0.1:{port}") });
        }
        // All at once: a controller alone has no quorum.
        for broker in &mut cluster.brokers {
            broker.supervisor.start()?;
        }
        cluster.brokers.iter_mut().try_for_each(Broker::wait)?;
        Ok(cluster)
    }

    /// For `bootstrap.servers`: all of them.
    pub fn bootstrap(&self) -> String {
        self.brokers.iter().map(|b| b.address.as_str()).collect::<Vec<_>>().join(",")
    }

    /// The broker that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> anyhow::Result<usize> {
        let consumer = consumer(&self.bootstrap(), "waybill-harness")?;
        let metadata = consumer.fetch_metadata(Some(topic), METADATA_LIMIT).context("no metadata")?;
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        let found = partitions.iter().find(|p| p.id() == partition);
        let leader = found.map(|p| p.leader()).filter(|id| *id > 0);
        let leader = leader.with_context(|| format!("{topic}[{partition}] has no leader now"))?;
        // Their ids count from 1.
        Ok(usize::try_from(leader)? - 1)
    }

    /// Ends a broker without warning, as a crash would.
    pub fn kill(&mut self, broker: usize) -> anyhow::Result<()> {
        self.brokers[broker].supervisor.end("KILL")
    }

    /// Ends a broker as an operator does: it hands over what it leads, and closes its files.
    pub fn stop(&mut self, broker: usize) -> anyhow::Result<()> {
        self.brokers[broker].supervisor.end("TERM")
    }

    /// Partitions of all topics, Kafka's own among them, that have fewer in-sync replicas than replicas, or no leader.
    pub fn under_replicated(&self) -> anyhow::Result<Vec<String>> {
        let consumer = consumer(&self.bootstrap(), "waybill-harness")?;
        let metadata = consumer.fetch_metadata(None, METADATA_LIMIT).context("no metadata")?;
        let partitions = metadata.topics().iter().flat_map(|t| t.partitions().iter().map(|p| (t.name(), p)));
        let under = partitions.filter(|(_, p)| p.leader() < 0 || p.isr().len() < p.replicas().len());
        Ok(under.map(|(topic, p)| format!("{topic}[{}]: {:?} of {:?}", p.id(), p.isr(), p.replicas())).collect())
    }

    /// Takes all from the disk of a broker that was killed; it starts on an empty one, formatted for the same cluster.
    pub fn lose_disk(&self, broker: usize) -> anyhow::Result<()> {
        let data = self.brokers[broker].supervisor.dir().join("data");
        std::fs::remove_dir_all(&data).with_context(|| data.display().to_string())
    }

    /// Starts an ended broker on its port and its data; returns when it answers.
    pub fn start_again(&mut self, broker: usize) -> anyhow::Result<()> {
        self.brokers[broker].supervisor.start()?;
        self.brokers[broker].wait()
    }
}

impl Broker {
    fn wait(&mut self) -> anyhow::Result<()> {
        started(&mut self.supervisor, &self.address)
    }
}

fn properties(id: usize, port: u16, controller: u16, voters: &str, data: &str) -> String {
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
# After a kill a broker reads again whatever is in an open segment: 1 GiB by default.
log.segment.bytes=33554432
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=8388608
"
    )
}
