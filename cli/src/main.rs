//! Waybill: event-driven stream processors on Kafka for a shop's order flow. One binary, one subcommand a role.

mod args;
mod bins;
mod catalogue;
mod config;
mod demo;
mod exit;
mod journey;
mod kafka;
mod orders_file;
mod produce;
mod run;
mod topics;
mod trace;
mod waterfall;

use clap::Parser;

fn main() -> std::process::ExitCode {
    exit::report(args::Args::parse().run())
}
