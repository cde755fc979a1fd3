//! How fast a campaign for a million people is planned.

use crate::shop::execute;
use crate::side::Started;
use crate::usage;
use crate::world::{Work, World};
use anyhow::ensure;
use clap::Args as ClapArgs;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use waybill_harness::{Draft, Process, count_topic, produce};

/// Longest time of a campaign.
const LIMIT: Duration = Duration::from_secs(600);
/// People of the campaign before the measured one: connections are made, plans are known.
const WARM: u64 = 1_000;

/// Bounds of the measurement.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// People who wait for the product, by mail and by push in turn
    #[arg(long, default_value_t = 1_000_000)]
    subscribers: u64,
    /// The binary under test
    #[arg(long, default_value = "target/release/waybill")]
    waybill: PathBuf,
}

/// What a campaign took, seconds.
struct Took {
    plan: f64,
    first_batch: f64,
}

/// Measures; the last line is one JSON object.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let world = World::start(&args.waybill)?;
    let work = world.work("fanout").await?;
    let url = work.database.url();
    for (product, people) in [("p-warm", WARM), ("p-big", args.subscribers)] {
        let sql = format!(
            "insert into stock (product_id, received, available) values ('{product}', 10, 10);
             insert into subscriptions (product_id, user_id, channel, expires_at)
             select '{product}', 'u-' || n, case n % 2 when 0 then 'email' else 'push' end, now() + interval '90 days'
             from generate_series(1, {people}) n"
        );
        execute(url, &sql).await?;
    }
    // They came over months, and the database has seen to them since.
    execute(url, "vacuum analyze subscriptions").await?;
    let envs =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", world.collector.endpoint()), ("WAYBILL_FANOUT_FACTOR", "all".to_owned())];
    let fanout = Process::spawn(&world.waybill, world.args(&work, &["run", "fanout"]), envs)?;
    let mut started = Started::new(vec![fanout])?;
    campaign(&world, &work, &mut started, "p-warm", WARM).await?;
    let warm_mb = started.peak_rss()?;
    let cpu = usage::cpu_of_family(world.postgres.pid())?;
    let Took { plan, first_batch } = campaign(&world, &work, &mut started, "p-big", args.subscribers).await?;
    println!(
        "{} people planned in {plan:.2} s ({:.0}/s), the first batch after {first_batch:.3} s; before it {warm_mb:.0} MiB; Postgres {:.1} s of CPU",
        args.subscribers,
        args.subscribers as f64 / plan,
        usage::cpu_of_family(world.postgres.pid())? - cpu,
    );
    let rounded = |value: f64, digits: f64| (value * digits).round() / digits;
    let last = json!({
        "subscribers": args.subscribers,
        "plan_s": rounded(plan, 1e3),
        "first_batch_s": rounded(first_batch, 1e3),
        "peak_rss_mb": rounded(started.peak_rss()?, 10.0),
    });
    started.end().await?;
    println!("{last}");
    Ok(())
}

/// Tells of a restock, and waits until everybody is planned.
async fn campaign(
    world: &World,
    work: &Work,
    started: &mut Started,
    product: &str,
    people: u64,
) -> anyhow::Result<Took> {
    let mut connection = PgConnection::connect(work.database.url()).await?;
    let bootstrap = world.kafka.bootstrap();
    let published = || -> anyhow::Result<i64> {
        let topics = ["notifications.email", "notifications.push"].map(|topic| work.scope.topic(topic));
        topics.iter().map(|topic| count_topic(bootstrap, topic)).sum()
    };
    let before = published()?;
    produce(bootstrap, &work.scope.topic("inventory.restocked"), vec![restocked(product)]).await?;
    let begun = Instant::now();
    let mut first_batch = None;
    loop {
        if first_batch.is_none() && published()? > before {
            first_batch = Some(begun.elapsed());
        }
        let sql = "select coalesce(sum(size), 0)::int8 from batches where product_id = $1";
        let planned: i64 = sqlx::query_scalar(sql).bind(product).fetch_one(&mut connection).await?;
        if let Some(first_batch) = first_batch.filter(|_| planned == i64::try_from(people).unwrap_or(i64::MAX)) {
            return Ok(Took { plan: begun.elapsed().as_secs_f64(), first_batch: first_batch.as_secs_f64() });
        }
        started.check()?;
        ensure!(begun.elapsed() < LIMIT, "of {people} people {planned} are planned");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn restocked(product: &str) -> Draft {
    let event = json!({"product_id": product, "zero_version": 0, "version": 1, "available": 10,
        "restocked_at": "2026-11-21T10:00:00Z", "tell_at": "2026-11-21T10:00:00Z", "waybill": []});
    Draft::json(product, &event)
        .header("ce_id", format!("restocked-{product}"))
        .header("ce_type", "inventory.restocked.v1")
        .header("ce_source", "/waybill/restock")
        .header("ce_time", "2026-11-21T10:00:00Z")
}
