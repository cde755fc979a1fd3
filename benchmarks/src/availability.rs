//! What is available: requests a second and how long they take, cached and not, beside a bare axum handler that answers the
//! same bytes. Every request is measured by three metrics. A shop that is asked so often records one request of many; what
//! recording all of them costs (two spans a request, exported to a collector on the same cores) is shown, too.

use crate::chain::median;
use crate::usage;
use crate::world::{Work, World};
use anyhow::{Context, ensure};
use axum::http::header::CONTENT_TYPE;
use axum::{Router, routing};
use clap::Args as ClapArgs;
use jiff::Timestamp;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use waybill_harness::{Manner, Process, free_port};
use waybill_spine::system_clock;

/// Longest wait for a server that has just been started.
const OPENING: Duration = Duration::from_secs(60);
/// Before anything is measured.
const WARM: Duration = Duration::from_secs(1);
/// The one that is asked for again and again; the others are asked for once.
const CACHED: &str = "p-0000001";
/// The span of a request.
const SPAN: &str = "GET /api/products/{id}/availability";
/// Its answer.
const BODY: &str = r#"{"productId":"p-0000001","available":1000,"quantity":1,"isAvailable":true}"#;

/// Bounds of the measurement.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Repetitions, all sides in turn; medians are printed
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Connections at a time, each with one request in flight
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rate of the paced run, as a share of full speed
    #[arg(long, default_value_t = 0.5)]
    pace: f64,
    /// Share of the requests that are recorded, by `OTEL_TRACES_SAMPLER`
    #[arg(long, default_value_t = 0.01)]
    recorded: f64,
    /// Products: more than are asked for once
    #[arg(long, default_value_t = 500_000)]
    products: u64,
    /// The binary under test
    #[arg(long, default_value = "target/release/waybill")]
    waybill: PathBuf,
}

/// A peer in a process of its own.
#[derive(Debug, ClapArgs)]
pub struct Bare {
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
}

/// Serves the same bytes, and does nothing else.
pub async fn bare(args: &Bare) -> anyhow::Result<()> {
    let answer = routing::get(async || ([(CONTENT_TYPE, "application/json")], BODY));
    let router = Router::new().route("/api/products/{id}/availability", answer);
    Ok(axum::serve(TcpListener::bind(args.listen).await?, router).await?)
}

/// What one repetition showed of a server. Rates a second, milliseconds, CPU in microseconds a request.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    rate: f64,
    cpu: f64,
    p99: f64,
}

/// What one repetition showed.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    bare: Seen,
    cached: Seen,
    /// In the service: from the request's head to the response's, by its own spans at a pace.
    inside: f64,
    /// With every request recorded.
    all: Seen,
    uncached: f64,
    uncached_p99: f64,
}

/// Measures; the last line is one JSON object.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let world = World::start(&args.waybill)?;
    let work = world.work("availability").await?;
    stock(work.database.url(), args.products).await?;
    let (bare, _peer) = peer()?;
    let (gateway, _gateway) = server(&world, &work, args.recorded)?;
    let (all, _all) = server(&world, &work, 1.0)?;
    let (mut rounds, mut next) = (Vec::new(), 2);
    for server in [bare.0, gateway.0, all.0] {
        open(server).await?;
    }
    for _ in 0..args.repetitions {
        let mut round = Round { bare: cached(bare, args).await?.0, ..Round::default() };
        world.collector.meet(Manner::Keep);
        let (seen, paced) = cached(gateway, args).await?;
        (round.cached, round.inside) = (seen, inside(&world, paced)?);
        world.collector.meet(Manner::Forget);
        round.all = cached(all, args).await?.0;
        let first = next;
        let product = move |number| format!("p-{:07}", first + number);
        let once = rush(gateway.0, args.connections, seconds(args), product).await?;
        next += once.len() as u64 + args.connections as u64;
        ensure!(next < args.products, "all {} products were asked for: give more with --products", args.products);
        (round.uncached, round.uncached_p99) = (per_second(&once, seconds(args)), percentile(once));
        println!("  {round:.2?}");
        rounds.push(round);
    }
    tell(&rounds, args.recorded);
    Ok(())
}

