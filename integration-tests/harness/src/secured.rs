//! A real broker that lets in whom it knows: by password (SCRAM) or certificate, over TLS, with rights (ACLs).
//! One listener for each way in, and one for each way in which a broker's own certificate can be wrong.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::authority::{Authority, Credentials};
use crate::jars::kafka_jars;
use crate::kafka::{ALONE, SCRIPT, absolute, started, tool};
use crate::port::free_port;
use crate::supervisor::Supervisor;
use crate::tap::Tap;
use crate::unavailable::{say, unavailable};

/// The year in which what has expired did.
const PAST: i32 = 2020;
const FUTURE: i32 = 2090;

/// The listeners. All but the first speak TLS; over `SCRAM` and `COUNTED` a user has a password, over `MTLS` a certificate.
const LISTENERS: [(&str, &str); 7] = [
    ("INSIDE", "PLAINTEXT"),
    ("SCRAM", "SASL_SSL"),
    ("COUNTED", "SASL_SSL"),
    ("MTLS", "SSL"),
    ("EXPIRED", "SSL"),
    ("STRANGER", "SSL"),
    ("ELSEWHERE", "SSL"),
];

/// The password of every user that there is from the start.
pub const PASSWORD: &str = "0042-canary-kafka";

/// How long a connection over `COUNTED` stands before the user must prove again who it is.
const PROVE_AGAIN_MS: u32 = 3_000;

/// A KRaft broker on loopback, with its certificates.
pub struct SecuredKafka {
    supervisor: Supervisor,
    jars: String,
    ports: Vec<u16>,
    counted: Tap,
    ours: Authority,
    others: Authority,
}

/// The broker that all tests of this process share, started on first use; `None`, and a line on standard error, where none
/// can be had.
///
/// # Panics
/// Instead of `None`, under `CI=true`.
pub fn secured_kafka() -> Option<&'static SecuredKafka> {
    static KAFKA: OnceLock<anyhow::Result<SecuredKafka>> = OnceLock::new();
    let start = || {
        let began = Instant::now();
        let kafka = SecuredKafka::start()?;
        say(&format!("test secured Kafka: {}, started in {:.1?}", kafka.inside(), began.elapsed()));
        Ok(kafka)
    };
    match KAFKA.get_or_init(start) {
        Ok(kafka) => Some(kafka),
        Err(error) => {
            unavailable(&format!("no secured Kafka for this test ({error:#}); install Java 17 and Maven"), false);
            None
        }
    }
}

impl SecuredKafka {
    /// Returns when the broker answers. `admin`, as a user and as a certificate's name, may do everything; so may whoever comes
    /// in by [`Self::inside`]. The other users of the start have no rights.
    fn start() -> anyhow::Result<Self> {
        let jars = absolute(kafka_jars()?)?;
        let ports: Vec<u16> = LISTENERS.iter().map(|_| free_port()).collect::<anyhow::Result<_>>()?;
        let users = ["admin", "rotated", "pick", "pack", "ship", "gateway", "operator", "reader", "deploy"];
        let scram = users.map(|user| format!("SCRAM-SHA-512=[name={user},password={PASSWORD}]"));
        let mut command = vec!["sh", "-c", SCRIPT, "sh", &jars, "warn"];
        command.extend(scram.iter().flat_map(|user| ["--add-scram", user.as_str()]));
        let supervisor = Supervisor::new("secured-kafka", "KILL", &command)?;
        let dir = supervisor.dir();
        let (ours, others) = (Authority::within(dir)?, Authority::within(dir)?);
        let counted = Tap::start(SocketAddr::from((Ipv4Addr::LOCALHOST, ports[2])))?;
        keystore(dir, "MTLS", &ours.sign_at("broker", "127.0.0.1", FUTURE)?)?;
        keystore(dir, "EXPIRED", &ours.sign_at("broker", "127.0.0.1", PAST)?)?;
        keystore(dir, "STRANGER", &others.sign_at("broker", "127.0.0.1", FUTURE)?)?;
        keystore(dir, "ELSEWHERE", &ours.sign_at("elsewhere", "elsewhere.example", FUTURE)?)?;
        let properties = properties(dir, &ports, free_port()?, &counted.address(), &ours.certificate());
        fs::write(dir.join("server.properties"), properties).context("cannot write server.properties")?;
        let mut kafka = Self { supervisor, jars, ports, counted, ours, others };
        kafka.supervisor.start()?;
        let inside = kafka.inside();
        started(&mut kafka.supervisor, &inside)?;
        Ok(kafka)
    }

    fn at(&self, listener: usize) -> String {
        format!("127.0.0.1:{}", self.ports[listener])
    }

    /// In the open, for the test's own eyes: whoever comes in here may do everything.
    pub fn inside(&self) -> String {
        self.at(0)
    }

    /// User and password over TLS.
    pub fn scram(&self) -> String {
        self.at(1)
    }

    /// The same behind a tap, which all connections go through; a user must prove again and again who it is.
    pub fn counted(&self) -> &Tap {
        &self.counted
    }

    /// A certificate over TLS.
    pub fn mtls(&self) -> String {
        self.at(3)
    }

    /// The broker's certificate has expired.
    pub fn expired(&self) -> String {
        self.at(4)
    }

