//! A shop for the checkout: products, stock and carts in its database, and its processes.

use crate::side::Started;
use crate::usage;
use crate::world::{Work, World};
use std::net::SocketAddr;
use std::time::Duration;
use waybill_harness::{Draft, Process, free_port, produce};

/// Products, named `p-1` and so on; the first one is the hot one.
pub const PRODUCTS: u64 = 10_000;
/// Its processes, in this order.
pub const ROLES: [&str; 4] = ["payment-simulator", "gateway", "checkout", "inventory"];
/// A price, cents.
const PRICE: i64 = 1_999;
/// Pieces of each product: none is ever sold out.
const PIECES: i64 = 1_000_000_000;

/// An open shop.
pub struct Shop {
    pub work: Work,
    pub gateway: SocketAddr,
    pub started: Started,
}

impl Shop {
    /// Opens it with a provider that answers after `latency`.
    pub async fn open(world: &World, latency: Duration, sets: &[CartSet]) -> anyhow::Result<Self> {
        let work = world.work("checkout").await?;
        stock(work.database.url()).await?;
        for set in sets {
            set.fill(work.database.url()).await?;
        }
        execute(work.database.url(), "analyze").await?;
        let [gateway, provider] = [free_port()?, free_port()?].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let envs = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", world.collector.endpoint()),
            ("WAYBILL_HTTP_LISTEN", gateway.to_string()),
            ("WAYBILL_PAGES_LISTEN", String::new()),
            ("WAYBILL_SIMULATOR_LISTEN", provider.to_string()),
            ("WAYBILL_SIMULATOR_LATENCY", format!("{}ms", latency.as_millis())),
            ("WAYBILL_PAYMENT_URL", format!("http://{provider}")),
            ("WAYBILL_PAYMENT_KEY", "sk_test_bench".to_owned()),
        ];
        let start = |role| Process::spawn(&world.waybill, world.args(&work, &["run", role]), envs.clone());
        let processes = ROLES.into_iter().map(start).collect::<anyhow::Result<Vec<Process>>>()?;
        Ok(Shop { started: Started::new(processes)?, work, gateway })
    }

    /// CPU seconds so far: of each process, of Postgres, of the broker, of this program with the collector.
    pub fn cpu(&self, world: &World) -> anyhow::Result<Vec<f64>> {
        let mut used =
            self.started.processes.iter().map(|p| usage::cpu(p.pid())).collect::<anyhow::Result<Vec<f64>>>()?;
        used.push(usage::cpu_of_family(world.postgres.pid())?);
        used.push(usage::cpu(world.kafka.pid())?);
        used.push(usage::cpu(std::process::id())?);
        Ok(used)
    }

    /// Requests for the carts of a set, as the gateway publishes them.
    pub async fn request(&self, bootstrap: &str, set: &CartSet) -> anyhow::Result<()> {
        let name = set.name;
        let sql = format!("insert into payment_methods select '{name}-' || n, 'pm_card_visa' from {}", set.numbers());
        execute(self.work.database.url(), &sql).await?;
        let time = waybill_spine::system_clock();
        let request = |number| {
            let id = format!("{name}-{number}");
            let payload = serde_json::json!({"order_id": id, "customer_id": id, "cart_id": id});
            Draft::json(&id, &payload)
                .header("ce_id", format!("request-{id}"))
                .header("ce_type", "checkout.requested.v1")
                .header("ce_source", "/waybill/gateway")
                .header("ce_time", time.to_string())
                .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        };
        let requests = (0..set.carts).map(request).collect();
        produce(bootstrap, &self.work.scope.topic("checkout.requested"), requests).await?;
        Ok(())
    }
}

/// Carts `<name>-0` and so on, each of a user of that name, with one piece of one product.
#[derive(Clone, Copy, Debug)]
pub struct CartSet {
    pub name: &'static str,
    pub carts: u64,
    /// The products that take turns, from the first.
    pub products: u64,
}

impl CartSet {
    fn numbers(&self) -> String {
        format!("generate_series(0, {}) as n", self.carts - 1)
    }

    async fn fill(&self, database: &str) -> anyhow::Result<()> {
        let (name, products, numbers) = (self.name, self.products, self.numbers());
        let sql = format!(
            "insert into carts (id, user_id, country, service)
                 select '{name}-' || n, '{name}-' || n, 'DE', 'standard' from {numbers};
             insert into cart_lines (cart_id, product_id, quantity, price_amount, price_currency)
                 select '{name}-' || n, 'p-' || n % {products} + 1, 1, {PRICE}, 'EUR' from {numbers}"
        );
        execute(database, &sql).await
    }
}

/// Products, all in stock.
pub async fn stock(database: &str) -> anyhow::Result<()> {
    let sql = format!(
        "insert into products
             select 'p-' || n, 'SKU-' || n, 'A thing', 'things', {PRICE}, 'EUR', 500, 100, 80, 60
             from generate_series(1, {PRODUCTS}) as n;
         insert into stock (product_id, received, available) select id, {PIECES}, {PIECES} from products;
         analyze"
    );
    execute(database, &sql).await
}

/// Runs statements.
pub async fn execute(database: &str, sql: &str) -> anyhow::Result<()> {
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(database).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
    Ok(())
}
