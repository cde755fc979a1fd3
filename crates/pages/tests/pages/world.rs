//! The pages of one test, on a database of their own. No broker is there.

use crate::made::{BEGUN, Made};
use jiff::Timestamp;
use std::collections::HashMap;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use waybill_harness::{Database, postgres};
use waybill_pages::{Pages, Settings};
use waybill_spine::KafkaConfig;
use waybill_store::{Connection, Store};

pub struct World {
    pub store: Store,
    pub at: SocketAddr,
    _database: Option<Database>,
    _folder: Option<tempfile::TempDir>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// The pages' clock stands two hours after the orders of these tests were asked for.
fn clock() -> Timestamp {
    let begun: Timestamp = BEGUN.parse().unwrap();
    begun.checked_add(jiff::SignedDuration::from_hours(2)).unwrap()
}

impl World {
    /// On SQLite and, where there is one, on Postgres.
    pub async fn both(name: &str) -> Vec<World> {
        let mut worlds = vec![World::sqlite(Settings::default()).await];
        if let Some(postgres) = postgres() {
            let database = postgres.create_database(name).await.unwrap();
            let world = World::open(database.url(), Settings::default()).await;
            worlds.push(World { _database: Some(database), ..world });
        }
        worlds
    }

    pub async fn sqlite(settings: Settings) -> World {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("shop.db").display());
        let world = World::open(&url, settings).await;
        World { _folder: Some(folder), ..world }
    }

    async fn open(url: &str, settings: Settings) -> World {
        let mut store = Store::open(url).await.unwrap();
        store.migrate().await.unwrap();
        let nowhere = [("bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned())].into();
        let kafka = KafkaConfig::new(nowhere, String::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let opened = settings.open().unwrap().unwrap();
        let pages = Pages::new(opened, store.another(), &kafka, clock).unwrap();
        // It ends with the runtime of its test.
        tokio::spawn(async move { pages.serve(listener, std::future::pending()).await.unwrap() });
        World { store, at, _database: None, _folder: None }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[("host", "localhost")], "").await
    }

    /// A page that must be there.
    pub async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Answer { status, headers: lines.filter_map(header).collect(), body: body.to_owned() }
    }

    /// Statements that only a test has a use for.
    pub async fn execute(&mut self, sql: &str) {
        let mut tx = self.store.begin().await.unwrap();
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match tx.connection() {
            Connection::Postgres(c) => drop(sqlx::raw_sql(sql).execute(c).await.unwrap()),
            Connection::Sqlite(c) => drop(sqlx::raw_sql(sql).execute(c).await.unwrap()),
        }
        tx.commit().await.unwrap();
    }

    /// An order as the checkout keeps it.
    pub async fn order(&mut self, id: &str, status: &str, requested_at: &str) {
        let state = serde_json::json!({
            "status": status, "requested_at": requested_at, "item_count": 2, "awaits": null,
            "total": {"amount_minor": 4711, "currency": "EUR"}, "refunded_minor": 0,
        });
        self.keep("checkouts", id, &state.to_string(), &[]).await;
    }

    /// What stages keep.
    pub async fn kept(&mut self, id: &str, made: &[Made]) {
        for Made { table, messages } in made {
            self.keep(table, id, r#"{"status": "shipped", "requested_at": "2026-11-20T09:00:00Z"}"#, messages).await;
        }
    }

    async fn keep(&mut self, table: &'static str, id: &str, state: &str, messages: &[waybill_spine::Message]) {
        let row = waybill_store::Decided {
            key: id.to_owned(),
            version: 1,
            state: state.to_owned(),
            answer: postcard::to_stdvec(messages).unwrap(),
        };
        let mut tx = self.store.begin().await.unwrap();
        tx.save(waybill_store::Table(table), &[row]).await.unwrap();
        tx.commit().await.unwrap();
    }
}
