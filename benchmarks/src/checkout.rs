//! The checkout, from an HTTP request to a paid order, beside what the database alone can reserve.

use crate::chain::median;
use crate::customers::Customers;
use crate::meter::Meter;
use crate::pgbench::{Goods, Peer, Script};
use crate::shop::{CartSet, PRODUCTS, ROLES, Shop};
use crate::world::World;
use clap::Args as ClapArgs;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use waybill_harness::count_topic;

/// Checkouts before those that are paced or read from the topic are measured.
const WARM: u64 = 500;
/// At full speed before anything is measured: connections, and the broker's compiler.
const WARM_TIME: Duration = Duration::from_secs(3);
/// Carts of a run at full speed: more than anybody checks out in its time.
const CARTS: u64 = 60_000;

/// Bounds of the measurement.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Repetitions, both sides in turn; medians are printed
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Customers at a time at full speed
    #[arg(long, default_value_t = 64)]
    customers: usize,
    /// Seconds of a run at full speed over HTTP, and of a paced one
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Requests that wait in `checkout.requested`
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
    /// Rate of the paced runs, as a share of full speed
    #[arg(long, default_value_t = 0.5)]
    pace: f64,
    /// Seconds of each run of pgbench
    #[arg(long, default_value_t = 3)]
    pgbench_seconds: u64,
    /// The binary under test
    #[arg(long, default_value = "target/release/waybill")]
    waybill: PathBuf,
}

/// What one repetition showed. Rates a second, latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Checkouts over HTTP, of distinct products and of one.
    http: f64,
    http_hot: f64,
    /// Checkouts from requests that wait in the topic.
    topic: f64,
    topic_hot: f64,
    p50: f64,
    p99: f64,
    p50_slow: f64,
    p99_slow: f64,
    /// Reservations of the database alone.
    reserve: f64,
    reserve_hot: f64,
    least: f64,
    least_hot: f64,
}

/// Measures; the last line is one JSON object.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let world = World::start(&args.waybill)?;
    println!("{} customers at a time; carts of one line; provider 0 ms unless it says 150", args.customers);
    let mut all = Vec::new();
    for _ in 0..args.repetitions {
        let mut seen = Seen::default();
        fast(&world, args, &mut seen).await?;
        peer(&world, args, &mut seen).await?;
        slow(&world, args, &mut seen).await?;
        println!("  {seen:.1?}");
        all.push(seen);
    }
    tell(&all);
    Ok(())
}

/// With a provider that answers at once.
async fn fast(world: &World, args: &Args, seen: &mut Seen) -> anyhow::Result<()> {
    let set = |name, carts, products| CartSet { name, carts, products };
    let (topic, topic_hot) = (set("t", WARM + args.requests, PRODUCTS), set("th", WARM + args.requests, 1));
    let sets = [
        set("first", 1, 1),
        set("w", CARTS, PRODUCTS),
        set("h", CARTS, PRODUCTS),
        set("hh", CARTS, 1),
        set("p", CARTS, PRODUCTS),
    ];
    let mut shop = Shop::open(world, Duration::ZERO, &[&sets[..], &[topic, topic_hot]].concat()).await?;
    let customers = Customers::new(shop.gateway);
    customers.first("first-0").await?;
    customers.rush(args.customers, "w", CARTS, WARM_TIME).await?;
    let time = Duration::from_secs(args.seconds);
    let before = shop.cpu(world)?;
    seen.http = customers.rush(args.customers, "h", CARTS, time).await?;
    tell_cpu("over HTTP", &before, &shop.cpu(world)?, seen.http * time.as_secs_f64());
    seen.http_hot = customers.rush(args.customers, "hh", CARTS, time).await?;
    (seen.p50, seen.p99) = paced(&customers, args, seen.http * args.pace).await?;
    let before = shop.cpu(world)?;
    seen.topic = from_topic(world, &mut shop, &topic).await?;
    tell_cpu("from the topic", &before, &shop.cpu(world)?, topic.carts as f64);
    seen.topic_hot = from_topic(world, &mut shop, &topic_hot).await?;
    shop.started.end().await
}

/// With a provider that takes its time, at the same pace.
async fn slow(world: &World, args: &Args, seen: &mut Seen) -> anyhow::Result<()> {
    let sets =
        [("first", 1, 1), ("p", CARTS, PRODUCTS)].map(|(name, carts, products)| CartSet { name, carts, products });
    let shop = Shop::open(world, Duration::from_millis(150), &sets).await?;
    let customers = Customers::new(shop.gateway);
    customers.first("first-0").await?;
    (seen.p50_slow, seen.p99_slow) = paced(&customers, args, seen.http * args.pace).await?;
    shop.started.end().await
}

