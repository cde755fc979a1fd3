//! What runs: the storm's servers, two processes of each stage, receivers of mails and push messages, and customers.

use super::meter::{self, Meter};
use super::{Step, say, verdict};
use crate::world::World;
use anyhow::{Context, ensure};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;
use waybill_harness::{Manner, Process, ask, eventually, free_port};
use waybill_storm::crowd::Receivers;

/// Every role, and how many processes of it: a gateway's port is its own.
const ROLES: [(&str, usize); 12] = [
    ("payment-simulator", 1),
    ("gateway", 1),
    ("checkout", 2),
    ("inventory", 2),
    ("pick", 2),
    ("pack", 2),
    ("ship", 2),
    ("restock", 2),
    ("fanout", 2),
    ("email", 2),
    ("push", 2),
    ("order-mail", 2),
];
/// Customers: scenario, seed, and how many come a second.
const CUSTOMERS: [(&str, u64, f64); 2] = [("normal", 1, 6.5), ("declines", 2, 1.5)];
/// What people wait for, and how much of it comes back at a time.
pub const WANTED: &str = "p-wanted";
const PIECES: i64 = 20;
/// Who waits anew for each restock, of each channel.
const WAITING: u64 = 100;
/// Products of which the warehouse has fewer than the shop has sold, and how many pieces are in a bin of theirs.
const SHORT: [&str; 2] = ["p-0003", "p-0011"];
const IN_A_BIN: i64 = 20;
/// Addresses.
const DOMAIN: &str = "customer.example";
/// How long a process may take to end, and the next one to be ready; how long a broker may take to catch up.
const LIMIT: Duration = Duration::from_secs(300);
/// How often a broker may be started until it answers in time, on a machine that is busy with everything else.
const STARTS: usize = 4;
/// How long a server is away that is restarted.
const AWAY: Duration = Duration::from_secs(5);

/// Everything that runs, and what was seen of it.
pub struct Soak {
    pub world: World,
    pub receivers: Receivers,
    /// Who has ever waited: subscription, user and channel.
    pub waiting: verdict::Waiting,
    /// The provider's books.
    pub ledger: PathBuf,
    /// Units in all bins at the start.
    pub units: i64,
    gateway: SocketAddr,
    provider: SocketAddr,
    customers: Vec<Process>,
    restocks: u64,
    meter: Meter,
    // Held, not used.
    _folder: tempfile::TempDir,
}

