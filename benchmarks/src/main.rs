//! Benchmarks: real servers of their own, real processes, both sides in turn on the same machine.
//!
//! Nothing here asserts a time: machines differ and are noisy. What is asserted is that both sides did the work.

mod availability;
mod carry;
mod chain;
mod checkout;
mod customers;
mod email;
mod fanout;
mod growth;
mod meter;
mod pgbench;
mod recovery;
mod replay;
mod shop;
mod side;
mod usage;
mod world;

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

/// Benchmarks of Waybill, beside its peers
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// pick → pack → ship beside the same chain on Kafka Streams; the last line is one JSON object
    Chain(chain::Args),
    /// Checkouts over HTTP beside the database's own limit, pgbench with the same reservations; the last line is one JSON object
    Checkout(checkout::Args),
    /// What is available, cached and not, beside a bare axum handler; the last line is one JSON object
    Availability(availability::Args),
    /// A bare axum handler, for `availability`
    #[command(hide = true)]
    Bare(availability::Bare),
    /// A campaign for a million people, planned into batches; the last line is one JSON object
    Fanout(fanout::Args),
    /// Mails of a campaign beside a raw SMTP client, into the same sink; the last line is one JSON object
    Email(email::Args),
    /// How the cost of an order grows with its lines, with the number of orders and of processes
    Growth(growth::Args),
    /// Carries records through three hops, for `chain --carry`
    #[command(hide = true)]
    Carry(carry::Args),
    /// How long partitions stand still after the `kill -9` of the process that worked on them
    Recovery(recovery::Args),
    /// Journeys rebuilt into SQLite beside a consumer that only counts; the last line is one JSON object
    Replay(replay::Args),
}

fn main() -> anyhow::Result<()> {
    let what = Args::parse().what;
    // The bare handler has all cores, as what it is compared with.
    let mut runtime = match what {
        What::Bare(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    runtime.enable_all().build()?.block_on(measure(what))
}

async fn measure(what: What) -> anyhow::Result<()> {
    match what {
        What::Chain(args) => chain::run(&args).await,
        What::Checkout(args) => checkout::run(&args).await,
        What::Availability(args) => availability::run(&args).await,
        What::Bare(args) => availability::bare(&args).await,
        What::Fanout(args) => fanout::run(&args).await,
        What::Email(args) => email::run(&args).await,
        What::Growth(args) => growth::run(&args).await,
        What::Carry(args) => carry::run(&args).await,
        What::Recovery(args) => recovery::run(&args).await,
        What::Replay(args) => replay::run(&args).await,
    }
}