/// The median and the 99th percentile at a pace, after a warm-up at the same.
async fn paced(customers: &Customers, args: &Args, rate: f64) -> anyhow::Result<(f64, f64)> {
    customers.pace(rate, "p", 0..WARM).await?;
    let latencies = customers.pace(rate, "p", WARM..WARM + (rate * args.seconds as f64) as u64).await?;
    let at = |share: f64| latencies.get(((latencies.len().max(1) - 1) as f64 * share).round() as usize).copied();
    Ok((at(0.5).unwrap_or(f64::NAN), at(0.99).unwrap_or(f64::NAN)))
}

/// Checkouts a second from requests that wait in the topic: no HTTP, batches as large as they come.
async fn from_topic(world: &World, shop: &mut Shop, set: &CartSet) -> anyhow::Result<f64> {
    let bootstrap = world.kafka.bootstrap();
    let completed = shop.work.scope.topic("checkout.completed");
    let there = u64::try_from(count_topic(bootstrap, &completed)?)?;
    let meter = Meter::start(bootstrap, None, completed)?;
    meter.until(there, &mut shop.started).await?;
    shop.request(bootstrap, set).await?;
    let warm = meter.until(there + WARM, &mut shop.started).await?;
    let done = meter.until(there + set.carts, &mut shop.started).await?;
    meter.stop()?;
    Ok((set.carts - WARM) as f64 / (done - warm).as_secs_f64())
}

async fn peer(world: &World, args: &Args, seen: &mut Seen) -> anyhow::Result<()> {
    let peer = Peer::open(world).await?;
    let reserve = |script, goods| {
        let (rate, clients) = peer.reserve(world, script, goods, args.pgbench_seconds)?;
        println!("  pgbench {script:?} {goods:?}: {rate:.0} reservations/s with {clients} clients");
        anyhow::Ok(rate)
    };
    seen.reserve = reserve(Script::Reserve, Goods::Distinct)?;
    seen.reserve_hot = reserve(Script::Reserve, Goods::Hot)?;
    seen.least = reserve(Script::Least, Goods::Distinct)?;
    seen.least_hot = reserve(Script::Least, Goods::Hot)?;
    Ok(())
}

/// CPU seconds a thousand checkouts, by who used them.
fn tell_cpu(how: &str, before: &[f64], after: &[f64], checkouts: f64) {
    let who = ROLES.into_iter().chain(["Postgres", "broker", "customers and collector"]);
    let used = who.zip(before.iter().zip(after)).map(|(who, (before, after))| {
        let used = (after - before) * 1_000.0 / checkouts;
        format!("{who} {used:.3}")
    });
    println!("  {how}, CPU s / 1,000 checkouts: {}", used.collect::<Vec<_>>().join(", "));
}

fn tell(all: &[Seen]) {
    let of = |get: fn(&Seen) -> f64| median(all.iter().map(get));
    println!(
        "over HTTP: {:.0} checkouts/s, {:.0} of one hot product; from the topic: {:.0}, {:.0} of one hot product",
        of(|s| s.http),
        of(|s| s.http_hot),
        of(|s| s.topic),
        of(|s| s.topic_hot)
    );
    println!("150 ms provider: p50 {:.1} ms, p99 {:.1} ms", of(|s| s.p50_slow), of(|s| s.p99_slow));
    println!(
        "hot product, from the topic / pgbench: {:.2} of the same statements, {:.2} of the least; distinct: {:.2}, {:.2}",
        of(|s| s.topic_hot / s.reserve_hot),
        of(|s| s.topic_hot / s.least_hot),
        of(|s| s.topic / s.reserve),
        of(|s| s.topic / s.least)
    );
    println!(
        "hot / distinct: {:.2} over HTTP, {:.2} from the topic, {:.2} pgbench",
        of(|s| s.http_hot / s.http),
        of(|s| s.topic_hot / s.topic),
        of(|s| s.reserve_hot / s.reserve)
    );
    let round = |value: f64| (value * 10.0).round() / 10.0;
    let result = json!({
        "checkouts_per_s": round(of(|s| s.http)),
        "p50_ms": round(of(|s| s.p50)),
        "p99_ms": round(of(|s| s.p99)),
        "p99_ms_at_150ms_provider": round(of(|s| s.p99_slow)),
        "hot_product_per_s": round(of(|s| s.topic_hot)),
        "peer": {"reserve_per_s": round(of(|s| s.reserve)), "hot_product_per_s": round(of(|s| s.reserve_hot))},
    });
    println!("{result}");
}
