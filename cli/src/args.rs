//! The command line.

use crate::config::{self, Config, Overrides};
use crate::exit::{self, Ended};
use crate::{
    bins, checkouts, dead, demand, demo, lag, late, notify, produce, replay, report, restock, run, saga, shell, stock,
    subscribers, topics, trace, vapid,
};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Event-driven stream processors on Kafka for a shop's order flow.
///
/// Settings come from defaults, then a file, then WAYBILL_* variables, then flags; the later wins.
/// The standard OTEL_* variables configure telemetry.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::HELP, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, ClapArgs)]
struct Settings {
    /// Settings file (TOML); ./waybill.toml is read if it is there
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    config: Option<PathBuf>,
    /// Kafka bootstrap servers [default: 127.0.0.1:9092]
    #[arg(long, global = true, value_name = "HOST:PORT,…", help_heading = "Settings")]
    brokers: Option<String>,
    /// postgres://… or sqlite://FILE (one process) [default: Postgres of docker-compose.yml]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    database: Option<String>,
    /// Stands before every topic and group name, on a cluster that is shared
    #[arg(long, global = true, value_name = "TEXT", help_heading = "Settings")]
    prefix: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it work, with nothing installed: an embedded broker, SQLite, all stages, a journey at the end
    Demo(demo::Args),
    /// Run the gateway and stages, each a member of its consumer group, until SIGTERM or Ctrl-C
    Run(run::Args),
    /// Send test events, or play customers
    #[command(subcommand)]
    Produce(Produce),
    /// Show an order's journey over all its traces
    Trace(trace::Args),
    /// Write an order's journey over all its traces as one HTML file
    Report(report::Args),
    /// Rebuild every order's journey from the topics: into a database, for a tracing store, or to compare
    Replay(replay::Args),
    /// List the orders that took longer than promised, or take longer already
    Late(late::LateArgs),
    /// List the orders that stopped, where, and why if a dead letter knows
    Stuck(late::StuckArgs),
    /// How long each stage works on orders, and how long they wait for it
    Times(late::TimesArgs),
    /// See checkouts that are not at their end, and hurry or end them: for people on call
    #[command(subcommand)]
    Saga(saga::Command),
    /// How many records wait for each stage, and how long already
    Lag(lag::Args),
    /// What stages would not accept: see why, send it back, or leave it
    #[command(subcommand)]
    Dead(dead::Command),
    /// Show what people wait for: products by how many are to be told when they are back
    Demand(demand::Args),
    /// Create and inspect the topics that topics.yaml declares
    #[command(subcommand)]
    Topics(topics::Command),
    /// Look at the mails that customers get
    #[command(subcommand)]
    Notify(notify::Command),
    /// Show the settings in force, and where each comes from
    Config(config::Args),
    /// Fill and inspect the warehouse's bins
    #[command(subcommand)]
    Bins(bins::Command),
    /// Print the script that completes commands and options in a shell
    Completions(shell::Completions),
    /// Write manual pages
    Man(shell::ManArgs),
    /// Make the key that web push is signed with, and print its public half for the browser
    Vapid(vapid::Args),
}

#[derive(Debug, Subcommand)]
enum Produce {
    /// Checkouts over HTTP, as a shop's browsers send them: products, carts, payment, to the end of each
    Checkouts(checkouts::Args),
    /// Orders, as the checkout publishes them: each with its span and the first stamp of its waybill
    Orders(produce::Args),
    /// Adjustments of the stock, as a warehouse system publishes them: goods received, or counted
    Stock(stock::Args),
    /// People who wait for a product, over HTTP: their addresses and devices, and that they want to be told
    Subscribers(subscribers::Args),
    /// Goods of one product received: what brings it back where it was sold out
    Restock(restock::Args),
}

/// What a process can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// The HTTP API: products, carts, checkout, orders → checkout.requested
    Gateway,
    /// checkout.requested → orders.new, checkout.completed, checkout.rejected
    Checkout,
    /// orders.new → orders.picked, orders.short
    Pick,
    /// orders.picked → orders.packed
    Pack,
    /// orders.packed, orders.cancel_requested → orders.shipped, orders.cancelled
    Ship,
    /// pick, pack and ship
    Fulfilment,
    /// inventory.adjustments, orders.short, orders.cancelled → inventory.levels
    Inventory,
    /// inventory.levels → inventory.restocked
    Restock,
    /// inventory.restocked, notifications.*.results → notifications.email, notifications.push
    Fanout,
    /// notifications.email → mails, notifications.email.results
    Email,
    /// notifications.push → push messages, notifications.push.results
    Push,
    /// checkout.completed, orders.shipped → mails
    OrderMail,
    /// restock, fanout, email, push and order-mail
    Notifications,
    /// All of the above; of email, push and order-mail those that are set up
    All,
    /// A payment provider that speaks Stripe's API and takes nobody's money, to try the checkout with
    PaymentSimulator,
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<Ended> {
        let Settings { config: config_file, brokers, database, prefix } = self.settings;
        let overrides = Overrides { brokers, database, prefix };
        let config = || Config::load(config_file.as_deref(), &overrides);
        match self.command {
            Command::Demo(args) => demo::demo(&args),
            Command::Run(args) => run::run(&config()?, &args),
            Command::Produce(Produce::Checkouts(args)) => checkouts::checkouts(&args),
            Command::Produce(Produce::Orders(args)) => produce::produce(&config()?, &args),
            Command::Produce(Produce::Stock(args)) => stock::stock(&config()?, &args),
            Command::Produce(Produce::Subscribers(args)) => subscribers::subscribers(&args),
            Command::Produce(Produce::Restock(args)) => restock::restock(&config()?, &args),
            Command::Demand(args) => demand::demand(&config()?, &args),
            Command::Trace(args) => trace::trace(&config()?, &args),
            Command::Report(args) => report::report(&config()?, &args),
            Command::Replay(args) => replay::replay(&config()?, &args),
            Command::Late(args) => late::late(&config()?, &args),
            Command::Stuck(args) => late::stuck(&config()?, &args),
            Command::Times(args) => late::times(&config()?, &args),
            Command::Lag(args) => lag::lag(&config()?, &args),
            Command::Dead(command) => dead::dead(&config()?, &command),
            Command::Saga(command) => saga::saga(&config()?, &command),
            Command::Topics(command) => topics::topics(&config()?, &command),
            Command::Notify(command) => notify::notify(&config()?, &command),
            Command::Config(config::Args { .. }) => config::print(config_file.as_deref(), &overrides),
            Command::Bins(command) => bins::bins(&config()?, &command),
            Command::Completions(args) => shell::completions(&args),
            Command::Man(args) => shell::man(&args),
            Command::Vapid(args) => vapid::vapid(&config()?, &args),
        }
    }
}
