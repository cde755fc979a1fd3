//! `waybill demo`: the main job with nothing installed. The broker is librdkafka's mock cluster, in this process but
//! behind a real listener; decisions are kept in SQLite; money is the payment simulator's; everything else is what runs in
//! production.

mod mailbox;
mod restock;
mod stand;
mod watch;

use self::restock::{Customers, Restocked};
use self::stand::Stand;
use self::watch::{STEPS, Watch};
use crate::checkouts::{Pace, Scenario, Shopper, Tally, Visit, send, visit};
use crate::exit::Ended;
use crate::journey;
use crate::product::Product;
use crate::run::Running;
use crate::{catalogue, produce, report, stock, waterfall};
use anyhow::Context;
use clap::Args as ClapArgs;
use console::style;
use indicatif::{MultiProgress, ProgressBar};
use rdkafka::mocking::MockCluster;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use waybill_spine::{Health, KafkaConfig, KafkaSink, Policy, Shutdown};
use waybill_store::Store;
use waybill_topics::Catalogue;

/// Longest time the demo may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Most checkouts: the mock cluster keeps 5 MiB a partition.
const MOST: u64 = 5_000;
/// Customers a second, and at most at a time.
const PACE: Pace = Pace { rate: 80.0, concurrency: 64 };
/// Pieces of every product but one, of which there is one for so many checkouts.
const PLENTY: i64 = 10_000;
const FEW: u64 = 80;
const NEXT: &str = "  docker compose up -d                        Kafka, Postgres, a collector, Jaeger
  waybill topics apply                        the topics
  waybill bins load --test-goods 1000         goods in their bins
  waybill run payment-simulator               a provider that takes nobody's money
  WAYBILL_PAYMENT_URL=http://127.0.0.1:12111 WAYBILL_PAYMENT_KEY=sk_test_1 waybill run all
  waybill produce stock --quantity 1000       the same goods in stock
  waybill produce checkouts                   customers
  waybill trace ORDER                         a journey
  http://127.0.0.1:8081                       the same as pages: orders, journeys, demand, campaigns, stages, dead letters";

/// How much.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Checkouts to send
    #[arg(long, short = 'n', default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MOST))]
    orders: u64,
    /// A seed gives the same customers, carts and cards
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where the mails are put that were sent [default: a new folder among the temporary files]
    #[arg(long, value_name = "FOLDER")]
    mails: Option<PathBuf>,
    /// Where one order's journey is written, to be looked at in a browser [default: journey.html among the mails]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Runs the command.
pub fn demo(args: &Args) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let cluster = MockCluster::new(1).context("the embedded broker does not start")?;
    for topic in Catalogue::built_in()?.topics() {
        cluster.create_topic(&topic.name, topic.partitions, 1)?;
    }
    let kafka = stand::mock_kafka(&cluster);
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("waybill.db").display());
    let store = runtime.block_on(async {
        let mut store = Store::open(&url).await?;
        store.migrate().await?;
        // Fewer than the stock says: a few goods are not found, as it happens. Of the last product there is what comes back.
        let mut bins = catalogue::bins(i64::try_from(args.orders / 55 + 1)?);
        bins.last_mut().into_iter().for_each(|bin| bin.quantity += restock::PIECES as i64);
        waybill_fulfilment::load_bins(&mut store, &bins).await?;
        anyhow::Ok(store)
    })?;
    waybill_telemetry::log_to_stderr("warn");
    let shutdown = Shutdown::default();
    let mut running =
        Running::new(kafka.clone(), Health::default(), shutdown.clone(), Policy::default()).with_store(store);
    let mails = match &args.mails {
        Some(folder) => folder.clone(),
        None => tempfile::Builder::new().prefix("waybill-mails-").tempdir()?.keep(),
    };
    let stand = runtime.block_on(stand::start(&mut running, mails))?;
    println!(
        "{}\n{}",
        style("A shop: checked out, reserved, paid, picked, packed, shipped.").bold(),
        style(format!(
            "embedded broker at {} (kcat can look in), decisions in SQLite, the gateway at http://{}",
            cluster.bootstrap_servers(),
            stand.gateway,
        ))
        .dim(),
    );
    let ended = play(args, &runtime, &kafka, &stand);
    shutdown.request();
    running.wait()?;
    println!("\n{}\n{NEXT}", style("The same on your own Kafka and Postgres:").bold());
    ended
}

