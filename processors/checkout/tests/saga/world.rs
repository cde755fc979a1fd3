//! A shop: its database, its broker, its provider.

use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use waybill_checkout::{Checkout, Payments};
use waybill_harness::{Database, eventually, postgres};
use waybill_inventory::{Adjustment, adjust, release, stock};
use waybill_payment::simulator::{Ledger, SimulatorSettings, serve};
use waybill_payment::{Settings, Stripe};
use waybill_spine::memory::MemoryBroker;
use waybill_spine::{
    Caller, Content, Health, Message, Policy, Record, Runner, Shutdown, Sink as _, event_id, system_clock,
};
use waybill_store::{Connection, Store};
use waybill_telemetry::{Telemetry, TelemetryConfig};

pub const LIMIT: Duration = Duration::from_secs(60);
/// What every product has at first.
pub const PIECES: i64 = 10;
/// Of one piece of every product, cents.
pub const PRICE: i64 = 1_250;
/// The browser's context, as the gateway passes it on.
pub const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Where the data is; held, not used.
#[expect(dead_code, reason = "dropping it removes the database")]
enum Home {
    Postgres(Database),
    Sqlite(tempfile::TempDir),
}

pub struct World {
    pub broker: MemoryBroker,
    pub store: Store,
    provider: SocketAddr,
    simulator: Option<AbortHandle>,
    _home: Home,
}

/// A running checkout.
pub struct Running {
    shutdown: Shutdown,
    thread: JoinHandle<()>,
}

impl Running {
    pub fn stop(self) {
        self.shutdown.request();
        self.thread.join().unwrap();
    }
}

impl World {
    /// A shop on each database.
    pub async fn each(name: &str) -> Vec<World> {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        let mut worlds = vec![World::open(&url, Home::Sqlite(folder)).await];
        if let Some(server) = postgres() {
            let database = server.create_database(name).await.unwrap();
            worlds.push({
                let url = database.url().to_owned();
                World::open(&url, Home::Postgres(database)).await
            });
        }
        worlds
    }

    async fn open(url: &str, home: Home) -> World {
        let mut store = Store::open(url).await.unwrap();
        store.migrate().await.unwrap();
        let broker = MemoryBroker::default();
        for topic in [
            "checkout.requested",
            "checkout.completed",
            "checkout.rejected",
            "orders.new",
            "orders.short",
            "orders.cancelled",
            "dead.checkout",
        ] {
            broker.create_topic(topic, 3);
        }
        // A port that is free for now: the provider may come later, or go and come back.
        let provider = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut world = World { broker, store, provider, simulator: None, _home: home };
        for product in ["p1", "p2", "p3"] {
            world.sell(product, PIECES).await;
        }
        world
    }

    pub async fn with_provider(mut self) -> Self {
        self.start_provider().await;
        self
    }

    pub async fn start_provider(&mut self) {
        let listener = tokio::net::TcpListener::bind(self.provider).await.unwrap();
        let serving = serve(listener, SimulatorSettings::default(), std::future::pending());
        self.simulator = Some(tokio::spawn(serving).abort_handle());
    }

    /// What charges and refunds are made with.
    pub fn payments(&self) -> Payments {
        let settings = Settings {
            base_url: format!("http://{}", self.provider),
            secret_key: Some("sk_test_1".into()),
            timeout: Duration::from_secs(10),
            ..Settings::default()
        };
        Payments::new(Stripe::new(&settings).unwrap(), self.store.another(), &Handle::current())
    }

