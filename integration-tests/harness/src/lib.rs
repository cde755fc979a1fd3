//! What the tests and the benchmarks stand on: real servers, real processes, and eyes on what they did.
//!
//! - Servers: [`kafka()`] and [`postgres()`], one each a test process; [`KafkaServer`] and [`PostgresServer`]
//!   for a test that must stop its own, [`MailServer`] always a test's own; [`PushReceiver`] stands for browsers. Where none
//!   can be had, a test returns early, except under `CI=true`.
//! - [`secured_kafka()`], a broker with TLS, users and rights; a [`Tap`] sees who connects.
//! - [`schemathesis()`], which fuzzes an HTTP API by its OpenAPI document.
//! - [`Browser`], a real Chromium; [`otelcol()`], a real OpenTelemetry collector; [`Prometheus`].
//! - [`Authority`], which signs certificates for any of them.
//! - What a test touches: [`Scope`] (its topics and groups), [`Database`], [`Process`].
//! - What it saw: [`read_topic`], [`committed`], [`Collector`] (spans and metrics over OTLP), [`eventually`].
//!
//! Nothing outlives the test process, even one that is killed: see `supervisor.rs`.

mod authority;
mod browser;
mod cluster;
mod collector;
mod database;
mod drops;
mod eventually;
mod faults;
mod fetched;
mod http;
mod jars;
mod kafka;
mod lost_commit;
mod mail;
mod metrics;
mod otelcol;
mod port;
mod postgres;
mod process;
mod prometheus;
mod push;
mod reader;
mod schemathesis;
mod scope;
mod secured;
mod spans;
mod supervisor;
mod tap;
mod topic_reader;
mod unavailable;
mod writer;

pub use authority::{Authority, Credentials};
pub use browser::Browser;
pub use cluster::KafkaCluster;
pub use collector::{Collector, Guard, Manner};
pub use database::Database;
pub use eventually::eventually;
pub use faults::{BlackHole, Refusing};
pub use http::{Answer, ask};
pub use kafka::{Kafka, KafkaServer, kafka};
pub use lost_commit::LostCommit;
pub use mail::{Arrived, MailServer};
pub use metrics::{Kind, Measured, Point};
pub use otelcol::{OTELCOL_VERSION, otelcol};
pub use port::free_port;
pub use postgres::{Entrance, Postgres, PostgresServer, postgres};
pub use process::{Process, Usage, usage};
pub use prometheus::Prometheus;
pub use push::{PushReceiver, PushSubscription};
pub use reader::{Rec, committed, count_topic, read_topic, topics};
pub use schemathesis::schemathesis;
pub use scope::Scope;
pub use secured::{PASSWORD, SecuredKafka, secured_kafka};
pub use spans::{Attributes, Caught};
pub use tap::{Caller, Tap};
pub use topic_reader::TopicReader;
pub use writer::{Draft, produce};