    /// The broker's certificate is of an authority that [`Self::authority`] does not know.
    pub fn stranger(&self) -> String {
        self.at(5)
    }

    /// The broker's certificate is for another host.
    pub fn elsewhere(&self) -> String {
        self.at(6)
    }

    /// The certificate of the authority that the broker trusts, and that signed its own.
    pub fn authority(&self) -> PathBuf {
        self.ours.certificate()
    }

    /// The certificate of the other authority, that of [`Self::stranger`].
    pub fn strange_authority(&self) -> PathBuf {
        self.others.certificate()
    }

    /// A client's certificate: the broker knows its holder as `CN=<name>`.
    pub fn certificate(&self, name: &str) -> anyhow::Result<Credentials> {
        self.ours.sign_at(name, "client.example", FUTURE)
    }

    /// A client's certificate that has expired.
    pub fn expired_certificate(&self, name: &str) -> anyhow::Result<Credentials> {
        self.ours.sign_at(name, "client.example", PAST)
    }

    /// A client's certificate of an authority that the broker does not know.
    pub fn strange_certificate(&self, name: &str) -> anyhow::Result<Credentials> {
        self.others.sign_at(name, "client.example", FUTURE)
    }

    /// Gives a user a password, or takes the user's away.
    pub fn set_password(&self, user: &str, password: Option<&str>) -> anyhow::Result<()> {
        let change = match password {
            Some(password) => ["--add-config".to_owned(), format!("SCRAM-SHA-512=[password={password}]")],
            None => ["--delete-config".to_owned(), "SCRAM-SHA-512".to_owned()],
        };
        let at = ["--bootstrap-server", &self.inside(), "--alter", "--entity-type", "users", "--entity-name", user]
            .map(str::to_owned);
        run(tool(&self.jars, "kafka.admin.ConfigCommand").args(at).args(change), "")
    }

    /// Runs a shell script that calls `kafka-acls.sh`.
    pub fn run_acls(&self, script: &str) -> anyhow::Result<()> {
        let bin = self.supervisor.dir().join("bin");
        fs::create_dir_all(&bin).context("cannot make a folder")?;
        let java = tool(&self.jars, "org.apache.kafka.tools.AclCommand");
        let words: Vec<String> = java.get_args().map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let tool = bin.join("kafka-acls.sh");
        fs::write(&tool, format!("#!/bin/sh\nexec java {} \"$@\"\n", words.join(" ")))
            .context("cannot write a script")?;
        run(Command::new("chmod").arg("+x").arg(&tool), "")?;
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        run(Command::new("sh").arg("-es").env("PATH", path), script)
    }
}

fn run(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().with_context(|| format!("{program} cannot be run"))?;
    // A shell takes its script as it goes, and what it prints fits the pipes.
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes()).context("it ended early")?;
    let ended = child.wait_with_output().context("cannot wait for a child")?;
    let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    ensure!(ended.status.success(), "{program}: {said}");
    Ok(())
}

/// As Kafka takes it: the key, then the certificate.
fn keystore(dir: &Path, listener: &str, identity: &Credentials) -> anyhow::Result<()> {
    let read = |file: &Path| fs::read_to_string(file).context("a certificate is gone");
    let file = dir.join(format!("{listener}.keystore.pem"));
    fs::write(file, read(&identity.key)? + &read(&identity.certificate)?).context("cannot write a keystore")
}

fn properties(dir: &Path, ports: &[u16], controller: u16, tap: &str, trusted: &Path) -> String {
    let listeners: Vec<String> =
        LISTENERS.iter().zip(ports).map(|((name, _), port)| format!("{name}://127.0.0.1:{port}")).collect();
    let advertised: Vec<String> = listeners
        .iter()
        .map(|l| if l.starts_with("COUNTED:") { format!("COUNTED://{tap}") } else { l.clone() })
        .collect();
    let protocols: Vec<String> = LISTENERS.iter().map(|(name, protocol)| format!("{name}:{protocol}")).collect();
    let stores: String = LISTENERS
        .iter()
        .filter(|(_, protocol)| *protocol != "PLAINTEXT")
        .map(|(name, protocol)| {
            // The two with passwords have the good certificate, too.
            let store = if *protocol == "SASL_SSL" { "MTLS" } else { name };
            let prefix = format!("listener.name.{}.ssl", name.to_lowercase());
            format!(
                "{prefix}.keystore.type=PEM\n{prefix}.keystore.location={dir}/{store}.keystore.pem\n\
                 {prefix}.truststore.type=PEM\n{prefix}.truststore.location={trusted}\n",
                dir = dir.display(),
                trusted = trusted.display()
            )
        })
        .collect();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={}
controller.listener.names=CONTROLLER
listener.security.protocol.map={},CONTROLLER:PLAINTEXT
inter.broker.listener.name=INSIDE
{stores}listener.name.mtls.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.counted.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.counted.connections.max.reauth.ms={PROVE_AGAIN_MS}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
# Over INSIDE nobody says who it is.
super.users=User:ANONYMOUS;User:admin;User:rotated;User:CN=admin
log.dirs={}/data
auto.create.topics.enable=true
{ALONE}",
        listeners.join(","),
        advertised.join(","),
        protocols.join(","),
        dir.display()
    )
}
