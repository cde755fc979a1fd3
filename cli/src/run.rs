//! `waybill run`: stages, each on a thread of its own with a connection of its own.

mod roles;

use self::roles::{chosen, name};
use crate::args::Role;
use crate::config::Config;
use crate::exit::Ended;
use crate::kafka;
use anyhow::Context;
use clap::Args as ClapArgs;
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use waybill_spine::{
    Call, Caller, Health, Input, KafkaConfig, KafkaSink, KafkaSource, Policy, Runner, Shutdown, Stage, redrive_topic,
    system_clock,
};
use waybill_store::{Store, StoreError};
use waybill_telemetry::{Dropped, Telemetry, TelemetryConfig};
use waybill_topics::Catalogue;

/// How long a start waits for the database, and for Kafka.
const START: Duration = Duration::from_secs(60);
/// How long a stop waits for the stages: longer than their own last batch.
const STOP: Duration = Duration::from_secs(15);

/// Which roles.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What this process is to be, one or more
    #[arg(required = true, value_enum)]
    roles: Vec<Role>,
    /// A record that ends the process whenever it comes, for example orders.new/3/1207: a dead letter at once, with no look
    /// into it. May be repeated
    #[arg(long, value_name = "TOPIC/PARTITION/OFFSET", value_parser = position)]
    refuse: Vec<String>,
}

fn position(text: &str) -> Result<String, String> {
    let numbers =
        text.rsplitn(3, '/').take(2).all(|number| number.parse::<u64>().is_ok_and(|n| n.to_string() == number));
    let sound = numbers && text.rsplitn(3, '/').nth(2).is_some_and(|topic| !topic.is_empty());
    if sound { Ok(text.to_owned()) } else { Err("not a position, such as orders.new/3/1207".to_owned()) }
}

/// Runs the command.
pub fn run(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    let roles = chosen(&args.roles, config);
    let runtime = runtime(&roles)?;
    let shutdown = Shutdown::default();
    runtime.spawn(stop_on_signal(shutdown.clone()));
    let result = runtime.block_on(async {
        let policy = Policy { refuse: args.refuse.clone().into(), ..config.policy(&Catalogue::built_in()?)? };
        let kafka = config.kafka();
        let mut running = Running::new(kafka, Health::new(config.health.stall), shutdown, policy);
        if roles.iter().any(|role| *role != Role::PaymentSimulator) {
            running.store = Some(open_store(config, &running.shutdown).await?);
            running.check_topics(&roles).await?;
        }
        let listener = TcpListener::bind(config.health.listen).await.context("health.listen")?;
        let address = listener.local_addr()?;
        tokio::spawn(running.health.clone().serve(listener));
        for role in &roles {
            running.start_role(*role, config).await?;
        }
        tracing::info!(roles = %names(&roles), health = %address, "running");
        tokio::task::spawn_blocking(move || running.wait()).await?
    });
    runtime.shutdown_background();
    result
}

/// Requests, payments and the encryption of push messages share all cores. A stage decides on a thread of its own; what else
/// the others do fits on one, which wakes up nobody.
fn runtime(roles: &BTreeSet<Role>) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if !roles.iter().any(|role| matches!(role, Role::Gateway | Role::Checkout | Role::Push)) {
        builder.worker_threads(1);
    }
    builder.enable_all().build()
}

fn names(roles: &BTreeSet<Role>) -> String {
    roles.iter().map(|role| name(*role)).collect::<Vec<_>>().join(", ")
}

async fn stop_on_signal(shutdown: Shutdown) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return;
    };
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    tracing::info!("stopping: what is in hand is finished first");
    shutdown.request();
}

async fn open_store(config: &Config, shutdown: &Shutdown) -> anyhow::Result<Store> {
    let mut store = config.store().await?;
    let begun = Instant::now();
    loop {
        match store.migrate().await {
            Ok(()) => return Ok(store),
            Err(error @ StoreError::Away(_)) if begun.elapsed() < START && !shutdown.requested() => {
                eprintln!("waiting for the database: {:#}", anyhow::Error::from(error));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error @ StoreError::Away(_)) => {
                return Err(error)
                    .context("start a database with `docker compose up -d postgres`, or name yours with --database");
            }
            // Asked again it says the same: whoever set it must look.
            Err(error) => return Err(error).context("the database cannot be used as the settings say (database.*)"),
        }
    }
}

