//! The spine: takes records from Kafka, lets a stage decide, keeps the decision, publishes the answer.
//!
//! It knows no domain. A [`Stage`] is one pure decision; everything else happens here, once for all
//! stages. The loop is in [`run`], and so are the sentences that always hold.

mod batch;
mod broker;
mod calls;
mod dead;
mod envelope;
mod failpoint;
mod gauge;
mod health;
mod item;
mod kafka;
pub mod memory;
mod metrics;
mod record;
mod run;
mod shutdown;
mod span;
mod stage;

pub use broker::{BrokerError, Failed, Lags, Limits, Sink, Source};
pub use calls::Caller;
pub use dead::{DeadLetter, dead_topic, redrive_topic};
pub use envelope::{BareEvent, Outbound, event_id, headers};
pub use gauge::Gauge;
pub use health::{Health, Pulse, STALL, Watch};
pub use kafka::{KafkaConfig, KafkaSink, KafkaSource, Reader, Refusals, detach, watermarks};
pub use record::{Content, Message, Record, kept_answer};
pub use run::{Clock, Policy, Runner, StageError, system_clock};
pub use shutdown::Shutdown;
pub use stage::{
    Call, Child, Decision, Details, Emit, Event, Input, NoCall, Outcome, Part, Refusal, Shared, Stage, Trace, Work,
};
