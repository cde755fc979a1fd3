//! Mails of a campaign by the real stage, beside a client that only speaks SMTP: lettre, over as many connections, the same
//! mails, the same sink. The sink is Postfix's `smtp-sink`, which takes mails faster than either side sends them.

use crate::chain::median;
use crate::meter::Meter;
use crate::side::Started;
use crate::world::{Work, World};
use anyhow::{Context, ensure};
use clap::Args as ClapArgs;
use lettre::address::Envelope;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use serde_json::json;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use waybill_harness::{Draft, Process, free_port, produce};
use waybill_mail::{BackInStock, Composer, Content, Mailbox, Message, Product, Settings, Templates};

const CAMPAIGN: &str = "5f0a52e2-68c3-5a5e-9a5c-2d2a6d6a1f11";
/// People of a batch.
const BATCH: u32 = 100;

/// Bounds of the measurement.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Repetitions, both sides in turn; medians are printed
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Mails of a repetition
    #[arg(long, default_value_t = 60_000)]
    mails: u32,
    /// Connections of each side
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// The sink: `smtp-sink` of Debian's package postfix
    #[arg(long, default_value = "smtp-sink")]
    sink: PathBuf,
    /// The binary under test
    #[arg(long, default_value = "target/release/waybill")]
    waybill: PathBuf,
}

/// Measures; the last line is one JSON object.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let world = World::start(&args.waybill)?;
    let port = free_port()?;
    let listen = format!("127.0.0.1:{port}");
    // It does not stay root.
    let user = if rustix::process::geteuid().is_root() { &["-u", "nobody"][..] } else { &[] };
    let sink = Process::spawn(&args.sink, [user, &["-c", &listen, "1000"]].concat(), [("LANG", "C")])
        .context("no sink: install Debian's package postfix, or name smtp-sink with --sink")?;
    until_listening(port).with_context(|| sink.log().unwrap_or_default())?;
    // One unmeasured: a broker that has just started takes twice the CPU for a request.
    stage(&world, args, port).await?;
    let mut all = Vec::new();
    for _ in 0..args.repetitions {
        let seen = (stage(&world, args, port).await?, raw(args, port).await?);
        println!("  {:.0} mails/s, a raw client {:.0}", seen.0, seen.1);
        all.push(seen);
    }
    let (ours, raw) = (median(all.iter().map(|seen| seen.0)), median(all.iter().map(|seen| seen.1)));
    println!("{:.2} of the raw client", ours / raw);
    println!("{}", json!({"mails_per_s": ours.round(), "peer": {"mails_per_s": raw.round()}}));
    Ok(())
}

fn until_listening(port: u16) -> anyhow::Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(10), "the sink does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Mails a second of `waybill run email`, from its first slot to the last result on the topic.
async fn stage(world: &World, args: &Args, port: u16) -> anyhow::Result<f64> {
    let work = world.work("email").await?;
    let batches = args.mails / BATCH;
    fill(&work, batches * BATCH).await?;
    let topic = |name: &str| work.scope.topic(name);
    produce(world.kafka.bootstrap(), &topic("notifications.email"), drafts(batches)).await?;
    let envs = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", world.collector.endpoint()),
        ("WAYBILL_MAIL_URL", format!("smtp://127.0.0.1:{port}")),
        ("WAYBILL_MAIL_FROM", "Shop <shop@shop.example>".to_owned()),
        ("WAYBILL_MAIL_CONNECTIONS", args.connections.to_string()),
        ("WAYBILL_RATES_EMAIL", "1000000.0".to_owned()),
        ("WAYBILL_SHOP_NAME", "Shop".to_owned()),
        ("WAYBILL_SHOP_URL", "https://shop.example".to_owned()),
        ("WAYBILL_UNSUBSCRIBE_URL", "https://shop.example/unsubscribe".to_owned()),
        ("WAYBILL_UNSUBSCRIBE_KEYS", "k1:0123456789abcdef0123456789abcdef".to_owned()),
    ];
    let process = Process::spawn(&world.waybill, world.args(&work, &["run", "email"]), envs)?;
    let mut started = Started::new(vec![process])?;
    let meter = Meter::start(world.kafka.bootstrap(), None, topic("notifications.email.results"))?;
    meter.until(u64::from(batches), &mut started).await?;
    // Batches go side by side and end together: what counts is the time since the first slot was granted.
    let seconds = since_first_slot(&work).await?;
    meter.stop()?;
    started.end().await?;
    let sent = sent(&work).await?;
    ensure!(sent == i64::from(batches * BATCH), "{sent} mails were sent");
    Ok(f64::from(batches * BATCH) / seconds)
}

