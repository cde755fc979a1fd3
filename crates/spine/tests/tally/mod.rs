//! A stage that adds numbers up, and a world to run it in.

pub mod notes;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use waybill_harness::eventually;
use waybill_spine::memory::MemoryBroker;
use waybill_spine::{
    BareEvent, Call, Caller, Clock, Content, Decision, Details, Emit, Event, Health, Input, Message, Outcome, Policy,
    Record, Refusal, Runner, Shutdown, Sink, Stage, system_clock,
};
use waybill_store::{Connection, Store, StoreError, Table, Tx};
use waybill_telemetry::{Carrier, Telemetry, TelemetryConfig, Waybill};

pub const ORIGIN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const PRODUCER: &str = "00-11111111111111111111111111111111-2222222222222222-01";
const LIMIT: Duration = Duration::from_secs(30);

/// What the stage is to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Do {
    /// Answer once.
    Emit,
    /// Answer every time.
    Add,
    Ignore,
    Reject,
    Panic,
    AnswerTooLarge,
    ParkUntilReleased,
    ParkForEver,
    /// Ask the oracle what to add.
    Ask,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Number {
    pub key: String,
    /// What it is about, if not its key.
    pub subject: Option<String>,
    pub number: i64,
    pub what: Do,
    pub waybill: Waybill,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counted {
    pub key: String,
    pub sum: i64,
    pub filler: String,
    pub waybill: Waybill,
}

impl Input for Number {
    const TOPICS: &'static [(&'static str, &'static str)] = &[("numbers", "numbers.v1")];

    fn read(_: &str, payload: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(payload)
    }
    fn key(&self) -> &str {
        &self.key
    }
    fn subject(&self) -> &str {
        self.subject.as_ref().unwrap_or(&self.key)
    }
    fn waybill(&self) -> &Waybill {
        &self.waybill
    }
    fn check(&self) -> Result<(), String> {
        if self.key == "bad" { Err("this key is bad".to_owned()) } else { Ok(()) }
    }
}

impl Event for Counted {
    const TOPIC: &'static str = "sums";
    const SCHEMA: &'static str = "sums.v1";

    fn key(&self) -> &str {
        &self.key
    }
    fn waybill(&self) -> &Waybill {
        &self.waybill
    }
    fn set_waybill(&mut self, waybill: &Waybill) {
        self.waybill.clone_from(waybill);
    }
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Sum {
    sum: i64,
    /// The number the oracle is asked about, and the last one it was.
    asked: Option<i64>,
    told: Option<i64>,
}

/// Somebody outside, who says twice the number when let.
#[derive(Clone, Default)]
pub struct Oracle {
    pub asked: Arc<Mutex<Vec<i64>>>,
    pub silent: Arc<AtomicBool>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Question(i64);

impl Call for Question {
    type Means = Oracle;
    type Answer = i64;

    async fn make(self, oracle: Oracle, _: bool) -> i64 {
        oracle.asked.lock().unwrap().push(self.0);
        while oracle.silent.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        2 * self.0
    }
}

pub struct Tally(Arc<AtomicBool>);

impl Stage for Tally {
    const NAME: &'static str = "tally";
    const FLOW: &'static str = "test";
    const SPAN: &'static str = "test.tally";
    const TABLE: Table = Table("picks");
    const PATIENCE: Duration = Duration::from_millis(400);
    const CHORES: bool = true;
    type Event = Number;
    type State = Sum;
    type Shared = ();
    type Call = Question;

    fn decide(&self, (): &mut (), state: Option<&Sum>, event: &Number, _: jiff::Timestamp) -> Outcome<Sum, Question> {
        let wait = Duration::from_millis(50);
        let filler = if event.what == Do::AnswerTooLarge { "x".repeat(600 << 10) } else { String::new() };
        let (sum, told) = state.map_or((0, None), |s| (s.sum, s.told));
        match event.what {
            Do::Emit if state.is_some() => Outcome::Repeat,
            Do::ParkUntilReleased if !self.0.load(SeqCst) => Outcome::Park { wait, why: "not released".into() },
            Do::ParkForEver => Outcome::Park { wait, why: "never".into() },
            Do::Ignore => Outcome::Ignore("asked to"),
            Do::Reject => Outcome::Reject(Refusal::new("not_wanted", "the stage does not want it")),
            Do::Panic => panic!("asked to"),
            Do::Ask if told == Some(event.number) => Outcome::Repeat,
            Do::Ask => Outcome::Call {
                state: Sum { sum, asked: Some(event.number), told },
                call: Question(event.number),
                wait: Duration::ZERO,
                span: Details { events: vec![("asked", vec![])], ..Details::default() },
            },
            Do::Emit | Do::Add | Do::AnswerTooLarge | Do::ParkUntilReleased => {
                emit(event, Sum { sum: sum + event.number, asked: None, told }, filler)
            }
        }
    }

    fn settle(
        &self,
        (): &mut (),
        state: Option<&Sum>,
        event: &Number,
        answer: &i64,
        _: jiff::Timestamp,
    ) -> Outcome<Sum, Question> {
        match state {
            Some(Sum { sum, asked, .. }) if *asked == Some(event.number) => {
                emit(event, Sum { sum: sum + answer, asked: None, told: *asked }, String::new())
            }
            _ => Outcome::Repeat,
        }
    }

    async fn tend(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        notes::ring(tx).await
    }

    async fn outbox(&self, tx: &mut Tx<'_>, most: i64) -> Result<Vec<BareEvent>, StoreError> {
        notes::oldest(tx, most).await
    }

    async fn forget(&self, tx: &mut Tx<'_>, published: &[BareEvent]) -> Result<(), StoreError> {
        notes::forget(tx, published).await
    }
}

fn emit(event: &Number, state: Sum, filler: String) -> Outcome<Sum, Question> {
    let (key, sum, waybill) = (event.key.clone(), state.sum, Waybill::default());
    let events: Vec<Box<dyn Emit>> = vec![Box::new(Counted { key, sum, filler, waybill })];
    Outcome::Emit(Decision { state, events, span: Details::default() })
}

/// The value of a text header.
pub fn text<'a>(record: &'a Record, name: &str) -> &'a str {
    record.content.header(name).unwrap_or_default()
}

/// The sum an answer tells.
pub fn sum(answer: &Record) -> i64 {
    serde_json::from_slice::<Counted>(answer.content.payload().unwrap()).unwrap().sum
}

pub fn message(id: &str, key: &str, subject: Option<&str>, number: i64, what: Do) -> Message {
    let stamp = |stage: &str, n: u8| {
        serde_json::json!({"stage": stage, "trace_id": format!("{n:032x}"), "span_id": format!("{n:016x}"),
            "trace_flags": "01", "started_at": "2026-11-21T10:00:00Z", "ended_at": "2026-11-21T10:00:01Z"})
    };
    let payload = serde_json::json!({
        "key": key, "subject": subject, "number": number, "what": what, "waybill": [stamp("first", 1), stamp("second", 2)]});
    let headers = [
        ("ce_id", id),
        ("ce_type", "numbers.v1"),
        ("ce_time", "2026-11-21T10:00:01Z"),
        ("ce_source", "/test/elsewhere"),
        ("ce_traceparent", ORIGIN),
        ("traceparent", PRODUCER),
    ];
    built(Some(key.as_bytes()), Some(payload.to_string().as_bytes()), &headers)
}

fn built(key: Option<&[u8]>, payload: Option<&[u8]>, headers: &[(&str, &str)]) -> Message {
    let mut content = Content::new(key, payload);
    headers.iter().for_each(|(name, value)| content.push_text(name, value));
    Message { topic: "numbers".into(), content }
}

/// Records that cannot be accepted, each with the reason it must be given.
pub fn bad_records() -> Vec<(&'static str, Message)> {
    let good = message("id", "k", None, 1, Do::Emit);
    let good = &good.content;
    let headers: Vec<(&str, &str)> = good.headers().map(|(name, _)| (name, good.header(name).unwrap())).collect();
    let but = |key: Option<&[u8]>, payload: Option<&[u8]>| built(key, payload, &headers);
    let without = |name: &str| {
        let others: Vec<_> = headers.iter().copied().filter(|(n, _)| *n != name).collect();
        built(good.key(), good.payload(), &others)
    };
    let with = |name: &str, value: &str| {
        let mut message = without(name);
        message.content.push_text(name, value);
        message
    };
    vec![
        ("no_key", but(None, good.payload())),
        ("no_payload", but(good.key(), None)),
        ("unreadable", but(good.key(), Some(b"{\"key\": \xff"))),
        ("key_mismatch", but(Some(b"other"), good.payload())),
        ("missing_header", without("ce_id")),
        ("bad_header", with("ce_time", "yesterday")),
        ("unknown_version", with("ce_type", "numbers.v9")),
        ("unknown_type", with("ce_type", "letters.v1")),
        ("invalid", message("id", "bad", None, 1, Do::Emit)),
    ]
}

/// A broker, a database, a stage.
pub struct World {
    pub broker: MemoryBroker,
    store: Store,
    released: Arc<AtomicBool>,
    pub oracle: Oracle,
    _folder: tempfile::TempDir,
}

/// A running loop.
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
    pub async fn new() -> Self {
        let broker = MemoryBroker::default();
        for topic in ["numbers", "sums", "notes", "dead.tally"] {
            broker.create_topic(topic, 3);
        }
        broker.create_topic("redrive.tally", 1);
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        let mut store = Store::open(&url).await.unwrap();
        store.migrate().await.unwrap();
        notes::create(&mut store).await;
        World { broker, store, released: Arc::default(), oracle: Oracle::default(), _folder: folder }
    }

    pub fn start(&self) -> Running {
        self.start_with_sink(true)
    }

    /// With `sink` false, what is published is never acknowledged.
    pub fn start_with_sink(&self, sink: bool) -> Running {
        let telemetry = Telemetry::start(&TelemetryConfig::silent("test")).unwrap();
        let shutdown = Shutdown::default();
        let source = self.broker.join("waybill.tally", &["numbers", "redrive.tally"]);
        let nowhere = MemoryBroker::default();
        nowhere.set_away(true);
        let sink = if sink { self.broker.sink() } else { nowhere.sink() };
        let caller = Caller { runtime: Handle::current(), means: self.oracle.clone() };
        let stage = (Tally(self.released.clone()), caller);
        let thread = run(stage, source, sink, self.store.another(), telemetry, &shutdown);
        Running { shutdown, thread }
    }

    pub fn release(&self) {
        self.released.store(true, SeqCst);
    }

    pub fn send(&self, key: &str, number: i64, what: Do) {
        self.send_as(&format!("{key}-{number}"), key, number, what);
    }

    pub fn send_as(&self, id: &str, key: &str, number: i64, what: Do) {
        self.send_message(message(id, key, None, number, what));
    }

    /// A number that is not about its key.
    pub fn send_about(&self, subject: &str, key: &str, number: i64, what: Do) {
        self.send_message(message(subject, key, Some(subject), number, what));
    }

    pub fn send_message(&self, message: Message) {
        let mut sink = self.broker.sink();
        sink.send(&[message]);
        sink.wait(Duration::ZERO).unwrap().unwrap();
    }

    pub fn answers(&self) -> Vec<Record> {
        self.broker.records("sums")
    }

    pub fn committed(&self) -> i64 {
        let offsets: BTreeMap<i32, i64> = self.broker.committed("waybill.tally", "numbers");
        offsets.values().sum()
    }

    /// The state kept under a key.
    pub async fn kept(&self, key: &str) -> Option<String> {
        let mut store = self.store.another();
        let mut tx = store.begin().await.unwrap();
        let known = tx.known(Table("picks"), "tally", &[key]).await.unwrap();
        tx.commit().await.unwrap();
        known.decided.into_iter().next().map(|d| d.state.replace("\":", "\": "))
    }

    pub async fn until_kept(&self, key: &str, state: &str) {
        eventually(&format!("{key} is {state}"), LIMIT, async || match self.kept(key).await {
            Some(kept) if kept == state => Ok(()),
            kept => Err(format!("{kept:?}")),
        })
        .await;
    }

    /// Runs statements on the database.
    pub async fn execute(&self, sql: &'static str) {
        let mut store = self.store.another();
        let mut tx = store.begin().await.unwrap();
        let Connection::Sqlite(connection) = tx.connection() else { unreachable!() };
        sqlx::raw_sql(sql).execute(connection).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// As if whoever holds parked records had died some time ago.
    pub async fn lapse(&self) {
        self.execute("update parked set leased_until = 1").await;
    }

    pub async fn until_asked(&self, count: usize) {
        let what = format!("the oracle is asked {count} times");
        eventually(&what, LIMIT, async || match self.oracle.asked.lock().unwrap().len() {
            asked if asked >= count => Ok(()),
            asked => Err(format!("{asked} times")),
        })
        .await;
    }

    pub async fn until_answered(&self, count: usize) {
        let what = format!("{count} answers");
        eventually(&what, LIMIT, async || match self.answers().len() {
            found if found >= count => Ok(()),
            found => Err(format!("{found} answers")),
        })
        .await;
    }

    pub async fn until_committed(&self, count: i64) {
        let what = format!("{count} offsets committed");
        eventually(&what, LIMIT, async || match self.committed() {
            found if found >= count => Ok(()),
            found => Err(format!("{found} committed")),
        })
        .await;
    }

    pub async fn until_dead(&self, count: usize) -> Vec<Record> {
        let what = format!("{count} dead letters");
        eventually(&what, LIMIT, async || match self.broker.records("dead.tally") {
            found if found.len() >= count => Ok(found),
            found => Err(format!("{} dead letters", found.len())),
        })
        .await
    }

    pub async fn until_nothing_is_parked(&self) {
        self.until_no_rows("select count(*) from parked").await;
    }

    pub async fn until_no_rows(&self, count: &'static str) {
        eventually(&format!("{count} is 0"), LIMIT, async || {
            let mut store = self.store.another();
            let mut tx = store.begin().await.map_err(|e| e.to_string())?;
            let Connection::Sqlite(connection) = tx.connection() else { unreachable!() };
            let rows: i64 = sqlx::query_scalar(count).fetch_one(connection).await.unwrap();
            tx.commit().await.map_err(|e| e.to_string())?;
            if rows == 0 { Ok(()) } else { Err(format!("{rows} rows")) }
        })
        .await;
    }
}

fn run(
    (stage, caller): (Tally, Caller<Question>),
    source: waybill_spine::memory::MemorySource,
    sink: waybill_spine::memory::MemorySink,
    store: Store,
    telemetry: Telemetry,
    shutdown: &Shutdown,
) -> JoinHandle<()> {
    let pulse = Health::default().pulse("tally");
    let shutdown = shutdown.clone();
    std::thread::spawn(move || {
        let clock: Clock = system_clock;
        let runner = Runner::new(
            stage,
            "",
            (source, sink),
            store,
            &telemetry,
            pulse,
            shutdown,
            Policy::default(),
            clock,
            caller,
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(runner.run()).unwrap();
    })
}
