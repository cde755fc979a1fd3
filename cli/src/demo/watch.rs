//! What the topics show while the demo runs.

use indicatif::ProgressBar;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use waybill_events::{EmailResults, OrderPlaced, OrderShort, Tell};
use waybill_spine::KafkaConfig;
use waybill_topics::Catalogue;

/// What is followed on the screen: a topic and what it means.
pub const STEPS: [(&str, &str); 4] =
    [("orders.new", "placed"), ("orders.picked", "picked"), ("orders.packed", "packed"), ("orders.shipped", "shipped")];

const WATCHED: [&str; 8] = [
    "inventory.levels",
    "orders.new",
    "orders.picked",
    "orders.short",
    "orders.packed",
    "orders.shipped",
    "notifications.email.results",
    "notifications.push.results",
];

/// What the topics show, order by order.
pub struct Watch {
    consumer: BaseConsumer,
    /// Lines of each order.
    lines: BTreeMap<String, usize>,
    seen: BTreeMap<&'static str, BTreeSet<String>>,
    /// Orders that came short, and how many of their lines were not there at all.
    short: BTreeMap<String, usize>,
    /// People who were told that a product is back, in the order in which it showed.
    told: Vec<String>,
}

impl Watch {
    /// Begins to read, from the first record.
    pub fn start(kafka: &KafkaConfig) -> anyhow::Result<Self> {
        let mut config = kafka.admin();
        let consumer: BaseConsumer = config.set("group.id", "waybill.demo").create()?;
        let mut assignment = TopicPartitionList::new();
        let catalogue = Catalogue::built_in()?;
        for topic in WATCHED {
            for partition in 0..catalogue.topic(topic).map_or(0, |t| t.partitions) {
                assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment)?;
        Ok(Watch { consumer, lines: BTreeMap::new(), seen: BTreeMap::new(), short: BTreeMap::new(), told: Vec::new() })
    }

    /// Reads what has come, for `limit` at most.
    pub fn look(&mut self, limit: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            let Some(message) = self.consumer.poll(left) else { continue };
            let message = message?;
            let Some(topic) = WATCHED.into_iter().find(|t| *t == message.topic()) else { continue };
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            let payload = message.payload().unwrap_or_default();
            if topic == "orders.new" {
                let order: OrderPlaced = serde_json::from_slice(payload)?;
                self.lines.insert(key.clone(), order.lines.len());
            }
            if topic == "orders.short" {
                let event: OrderShort = serde_json::from_slice(payload)?;
                self.short.insert(key.clone(), event.lines.iter().filter(|l| l.picked == 0).count());
            }
            if topic.ends_with(".results") {
                // Of both channels they look alike.
                let EmailResults(results) = serde_json::from_slice(payload)?;
                let sent = results.people.into_iter().filter(|told| told.result == Tell::Sent);
                self.told.extend(sent.map(|told| told.user_id));
            }
            self.seen.entry(topic).or_default().insert(key);
        }
        Ok(())
    }

    /// Reads what has come, and moves the bars.
    pub fn show(&mut self, bars: &[ProgressBar]) -> anyhow::Result<()> {
        self.look(Duration::from_millis(50))?;
        for (bar, (topic, _)) in bars.iter().zip(STEPS) {
            bar.set_position(self.count(topic));
        }
        Ok(())
    }

    /// How many keys have been seen on a topic.
    pub fn count(&self, topic: &str) -> u64 {
        self.seen.get(topic).map_or(0, |keys| keys.len() as u64)
    }

    /// People who were told that a product is back.
    pub fn told(&self) -> &[String] {
        &self.told
    }

    /// Orders of which there was nothing to ship. The topics are read in no order.
    pub fn nothing(&self) -> u64 {
        self.short.iter().filter(|(order, missing)| self.lines.get(*order) == Some(*missing)).count() as u64
    }

    /// Orders that are shipped, or never will be.
    pub fn ended(&self) -> u64 {
        self.count("orders.shipped") + self.nothing()
    }

    /// A shipped order of three lines or more, to have something to show.
    pub fn interesting(&self) -> Option<&String> {
        let shipped = self.seen.get("orders.shipped")?;
        let long = |order: &&String| self.lines.get(*order).is_some_and(|lines| *lines >= 3);
        shipped.iter().rev().find(long).or(shipped.last())
    }
}
