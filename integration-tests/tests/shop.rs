//! A shop for a test: topics and a database of its own, and the binary to run on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use waybill_checker::Chain;
use waybill_harness::{
    Database, Draft, Process, Rec, Scope, count_topic, eventually, kafka, postgres, produce, read_topic,
};

/// Long enough for a loaded machine; nobody waits for it unless something is wrong.
pub const LIMIT: Duration = Duration::from_secs(120);

pub struct Shop {
    pub bootstrap: String,
    pub scope: Scope,
    pub database: String,
    envs: Vec<(String, String)>,
    _home: Option<Database>,
}

impl Shop {
    /// On the shared servers, with topics applied and `each` units in every bin; `None` where there are none.
    pub async fn open(name: &str, each: u32) -> Option<Self> {
        let database = postgres()?.create_database(name).await.unwrap();
        let url = database.url().to_owned();
        let shop = Shop::on(name, &url).await?;
        shop.done(&["bins", "load", "--test-goods", &each.to_string()]);
        Some(Shop { _home: Some(database), ..shop })
    }

    /// On a database that the test owns.
    pub async fn on(name: &str, database: &str) -> Option<Self> {
        let shop = Shop::at(kafka()?.bootstrap(), name, database);
        shop.done(&["topics", "apply"]);
        Some(shop)
    }

    /// On a broker that the test owns, whose topics are still to be applied.
    pub fn at(bootstrap: &str, name: &str, database: &str) -> Self {
        Shop {
            bootstrap: bootstrap.to_owned(),
            scope: Scope::new(bootstrap, name),
            database: database.to_owned(),
            envs: vec![telemetry_off(), no_pages()],
            _home: None,
        }
    }

    /// The same shop where its topics are not.
    pub fn without_topics(self) -> Self {
        Shop { scope: Scope::new(&self.bootstrap, "no-topics"), ..self }
    }

    /// Spans and metrics go to `endpoint`, quickly.
    pub fn export_to(&mut self, endpoint: &str) {
        self.envs = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "300"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        self.envs.push(no_pages());
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.envs.push((key.to_owned(), value.to_owned()));
    }

    pub fn unset(&mut self, key: &str) {
        self.envs.retain(|(set, _)| set != key);
    }

