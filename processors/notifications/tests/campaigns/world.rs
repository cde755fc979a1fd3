//! A product, those who wait for it, and fanout.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use waybill_events::{Batch, EmailResults, PushResults, Restocked, Results, Tell, Told};
use waybill_harness::{Database, eventually, postgres};
use waybill_notifications::{Factor, Fanout, FanoutSettings, Planner};
use waybill_spine::memory::MemoryBroker;
use waybill_spine::{BareEvent, Caller, Emit, Health, Policy, Runner, Shutdown, Sink as _, system_clock};
use waybill_store::{Connection, Store};
use waybill_telemetry::{Telemetry, TelemetryConfig, Waybill};

pub const LIMIT: Duration = Duration::from_secs(60);
/// The channels, as subscriptions and topics name them.
pub const CHANNELS: [&str; 2] = ["email", "push"];

/// Waves follow each other at once, so that a test need not wait.
pub fn at_once(factor: Factor) -> FanoutSettings {
    FanoutSettings { factor, pause: SignedDuration::ZERO, spacing: SignedDuration::ZERO, ..FanoutSettings::default() }
}

/// Where the data is; held, not used.
#[expect(dead_code, reason = "dropping it removes the database")]
enum Home {
    Postgres(Database),
    Sqlite(tempfile::TempDir),
}

pub struct World {
    pub store: Store,
    broker: MemoryBroker,
    /// Batches that the senders have answered.
    answered: BTreeSet<String>,
    running: Option<(Shutdown, JoinHandle<()>)>,
    _home: Home,
}

/// Runs a test on both databases.
macro_rules! on_both {
    ($($name:ident => $test:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for world in crate::world::World::each(stringify!($test)).await {
                $test(world).await;
            }
        }
    )*};
}
pub(crate) use on_both;

impl World {
    pub async fn each(name: &str) -> Vec<World> {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        let mut worlds = vec![World::open(&url, Home::Sqlite(folder)).await];
        if let Some(server) = postgres() {
            let database = server.create_database(name).await.unwrap();
            let url = database.url().to_owned();
            worlds.push(World::open(&url, Home::Postgres(database)).await);
        }
        worlds
    }

    async fn open(url: &str, home: Home) -> World {
        let mut store = Store::open(url).await.unwrap();
        store.migrate().await.unwrap();
        let broker = MemoryBroker::default();
        broker.create_topic("inventory.restocked", 3);
        broker.create_topic("dead.fanout", 3);
        for channel in CHANNELS {
            broker.create_topic(&format!("notifications.{channel}"), 3);
            broker.create_topic(&format!("notifications.{channel}.results"), 3);
        }
        World { store, broker, answered: BTreeSet::new(), running: None, _home: home }
    }

