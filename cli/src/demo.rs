//! `waybill demo`: the main job with nothing installed. The broker is librdkafka's mock cluster, in this process but
//! behind a real listener; decisions are kept in SQLite; money is the payment simulator's; everything else is what runs in
//! production.

mod mailbox;
mod watch;

use self::watch::{STEPS, Watch};
use crate::checkouts::{Pace, Scenario, Shopper, Tally, Visit, send, visit};
use crate::exit::Ended;
use crate::journey::Journey;
use crate::run::Running;
use crate::{catalogue, produce, stock, waterfall};
use anyhow::Context;
use clap::Args as ClapArgs;
use console::style;
use indicatif::{MultiProgress, ProgressBar};
use rdkafka::mocking::MockCluster;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use waybill_fulfilment::{Pack, Pick, Ship};
use waybill_inventory::Inventory;
use waybill_payment::simulator::SimulatorSettings;
use waybill_push::Endpoints;
use waybill_spine::{Health, KafkaConfig, KafkaSink, Policy, Shutdown};
use waybill_store::Store;
use waybill_telemetry::TelemetryConfig;
use waybill_topics::Catalogue;

/// Longest time the demo may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Most checkouts: the mock cluster keeps 5 MiB a partition.
const MOST: u64 = 5_000;
/// Customers a second, and at most at a time.
const PACE: Pace = Pace { rate: 80.0, concurrency: 64 };
/// Pieces of every product, and of the one that sells out.
const PIECES: (i64, i64) = (10_000, 12);
/// How long the provider thinks.
const THINKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(80));
const NEXT: &str = "  docker compose up -d                        Kafka, Postgres, a collector, Jaeger
  waybill topics apply                        the topics
  waybill bins load --test-goods 1000         goods in their bins
  waybill run payment-simulator               a provider that takes nobody's money
  WAYBILL_PAYMENT_URL=http://127.0.0.1:12111 WAYBILL_PAYMENT_KEY=sk_test_1 waybill run all
  waybill produce stock --quantity 1000       the same goods in stock
  waybill produce checkouts                   customers
  waybill trace ORDER                         a journey";

/// How much.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Checkouts to send
    #[arg(long, short = 'n', default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MOST))]
    orders: u64,
    /// A seed gives the same customers, carts and cards
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Runs the command.
pub fn demo(args: &Args) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let cluster = MockCluster::new(1).context("the embedded broker does not start")?;
    for topic in Catalogue::built_in()?.topics() {
        cluster.create_topic(&topic.name, topic.partitions, 1)?;
    }
    let kafka = mock_kafka(&cluster);
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("waybill.db").display());
    let store = runtime.block_on(async {
        let mut store = Store::open(&url).await?;
        store.migrate().await?;
        // Fewer than the stock says: a few goods are not found, as it happens.
        waybill_fulfilment::load_bins(&mut store, &catalogue::bins(i64::try_from(args.orders / 55 + 1)?)).await?;
        anyhow::Ok(store)
    })?;
    waybill_telemetry::log_to_stderr("warn");
    let shutdown = Shutdown::default();
    let mut running =
        Running::new(kafka.clone(), Health::default(), shutdown.clone(), Policy::default()).with_store(store);
    let gateway = runtime.block_on(start(&mut running))?;
    println!(
        "{}\n{}",
        style("A shop: checked out, reserved, paid, picked, packed, shipped.").bold(),
        style(format!(
            "embedded broker at {} (kcat can look in), decisions in SQLite, the gateway at http://{gateway}",
            cluster.bootstrap_servers()
        ))
        .dim(),
    );
    let begun = Instant::now();
    let (watch, tally) = flow(args, &runtime, &kafka, gateway)?;
    let took = begun.elapsed();
    shutdown.request();
    running.wait()?;
    tell(args, &kafka, &watch, &tally, took)
}

/// Starts everything; yields where the gateway listens.
async fn start(running: &mut Running) -> anyhow::Result<SocketAddr> {
    let free_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let simulator = SimulatorSettings { latency: THINKS.0..=THINKS.1, ..SimulatorSettings::default() };
    let provider = running.start_simulator(free_port, simulator).await?;
    let payment = waybill_payment::Settings {
        base_url: format!("http://{provider}"),
        secret_key: Some("sk_test_demo".into()),
        ..waybill_payment::Settings::default()
    };
    running.start_checkout(waybill_checkout::Settings::default(), &payment, telemetry("checkout"))?;
    running.start(Inventory, (), telemetry("inventory"))?;
    running.start(Pick, (), telemetry("pick"))?;
    running.start(Pack, (), telemetry("pack"))?;
    running.start(Ship, (), telemetry("ship"))?;
    let means = running.gateway_means(Endpoints::new(&waybill_push::Settings::default())?, None)?;
    running.start_gateway(free_port, waybill_gateway::Settings::default(), means, telemetry("gateway")).await
}

