//! Checkouts under fire: many customers at a gateway, its processes and its database killed at random, and in the end the
//! checker's word on stock, money and orders.
//!
//! The seed decides who wants what and which process dies when; when exactly each kill hits is the machine's doing.

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use waybill_checker::{Books, Shop};
use waybill_harness::{Database, PostgresServer, Process, ask, eventually, free_port};

/// What payment methods are called that must stand nowhere in the end; the last is a card number.
pub const CANARIES: [&str; 3] = ["pm_canary", "sk_test_canary", "4242424242424242"];
/// Customers at the gateway at a time.
const AT_A_TIME: usize = 24;
/// How long anything may take, leases of dead processes (30 s) included.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two tries of a customer: one may ask sixty times a minute.
const RETRY: Duration = Duration::from_millis(500);
/// Of one piece, cents.
const PRICE: i64 = 1_999;
/// Pieces of the product that runs out.
const RARE: i64 = 25;
/// What customers pay with; what is not named here is decided by the seed, one in ten for good and three for now.
const METHODS: [&str; 8] = [
    "pm_canary",
    "pm_canary",
    "pm_card_visa",
    "pm_reset",
    "pm_canary",
    "4242424242424242",
    "pm_card_chargeDeclined",
    "pm_canary",
];

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Fire {
    /// The binary under test.
    pub binary: PathBuf,
    /// Kafka.
    pub bootstrap: String,
    /// Before every topic and group name.
    pub prefix: String,
    /// Decides customers and kills.
    pub seed: u64,
    /// Customers.
    pub checkouts: usize,
    /// How often something is killed: the gateway, the inventory, the provider and Postgres once each, a checkout else.
    pub kills: usize,
    /// Where spans go.
    pub collector: Option<String>,
}

/// What was left of a run.
#[derive(Debug)]
pub struct Ashes {
    /// What the checker says.
    pub books: Books,
    /// What was killed, in this order.
    pub killed: Vec<&'static str>,
    /// Topics, tables and logs of processes that hold a canary.
    pub canaries: Vec<String>,
    /// From the first request to the last.
    pub took: Duration,
    /// From the last request until everything had ended.
    pub drained: Duration,
}

/// The roles, two of them checkouts.
const ROLES: [&str; 5] = ["gateway", "inventory", "payment-simulator", "checkout", "checkout"];

/// What runs.
struct World {
    fire: Fire,
    database: Database,
    gateway: SocketAddr,
    envs: Vec<(&'static str, String)>,
    processes: Vec<Process>,
    /// What processes printed that are gone.
    logs: String,
    folder: tempfile::TempDir,
}

impl Fire {
    /// Makes the run, on a database of its own on `postgres`, which is restarted on the way.
    ///
    /// # Errors
    /// A server or a process does not do what it must; what does not hold is in [`Books::violations`].
    pub async fn run(self, postgres: &mut PostgresServer) -> anyhow::Result<Ashes> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut world = World::open(self, postgres).await?;
        let mut victims = vec!["gateway", "inventory", "payment-simulator", "postgres"];
        victims.resize(world.fire.kills.max(victims.len()), "checkout");
        victims.truncate(world.fire.kills);
        victims.shuffle(&mut rng);
        let begun = Instant::now();
        let (mut customers, mut next, mut served, mut killed) = (JoinSet::new(), 0, 0, 0);
        while served < world.fire.checkouts {
            while customers.len() < AT_A_TIME && next < world.fire.checkouts {
                customers.spawn(customer(world.gateway, next, METHODS[rng.random_range(0..METHODS.len())]));
                next += 1;
            }
            customers.join_next().await.context("no customer is left")?.context("a customer is gone")??;
            served += 1;
            if killed < victims.len() && served * (victims.len() + 1) >= (killed + 1) * world.fire.checkouts {
                world.kill(victims[killed], postgres, &mut rng).await?;
                killed += 1;
            }
        }
        let (took, served) = (begun.elapsed(), Instant::now());
        world.until_ended().await;
        let drained = served.elapsed();
        world.close().await?;
        let (books, canaries) = world.judge().await?;
        Ok(Ashes { books, killed: victims, canaries, took, drained })
    }
}

