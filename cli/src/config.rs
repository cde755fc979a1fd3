//! Settings: defaults, then a TOML file, then `WAYBILL_*` variables, then flags. A wrong value ends the start and
//! names its key.

mod database;
mod kafka;
mod print;
mod sources;

pub use database::Database;
pub use print::{Args, print};
pub use sources::Overrides;

use crate::args::Role;
use anyhow::Context;
use figment::Figment;
use figment::value::{Dict, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use waybill_mail::unsubscribe::Unsubscribe;
use waybill_payment::simulator::SimulatorSettings;
use waybill_spine::{KafkaConfig, Policy, STALL};
use waybill_telemetry::TelemetryConfig;
use waybill_topics::{Catalogue, Retention};

/// All settings. A key `a.b` is `WAYBILL_A_B` in the environment.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// librdkafka's properties, by their own names; passwords may stand in files.
    kafka: Dict,
    /// Names on the cluster.
    topics: Topics,
    /// Where decisions are kept.
    pub database: Database,
    /// What telemetry says of the deployment.
    telemetry: Telemetry,
    /// Liveness and readiness.
    pub health: Health,
    /// Where the HTTP API is served.
    pub http: Http,
    /// Bounds of the HTTP API.
    pub gateway: waybill_gateway::Settings,
    /// How long a checkout may take.
    pub checkout: waybill_checkout::Settings,
    /// What counts as back in stock.
    pub restock: waybill_notifications::RestockSettings,
    /// How many are told of it at once, and how fast.
    pub fanout: waybill_notifications::FanoutSettings,
    /// The payment provider; its secrets are read, never written.
    #[serde(default)]
    pub payment: waybill_payment::Settings,
    /// The mail server and the texts.
    #[serde(default)]
    pub mail: waybill_mail::Settings,
    /// The push services.
    #[serde(default)]
    pub push: waybill_push::Settings,
    /// Links that end a subscription, and what signs them.
    #[serde(default)]
    pub unsubscribe: waybill_mail::unsubscribe::Settings,
    /// What messages say of the shop.
    pub shop: waybill_notifications::Shop,
    /// How fast messages go out.
    pub rates: waybill_notifications::Rates,
    /// The payment simulator.
    pub simulator: Simulator,
    /// The operators' pages.
    #[serde(default)]
    pub pages: waybill_pages::Settings,
}

/// Where the HTTP API is served.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Port 0 takes a free one; the log says which.
    pub listen: SocketAddr,
}

/// How the payment simulator behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulator {
    /// Where it is served.
    pub listen: SocketAddr,
    /// Decides, together with a call's key, which charges are declined.
    seed: u64,
    /// The share of charges that are declined for good, 0 to 1.
    declines: f64,
    /// The share of charges that are declined for now, 0 to 1.
    softdeclines: f64,
    /// How long a call takes.
    latency: jiff::SignedDuration,
    /// Where its books are kept; without it a restart forgets everything.
    ledger: Option<std::path::PathBuf>,
}