    pub fn start(&self) -> Running {
        let telemetry = Telemetry::start(&TelemetryConfig::silent("checkout")).unwrap();
        let (runtime, means) = (Handle::current(), self.payments());
        let shutdown = Shutdown::default();
        let runner = Runner::new(
            Checkout::default(),
            "",
            (
                self.broker.join("waybill.checkout", &["checkout.requested", "orders.short", "orders.cancelled"]),
                self.broker.sink(),
            ),
            self.store.another(),
            &telemetry,
            Health::default().pulse("checkout"),
            shutdown.clone(),
            Policy::default(),
            system_clock,
            Caller { runtime, means },
        );
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(runner.run()).unwrap();
        });
        Running { shutdown, thread }
    }

    pub async fn execute(&mut self, sql: &str) {
        let mut tx = self.store.begin().await.unwrap();
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match tx.connection() {
            Connection::Postgres(c) => drop(sqlx::query(sql).execute(c).await.unwrap()),
            Connection::Sqlite(c) => drop(sqlx::query(sql).execute(c).await.unwrap()),
        }
        tx.commit().await.unwrap();
    }

    pub async fn count(&mut self, sql: &str) -> i64 {
        let mut tx = self.store.begin().await.unwrap();
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        let count = match tx.connection() {
            Connection::Postgres(c) => sqlx::query_scalar(sql).fetch_one(c).await.unwrap(),
            Connection::Sqlite(c) => sqlx::query_scalar(sql).fetch_one(c).await.unwrap(),
        };
        tx.commit().await.unwrap();
        count
    }

    async fn sell(&mut self, product: &str, pieces: i64) {
        self.execute(&format!(
            "insert into products values ('{product}', 'sku-{product}', 'A thing', 'things', {PRICE}, 'EUR', 500, 100, 80, 60)"
        ))
        .await;
        let mut tx = self.store.begin().await.unwrap();
        adjust(&mut tx, &[Adjustment { product_id: product, delta: pieces }]).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A cart of customer c1, at today's prices.
    pub async fn cart(&mut self, id: &str, lines: &[(&str, u32)]) {
        self.execute(&format!(
            "insert into carts (id, user_id, country, service) values ('{id}', 'c1', 'DE', 'standard')"
        ))
        .await;
        for (product, quantity) in lines {
            self.execute(&format!("insert into cart_lines values ('{id}', '{product}', {quantity}, {PRICE}, 'EUR')"))
                .await;
        }
    }

    /// What the gateway does: keeps the payment method, publishes the request.
    pub async fn request(&mut self, order: &str, cart: &str, method: &str) {
        self.execute(&format!("insert into payment_methods values ('{order}', '{method}')")).await;
        self.publish(order, cart);
    }

    pub fn publish(&self, order: &str, cart: &str) {
        let payload = json!({"order_id": order, "customer_id": "c1", "cart_id": cart});
        self.say("gateway", "checkout.requested", order, &payload);
    }

    /// What ship says of an order that it will not ship.
    pub fn cancelled(&self, order: &str) {
        let payload = json!({"order_id": order, "customer_id": "c1", "waybill": []});
        self.say("ship", "orders.cancelled", order, &payload);
    }

    /// What pick says of an order it could not pick in full.
    pub fn short(&self, order: &str, product: &str, requested: u32, picked: u32) {
        let line = json!({"line": 1, "product_id": product, "sku": "s", "requested": requested, "picked": picked});
        let payload = json!({"order_id": order, "customer_id": "c1", "lines": [line], "waybill": []});
        self.say("pick", "orders.short", order, &payload);
    }

    fn say(&self, stage: &str, topic: &'static str, order: &str, payload: &Value) {
        let mut content = Content::new(Some(order.as_bytes()), Some(payload.to_string().as_bytes()));
        content.push_text("ce_id", event_id(stage, topic, order));
        content.push_text("ce_type", format_args!("{topic}.v1"));
        content.push_text("ce_time", system_clock());
        content.push_text("ce_source", format_args!("/waybill/{stage}"));
        content.push_text("traceparent", CALLER);
        let mut sink = self.broker.sink();
        sink.send(&[Message { topic: topic.into(), content }]);
        sink.wait(Duration::ZERO).unwrap().unwrap();
    }

    /// As if a reservation had run out and been swept.
    pub async fn release(&mut self, order: &str) {
        let mut tx = self.store.begin().await.unwrap();
        release(&mut tx, &[order]).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn until(&self, topic: &str, count: usize) -> Vec<Record> {
        eventually(&format!("{count} records on {topic}"), LIMIT, async || match self.broker.records(topic) {
            records if records.len() >= count => Ok(records),
            records => Err(format!("{} records", records.len())),
        })
        .await
    }

    pub async fn until_parked(&mut self, count: i64) {
        let mut other = self.store.another();
        eventually(&format!("{count} records are parked"), LIMIT, async || {
            let mut tx = other.begin().await.map_err(|e| e.to_string())?;
            let sql = "select count(*) from parked";
            let parked: i64 = match tx.connection() {
                Connection::Postgres(c) => sqlx::query_scalar(sql).fetch_one(c).await.unwrap(),
                Connection::Sqlite(c) => sqlx::query_scalar(sql).fetch_one(c).await.unwrap(),
            };
            tx.commit().await.map_err(|e| e.to_string())?;
            if parked == count { Ok(()) } else { Err(format!("{parked} parked")) }
        })
        .await;
    }

    pub async fn until_committed(&self, topic: &str, count: i64) {
        eventually(&format!("{count} records of {topic} are done"), LIMIT, async || {
            match self.broker.committed("waybill.checkout", topic).values().sum::<i64>() {
                done if done >= count => Ok(()),
                done => Err(format!("{done} done")),
            }
        })
        .await;
    }

    /// Waits until a record waits that no process has in hand, and lets it wait for an hour more.
    pub async fn postpone(&mut self) {
        let sql = match &self.store {
            Store::Postgres(_) => {
                "with later as (update parked set due_at = now() + interval '1 h' where leased_until <= now() returning 1)
                 select count(*) from later"
            }
            Store::Sqlite(_) => "update parked set due_at = unixepoch() + 3600 where leased_until <= unixepoch('subsec')
                                 returning 1",
        };
        let mut other = self.store.another();
        eventually("a record waits", LIMIT, async || {
            let mut tx = other.begin().await.map_err(|e| e.to_string())?;
            let postponed: Option<i64> = match tx.connection() {
                Connection::Postgres(c) => sqlx::query_scalar(sql).fetch_optional(c).await.unwrap(),
                Connection::Sqlite(c) => sqlx::query_scalar(sql).fetch_optional(c).await.unwrap(),
            };
            tx.commit().await.map_err(|e| e.to_string())?;
            if postponed.unwrap_or(0) == 1 { Ok(()) } else { Err("none".to_owned()) }
        })
        .await;
    }

    /// Changes one field of a checkout's state, as its stage would.
    pub async fn set(&mut self, order: &str, field: &str, value: &Value) {
        let set = match &self.store {
            Store::Postgres(_) => format!("jsonb_set(state, '{{{field}}}', '{value}')"),
            Store::Sqlite(_) => format!("json_set(state, '$.{field}', json('{value}'))"),
        };
        let sql = format!("update checkouts set state = {set}, version = version + 1 where key = '{order}'");
        self.execute(&sql).await;
    }

    /// As if whoever holds parked records had died some time ago.
    pub async fn lapse(&mut self) {
        let past = match &self.store {
            Store::Postgres(_) => "now() - interval '1 s'",
            Store::Sqlite(_) => "1",
        };
        self.execute(&format!("update parked set leased_until = {past}")).await;
    }

    /// The provider's own books.
    pub fn ledger(&self) -> Ledger {
        let mut stream = TcpStream::connect(self.provider).unwrap();
        stream.write_all(b"GET /ledger HTTP/1.0\r\nhost: simulator\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Charges and refunds of an order.
    pub fn paid(&self, order: &str) -> (usize, i64) {
        let ledger = self.ledger();
        let charges: Vec<_> = ledger.charges.iter().filter(|charge| charge.order_id == order).collect();
        (charges.len(), charges.iter().map(|charge| charge.amount - charge.refunded).sum())
    }

    /// Nothing is held, nothing parked, no payment method kept; sold is what was confirmed, and so is the money.
    pub async fn assert_clean_slate(&mut self, sold: i64) {
        self.assert_clean_slate_but(sold, 0).await;
    }

    /// The same where pieces came short after they were sold.
    pub async fn assert_clean_slate_but(&mut self, sold: i64, short: i64) {
        self.until_parked(0).await;
        assert_eq!(self.count("select count(*) from payment_methods").await, 0);
        let stock = stock(&mut self.store).await.unwrap();
        for s in &stock {
            assert_eq!(s.available + s.reserved + s.sold + s.shrinkage, s.received, "{s:?}");
        }
        assert_eq!(stock.iter().map(|s| s.reserved).sum::<i64>(), 0, "{stock:?}");
        assert_eq!(stock.iter().map(|s| s.sold).sum::<i64>(), sold, "{stock:?}");
        let kept: i64 = self.ledger().charges.iter().map(|c| c.amount - c.refunded).sum();
        assert_eq!(kept, (sold - short) * PRICE);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(simulator) = &self.simulator {
            simulator.abort();
        }
    }
}

pub fn json(record: &Record) -> Value {
    serde_json::from_slice(record.content.payload().unwrap()).unwrap()
}