/// The demo exports only where the environment names a collector.
fn telemetry(service: &str) -> TelemetryConfig {
    TelemetryConfig {
        service: format!("waybill-{service}"),
        environment: "demo".to_owned(),
        instance: std::process::id().to_string(),
        baggage: vec![],
        export: std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some(),
    }
}

fn mock_kafka(cluster: &MockCluster<'_, impl rdkafka::client::ClientContext>) -> KafkaConfig {
    let properties = [
        ("bootstrap.servers", cluster.bootstrap_servers()),
        // The mock broker does not wake a fetch that waits.
        ("fetch.wait.max.ms", "5".to_owned()),
    ];
    KafkaConfig {
        properties: properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        prefix: String::new(),
    }
}

/// Fills the shop, sends customers and watches the topics until every order has come to its end.
fn flow(args: &Args, runtime: &Runtime, kafka: &KafkaConfig, gateway: SocketAddr) -> anyhow::Result<(Watch, Tally)> {
    let mut watch = Watch::start(kafka)?;
    let shopper = Shopper::new(&format!("http://{gateway}"))?;
    let products = Arc::new(runtime.block_on(shopper.make_products(catalogue::goods()))?);
    let begun = Instant::now();
    let stuck = |what: String| {
        anyhow::ensure!(begun.elapsed() < LIMIT, "the demo is stuck: {what}");
        Ok(())
    };
    let mut sink = KafkaSink::connect(kafka, "produce")?;
    produce::publish(&mut sink, &stock::received(&pieces())?)?;
    while watch.count("inventory.levels") < u64::from(catalogue::PRODUCTS) {
        watch.look(Duration::from_millis(20))?;
        stuck(format!("{} products are in stock", watch.count("inventory.levels")))?;
    }
    let screen = MultiProgress::new();
    let asked = screen.add(produce::bar(args.orders, "checkouts"));
    let bars: Vec<ProgressBar> = STEPS.iter().map(|(_, what)| screen.add(produce::bar(args.orders, what))).collect();
    let (bar, visits) = (asked.clone(), visits(args));
    let customers = runtime.spawn(async move { send(&shopper, &products, visits, PACE, &bar).await });
    while !customers.is_finished() {
        watch.show(&bars)?;
        stuck(format!("{} checkouts are answered", asked.position()))?;
    }
    asked.abandon();
    let tally = runtime.block_on(customers)?;
    bars.iter().for_each(|bar| bar.set_length(tally.orders()));
    while watch.ended() < tally.orders() {
        watch.show(&bars)?;
        stuck(format!("of {} orders {} ended", tally.orders(), watch.ended()))?;
    }
    watch.show(&bars)?;
    bars.iter().for_each(ProgressBar::abandon);
    Ok((watch, tally))
}

/// Goods received: plenty, but for the last product.
fn pieces() -> Vec<(String, i64)> {
    let mut pieces: Vec<(String, i64)> = catalogue::goods().map(|goods| (goods.product_id, PIECES.0)).collect();
    if let Some(last) = pieces.last_mut() {
        last.1 = PIECES.1;
    }
    pieces
}

/// One customer in twenty wants what sells out; a few cards decline, the last ones not: a card that declines for now is
/// tried again for seconds.
fn visits(args: &Args) -> impl Iterator<Item = Visit> + Send + use<> {
    let (seed, orders) = (args.seed, args.orders);
    (0..orders).map(move |number| {
        let scenario = match number % 20 {
            0 => Scenario::SoldOut,
            1 | 2 if number < orders / 2 => Scenario::Declines,
            _ => Scenario::Normal,
        };
        visit(scenario, seed, number)
    })
}

fn tell(args: &Args, kafka: &KafkaConfig, watch: &Watch, tally: &Tally, took: Duration) -> anyhow::Result<Ended> {
    println!("\n{tally}\n");
    println!(
        "{} of {} checkouts shipped in {:.1} s. Of {} orders a line was not there in full; of {} there was nothing. \
         What was missing is paid back.\n",
        style(watch.count("orders.shipped")).bold().green(),
        args.orders,
        took.as_secs_f64(),
        watch.count("orders.short"),
        watch.nothing(),
    );
    tally.failures().for_each(|failure| eprintln!("{failure}"));
    if let Some(order) = watch.interesting() {
        let journey = Journey::read(kafka, order)?;
        print!("{}", waterfall::draw(&journey, usize::from(console::Term::stdout().size().1)));
    }
    println!("\n{}\n{NEXT}", style("The same on your own Kafka and Postgres:").bold());
    Ok(if tally.failed() == 0 { Ended::Done } else { Ended::InPart })
}
