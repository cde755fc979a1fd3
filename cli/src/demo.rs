//! `waybill demo`: the main job with nothing installed. The broker is librdkafka's mock cluster, in this process but
//! behind a real listener; decisions are kept in SQLite; everything else is what runs in production.

use crate::exit::Ended;
use crate::journey::Journey;
use crate::run::Running;
use crate::{catalogue, produce, waterfall};
use anyhow::Context;
use clap::Args as ClapArgs;
use console::style;
use indicatif::MultiProgress;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use waybill_events::OrderShort;
use waybill_fulfilment::{Pack, Pick, Ship};
use waybill_spine::{Health, KafkaConfig, KafkaSink, Policy, Shutdown};
use waybill_store::Store;
use waybill_telemetry::{Telemetry, TelemetryConfig};
use waybill_topics::Catalogue;

/// Longest time the demo may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Most orders: the mock cluster keeps 5 MiB a partition.
const MOST: u64 = 5_000;
/// What is followed on the screen: a topic and what it means.
const STEPS: [(&str, &str); 4] =
    [("orders.new", "placed"), ("orders.picked", "picked"), ("orders.packed", "packed"), ("orders.shipped", "shipped")];

const WATCHED: [&str; 5] = ["orders.new", "orders.picked", "orders.short", "orders.packed", "orders.shipped"];
const NEXT: &str = "  docker compose up -d                  Kafka, Postgres, a collector, Jaeger
  waybill topics apply                  the topics
  waybill bins load --test-goods 1000   goods for the test orders
  waybill run fulfilment                pick, pack, ship
  waybill produce orders                orders
  waybill trace o-1-0000042             a journey";

/// How much.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Orders to send
    #[arg(long, short = 'n', default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=MOST))]
    orders: u64,
    /// A seed gives the same orders
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
    println!(
        "{}\n{}",
        style("A shop's orders: placed, picked, packed, shipped.").bold(),
        style(format!("embedded broker at {} (kcat can look in), decisions in SQLite", cluster.bootstrap_servers()))
            .dim(),
    );
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("waybill.db").display());
    let store = runtime.block_on(async {
        let mut store = Store::open(&url).await?;
        store.migrate().await?;
        // A few goods run out, as they do.
        waybill_fulfilment::load_bins(&mut store, &catalogue::bins(i64::try_from(args.orders / 55 + 1)?)).await?;
        anyhow::Ok(store)
    })?;
    waybill_telemetry::log_to_stderr("warn");
    let shutdown = Shutdown::default();
    let mut running =
        Running::new(kafka.clone(), Health::default(), shutdown.clone(), Policy::default()).with_store(store);
    running.start(Pick, (), telemetry("pick"))?;
    running.start(Pack, (), telemetry("pack"))?;
    running.start(Ship, (), telemetry("ship"))?;

    let begun = Instant::now();
    let watch = flow(args, &kafka)?;
    let took = begun.elapsed();
    shutdown.request();
    running.wait()?;
    tell(args, &kafka, &watch, took)
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

/// Sends the orders and watches the topics until every order has come to its end.
fn flow(args: &Args, kafka: &KafkaConfig) -> anyhow::Result<Watch> {
    let quiet = Telemetry::start(&TelemetryConfig::silent("checkout"))?;
    let screen = MultiProgress::new();
    let bars: Vec<_> = STEPS.iter().map(|(_, what)| screen.add(produce::bar(args.orders, what))).collect();
    let mut sink = KafkaSink::connect(kafka, "produce")?;
    let mut watch = Watch::start(args, kafka)?;
    let begun = Instant::now();
    let mut sent = 0;
    while watch.ended() < args.orders {
        if sent < args.orders {
            let next = (sent + 100).min(args.orders);
            produce::publish(&mut sink, &produce::test_orders(args.seed, sent..next, quiet.spans())?)?;
            sent = next;
        }
        watch.look(Duration::from_millis(50))?;
        for (bar, (topic, _)) in bars.iter().zip(STEPS) {
            bar.set_position(watch.count(topic));
        }
        anyhow::ensure!(
            begun.elapsed() < LIMIT,
            "the demo is stuck: of {} orders {} ended",
            args.orders,
            watch.ended()
        );
    }
    bars.iter().for_each(indicatif::ProgressBar::abandon);
    Ok(watch)
}

/// What the topics show, order by order.
struct Watch {
    consumer: BaseConsumer,
    lines: BTreeMap<String, usize>,
    seen: BTreeMap<&'static str, BTreeSet<String>>,
    /// Orders of which there was nothing to ship.
    nothing: BTreeSet<String>,
}

impl Watch {
    fn start(args: &Args, kafka: &KafkaConfig) -> anyhow::Result<Self> {
        let mut config = kafka.admin();
        let consumer: BaseConsumer = config.set("group.id", "waybill.demo").create()?;
        let mut assignment = TopicPartitionList::new();
        let catalogue = Catalogue::built_in()?;
        for topic in WATCHED {
            for partition in 0..catalogue.topic(topic).map_or(0, |t| t.partitions) {
                assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment)?;
        let orders = (0..args.orders).map(|n| catalogue::order(args.seed, n, None).0);
        let lines = orders.map(|o| (o.order_id, o.lines.len())).collect();
        Ok(Watch { consumer, lines, seen: BTreeMap::new(), nothing: BTreeSet::new() })
    }

    /// Reads what has come, for `limit` at most.
    fn look(&mut self, limit: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            let Some(message) = self.consumer.poll(left) else { continue };
            let message = message?;
            let Some(topic) = WATCHED.into_iter().find(|t| *t == message.topic()) else { continue };
            let order = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            if topic == "orders.short" {
                let event: OrderShort = serde_json::from_slice(message.payload().unwrap_or_default())?;
                let lines = event.lines.iter().filter(|l| l.picked == 0).count();
                if self.lines.get(&order) == Some(&lines) {
                    self.nothing.insert(order.clone());
                }
            }
            self.seen.entry(topic).or_default().insert(order);
        }
        Ok(())
    }

    fn count(&self, topic: &str) -> u64 {
        self.seen.get(topic).map_or(0, |orders| orders.len() as u64)
    }

    fn ended(&self) -> u64 {
        self.count("orders.shipped") + self.nothing.len() as u64
    }
}

fn tell(args: &Args, kafka: &KafkaConfig, watch: &Watch, took: Duration) -> anyhow::Result<Ended> {
    println!(
        "\n{} of {} orders shipped in {:.1} s. {} had a line of which there was not enough; of {} there was nothing.\n",
        style(watch.count("orders.shipped")).bold().green(),
        args.orders,
        took.as_secs_f64(),
        watch.count("orders.short"),
        watch.nothing.len(),
    );
    let journey = interesting(args, kafka)?;
    print!("{}", waterfall::draw(&journey, usize::from(console::Term::stdout().size().1)));
    println!("\n{}\n{NEXT}", style("The same on your own Kafka and Postgres:").bold());
    Ok(Ended::Done)
}

/// The journey of an order of three lines or more, to have something to show.
fn interesting(args: &Args, kafka: &KafkaConfig) -> anyhow::Result<Journey> {
    let number = (0..args.orders).rev().find(|n| catalogue::order(args.seed, *n, None).0.lines.len() >= 3);
    let (order, _) = catalogue::order(args.seed, number.unwrap_or(0), None);
    Journey::read(kafka, &order.order_id)
}