/// Where a server listens, and its process id.
type Server = (SocketAddr, u32);

fn address() -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?)))
}

fn peer() -> anyhow::Result<(Server, Process)> {
    let address = address()?;
    let listen = address.to_string();
    let process = Process::spawn(&std::env::current_exe()?, ["bare", "--listen", &listen], [("LC_ALL", "C")])?;
    Ok(((address, process.pid()), process))
}

/// A gateway that records this share of its requests.
fn server(world: &World, work: &Work, recorded: f64) -> anyhow::Result<(Server, Process)> {
    let address = address()?;
    let envs = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", world.collector.endpoint()),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
        ("OTEL_TRACES_SAMPLER_ARG", recorded.to_string()),
        ("WAYBILL_HTTP_LISTEN", address.to_string()),
        ("WAYBILL_PAGES_LISTEN", String::new()),
    ];
    let process = Process::spawn(&world.waybill, world.args(work, &["run", "gateway"]), envs)?;
    Ok(((address, process.pid()), process))
}

/// The same product again and again: at full speed, then at a pace; and when that began.
async fn cached((server, pid): Server, args: &Args) -> anyhow::Result<(Seen, Timestamp)> {
    let again = |_| CACHED.to_owned();
    rush(server, args.connections, WARM, again).await?;
    let before = usage::cpu(pid)?;
    let asked = rush(server, args.connections, seconds(args), again).await?;
    let cpu = (usage::cpu(pid)? - before) * 1e6 / asked.len() as f64;
    let (rate, begun) = (per_second(&asked, seconds(args)), system_clock());
    Ok((Seen { rate, cpu, p99: percentile(pace(server, args, rate * args.pace).await?) }, begun))
}

/// 99 % of the requests since then took no longer in the service, in milliseconds.
fn inside(world: &World, since: Timestamp) -> anyhow::Result<f64> {
    let spans = world.collector.spans();
    let requests = spans.iter().filter(|span| span.name() == SPAN).map(|span| &span.span);
    let since = requests.filter(|span| i128::from(span.start_time_unix_nano) >= since.as_nanosecond());
    let took: Vec<f64> = since.map(|span| (span.end_time_unix_nano - span.start_time_unix_nano) as f64 / 1e6).collect();
    ensure!(took.len() >= 100, "{} requests were recorded: too few to tell", took.len());
    Ok(percentile(took))
}

fn seconds(args: &Args) -> Duration {
    Duration::from_secs(args.seconds)
}

fn per_second(latencies: &[f64], time: Duration) -> f64 {
    latencies.len() as f64 / time.as_secs_f64()
}

fn percentile(mut latencies: Vec<f64>) -> f64 {
    latencies.sort_by(f64::total_cmp);
    latencies.get((latencies.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// A connection that asks one question after the other. A client of a framework's would cost more than what it asks.
struct Asker {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Asker {
    async fn connect(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Asker { stream, answer: Vec::with_capacity(4_096) })
    }

    /// Milliseconds from `since` to the whole answer, which must be a 200.
    async fn ask(&mut self, product: &str, since: Instant) -> anyhow::Result<f64> {
        let request = format!("GET /api/products/{product}/availability HTTP/1.1\r\nhost: shop\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        while !whole(&self.answer)? {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the server hung up");
        }
        ensure!(self.answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.answer));
        Ok(since.elapsed().as_secs_f64() * 1_000.0)
    }
}

/// Whether all of the head, and of the body that it tells the length of, is there.
fn whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(false) };
    let text = std::str::from_utf8(&answer[..head])?;
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")).context("an answer without length")?;
    Ok(answer.len() >= head + 4 + length.parse::<usize>()?)
}