    fn args<'a>(&'a self, args: &[&'a str], database: &'a str) -> Vec<&'a str> {
        let mut all = args.to_vec();
        all.extend(["--brokers", &self.bootstrap, "--database", database, "--prefix", self.scope.prefix()]);
        all
    }

    /// Runs a command to its end.
    pub fn command(&self, args: &[&str]) -> Output {
        std::process::Command::new(binary())
            .args(self.args(args, &self.database))
            .envs(self.envs.clone())
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    pub fn done(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "waybill {args:?}: {} {error}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a process of these stages.
    pub fn run(&self, stages: &[&str]) -> Process {
        self.run_on(stages, &self.database)
    }

    /// The same, of another build.
    pub fn run_of(&self, binary: &Path, stages: &[&str]) -> Process {
        let args: Vec<&str> = ["run"].iter().chain(stages).copied().collect();
        Process::spawn(binary, self.args(&args, &self.database), self.envs.clone()).unwrap()
    }

    /// The same, with another way to the database.
    pub fn run_on(&self, stages: &[&str], database: &str) -> Process {
        let args: Vec<&str> = ["run"].iter().chain(stages).copied().collect();
        Process::spawn(binary(), self.args(&args, database), self.envs.clone()).unwrap()
    }

    /// Starts a process of these stages that reaches the brokers in its own way.
    pub fn run_as(&self, stages: &[&str], brokers: &str, way: &[(&str, String)]) -> Process {
        let args: Vec<&str> = ["run"].iter().chain(stages).copied().chain(self.at_brokers(brokers)).collect();
        Process::spawn(binary(), args, self.envs_with(way)).unwrap()
    }

    /// Runs a command that reaches the brokers in its own way to its end.
    pub fn command_as(&self, args: &[&str], brokers: &str, way: &[(&str, String)]) -> Output {
        let args = args.iter().copied().chain(self.at_brokers(brokers));
        std::process::Command::new(binary()).args(args).envs(self.envs_with(way)).output().unwrap()
    }

    fn at_brokers<'a>(&'a self, brokers: &'a str) -> [&'a str; 6] {
        ["--brokers", brokers, "--database", &self.database, "--prefix", self.scope.prefix()]
    }

    fn envs_with(&self, way: &[(&str, String)]) -> Vec<(String, String)> {
        let more = way.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        self.envs.iter().cloned().chain(more).collect()
    }

    /// Starts any command.
    pub fn start(&self, args: &[&str]) -> Process {
        Process::spawn(binary(), self.args(args, &self.database), self.envs.clone()).unwrap()
    }

    pub fn read(&self, topic: &str) -> Vec<Rec> {
        read_topic(&self.bootstrap, &self.scope.topic(topic)).unwrap()
    }

    pub fn count(&self, topic: &str) -> i64 {
        count_topic(&self.bootstrap, &self.scope.topic(topic)).unwrap()
    }

    /// Waits until so many distinct orders stand on `topic`.
    pub async fn until(&self, topic: &str, orders: usize) -> Vec<Rec> {
        eventually(&format!("{orders} orders on {topic}"), LIMIT, async || {
            // Counting is cheap, reading is not.
            let records = self.count(topic);
            if records < i64::try_from(orders).unwrap() {
                return Err(format!("{records} records"));
            }
            let records = self.read(topic);
            let found = distinct(&records).len();
            if found >= orders { Ok(records) } else { Err(format!("{found} orders in {} records", records.len())) }
        })
        .await
    }

    /// Asks to cancel orders, as the gateway does.
    pub async fn ask_to_cancel(&self, orders: &[&str]) {
        let ask = |order: &&str| {
            Draft::json(order, &serde_json::json!({"order_id": order, "customer_id": "c-1"}))
                .header("ce_id", format!("cancel-{order}"))
                .header("ce_type", "orders.cancel_requested.v1")
                .header("ce_source", "/waybill/gateway")
                .header("ce_dataschema", "urn:waybill:schema:orders.cancel_requested:v1")
                .header("ce_time", "2026-11-21T10:00:00Z")
        };
        let drafts = orders.iter().map(ask).collect();
        produce(&self.bootstrap, &self.scope.topic("orders.cancel_requested"), drafts).await.unwrap();
    }

    /// Sum of the offsets that a stage has committed on its topic.
    pub fn committed(&self, stage: &str, topic: &str) -> i64 {
        let group = self.scope.group(&format!("waybill.{stage}"));
        let committed = waybill_harness::committed(&self.bootstrap, &group, &self.scope.topic(topic)).unwrap();
        committed.iter().map(|(_, offset)| offset).sum()
    }

    /// Waits until a stage has committed everything that stands on its topic.
    pub async fn until_committed(&self, stage: &str, topic: &str) {
        eventually(&format!("{stage} has committed all of {topic}"), LIMIT, async || {
            let group = self.scope.group(&format!("waybill.{stage}"));
            // A group that is new to the cluster has no coordinator for a moment.
            let committed = waybill_harness::committed(&self.bootstrap, &group, &self.scope.topic(topic));
            let committed: i64 =
                committed.map_err(|error| format!("{error:#}"))?.iter().map(|(_, offset)| offset).sum();
            let records = self.count(topic);
            if committed == records { Ok(()) } else { Err(format!("{committed} of {records}")) }
        })
        .await;
    }

    /// Statements that only a test has a use for.
    pub async fn execute(&self, sql: &str) {
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&self.database).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }

    /// One number from the database, by a statement put together.
    pub async fn sum(&self, sql: &str) -> i64 {
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&self.database).await.unwrap();
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
    }

    /// One text from the database, by a statement put together.
    pub async fn text(&self, sql: &str) -> String {
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&self.database).await.unwrap();
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
    }

    /// One number from the database.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&self.database).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }

    /// For the checker; `units`: in the bins at the start.
    pub fn chain(&self, units: i64) -> Chain {
        Chain {
            bootstrap: self.bootstrap.clone(),
            prefix: self.scope.prefix().to_owned(),
            database: self.database.clone(),
            units,
        }
    }

    /// What always holds of a drained shop, told by topics and tables alone. `units`: in the bins at the start.
    pub async fn check(&self, orders: usize, units: i64) {
        let report = self.chain(units).check().await.unwrap();
        assert!(report.violations.is_empty(), "{report}");
        assert_eq!(report.orders, orders, "{report}");
        assert_eq!(report.dead, 0, "{report}");
    }
}

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_waybill"))
}

fn telemetry_off() -> (String, String) {
    ("OTEL_SDK_DISABLED".to_owned(), "true".to_owned())
}

/// Tests run side by side, and the pages have one port.
fn no_pages() -> (String, String) {
    ("WAYBILL_PAGES_LISTEN".to_owned(), String::new())
}

/// The keys of records.
pub fn distinct(records: &[Rec]) -> BTreeSet<&str> {
    records.iter().map(|r| r.key_str().unwrap()).collect()
}

/// The events by their id; the same id must always be the same event.
pub fn once_by_id(records: &[Rec]) -> BTreeMap<String, serde_json::Value> {
    let mut events: BTreeMap<String, &Rec> = BTreeMap::new();
    for record in records {
        let id = record.header("ce_id").unwrap();
        let first = events.entry(id.to_owned()).or_insert(record);
        assert_eq!(first.payload, record.payload, "{id} stands for two events");
        assert_eq!(first.headers, record.headers, "{id} stands for two events");
    }
    events.into_iter().map(|(id, record)| (id, record.json().unwrap())).collect()
}
