//! The orders as the topics tell them.

use crate::Report;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use waybill_harness::{Rec, read_topic};

const STAGES: [&str; 4] = ["checkout", "pick", "pack", "ship"];
/// A topic, and how many stages its events have behind them.
const TOPICS: [(&str, usize); 5] =
    [("orders.new", 1), ("orders.picked", 2), ("orders.short", 2), ("orders.packed", 3), ("orders.shipped", 4)];
const DEAD: [&str; 3] = ["dead.pick", "dead.pack", "dead.ship"];

/// The first event of each order on each topic.
pub(crate) struct Topics {
    events: BTreeMap<&'static str, BTreeMap<String, Event>>,
    dead: BTreeSet<String>,
    cancelled: BTreeSet<String>,
}

struct Event {
    payload: Value,
    /// The published copy of the span that wrote it.
    span: Value,
}

/// The texts of an array.
pub(crate) fn texts(array: &Value) -> BTreeSet<String> {
    array.as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
}

fn key(record: &Rec) -> String {
    String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned()
}

impl Topics {
    pub(crate) fn read(bootstrap: &str, prefix: &str, report: &mut Report) -> anyhow::Result<Self> {
        let mut events = BTreeMap::new();
        for (topic, _) in TOPICS {
            let records = read_topic(bootstrap, &format!("{prefix}{topic}"))?;
            events.insert(topic, first_of_each(topic, &records, report));
        }
        let cancelled = read_topic(bootstrap, &format!("{prefix}orders.cancelled"))?;
        let cancelled = first_of_each("orders.cancelled", &cancelled, report).into_keys().collect();
        let mut dead = BTreeSet::new();
        for topic in DEAD {
            let records = read_topic(bootstrap, &format!("{prefix}{topic}"))?;
            report.must(records.iter().all(|r| r.header("dead_reason").is_some()), || {
                format!("{topic}: a dead letter has no reason")
            });
            dead.extend(records.iter().map(key));
        }
        Ok(Topics { events, dead, cancelled })
    }

    fn on(&self, topic: &str) -> &BTreeMap<String, Event> {
        &self.events[topic]
    }

