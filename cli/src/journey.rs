//! An order's journey, read from the topics: the published spans of all its stages, over all its traces.

use crate::kafka;
use serde::Serialize;
use waybill_journeys::TOPICS;
use waybill_spine::{KafkaConfig, Record, headers};
use waybill_telemetry::{Carrier, SpanRecord, Waybill};

/// What the topics know of an order.
#[derive(Debug, Default, Serialize)]
pub struct Journey {
    /// The order.
    pub order_id: String,
    /// Its stage spans with their parts, by time; each with its children and links.
    pub spans: Vec<SpanRecord>,
    /// Its events, in the order of the journey.
    pub events: Vec<Told>,
    /// What a stage would not accept.
    pub dead: Vec<Dead>,
}

/// An event of the journey.
#[derive(Debug, Serialize)]
pub struct Told {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// The event, as it stands on the topic.
    pub event: serde_json::Value,
}

/// A dead letter of the journey.
#[derive(Debug, Serialize)]
pub struct Dead {
    /// Which stage would not accept it.
    pub stage: String,
    /// Code of the reason.
    pub reason: String,
    /// The reason in words.
    pub message: String,
}

/// The waybill in a record's payload; empty where that cannot be read.
fn waybill(record: &Record) -> Waybill {
    #[derive(serde::Deserialize)]
    struct Payload {
        #[serde(default)]
        waybill: Waybill,
    }
    let payload = record.content.payload().and_then(|json| serde_json::from_slice::<Payload>(json).ok());
    payload.map(|p| p.waybill).unwrap_or_default()
}

fn is_dead(record: &Record) -> bool {
    record.topic.starts_with("dead.")
}

/// The span that a record publishes, and its parts; `waybill` is the one in its payload.
pub fn spans(record: &Record, waybill: &Waybill) -> impl Iterator<Item = SpanRecord> + use<> {
    let header = |name| record.content.header(name).unwrap_or_default();
    let copy = header(if is_dead(record) { "dead_span" } else { headers::SPAN });
    let parts = serde_json::from_str::<Vec<SpanRecord>>(header(headers::PARTS)).unwrap_or_default();
    SpanRecord::read(copy, waybill).into_iter().chain(parts)
}

impl Journey {
    /// Reads the journey of `order_id`.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn read(kafka: &KafkaConfig, order_id: &str) -> anyhow::Result<Self> {
        let mut records = Vec::new();
        kafka::scan(kafka, &TOPICS, |key| key == Some(order_id.as_bytes()), |record| records.push(record))?;
        records.sort_by_key(|r| (TOPICS.iter().position(|t| **t == *r.topic), r.partition, r.offset));
        let mut journey = Journey { order_id: order_id.to_owned(), ..Journey::default() };
        records.iter().for_each(|record| journey.add(record));
        journey.spans.sort_by_key(SpanRecord::begun);
        Ok(journey)
    }

    /// A record may stand twice, and two events of a stage share its span: the first counts.
    fn add(&mut self, record: &Record) {
        // A letter that goes back says nothing that its topic or its answer does not say.
        if record.topic.starts_with("redrive.") {
            return;
        }
        let header = |name| record.content.header(name).unwrap_or_default();
        for span in spans(record, &waybill(record)) {
            if !self.spans.iter().any(|s| (s.trace_id, s.span_id) == (span.trace_id, span.span_id)) {
                self.spans.push(span);
            }
        }
        if is_dead(record) {
            self.dead.push(Dead {
                stage: header("dead_stage").to_owned(),
                reason: header("dead_reason").to_owned(),
                message: header("dead_message").to_owned(),
            });
        } else if !self.events.iter().any(|told| told.topic == *record.topic) {
            self.events.push(Told {
                topic: record.topic.to_string(),
                partition: record.partition,
                offset: record.offset,
                event: record.content.payload().and_then(|p| serde_json::from_slice(p).ok()).unwrap_or_default(),
            });
        }
    }

    /// The payload of the event on `topic`.
    pub fn event(&self, topic: &str) -> Option<&serde_json::Value> {
        self.events.iter().find(|told| told.topic == topic).map(|told| &told.event)
    }
}