/// The roles of a process.
pub struct Running {
    kafka: KafkaConfig,
    /// None where no role needs one.
    store: Option<Store>,
    health: Health,
    shutdown: Shutdown,
    policy: Policy,
    telemetry: Vec<(&'static str, Telemetry)>,
    /// Roles that have not ended.
    left: usize,
    ended: Sender<(&'static str, anyhow::Result<()>)>,
    endings: Receiver<(&'static str, anyhow::Result<()>)>,
}

impl Running {
    /// Nothing runs yet.
    pub fn new(kafka: KafkaConfig, health: Health, shutdown: Shutdown, policy: Policy) -> Self {
        let (ended, endings) = channel();
        Running { kafka, store: None, health, shutdown, policy, telemetry: Vec::new(), left: 0, ended, endings }
    }

    /// With a database, already migrated.
    #[must_use]
    pub fn with_store(self, store: Store) -> Self {
        Running { store: Some(store), ..self }
    }

    /// A stage without its topics would wait for ever, so it does not start.
    async fn check_topics(&self, roles: &BTreeSet<Role>) -> anyhow::Result<()> {
        let catalogue = Catalogue::built_in()?;
        let topics: Vec<&str> = roles
            .iter()
            .flat_map(|s| catalogue.owned_by(name(*s)).chain(catalogue.consumed_by(name(*s))))
            .map(|topic| topic.name.as_str())
            .collect();
        let begun = Instant::now();
        let missing = loop {
            match kafka::missing(&self.kafka, &topics) {
                Ok(missing) => break missing,
                Err(error) if kafka::is_away(&error) && begun.elapsed() < START && !self.shutdown.requested() => {
                    eprintln!("waiting for Kafka: {error:#}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error),
            }
        };
        anyhow::ensure!(missing.is_empty(), "topics are missing ({}): run `waybill topics apply`", missing.join(", "));
        Ok(())
    }

    /// Another connection to the database.
    pub fn another_store(&self) -> anyhow::Result<Store> {
        Ok(self.store.as_ref().context("no database was opened")?.another())
    }

    /// A role that is a task of the process's runtime.
    fn spawn(&mut self, name: &'static str, role: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (ended, shutdown) = (self.ended.clone(), self.shutdown.clone());
        self.left += 1;
        tokio::spawn(async move {
            let result = role.await;
            // One role's end is the end of the process: a supervisor starts it whole again.
            shutdown.request();
            ended.send((name, result)).ok();
        });
    }

    /// Starts a stage on a thread of its own.
    pub fn start<S: Stage>(
        &mut self,
        stage: S,
        means: <S::Call as Call>::Means,
        telemetry: TelemetryConfig,
    ) -> anyhow::Result<()> {
        let telemetry = Telemetry::start(&telemetry)?;
        if self.telemetry.is_empty() {
            telemetry.bridge();
        }
        let redrive = redrive_topic(S::NAME);
        let topics = S::Event::TOPICS.iter().map(|(topic, _)| *topic);
        let topics: Vec<&str> = topics.chain([redrive.as_str()]).collect();
        let kafka = self.kafka.apart();
        let source = KafkaSource::join(&kafka, S::NAME, &topics)?;
        let sink = KafkaSink::connect(&kafka, S::NAME)?;
        let pulse = self.health.pulse(S::NAME);
        pulse.refused_by(kafka.refusals());
        let runner = Runner::new(
            stage,
            &self.kafka.prefix,
            (source, sink),
            self.another_store()?,
            &telemetry,
            pulse,
            self.shutdown.clone(),
            self.policy.clone(),
            system_clock,
            Caller { runtime: Handle::current(), means },
        );
        let (ended, shutdown) = (self.ended.clone(), self.shutdown.clone());
        std::thread::Builder::new().name(S::NAME.to_owned()).spawn(move || {
            // A runtime of its own: the loop's thread also drives its connection, so no wake-up crosses threads.
            let result = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(anyhow::Error::from)
                .and_then(|runtime| runtime.block_on(runner.run()).map_err(anyhow::Error::from));
            shutdown.request();
            ended.send((S::NAME, result)).ok();
        })?;
        self.left += 1;
        self.telemetry.push((S::NAME, telemetry));
        Ok(())
    }

    /// Waits for the stages to end, then for their telemetry; both for so long and no longer.
    pub fn wait(self) -> anyhow::Result<Ended> {
        let mut result = Ok(Ended::Done);
        let mut watch = self.health.watch();
        let mut deadline = None;
        let mut left = self.left;
        while left > 0 {
            match self.endings.recv_timeout(Duration::from_millis(200)) {
                Ok((stage, ended)) => {
                    left -= 1;
                    if let Err(error) = ended {
                        result = Err(error.context(format!("{stage} ended")));
                    }
                }
                Err(_) if !self.shutdown.requested() => {
                    if let Some((stage, quiet)) = watch.stuck() {
                        // Its thread cannot be ended, only the process can; the others finish what they have in hand.
                        result = Err(stuck(stage, quiet));
                        left -= 1;
                        self.shutdown.request();
                    }
                }
                Err(_) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + STOP);
                    if Instant::now() > deadline {
                        tracing::warn!("a stage did not end in time; its last records come again");
                        break;
                    }
                }
            }
        }
        let closing: Vec<_> = self
            .telemetry
            .into_iter()
            .map(|(stage, telemetry)| std::thread::spawn(move || (stage, telemetry.close())))
            .collect();
        for closed in closing {
            if let Ok((stage, dropped)) = closed.join() {
                tell_dropped(stage, dropped);
            }
        }
        result
    }
}

fn stuck(stage: &str, quiet: Duration) -> anyhow::Error {
    anyhow::anyhow!(
        "{stage} is stuck: its loop has not turned for {} s (health.stall). The process ends, so that its supervisor starts it \
         again; nothing is lost, what was in hand comes again",
        quiet.as_secs()
    )
}

fn tell_dropped(role: &'static str, Dropped { queue_full, export_failed }: Dropped) {
    if queue_full + export_failed > 0 {
        tracing::warn!(role, queue_full, export_failed, "spans dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn a_position_names_topic_partition_and_offset() {
        for good in ["orders.new/3/1207", "redrive.order-mail/0/0"] {
            assert_eq!(position(good).as_deref(), Ok(good));
        }
        for bad in
            ["", "orders.new", "orders.new/3", "/3/1207", "orders.new/3/x", "orders.new/-3/1207", "orders.new/03/1"]
        {
            assert!(position(bad).is_err(), "{bad}");
        }
    }
}