/// Both acts, each told when it is over.
fn play(args: &Args, runtime: &Runtime, kafka: &KafkaConfig, stand: &Stand) -> anyhow::Result<Ended> {
    let mut watch = Watch::start(kafka)?;
    let shopper = Shopper::new(&format!("http://{}", stand.gateway))?;
    let products = Arc::new(runtime.block_on(shopper.make_products(catalogue::goods()))?);
    let customers = Customers { runtime, shopper: &shopper, products: &products, seed: args.seed };
    let begun = Instant::now();
    let tally = sell(args, &customers, kafka, &mut watch)?;
    tell_orders(args, &watch, &tally, begun.elapsed());
    let journey = watch.interesting().map(|order| journey::read(kafka, order)).transpose()?;
    if let Some(journey) = &journey {
        println!("{}", waterfall::draw(journey, usize::from(console::Term::stdout().size().1)));
    }
    let restocked = restock::play(&customers, kafka, stand, &mut watch)?;
    tell_restock(kafka, &watch, stand, &restocked)?;
    if let Some(journey) = &journey {
        let file = args.report.clone().unwrap_or_else(|| stand.mailbox.folder().join("journey.html"));
        report::write(journey, &file)?;
        println!("the journey above, to be looked at in a browser: {}", style(file.display()).bold());
    }
    Ok(if tally.failed() == 0 { Ended::Done } else { Ended::InPart })
}

/// Fills the shop, sends customers and watches the topics until every order has come to its end.
fn sell(args: &Args, customers: &Customers<'_>, kafka: &KafkaConfig, watch: &mut Watch) -> anyhow::Result<Tally> {
    let begun = Instant::now();
    let stuck = |what: String| {
        anyhow::ensure!(begun.elapsed() < LIMIT, "the demo is stuck: {what}");
        Ok(())
    };
    let mut sink = KafkaSink::connect(kafka, "produce")?;
    produce::publish(&mut sink, &stock::received(&pieces(args.orders))?)?;
    while watch.count("inventory.levels") < u64::from(catalogue::PRODUCTS) {
        watch.look(Duration::from_millis(20))?;
        stuck(format!("{} products are in stock", watch.count("inventory.levels")))?;
    }
    let screen = MultiProgress::new();
    let asked = screen.add(produce::bar(args.orders, "checkouts"));
    let bars: Vec<ProgressBar> = STEPS.iter().map(|(_, what)| screen.add(produce::bar(args.orders, what))).collect();
    let (bar, visits) = (asked.clone(), visits(args));
    let (shopper, products) = (customers.shopper.clone(), customers.products.clone());
    let sent = customers.runtime.spawn(async move { send(&shopper, &products, visits, PACE, &bar).await });
    while !sent.is_finished() {
        watch.show(&bars)?;
        stuck(format!("{} checkouts are answered", asked.position()))?;
    }
    asked.abandon();
    let tally = customers.runtime.block_on(sent)?;
    bars.iter().for_each(|bar| bar.set_length(tally.orders()));
    while watch.ended() < tally.orders() {
        watch.show(&bars)?;
        stuck(format!("of {} orders {} ended", tally.orders(), watch.ended()))?;
    }
    watch.show(&bars)?;
    bars.iter().for_each(ProgressBar::abandon);
    Ok(tally)
}

/// Goods received: plenty, but for the last product, which sells out.
fn pieces(orders: u64) -> Vec<(String, i64)> {
    let mut pieces: Vec<(String, i64)> = catalogue::goods().map(|goods| (goods.product_id, PLENTY)).collect();
    if let Some(last) = pieces.last_mut() {
        last.1 = i64::try_from(orders / FEW).unwrap_or(i64::MAX).max(1);
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

fn tell_orders(args: &Args, watch: &Watch, tally: &Tally, took: Duration) {
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
}

fn tell_restock(kafka: &KafkaConfig, watch: &Watch, stand: &Stand, restocked: &Restocked) -> anyhow::Result<()> {
    let waiting = usize::try_from(restock::WAITING.0 + restock::WAITING.1)?;
    println!(
        "\n{} of {waiting} people who waited for {} were told, the first within {:.1} s of its return, first come, first \
         served. {} of them bought it: it is gone again, and {} wait on.\n",
        style(watch.told().len()).bold().green(),
        restocked.product,
        restocked.first.as_secs_f64(),
        restocked.bought,
        waiting.saturating_sub(watch.told().len()),
    );
    print!("{}", Product::read(kafka, &restocked.product)?.tell());
    let (mails, folder) = (stand.mailbox.count(), stand.mailbox.folder().display());
    println!("\n{mails} mails, of the campaign and of the orders that came of it: {folder}");
    Ok(())
}
