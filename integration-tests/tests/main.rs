//! The whole of it: real Kafka, real Postgres, real processes of the real binary.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod bad_input;
mod cancellation;
mod chain;
mod checkout;
mod commands;
mod crowd;
mod dead;
mod disasters;
mod failpoints;
mod fanout;
mod faults;
mod front;
mod fuzz;
mod inventory;
mod kafka_rights;
mod kafka_security;
mod lag;
mod notify;
mod observed;
mod otlp_security;
mod pages;
mod people;
mod postgres_security;
mod questions;
mod replay;
mod rolling;
mod rush;
mod saga;
mod sampling;
mod secrets;
mod senders;
mod shop;
mod telemetry;
mod topics;
mod waterfall;
