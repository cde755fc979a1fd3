//! Counts what comes out of the chain, and when.

use crate::side::Started;
use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nothing new for so long is a standstill.
const STANDSTILL: Duration = Duration::from_secs(90);

/// Reads the end of the chain on a thread of its own, committed transactions only.
pub struct Meter {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<anyhow::Result<Times>>>,
}

#[derive(Default)]
struct Seen {
    distinct: AtomicU64,
    duplicates: AtomicU64,
    stop: AtomicBool,
}

/// When orders entered and left the chain, milliseconds since 1970, by key.
#[derive(Default)]
pub struct Times {
    entered: HashMap<Vec<u8>, f64>,
    left: HashMap<Vec<u8>, f64>,
}

impl Times {
    /// From entering to leaving, in the order of entering, the first `skip` left out; milliseconds.
    pub fn latencies(&self, skip: usize) -> Vec<f64> {
        let mut both: Vec<(f64, f64)> =
            self.entered.iter().filter_map(|(key, entered)| Some((*entered, self.left.get(key)? - entered))).collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        both.into_iter().skip(skip).map(|(_, latency)| latency).collect()
    }
}

impl Meter {
    /// `first` is read too where latencies are wanted: an order enters with the timestamp of its record there.
    pub fn start(bootstrap: &str, first: Option<String>, last: String) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "waybill-bench")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "500")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for topic in first.iter().chain([&last]) {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
            for partition in metadata.topics().first().context("no metadata")?.partitions() {
                assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment)?;
        let seen = Arc::new(Seen::default());
        let thread = std::thread::spawn({
            let (seen, timed) = (seen.clone(), first.is_some());
            move || read(&consumer, &last, timed, &seen)
        });
        Ok(Meter { seen, thread: Some(thread) })
    }

    /// Returns as soon as so many different orders have come out.
    pub async fn until(&self, orders: u64, started: &mut Started) -> anyhow::Result<Instant> {
        let mut best = (0, Instant::now());
        loop {
            let now = Instant::now();
            let distinct = self.seen.distinct.load(Relaxed);
            if distinct >= orders {
                return Ok(now);
            }
            if distinct > best.0 {
                best = (distinct, now);
            }
            started.check()?;
            anyhow::ensure!(now - best.1 < STANDSTILL, "{distinct} of {orders} orders came out, then no more");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Records of orders that had come out before.
    pub fn duplicates(&self) -> u64 {
        self.seen.duplicates.load(Relaxed)
    }

    /// Ends the reading.
    pub fn stop(mut self) -> anyhow::Result<Times> {
        self.seen.stop.store(true, Relaxed);
        let thread = self.thread.take().context("stopped before")?;
        thread.join().map_err(|_| anyhow::anyhow!("the meter panicked"))?
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.seen.stop.store(true, Relaxed);
    }
}

fn read(consumer: &BaseConsumer, last: &str, timed: bool, seen: &Seen) -> anyhow::Result<Times> {
    let mut times = Times::default();
    let mut orders = HashSet::new();
    while !seen.stop.load(Relaxed) {
        // Errors here are a broker that is starting or ending; a standstill is told by whoever waits.
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
        let key = message.key().unwrap_or_default();
        if message.topic() != last {
            let entered = message.timestamp().to_millis().context("no timestamp")? as f64;
            times.entered.insert(key.to_vec(), entered);
        } else if orders.insert(key.to_vec()) {
            if timed {
                times.left.insert(key.to_vec(), now_ms()?);
            }
            seen.distinct.fetch_add(1, Relaxed);
        } else {
            seen.duplicates.fetch_add(1, Relaxed);
        }
    }
    Ok(times)
}

#[expect(clippy::disallowed_methods, reason = "compared with the timestamps of records, on one machine")]
fn now_ms() -> anyhow::Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1_000.0)
}
