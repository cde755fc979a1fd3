//! What the tests and the benchmarks stand on: real servers, real processes, and eyes on what they did.
//!
//! - Servers: [`kafka()`] and [`postgres()`], one each a test process; [`KafkaServer`] and [`PostgresServer`]
//!   for a test that must stop its own. Where none can be had, a test returns early, except under `CI=true`.
//! - What a test touches: [`Scope`] (its topics and groups), [`Database`], [`Process`].
//! - What it saw: [`read_topic`], [`committed`], [`Collector`] (spans and metrics over OTLP), [`eventually`].
//!
//! Nothing outlives the test process, even one that is killed: see `supervisor.rs`.

mod cluster;
mod collector;
mod database;
mod drops;
mod eventually;
mod faults;
mod jars;
mod kafka;
mod metrics;
mod port;
mod postgres;
mod process;
mod reader;
mod scope;
mod spans;
mod supervisor;
mod topic_reader;
mod unavailable;
mod writer;

pub use cluster::KafkaCluster;
pub use collector::{Collector, Manner};
pub use database::Database;
pub use eventually::eventually;
pub use faults::{BlackHole, Refusing};
pub use kafka::{Kafka, KafkaServer, kafka};
pub use metrics::{Kind, Measured, Point};
pub use postgres::{Postgres, PostgresServer, postgres};
pub use process::Process;
pub use reader::{Rec, committed, count_topic, read_topic};
pub use scope::Scope;
pub use spans::{Attributes, Caught};
pub use topic_reader::TopicReader;
pub use writer::{Draft, produce};