/// Asks until somebody takes the request: a retry under the same key is the same request.
async fn customer(gateway: SocketAddr, number: usize, method: &'static str) -> anyhow::Result<()> {
    let key = format!("key-{number}");
    let mut headers = vec![("idempotency-key", key.as_str())];
    if !number.is_multiple_of(8) {
        headers.push(("prefer", "respond-async"));
    }
    let body = json!({"cartId": format!("k-{number}"), "userId": format!("u-{number}"), "paymentMethodId": method});
    let begun = Instant::now();
    loop {
        // Whatever becomes of it, it has an order id once it is taken.
        match ask(gateway, "POST", "/api/checkout", &headers, &body).await {
            Ok(answer) if answer.body["orderId"].is_string() => return Ok(()),
            other => ensure!(begun.elapsed() < LIMIT, "customer {number} is not served: {other:?}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

impl World {
    async fn open(fire: Fire, postgres: &PostgresServer) -> anyhow::Result<Self> {
        let database = postgres.create_database("fire").await?;
        let folder = tempfile::tempdir()?;
        let gateway = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let provider = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut envs = vec![
            ("WAYBILL_HTTP_LISTEN", gateway.to_string()),
            ("WAYBILL_PAGES_LISTEN", String::new()),
            ("WAYBILL_SIMULATOR_LISTEN", provider.to_string()),
            ("WAYBILL_SIMULATOR_LEDGER", folder.path().join("ledger").display().to_string()),
            ("WAYBILL_SIMULATOR_SEED", fire.seed.to_string()),
            ("WAYBILL_SIMULATOR_DECLINES", "0.1".to_owned()),
            ("WAYBILL_SIMULATOR_SOFTDECLINES", "0.3".to_owned()),
            ("WAYBILL_PAYMENT_URL", format!("http://{provider}")),
            ("WAYBILL_PAYMENT_KEY", "sk_test_canary".to_owned()),
        ];
        match &fire.collector {
            Some(endpoint) => envs.push(("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.clone())),
            None => envs.push(("OTEL_SDK_DISABLED", "true".to_owned())),
        }
        let mut world = World { fire, database, gateway, envs, processes: vec![], logs: String::new(), folder };
        let output = Command::new(&world.fire.binary).args(world.args(&["topics", "apply"])).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for role in ROLES {
            let process = world.start(role)?;
            world.processes.push(process);
        }
        eventually("the gateway answers", LIMIT, async || {
            match ask(gateway, "GET", "/api/products/p-0", &[], &Value::Null).await {
                Ok(answer) if answer.status == 404 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        world.fill().await?;
        Ok(world)
    }

    /// Goods, and a cart for each customer: of ten, one wants what runs out, one has seen another price, one's cart is empty.
    async fn fill(&self) -> anyhow::Result<()> {
        let plenty = 2 * self.fire.checkouts;
        let mut sql = String::new();
        for (product, pieces) in [("p-1", plenty), ("p-2", plenty), ("p-3", plenty), ("p-rare", usize::try_from(RARE)?)]
        {
            write!(
                sql,
                "insert into products values ('{product}', 'SKU', 'A thing', 'things', {PRICE}, 'EUR', 500, 100, 80, 60);
                 insert into stock (product_id, received, available) values ('{product}', {pieces}, {pieces});"
            )?;
        }
        for number in 0..self.fire.checkouts {
            write!(
                sql,
                "insert into carts (id, user_id, country, service) values ('k-{number}', 'u-{number}', 'DE', 'standard');"
            )?;
            let (first, second) = (number % 3 + 1, (number + 1) % 3 + 1);
            let lines = match number % 10 {
                0 => format!(
                    "('k-{number}', 'p-{first}', 1, {PRICE}, 'EUR'), ('k-{number}', 'p-rare', 1, {PRICE}, 'EUR')"
                ),
                1 => format!("('k-{number}', 'p-{first}', 1, {}, 'EUR')", PRICE - 1),
                2 => continue,
                _ => format!(
                    "('k-{number}', 'p-{first}', 1, {PRICE}, 'EUR'), ('k-{number}', 'p-{second}', 2, {PRICE}, 'EUR')"
                ),
            };
            write!(sql, "insert into cart_lines values {lines};")?;
        }
        let mut connection = PgConnection::connect(self.database.url()).await?;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        Ok(())
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let Fire { bootstrap, prefix, .. } = &self.fire;
        [args, &["--brokers", bootstrap, "--prefix", prefix, "--database", self.database.url()]].concat()
    }

    fn start(&self, role: &str) -> anyhow::Result<Process> {
        Process::spawn(&self.fire.binary, self.args(&["run", role]), self.envs.clone())
    }

    async fn kill(&mut self, victim: &str, postgres: &mut PostgresServer, rng: &mut StdRng) -> anyhow::Result<()> {
        if victim == "postgres" {
            postgres.stop_immediate()?;
            return postgres.start_again();
        }
        let of_role: Vec<usize> = (0..ROLES.len()).filter(|index| ROLES[*index] == victim).collect();
        let index = of_role[rng.random_range(0..of_role.len())];
        self.processes[index].kill()?;
        // The port is its own until it is gone.
        self.processes[index].wait(LIMIT).await?;
        self.logs.push_str(&self.processes[index].log()?);
        self.processes[index] = self.start(victim)?;
        Ok(())
    }

    async fn until_ended(&mut self) {
        let sql = "select (select count(*) from gateway_outbox)
                       + (select count(*) from checkout_requests r left join checkouts c on c.key = r.order_id
                          where c.key is null or c.state->>'status' = 'running')
                       + (select count(*) from parked)";
        let (processes, database) = (&mut self.processes, self.database.url());
        eventually("every checkout has ended", LIMIT, async || {
            if let Some(gone) = processes.iter_mut().find_map(|p| p.ended().ok().flatten().map(|_| p.log())) {
                return Err(format!("a process ended by itself: {gone:?}"));
            }
            let mut connection = PgConnection::connect(database).await.map_err(|e| e.to_string())?;
            let left: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.map_err(|e| e.to_string())?;
            if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
        })
        .await;
    }

    /// Processes end as they are asked to.
    async fn close(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.terminate()?;
        }
        for process in &mut self.processes {
            let status = process.wait(Duration::from_secs(60)).await?;
            ensure!(status.success(), "a process ended with {status}: {}", process.log()?);
            self.logs.push_str(&process.log()?);
        }
        Ok(())
    }

    async fn judge(&self) -> anyhow::Result<(Books, Vec<String>)> {
        let shop = Shop {
            bootstrap: self.fire.bootstrap.clone(),
            prefix: self.fire.prefix.clone(),
            database: self.database.url().to_owned(),
            provider: self.folder.path().join("ledger"),
        };
        let mut canaries = shop.holders(&CANARIES).await?;
        let printed = self.logs.lines().filter(|line| CANARIES.iter().any(|word| line.contains(word)));
        canaries.extend(printed.map(str::to_owned));
        Ok((shop.check().await?, canaries))
    }
}