/// So many people wait for a product that is there.
async fn fill(work: &Work, people: u32) -> anyhow::Result<()> {
    let sql = format!(
        "insert into products values ('p-1', 'sku-1', 'Reading lamp', 'lamps', 8950, 'EUR', 1, 1, 1, 1);
         insert into stock (product_id, received, available) values ('p-1', 1, 1);
         insert into contacts select 'u-' || i, 'u-' || i || '@customer.example', 'Ada ' || i
             from generate_series(1, {people}) i;
         insert into subscriptions (product_id, user_id, channel, expires_at)
             select 'p-1', 'u-' || i, 'email', now() + interval '1 day' from generate_series(1, {people}) i;
         analyze"
    );
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(work.database.url()).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
    Ok(())
}

async fn since_first_slot(work: &Work) -> anyhow::Result<f64> {
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(work.database.url()).await?;
    let sql = "select extract(epoch from clock_timestamp() - min(starts_at))::float8 from send_grants";
    Ok(sqlx::query_scalar(sql).fetch_one(&mut connection).await?)
}

/// How many are told as sent.
async fn sent(work: &Work) -> anyhow::Result<i64> {
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(work.database.url()).await?;
    let sql = "select count(*) from email_batches, jsonb_array_elements(state -> 'told') one
               where one ->> 'result' = 'sent'";
    Ok(sqlx::query_scalar(sql).fetch_one(&mut connection).await?)
}

fn drafts(batches: u32) -> Vec<Draft> {
    let draft = |index: u32| {
        let id = format!("{CAMPAIGN}.{index}");
        let batch = json!({"batch_id": id, "campaign_id": CAMPAIGN, "product_id": "p-1", "index": index, "size": BATCH,
            "restocked_at": "2026-11-21T10:00:00Z", "after": index * BATCH, "to": (index + 1) * BATCH, "waybill": []});
        Draft::json(&id, &batch)
            .header("ce_id", id.clone())
            .header("ce_type", "notifications.email.v1")
            .header("ce_source", "/waybill/fanout")
            .header("ce_time", "2026-11-21T10:00:00Z")
    };
    (0..batches).map(draft).collect()
}

/// Mails a second of a client that only sends: the same mail each time, over as many connections.
async fn raw(args: &Args, port: u16) -> anyhow::Result<f64> {
    let (mail, left) = (Arc::new(mail()?), Arc::new(AtomicU32::new(args.mails)));
    let envelope = Envelope::new(Some("shop@shop.example".parse()?), vec!["u-1@customer.example".parse()?])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let begun = Instant::now();
    let clients = (0..args.connections).map(|_| {
        let (mail, left, envelope) = (mail.clone(), left.clone(), envelope.clone());
        runtime.spawn(async move {
            let hello = ClientId::Domain("shop.example".to_owned());
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            // Or each mail waits for a delayed acknowledgement: 40 ms.
            stream.set_nodelay(true)?;
            let mut connection = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await?;
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                connection.send(&envelope, mail.bytes()).await?;
            }
            anyhow::Ok(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    let rate = f64::from(args.mails) / begun.elapsed().as_secs_f64();
    runtime.shutdown_background();
    Ok(rate)
}

/// One of the mails that the stage sends.
fn mail() -> anyhow::Result<Message> {
    let settings = Settings { from: "Shop <shop@shop.example>".to_owned(), ..Settings::default() };
    let unsubscribe_url = "https://shop.example/unsubscribe/k1.1.PVuNNpugvj8nYPB5UN6ZsA".to_owned();
    let link = unsubscribe_url.parse()?;
    let content = Content::BackInStock(BackInStock {
        shop: "Shop".to_owned(),
        customer: Some("Ada 1".to_owned()),
        product: Product {
            name: "Reading lamp".to_owned(),
            url: "https://shop.example/products/p-1".to_owned(),
            price: waybill_money::Money::new(8_950, waybill_money::Currency::EUR),
        },
        unsubscribe_url,
    });
    let to: Mailbox = "Ada 1 <u-1@customer.example>".parse()?;
    let delivery = format!("{CAMPAIGN}-1");
    let texts = Templates::load(None)?.render(&content)?;
    let date = "2026-11-21T10:00:00Z".parse()?;
    let draft = waybill_mail::Draft { delivery: &delivery, to: &to, date, unsubscribe: Some(&link), texts };
    Ok(Composer::new(&settings)?.compose(draft)?)
}