    /// Orders that no stage refused.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = &String> {
        self.on("orders.new").keys().filter(|order| !self.dead.contains(*order))
    }

    pub(crate) fn units_picked(&self) -> i64 {
        let lines = self.on("orders.picked").values().flat_map(|e| e.payload["lines"].as_array().into_iter().flatten());
        lines.filter_map(|line| line["quantity"].as_i64()).sum()
    }

    /// The tracking numbers of each shipped order.
    pub(crate) fn labels(&self) -> BTreeMap<String, BTreeSet<String>> {
        let of = |event: &Event| {
            let parcels = event.payload["parcels"].as_array().into_iter().flatten();
            parcels.filter_map(|p| p["tracking_number"].as_str().map(str::to_owned)).collect()
        };
        self.on("orders.shipped").iter().map(|(order, event)| (order.clone(), of(event))).collect()
    }

    pub(crate) fn check(&self, report: &mut Report) {
        self.everyone_is_shipped_or_explained(report);
        self.one_label_a_parcel(report);
        self.what_is_packed_was_picked(report);
        self.links_are_complete(report);
    }

    fn everyone_is_shipped_or_explained(&self, report: &mut Report) {
        report.orders = self.on("orders.new").len();
        report.shipped = self.on("orders.shipped").len();
        report.dead = self.dead.len();
        for order in &self.cancelled {
            let shipped = self.on("orders.shipped").contains_key(order);
            report.must(!shipped, || format!("{order} is both shipped and cancelled"));
        }
        for (order, placed) in self.on("orders.new") {
            let ended = self.on("orders.shipped").contains_key(order) || self.cancelled.contains(order);
            if ended || self.dead.contains(order) {
                continue;
            }
            let ordered = placed.payload["lines"].as_array().map_or(0, Vec::len);
            let short = self.on("orders.short").get(order).map(|e| &e.payload["lines"]);
            let nothing = short
                .and_then(Value::as_array)
                .is_some_and(|lines| lines.len() == ordered && lines.iter().all(|line| line["picked"] == 0));
            report.nothing += usize::from(nothing);
            report.must(nothing, || format!("{order} is neither shipped nor explained"));
        }
        for (topic, _) in &TOPICS[1..] {
            for order in self.on(topic).keys() {
                let placed = self.on("orders.new").contains_key(order);
                report.must(placed, || format!("{order} is on {topic} but was never placed"));
            }
        }
    }

    fn one_label_a_parcel(&self, report: &mut Report) {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (order, event) in self.on("orders.shipped") {
            for parcel in event.payload["parcels"].as_array().into_iter().flatten() {
                let number = parcel["tracking_number"].as_str().unwrap_or_default();
                let other = seen.insert(number, order);
                report.must(!number.is_empty() && other.is_none(), || {
                    format!("{order}: label {number:?} is also on {other:?}")
                });
            }
        }
        report.labels = seen.len();
    }

    /// Units by line: ordered = picked + short, and packed = picked.
    fn what_is_packed_was_picked(&self, report: &mut Report) {
        let units = |lines: &Value, field: &str| -> BTreeMap<i64, i64> {
            let mut units = BTreeMap::new();
            for line in lines.as_array().into_iter().flatten() {
                *units.entry(line["line"].as_i64().unwrap_or(0)).or_default() += line[field].as_i64().unwrap_or(0);
            }
            units
        };
        for (order, event) in self.on("orders.picked") {
            let picked = units(&event.payload["lines"], "quantity");
            if let Some(placed) = self.on("orders.new").get(order) {
                let ordered = units(&placed.payload["lines"], "quantity");
                let short = self.on("orders.short").get(order).map(|e| {
                    let asked = units(&e.payload["lines"], "requested");
                    let got = units(&e.payload["lines"], "picked");
                    asked.iter().map(|(line, n)| (*line, n - got.get(line).unwrap_or(&0))).collect::<BTreeMap<_, _>>()
                });
                for (line, n) in ordered {
                    let missing = short.as_ref().and_then(|s| s.get(&line)).unwrap_or(&0);
                    let got = picked.get(&line).unwrap_or(&0);
                    report.must(got + missing == n, || format!("{order}: line {line} does not add up"));
                }
            }
            if let Some(packed) = self.on("orders.packed").get(order) {
                let mut inside = BTreeMap::new();
                for parcel in packed.payload["parcels"].as_array().into_iter().flatten() {
                    for (line, n) in units(&parcel["items"], "quantity") {
                        *inside.entry(line).or_default() += n;
                    }
                }
                report.must(inside == picked, || format!("{order}: what is packed is not what was picked"));
            }
        }
    }

    /// The waybill grows by one stamp a stage, in order; a span links to every earlier stamp, and to nothing else (the
    /// published copy names only links that are no stamps).
    fn links_are_complete(&self, report: &mut Report) {
        for (topic, stages) in TOPICS {
            for (order, event) in self.on(topic) {
                let stamps = event.payload["waybill"].as_array().map(Vec::as_slice).unwrap_or_default();
                let names: Vec<&str> = stamps.iter().filter_map(|s| s["stage"].as_str()).collect();
                report.must(names == STAGES[..stages], || format!("{order} on {topic}: stamped by {names:?}"));
                let id = |v: &Value| (v["trace_id"].clone(), v["span_id"].clone());
                let other = event.span["links"].as_array().is_some_and(|links| !links.is_empty());
                report.must(!other, || format!("{order} on {topic}: the span has links that are not the waybill's"));
                let own = stamps.last().map(id) == Some(id(&event.span));
                report.must(own, || format!("{order} on {topic}: the last stamp is not the published span"));
                self.stamps_are_published(order, topic, stamps, report);
            }
        }
    }

    /// No stamp names a span that was never published.
    fn stamps_are_published(&self, order: &str, topic: &str, stamps: &[Value], report: &mut Report) {
        for (stamp, source) in stamps.iter().zip(["orders.new", "orders.picked", "orders.packed"]) {
            // Of an order of which nothing was picked only the short event tells.
            let Some(event) = self.on(source).get(order) else { continue };
            let same = event.span["span_id"] == stamp["span_id"] && event.span["trace_id"] == stamp["trace_id"];
            report.must(same, || format!("{order} on {topic}: a stamp is not the span published on {source}"));
        }
    }
}

/// The first event of each key; whatever comes later under the key must be the same event, byte for byte.
fn first_of_each(topic: &'static str, records: &[Rec], report: &mut Report) -> BTreeMap<String, Event> {
    let mut first: BTreeMap<String, &Rec> = BTreeMap::new();
    for record in records {
        let key = key(record);
        match first.get(&key) {
            None => drop(first.insert(key, record)),
            Some(earlier) => {
                *report.duplicates.entry(topic.to_owned()).or_default() += 1;
                let same_id = earlier.header("ce_id") == record.header("ce_id");
                // An order may be sent again by whoever sends orders; a stage's answer is always the same bytes.
                let same = earlier.payload == record.payload && earlier.headers == record.headers;
                report.must(topic == "orders.new" || (same_id && same), || {
                    format!("{key} stands on {topic} as two events (offsets {} and {})", earlier.offset, record.offset)
                });
                let home = earlier.partition == record.partition;
                report.must(home, || format!("{key} stands on two partitions of {topic}"));
            }
        }
    }
    let read = |record: &Rec| Event {
        payload: record.json().unwrap_or_default(),
        span: record.header("waybill_span").and_then(|s| serde_json::from_str(s).ok()).unwrap_or_default(),
    };
    first.into_iter().map(|(key, record)| (key, read(record))).collect()
}
