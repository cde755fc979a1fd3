//! Waybill: event-driven stream processors on Kafka for a shop's order flow. One binary, one subcommand a role.

mod acls;
mod args;
mod behind;
mod bins;
mod catalogue;
mod checkouts;
mod config;
mod dead;
mod demand;
mod demo;
mod exit;
mod journey;
mod kafka;
mod lag;
mod late;
mod notify;
mod orders_file;
mod produce;
mod product;
mod replay;
mod report;
mod restock;
mod run;
mod saga;
mod shell;
mod stock;
mod subscribers;
mod topics;
mod trace;
mod vapid;
mod waterfall;

use clap::Parser;

/// Small blocks are allocated on one thread and freed on another, which glibc's allocator is slow at
/// (docs/performance.md). librdkafka uses it as well.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    exit::report(args::Args::parse().run())
}
