//! A real Kafka broker: the one named by `WAYBILL_TEST_KAFKA`, or one of our own (KRaft, a single node).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::jars::kafka_jars;
use crate::port::free_port;
use crate::supervisor::Supervisor;
use crate::unavailable::{say, unavailable};

const VARIABLE: &str = "WAYBILL_TEST_KAFKA";

/// A start takes some 3 s; this is for a machine that is busy with everything else.
const START_LIMIT: Duration = Duration::from_secs(45);
const STARTS: usize = 3;

/// `$1` is the jars, `$2` the level of the log, the rest is for the formatting. Formatted once: a broker that starts again keeps
/// its data.
/// No perf data: that is a file in the temporary folder, and a kill leaves it there.
pub(crate) const SCRIPT: &str = r#"
set -e
jars=$1 level=$2
shift 2
[ -e data/meta.properties ] || java -XX:+UseSerialGC -XX:-UsePerfData -XX:TieredStopAtLevel=1 \
  -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" \
  kafka.tools.StorageTool format -t d2F5YmlsbC10ZXN0cy1fXw -c server.properties "$@"
exec java -Xmx512m -XX:+UseSerialGC -XX:-UsePerfData -Djava.awt.headless=true \
  -Dorg.slf4j.simpleLogger.defaultLogLevel="$level" -Dorg.slf4j.simpleLogger.showDateTime=true \
  -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS -cp "$jars/*" kafka.Kafka server.properties
"#;

/// The broker that all tests of this process share.
pub struct Kafka {
    bootstrap: String,
    // Held, not used: it stops when this process ends.
    _server: Option<KafkaServer>,
}

impl Kafka {
    /// For `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    fn find() -> anyhow::Result<Self> {
        if let Ok(bootstrap) = std::env::var(VARIABLE) {
            wait_until_ready(&bootstrap, Duration::from_secs(10), || true)
                .with_context(|| format!("no Kafka at {VARIABLE}={bootstrap}"))?;
            say(&format!("test Kafka: {bootstrap}, from {VARIABLE}"));
            return Ok(Self { bootstrap, _server: None });
        }
        let began = Instant::now();
        let server = KafkaServer::start()?;
        let bootstrap = server.bootstrap().to_owned();
        say(&format!("test Kafka: {bootstrap}, started in {:.1?}", began.elapsed()));
        Ok(Self { bootstrap, _server: Some(server) })
    }
}

/// The shared broker, started on first use; `None`, and a line on standard error, where none can be had.
///
/// # Panics
/// Instead of `None`, under `CI=true` or where `WAYBILL_TEST_KAFKA` names a broker that is not there.
pub fn kafka() -> Option<&'static Kafka> {
    static KAFKA: OnceLock<anyhow::Result<Kafka>> = OnceLock::new();
    match KAFKA.get_or_init(Kafka::find) {
        Ok(kafka) => Some(kafka),
        Err(error) => {
            unavailable(
                &format!(
                    "no Kafka for this test ({error:#}); run `docker compose up -d kafka postgres` \
                     and set {VARIABLE}=127.0.0.1:9092, or install Java 17 and Maven"
                ),
                std::env::var_os(VARIABLE).is_some(),
            );
            None
        }
    }
}

/// A broker that one test owns and may stop; it ends and its data goes when this is dropped.
pub struct KafkaServer {
    supervisor: Supervisor,
    bootstrap: String,
}

impl KafkaServer {
    /// Returns when the broker answers.
    pub fn start() -> anyhow::Result<Self> {
        ensure!(
            Command::new("java").arg("-version").stdin(Stdio::null()).output().is_ok_and(|run| run.status.success()),
            "java cannot be run"
        );
        let jars = absolute(kafka_jars()?)?;
        let (port, controller) = (free_port()?, free_port()?);
        let supervisor = Supervisor::new("kafka", "KILL", &["sh", "-c", SCRIPT, "sh", &jars, "warn"])?;
        let properties = properties(port, controller, supervisor.dir());
        std::fs::write(supervisor.dir().join("server.properties"), properties)
            .context("cannot write server.properties")?;
        let bootstrap = format!("127.0.0.1:{port}");
        let mut server = Self { supervisor, bootstrap };
        server.start_again()?;
        Ok(server)
    }