async fn open(server: SocketAddr) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let asked = async { Asker::connect(server).await?.ask(CACHED, begun).await };
        match asked.await {
            Ok(_) => return Ok(()),
            Err(error) => ensure!(begun.elapsed() < OPENING, "{server} does not open: {error:#}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// As fast as the answers come; yields what each took, in milliseconds.
async fn rush(
    server: SocketAddr,
    connections: usize,
    time: Duration,
    product: impl Fn(u64) -> String + Copy + Send + 'static,
) -> anyhow::Result<Vec<f64>> {
    let (numbers, mut tasks) = (std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)), JoinSet::new());
    let end = Instant::now() + time;
    for _ in 0..connections {
        let numbers = numbers.clone();
        tasks.spawn(async move {
            let (mut asker, mut latencies) = (Asker::connect(server).await?, Vec::new());
            loop {
                let begun = Instant::now();
                if begun >= end {
                    return anyhow::Ok(latencies);
                }
                let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                latencies.push(asker.ask(&product(number), begun).await?);
            }
        });
    }
    gather(tasks).await
}

/// So many a second; yields milliseconds from when each was due.
async fn pace(server: SocketAddr, args: &Args, rate: f64) -> anyhow::Result<Vec<f64>> {
    let mut tasks = JoinSet::new();
    let every = Duration::from_secs_f64(args.connections as f64 / rate.max(1.0));
    let begun = Instant::now() + Duration::from_millis(100);
    let end = begun + seconds(args);
    for number in 0..args.connections {
        let mut due = begun + every.mul_f64(number as f64 / args.connections as f64);
        tasks.spawn(async move {
            let (mut asker, mut latencies) = (Asker::connect(server).await?, Vec::new());
            while due < end {
                sleep_until(due).await;
                // The timer's own grain, a millisecond, is not the server's.
                latencies.push(asker.ask(CACHED, due.max(Instant::now())).await?);
                due += every;
            }
            anyhow::Ok(latencies)
        });
    }
    gather(tasks).await
}

async fn gather(mut tasks: JoinSet<anyhow::Result<Vec<f64>>>) -> anyhow::Result<Vec<f64>> {
    let mut all = Vec::new();
    while let Some(latencies) = tasks.join_next().await {
        all.extend(latencies??);
    }
    Ok(all)
}

async fn stock(database: &str, products: u64) -> anyhow::Result<()> {
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(database).await?;
    let sql = format!(
        "insert into products select 'p-' || to_char(n, 'FM0000000'), 'SKU', 'A thing', 'things', 1999, 'EUR', 1, 1, 1, 1
             from generate_series(1, {products}) as n;
         insert into stock (product_id, received, available, version) select id, 1000, 1000, 1 from products;
         analyze"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
    Ok(())
}

fn tell(rounds: &[Round], recorded: f64) {
    let of = |get: fn(&Round) -> f64| median(rounds.iter().map(get));
    println!(
        "cached, {recorded} of the requests recorded: {:.0}/s, {:.2} of a bare handler's; p99 at a pace {:.2} ms, in the service {:.3} ms, a bare handler's {:.2} ms",
        of(|r| r.cached.rate),
        of(|r| r.cached.rate / r.bare.rate),
        of(|r| r.cached.p99),
        of(|r| r.inside),
        of(|r| r.bare.p99),
    );
    println!(
        "every request recorded: {:.0}/s, {:.2} of a bare handler's, p99 {:.2} ms; not cached: {:.0}/s, p99 {:.2} ms",
        of(|r| r.all.rate),
        of(|r| r.all.rate / r.bare.rate),
        of(|r| r.all.p99),
        of(|r| r.uncached),
        of(|r| r.uncached_p99),
    );
    println!(
        "CPU a request: {:.1} µs, {:.1} µs with every request recorded, a bare handler {:.1} µs",
        of(|r| r.cached.cpu),
        of(|r| r.all.cpu),
        of(|r| r.bare.cpu),
    );
    let round = |value: f64| (value * 1_000.0).round() / 1_000.0;
    let result = json!({
        "cached_rps": of(|r| r.cached.rate).round(),
        "cached_all_recorded_rps": of(|r| r.all.rate).round(),
        "uncached_rps": of(|r| r.uncached).round(),
        "p99_ms": round(of(|r| r.inside)),
        "client_p99_ms": round(of(|r| r.cached.p99)),
        "peer": {"rps": of(|r| r.bare.rate).round(), "client_p99_ms": round(of(|r| r.bare.p99))},
    });
    println!("{result}");
}