    pub fn start(&mut self, settings: FanoutSettings) {
        let telemetry = Telemetry::start(&TelemetryConfig::silent("fanout")).unwrap();
        let (runtime, shutdown) = (Handle::current(), Shutdown::default());
        let means = Planner::new(settings, self.store.another(), &runtime);
        let topics = ["inventory.restocked", "notifications.email.results", "notifications.push.results"];
        let runner = Runner::new(
            Fanout::new(settings),
            "",
            (self.broker.join("waybill.fanout", &topics), self.broker.sink()),
            self.store.another(),
            &telemetry,
            Health::default().pulse("fanout"),
            shutdown.clone(),
            Policy::default(),
            system_clock,
            Caller { runtime, means },
        );
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(runner.run()).unwrap();
        });
        self.running = Some((shutdown, thread));
    }

    pub async fn execute(&mut self, sql: &str) {
        let mut tx = self.store.begin().await.unwrap();
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match tx.connection() {
            Connection::Postgres(c) => drop(sqlx::raw_sql(sql).execute(c).await.unwrap()),
            Connection::Sqlite(c) => drop(sqlx::raw_sql(sql).execute(c).await.unwrap()),
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

    /// So many pieces of the product are to be had since this version of nothing.
    pub async fn stock(&mut self, available: i64, last_zero_version: i64) {
        let sql = format!(
            "delete from stock; insert into stock (product_id, received, available, version, last_zero_version)
             values ('p', {available}, {available}, {last_zero_version} + 1, {last_zero_version})"
        );
        self.execute(&sql).await;
    }

    /// People who wait: number, channel, pieces wanted, days until they do not wait any more.
    pub async fn wait(&mut self, people: impl Iterator<Item = (i64, &str, i64, i64)>) {
        let in_days = |days: i64| match self.store {
            Store::Postgres(_) => format!("now() + interval '{days} days'"),
            Store::Sqlite(_) => format!("unixepoch('subsec') + {days} * 86400"),
        };
        let rows: Vec<String> = people
            .map(|(n, channel, quantity, days)| format!("('p', 'u-{n}', '{channel}', {quantity}, {})", in_days(days)))
            .collect();
        let sql = "insert into subscriptions (product_id, user_id, channel, quantity, expires_at) values";
        self.execute(&format!("{sql} {}", rows.join(", "))).await;
    }

    /// A restock is told of, so many seconds from now.
    pub fn restock(&self, zero_version: i64, in_seconds: i64) {
        let now = system_clock();
        let event = Restocked {
            product_id: "p".into(),
            zero_version,
            version: zero_version + 1,
            available: 1,
            restocked_at: now - SignedDuration::from_secs(1),
            tell_at: now + SignedDuration::from_secs(in_seconds),
            waybill: Waybill::none(),
        };
        self.say("restock", &format!("p/{zero_version}"), Box::new(event));
    }

    fn say(&self, stage: &str, subject: &str, event: Box<dyn Emit>) {
        let time = Timestamp::UNIX_EPOCH;
        let mut event = BareEvent { event, subject: subject.to_owned(), time, waybill: Waybill::none() };
        let mut sink = self.broker.sink();
        sink.send(&[event.message(stage).unwrap()]);
        assert!(sink.wait(LIMIT).unwrap().unwrap().indexes.is_empty());
    }

    /// The batches that were published, by channel and number; one that came twice is the same twice.
    pub fn batches(&self) -> Vec<(&'static str, Batch)> {
        let mut batches = BTreeMap::new();
        for channel in CHANNELS {
            for record in self.broker.records(&format!("notifications.{channel}")) {
                let batch: Batch = serde_json::from_slice(record.content.payload().unwrap()).unwrap();
                let (campaign, number) = batch.batch_id.rsplit_once('.').unwrap();
                let place = (campaign.to_owned(), number.parse::<i32>().unwrap());
                let before = batches.insert(place.clone(), (channel, batch));
                assert!(before.is_none_or(|before| before == batches[&place]));
            }
        }
        batches.into_values().collect()
    }

    /// Whom a sender finds in a batch: subscription and user.
    pub async fn people(&mut self, channel: &str, batch: &Batch) -> Vec<(i64, String)> {
        let sql = format!(
            "select id, user_id from subscriptions where product_id = '{}' and channel = '{channel}'
             and id > {} and id <= {} order by id",
            batch.product_id, batch.after, batch.to
        );
        let mut tx = self.store.begin().await.unwrap();
        let people = match tx.connection() {
            Connection::Postgres(c) => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c).await.unwrap(),
            Connection::Sqlite(c) => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c).await.unwrap(),
        };
        tx.commit().await.unwrap();
        people
    }

    pub fn answer(&self, channel: &str, batch: &Batch, people: Vec<Told>) {
        let results = Results {
            batch_id: batch.batch_id.clone(),
            campaign_id: batch.campaign_id.clone(),
            product_id: batch.product_id.clone(),
            sold_out: people.is_empty(),
            people,
            waybill: Waybill::none(),
        };
        match channel {
            "email" => self.say("email", &batch.batch_id, Box::new(EmailResults(results))),
            _ => self.say("push", &batch.batch_id, Box::new(PushResults(results))),
        }
    }

    /// The campaign of a restock, as it is kept.
    pub async fn campaign(&mut self, zero_version: i64) -> Value {
        let sql = format!("select key || ' ' || state from campaigns where key = 'p/{zero_version}'");
        let mut tx = self.store.begin().await.unwrap();
        let row: Option<String> = match tx.connection() {
            Connection::Postgres(c) => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_optional(c).await.unwrap(),
            Connection::Sqlite(c) => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_optional(c).await.unwrap(),
        };
        tx.commit().await.unwrap();
        row.map_or(json!(null), |row| serde_json::from_str(row.split_once(' ').unwrap().1).unwrap())["campaign"].clone()
    }

    /// Plays the senders, who tell everyone, until the campaign has ended; whom they told, in the order of the batches,
    /// and how it ended.
    pub async fn tell_until_the_end(&mut self, zero_version: i64) -> (Vec<String>, Value) {
        let mut told = Vec::new();
        let campaign = self.tell(zero_version, |_, user| {
            told.push(user.to_owned());
            Tell::Sent
        });
        let campaign = campaign.await;
        (told, campaign)
    }

    /// Plays the senders, batch by batch, until the campaign has ended.
    pub async fn tell(&mut self, zero_version: i64, mut result: impl FnMut(&Batch, &str) -> Tell) -> Value {
        let begun = std::time::Instant::now();
        loop {
            for (channel, batch) in self.batches() {
                if self.answered.insert(batch.batch_id.clone()) {
                    let people = self.people(channel, &batch).await;
                    let told = |(subscription_id, user_id): (i64, String)| {
                        let result = result(&batch, &user_id);
                        Told { subscription_id, user_id, result }
                    };
                    let told = people.into_iter().map(told).collect();
                    self.answer(channel, &batch, told);
                }
            }
            let campaign = self.campaign(zero_version).await;
            if campaign["doing"] == "ended" {
                return campaign;
            }
            assert!(begun.elapsed() < LIMIT, "it has not ended: {campaign}, answered {:?}", self.answered);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until so many rows are counted.
    pub async fn until(&mut self, what: &str, sql: &str, expected: i64) {
        eventually(what, LIMIT, async || match self.count(sql).await {
            found if found == expected => Ok(()),
            found => Err(format!("{found}")),
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((shutdown, thread)) = self.running.take() {
            shutdown.request();
            thread.join().ok();
        }
        assert!(std::thread::panicking() || self.broker.records("dead.fanout").is_empty(), "dead letters");
    }
}