impl Simulator {
    /// For the simulator.
    pub fn settings(&self) -> SimulatorSettings {
        let latency = self.latency.unsigned_abs();
        SimulatorSettings {
            seed: self.seed,
            hard_declines: self.declines,
            soft_declines: self.softdeclines,
            latency: latency..=latency,
            ledger: self.ledger.clone(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topics {
    prefix: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Telemetry {
    environment: String,
    baggage: Vec<String>,
    /// Where people look at traces, with `{trace_id}` in it.
    traceurl: Option<String>,
}

/// Where `/livez` and `/readyz` are served, and when a process counts as stuck.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Port 0 takes a free one; the log says which.
    pub listen: SocketAddr,
    /// A process whose loop has not turned for so long ends.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::required")]
    pub stall: Duration,
}

/// Passwords are among them: `config --print` knows which.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        let servers = Dict::from([("servers".to_owned(), Value::from("127.0.0.1:9092"))]);
        Config {
            kafka: Dict::from([("bootstrap".to_owned(), Value::from(servers))]),
            topics: Topics { prefix: String::new() },
            database: Database::of_compose(),
            telemetry: Telemetry { environment: "development".to_owned(), baggage: Vec::new(), traceurl: None },
            health: Health { listen: SocketAddr::from(([127, 0, 0, 1], 0)), stall: STALL },
            http: Http { listen: SocketAddr::from(([127, 0, 0, 1], 8080)) },
            gateway: waybill_gateway::Settings::default(),
            checkout: waybill_checkout::Settings::default(),
            restock: waybill_notifications::RestockSettings::default(),
            fanout: waybill_notifications::FanoutSettings::default(),
            payment: waybill_payment::Settings::default(),
            mail: waybill_mail::Settings::default(),
            push: waybill_push::Settings::default(),
            unsubscribe: waybill_mail::unsubscribe::Settings::default(),
            shop: waybill_notifications::Shop::default(),
            rates: waybill_notifications::Rates::default(),
            simulator: Simulator {
                listen: SocketAddr::from(([127, 0, 0, 1], 12111)),
                seed: 1,
                declines: 0.0,
                softdeclines: 0.0,
                latency: jiff::SignedDuration::ZERO,
                ledger: None,
            },
            pages: waybill_pages::Settings::default(),
        }
    }
}

impl Config {
    /// Reads all sources.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, or a value that means nothing.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<Self> {
        Config::from_sources(&sources::all(file, overrides)?)
    }

    fn from_sources(sources: &Figment) -> anyhow::Result<Self> {
        let mut config: Config = sources.extract().context("the settings are wrong")?;
        let properties = kafka::properties(&config.kafka)?;
        config.kafka = properties.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
        config.retention()?;
        anyhow::ensure!(config.health.stall >= Duration::from_secs(1), "health.stall must be a second or more");
        config.checkout.check()?;
        config.restock.check()?;
        config.fanout.check()?;
        config.rates.check()?;
        Ok(config)
    }

    /// How to reach the cluster.
    pub fn kafka(&self) -> KafkaConfig {
        let mut properties = BTreeMap::new();
        kafka::flatten("", &self.kafka, &mut properties);
        KafkaConfig::new(properties, self.topics.prefix.clone())
    }

    /// What telemetry says of `service`.
    pub fn telemetry(&self, service: &str) -> TelemetryConfig {
        TelemetryConfig {
            service: format!("waybill-{service}"),
            environment: self.telemetry.environment.clone(),
            instance: format!("{}-{}", hostname(), std::process::id()),
            baggage: self.telemetry.baggage.clone(),
            export: true,
        }
    }

    /// Where people look at a trace, if that was said.
    pub fn trace_link(&self, trace_id: &str) -> Option<String> {
        self.telemetry.traceurl.as_ref().map(|url| url.replace("{trace_id}", trace_id))
    }

    /// The bounds of a stage's work.
    ///
    /// # Errors
    /// Decisions would be forgotten while a topic still holds the events they answer.
    pub fn policy(&self, catalogue: &Catalogue) -> anyhow::Result<Policy> {
        let retention = self.retention()?;
        for topic in catalogue.topics() {
            let kept = topic.retention.as_ms();
            let outlives = kept >= 0 && retention > Duration::from_millis(kept.unsigned_abs());
            // A compacted topic says what is, not what happened: its reader keeps for ever how far it has come.
            let compacted = topic.settings().get("cleanup.policy").is_some_and(|policy| policy == "compact");
            anyhow::ensure!(
                outlives || compacted || topic.consumers.is_empty(),
                "database.retention is {}, but {} keeps its records for {}: what is decided must outlive the event, \
                 or a replay would be done twice",
                self.database.retention,
                topic.name,
                topic.retention,
            );
        }
        Ok(Policy { retention, ..Policy::default() })
    }

    /// Signs and verifies the links that end a subscription; none where no key is given.
    ///
    /// # Errors
    /// A setting does not work.
    pub fn unsubscribe(&self) -> anyhow::Result<Option<Unsubscribe>> {
        self.signs_links().then(|| Unsubscribe::new(&self.unsubscribe)).transpose().context("unsubscribe")
    }

    fn signs_links(&self) -> bool {
        self.unsubscribe.keys.is_some() || self.unsubscribe.keys_file.is_some()
    }

    /// Whether there are settings for a role that writes to people; other roles need none.
    pub fn sets_up(&self, role: Role) -> bool {
        let mail = !self.mail.from.is_empty();
        let web_push = self.push.vapid_key.is_some() || self.push.vapid_key_file.is_some();
        match role {
            Role::Email => mail && self.signs_links(),
            Role::OrderMail => mail,
            Role::Push => web_push || self.push.fcm_key_file.is_some(),
            Role::Gateway
            | Role::Checkout
            | Role::Inventory
            | Role::Restock
            | Role::Fanout
            | Role::Pick
            | Role::Pack
            | Role::Ship
            | Role::Fulfilment
            | Role::Notifications
            | Role::All
            | Role::PaymentSimulator => true,
        }
    }

    fn retention(&self) -> anyhow::Result<Duration> {
        let parsed: Retention = self.database.retention.parse().context("database.retention")?;
        let ms = parsed.as_ms();
        Ok(if ms < 0 { Duration::from_secs(u64::from(u32::MAX)) } else { Duration::from_millis(ms.unsigned_abs()) })
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "local".to_owned(), |h| h.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::result_large_err, reason = "figment's test jail asks for its own error")]
    use super::*;

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        figment::Jail::expect_with(|jail| {
            jail.create_file("waybill.toml", "[kafka]\nbootstrap.servers = 'file:1'\nsession.timeout.ms = 9000")?;
            jail.set_env("WAYBILL_KAFKA_BOOTSTRAP_SERVERS", "env:1");
            let config = Config::load(None, &Overrides::default()).unwrap();
            assert_eq!(config.kafka().properties["bootstrap.servers"], "env:1");
            assert_eq!(config.kafka().properties["session.timeout.ms"], "9000");
            jail.set_env("WAYBILL_KAFKA_SESSION_TIMEOUT_MS", "8000");
            let config = Config::load(None, &Overrides::default()).unwrap();
            assert_eq!(config.kafka().properties["session.timeout.ms"], "8000");
            let flags = Overrides { brokers: Some("flag:1".into()), ..Overrides::default() };
            let config = Config::load(None, &flags).unwrap();
            assert_eq!(config.kafka().properties["bootstrap.servers"], "flag:1");
            Ok(())
        });
    }

    #[test]
    fn an_unknown_key_and_a_wrong_value_are_named() {
        figment::Jail::expect_with(|jail| {
            for (content, named) in [
                ("[database]\nurll = 'x'", "urll"),
                ("[health]\nlisten = 'nowhere'", "health.listen"),
                ("[health]\nstall = '0s'", "health.stall"),
                ("[database]\nretention = 'long'", "database.retention"),
                ("[checkout]\nhold = 'long'", "checkout.hold"),
                ("[checkout]\nhold = '10m'", "checkout.hold"),
                ("[checkout]\ndeadline = '-1s'", "checkout.deadline"),
                ("[restock]\nminimum = 0", "restock.minimum"),
                ("[fanout]\nfactor = 'some'", "fanout.factor"),
                ("[fanout]\nspacing = '-1s'", "fanout.spacing"),
                ("[rates]\npush = 0.0", "rates.push"),
            ] {
                jail.create_file("waybill.toml", content)?;
                let error = Config::load(None, &Overrides::default()).unwrap_err();
                assert!(format!("{error:#}").contains(named), "{error:#}");
            }
            Ok(())
        });
    }

    #[test]
    fn decisions_outlive_the_topics() {
        let mut config = Config::default();
        let catalogue = Catalogue::built_in().unwrap();
        config.policy(&catalogue).unwrap();
        config.database.retention = "30d".to_owned();
        assert!(config.policy(&catalogue).unwrap_err().to_string().contains("365d"));
    }
}