    /// For `bootstrap.servers`; the same after a new start.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The broker's process id.
    pub fn pid(&self) -> u32 {
        self.supervisor.server()
    }

    /// Ends the broker without warning, as a crash would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.supervisor.end("KILL")
    }

    /// Takes a topic's records from the disk of a broker that was killed, as a disk does that breaks: what else it knows, the
    /// groups' offsets among it, it keeps.
    pub fn lose(&self, topic: &str) -> anyhow::Result<()> {
        let data = self.supervisor.dir().join("data");
        let mut lost = 0;
        for entry in std::fs::read_dir(&data).with_context(|| data.display().to_string())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().rsplit_once('-').is_some_and(|(name, _)| name == topic) {
                std::fs::remove_dir_all(entry.path())?;
                lost += 1;
            }
        }
        ensure!(lost > 0, "there is no partition of {topic} on the disk");
        Ok(())
    }

    /// Runs Kafka's own `kafka-consumer-groups`, as people on call do; what it printed.
    pub fn consumer_groups(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = tool(&absolute(kafka_jars()?)?, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand")
            .args(["--bootstrap-server", &self.bootstrap])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .context("java cannot be run")?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success() && !text.contains("Error:"), "kafka-consumer-groups {args:?}: {text}");
        Ok(text)
    }

    /// Starts the killed broker on its port and its data; returns when it answers.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.supervisor.start()?;
        started(&mut self.supervisor, &self.bootstrap)
    }
}

/// Returns when the broker that was just started answers.
///
/// On a busy machine a JVM hangs now and then before it has done anything, about once in a hundred starts: no line in its
/// log, no CPU, until a signal reaches it. Such a one is killed and started again.
pub(crate) fn started(supervisor: &mut Supervisor, address: &str) -> anyhow::Result<()> {
    let mut starts = 1;
    loop {
        match wait_until_ready(address, START_LIMIT, || supervisor.is_alive()) {
            Ok(()) => return Ok(()),
            Err(_) if starts < STARTS && supervisor.is_alive() => {
                starts += 1;
                supervisor.end("KILL")?;
                supervisor.start()?;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("Kafka did not start: {}", supervisor.log_tail()));
            }
        }
    }
}

/// Ready is: it answers a metadata request, and knows itself. (The port is open before that.)
pub(crate) fn wait_until_ready(bootstrap: &str, limit: Duration, alive: impl Fn() -> bool) -> anyhow::Result<()> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // Knocking early must not make the next knock late.
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "50")
        .create()
        .context("cannot make a Kafka client")?;
    let deadline = Instant::now() + limit;
    loop {
        let seen = match client.fetch_metadata(None, Duration::from_millis(500)) {
            Ok(metadata) if !metadata.brokers().is_empty() => return Ok(()),
            Ok(_) => "no broker has joined".to_owned(),
            Err(error) => error.to_string(),
        };
        ensure!(alive(), "the broker ended");
        ensure!(Instant::now() < deadline, "not ready within {limit:?}: {seen}");
    }
}

/// What every broker has that is a test's only one: no copies, and nothing waited for or kept for a size that no test has.
pub(crate) const ALONE: &str = "default.replication.factor=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# One partition where the default is 50: they are made when the first group joins, which waits for them.
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
# Tests write records of last year and expect to read them.
log.retention.ms=-1
# A restarted broker is refused until its former life has timed out: 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# The default of 128 MiB is a quarter of this heap.
log.cleaner.dedupe.buffer.size=8388608
";

fn properties(port: u16, controller: u16, dir: &Path) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={}/data
auto.create.topics.enable=false
group.min.session.timeout.ms=1000
{ALONE}",
        dir.display()
    )
}

/// One of Kafka's own tools.
pub(crate) fn tool(jars: &str, class: &str) -> Command {
    let mut java = Command::new("java");
    java.args(["-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1", "-Xmx128m"]);
    java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &format!("{jars}/*"), class]);
    java
}

pub(crate) fn absolute(path: PathBuf) -> anyhow::Result<String> {
    let path = path.canonicalize().context("the jars are gone")?;
    path.into_os_string().into_string().ok().context("the target folder's name is not UTF-8")
}