impl Soak {
    /// Servers, processes, goods, and customers who begin to come.
    pub async fn open(binary: &Path, length: Duration) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let receivers = Receivers::start().await?;
        let account = folder.path().join("account.json");
        receivers.write_account(&account)?;
        let [gateway, provider] = [free_port()?, free_port()?].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let ledger = folder.path().join("ledger");
        let mut settings = vec![
            ("WAYBILL_HTTP_LISTEN", gateway.to_string()),
            ("WAYBILL_PAGES_LISTEN", String::new()),
            ("WAYBILL_SIMULATOR_LISTEN", provider.to_string()),
            ("WAYBILL_SIMULATOR_LEDGER", ledger.display().to_string()),
            ("WAYBILL_PAYMENT_URL", format!("http://{provider}")),
            ("WAYBILL_PAYMENT_KEY", "sk_test_1".to_owned()),
            ("WAYBILL_RESTOCK_COOLDOWN", "1s".to_owned()),
            ("WAYBILL_FANOUT_FACTOR", "all".to_owned()),
            // Two mails an order: the rate must not be what holds them up.
            ("WAYBILL_RATES_ORDERS", "100".to_owned()),
        ];
        settings.extend(receivers.settings(&account));
        let world = World::open(binary, settings).await?;
        say(&format!("three brokers at {}, Postgres, no process yet", world.cluster.bootstrap()));
        let mut soak = Soak {
            world,
            receivers,
            waiting: verdict::Waiting::new(),
            ledger,
            units: 0,
            gateway,
            provider,
            customers: Vec::new(),
            restocks: 0,
            meter: Meter::start(),
            _folder: folder,
        };
        soak.fill(length).await?;
        for role in ROLES.iter().flat_map(|(role, each)| std::iter::repeat_n(*role, *each)) {
            let process = soak.world.run(role)?;
            soak.meter.watch(soak.world.processes.len(), role, process.pid());
            soak.world.processes.push((role, process));
        }
        for place in 0..soak.world.processes.len() {
            soak.until_ready(place).await;
        }
        block_in_place(|| soak.world.done(&["produce", "stock", "--quantity", "1000000"]))?;
        soak.let_customers_in(length)?;
        Ok(soak)
    }

    /// Addresses of all customers, what people wait for, and bins that do not hold what the shop sells.
    async fn fill(&mut self, length: Duration) -> anyhow::Result<()> {
        for (_, seed, rate) in CUSTOMERS {
            let people = count(rate, length);
            self.execute(&format!(
                "insert into contacts (user_id, email, name)
                     select u, u || '@{DOMAIN}', 'Person ' || u
                     from generate_series(0, {people} - 1) n, lateral (select 'c-{seed}-' || n) w (u)"
            ))
            .await?;
        }
        let short = SHORT.map(|product| format!("'{product}'")).join(", ");
        self.execute(&format!(
            "insert into products values ('{WANTED}', 'SKU-{WANTED}', 'Reading lamp', 'lamps', 8950, 'EUR', 1, 1, 1, 1);
             update bins set quantity = {IN_A_BIN} where product_id in ({short})"
        ))
        .await?;
        self.units = self.number("select sum(quantity)::int8 from bins").await?;
        Ok(())
    }

    fn let_customers_in(&mut self, length: Duration) -> anyhow::Result<()> {
        let url = format!("http://{}", self.gateway);
        for (scenario, seed, rate) in CUSTOMERS {
            let [count, seed, rate] = [count(rate, length).to_string(), seed.to_string(), rate.to_string()];
            let what = ["produce", "checkouts", "--scenario", scenario, "--count", &count, "--seed", &seed];
            let how = ["--rate", &rate, "--concurrency", "256", "--url", &url];
            say(&format!("{count} customers come, {rate} a second: {scenario}"));
            self.customers.push(self.world.play(&[&what[..], &how[..]].concat())?);
        }
        Ok(())
    }

    /// Waits in peace; nobody may end by itself.
    pub async fn calm_until(&mut self, due: Instant) -> anyhow::Result<()> {
        loop {
            for (role, process) in &mut self.world.processes {
                let ended = process.ended()?;
                ensure!(ended.is_none(), "{role} ended by itself, {ended:?}: {}", process.log()?);
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    /// Lets it happen; a note for the log.
    pub async fn make(&mut self, step: Step) -> anyhow::Result<String> {
        match step {
            Step::Restock => self.restock().await,
            Step::RollAll => self.roll(|_, _| true).await,
            Step::RollOne => {
                self.roll(|processes, place| place == 0 || processes[place - 1].0 != processes[place].0).await
            }
            Step::StopBroker => self.broker(true).await,
            Step::KillBroker => self.broker(false).await,
            Step::RestartPostgres => {
                block_in_place(|| self.world.postgres.stop_immediate())?;
                tokio::time::sleep(AWAY).await;
                block_in_place(|| self.world.postgres.start_again())?;
                Ok(format!("away for {AWAY:?}"))
            }
            Step::CollectorRefuses => Ok(self.collector(Manner::Refuse)),
            Step::CollectorHangs => Ok(self.collector(Manner::BlackHole)),
            Step::CollectorBack => Ok(self.collector(Manner::Forget)),
            Step::MailAway => {
                self.receivers.close_mail().await;
                Ok(format!("{} mails and push messages came until now", self.receivers.count()))
            }
            Step::MailBack => {
                self.receivers.open_mail().await?;
                Ok(format!("{} mails and push messages came until now", self.receivers.count()))
            }
        }
    }

    fn collector(&self, manner: Manner) -> String {
        self.world.collector.meet(manner);
        format!("{} spans came until now", self.world.collector.received().0)
    }

    /// Ends processes one at a time; the next one when the successor is ready.
    async fn roll(&mut self, whom: fn(&[(&'static str, Process)], usize) -> bool) -> anyhow::Result<String> {
        let (mut rolled, mut longest) = (0, Duration::ZERO);
        for place in 0..self.world.processes.len() {
            if !whom(&self.world.processes, place) {
                continue;
            }
            let (role, process) = &mut self.world.processes[place];
            let (role, from) = (*role, Instant::now());
            process.terminate()?;
            let status = process.wait(LIMIT).await?;
            ensure!(status.success(), "{role} ended with {status}: {}", process.log()?);
            longest = from.elapsed().max(longest);
            self.world.processes[place].1 = self.world.run(role)?;
            self.meter.watch(place, role, self.world.processes[place].1.pid());
            self.until_ready(place).await;
            rolled += 1;
        }
        Ok(format!("{rolled} processes, each ended with 0, the slowest after {:.1} s", longest.as_secs_f64()))
    }

    async fn until_ready(&mut self, place: usize) {
        let (role, process) = &mut self.world.processes[place];
        let provider = self.provider;
        eventually(&format!("{role} is ready"), LIMIT, async || {
            let log = process.log().map_err(|error| error.to_string())?;
            if process.ended().map_err(|error| error.to_string())?.is_some() {
                return Err(format!("it has ended: {log}"));
            }
            if *role == "payment-simulator" {
                return TcpStream::connect(provider).map(drop).map_err(|error| error.to_string());
            }
            let health = log.split("health=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            let health = health.ok_or("the log names no health port yet")?;
            let answer = ask(health, "GET", "/readyz", &[], &Value::Null).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
        })
        .await;
    }

    /// A broker that leads something goes and comes back.
    async fn broker(&mut self, orderly: bool) -> anyhow::Result<String> {
        let cluster = &mut self.world.cluster;
        let broker =
            eventually("a leader", LIMIT, async || cluster.leader("orders.new", 0).map_err(|e| format!("{e:#}"))).await;
        block_in_place(|| if orderly { cluster.stop(broker) } else { cluster.kill(broker) })?;
        tokio::time::sleep(AWAY).await;
        let mut tries = 0;
        while let Err(error) = block_in_place(|| cluster.start_again(broker)) {
            tries += 1;
            ensure!(tries < STARTS, "broker {} does not start: {error:#}", broker + 1);
            say(&format!("broker {} is killed and started again, as it does not answer in time", broker + 1));
            block_in_place(|| cluster.kill(broker))?;
        }
        let back = Instant::now();
        eventually("all replicas are in sync", LIMIT, async || match block_in_place(|| cluster.under_replicated()) {
            Ok(under) if under.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        Ok(format!("broker {}, all replicas in sync {:.1} s after its start", broker + 1, back.elapsed().as_secs_f64()))
    }

    /// What people wait for is gone, more people wait, and it comes back.
    async fn restock(&mut self) -> anyhow::Result<String> {
        self.restocks += 1;
        if self.restocks > 1 {
            let (gone, seed) = (format!("-{PIECES}"), self.restocks.to_string());
            let args = ["produce", "stock", "--product", WANTED, "--delta", &gone, "--seed", &seed];
            block_in_place(|| self.world.done(&args))?;
        }
        let url = self.database();
        eventually("it is sold out", LIMIT, async || {
            let sql = format!("select coalesce(sum(available), 0)::int8 from stock where product_id = '{WANTED}'");
            match number(&url, &sql).await {
                Ok(0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let (gateway, count) = (format!("http://{}", self.gateway), WAITING.to_string());
        for (channel, seed) in [("email", 1_000 + self.restocks), ("push", 2_000 + self.restocks)] {
            let seed = seed.to_string();
            let who = ["--product", WANTED, "--count", &count, "--channel", channel, "--seed", &seed];
            let args = [&["produce", "subscribers", "--url", &gateway, "--domain", DOMAIN][..], &who].concat();
            block_in_place(|| self.world.done(&args))?;
        }
        let before = self.waiting.len();
        self.waiting.extend(verdict::waiting(&self.database()).await?);
        let pieces = PIECES.to_string();
        block_in_place(|| self.world.done(&["produce", "restock", "--product", WANTED, "--quantity", &pieces]))?;
        Ok(format!("{} more people wait", self.waiting.len() - before))
    }

    /// Whoever came has an order or a refusal.
    pub async fn customers_are_served(&mut self) -> anyhow::Result<()> {
        for customers in &mut self.customers {
            let status = customers.wait(10 * LIMIT).await?;
            println!("{}", customers.log()?.trim_end());
            ensure!(status.success(), "customers were not served: {status}");
        }
        Ok(())
    }

    /// Nothing waits anywhere, twice in a row: what leaves a table stands on a topic next.
    pub async fn until_drained(&mut self) {
        let left = "select (select count(*) from gateway_outbox) + (select count(*) from levels) + (select count(*) from parked)
            + (select count(*) from checkout_requests r left join checkouts c on c.key = r.order_id
               where c.key is null or c.state->>'status' = 'running')";
        let (world, url, mut empty) = (&self.world, self.database(), 0);
        eventually("everything is drained", 2 * LIMIT, async || {
            let rows = number(&url, left).await.map_err(|error| format!("{error:#}"))?;
            let lag = block_in_place(|| world.done(&["lag", "--json"])).map_err(|error| format!("{error:#}"))?;
            let lag: Value = serde_json::from_str(&lag).map_err(|error| error.to_string())?;
            let stages = lag.as_array().map(Vec::as_slice).unwrap_or_default();
            let waiting: i64 = stages.iter().filter_map(|stage| stage["records"].as_i64()).sum();
            empty = if (rows, waiting) == (0, 0) { empty + 1 } else { 0 };
            if empty > 1 { Ok(()) } else { Err(format!("{rows} rows and {waiting} records are left")) }
        })
        .await;
    }

    /// Everything that does not hold.
    pub async fn judge(&mut self) -> anyhow::Result<Vec<String>> {
        let lives = self.meter.lives();
        self.world.settle().await?;
        let mut violations = Vec::new();
        for (role, process) in &self.world.processes {
            let log = process.log()?;
            violations
                .extend(log.lines().filter(|line| line.contains("panicked")).map(|line| format!("{role}: {line}")));
        }
        let (seen, ahead) = self.world.stop_watching()?;
        println!("{seen} committed offsets looked at as they moved");
        violations.extend(ahead);
        violations.extend(verdict::judge(self).await?);
        let (told, grown) = meter::judge(&lives);
        told.iter().for_each(|line| println!("{line}"));
        violations.extend(grown);
        Ok(violations)
    }

    pub fn database(&self) -> String {
        self.world.database.url().to_owned()
    }

    async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(self.world.database.url()).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
        Ok(())
    }

    async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        number(self.world.database.url(), sql).await
    }
}

async fn number(url: &str, sql: &str) -> anyhow::Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.context("no number")
}

/// How many come in that time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "people, far below the limits")]
fn count(rate: f64, length: Duration) -> u64 {
    (rate * length.as_secs_f64()) as u64
}
