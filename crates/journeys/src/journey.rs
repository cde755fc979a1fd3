//! One order's journey: the published spans of all its stages, over all its traces, and its events.

use opentelemetry::trace::SpanId;
use serde::Serialize;
use std::collections::HashMap;
use waybill_spine::{Content, Record, headers};
use waybill_telemetry::{Carrier, SpanRecord, Waybill};

use crate::topics::TOPICS;

/// What is known of an order.
#[derive(Debug, Default, Serialize)]
pub struct Journey {
    /// The order.
    pub order_id: String,
    /// Its stage spans with their parts, by time; each with its children and links.
    pub spans: Vec<SpanRecord>,
    /// Its events, in the order of the journey.
    pub events: Vec<JourneyEvent>,
    /// What a stage would not accept.
    pub dead: Vec<Refused>,
}

/// An event of the journey.
#[derive(Debug, Serialize)]
pub struct JourneyEvent {
    /// Topic.
    pub topic: String,
    /// Where it stands there; none where the event was kept by the stage that published it.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// The event, as it stands on the topic.
    pub event: serde_json::Value,
}

/// A place in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// A dead letter of the journey.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Which stage would not accept it.
    pub stage: String,
    /// Code of the reason.
    pub reason: String,
    /// The reason in words.
    pub message: String,
}

/// The span that a record publishes, and its parts; `waybill` is the one in its payload.
pub fn spans(record: &Record, waybill: &Waybill) -> impl Iterator<Item = SpanRecord> + use<> {
    published(&record.topic, &record.content, waybill)
}

fn published(topic: &str, content: &Content, waybill: &Waybill) -> impl Iterator<Item = SpanRecord> + use<> {
    let header = |name| content.header(name).unwrap_or_default();
    let copy = header(if is_dead(topic) { "dead_span" } else { headers::SPAN });
    let parts = serde_json::from_str::<Vec<SpanRecord>>(header(headers::PARTS)).unwrap_or_default();
    SpanRecord::read(copy, waybill).into_iter().chain(parts)
}

fn is_dead(topic: &str) -> bool {
    topic.starts_with("dead.")
}

/// The waybill in a payload; empty where that cannot be read.
fn waybill(content: &Content) -> Waybill {
    #[derive(serde::Deserialize)]
    struct Payload {
        #[serde(default)]
        waybill: Waybill,
    }
    let payload = content.payload().and_then(|json| serde_json::from_slice::<Payload>(json).ok());
    payload.map(|p| p.waybill).unwrap_or_default()
}

/// A record or a message that tells of the order.
struct Source<'a> {
    topic: &'a str,
    position: Option<Position>,
    content: &'a Content,
}

impl<'a> Source<'a> {
    fn of(Record { topic, partition, offset, content, .. }: &'a Record) -> Self {
        let position = Some(Position { partition: *partition, offset: *offset });
        Source { topic, position, content }
    }
}

impl Journey {
    /// What records of the topics tell of an order.
    #[must_use]
    pub fn read(order_id: &str, records: &[Record]) -> Self {
        Journey::of(order_id, records.iter().map(Source::of).collect())
    }

    /// What the answers that its stages keep tell of an order, as topic and content.
    #[must_use]
    pub fn kept(order_id: &str, answers: &[(String, Content)]) -> Self {
        let sources = answers.iter().map(|(topic, content)| Source { topic, position: None, content });
        Journey::of(order_id, sources.collect())
    }

    fn of(order_id: &str, mut sources: Vec<Source<'_>>) -> Self {
        sources.sort_by_key(|s| {
            (
                TOPICS.iter().position(|t| *t == s.topic),
                s.position.map(|Position { partition, offset }| (partition, offset)),
            )
        });
        let mut journey = Journey { order_id: order_id.to_owned(), ..Journey::default() };
        sources.iter().for_each(|source| journey.add(source));
        journey.spans.sort_by_key(SpanRecord::begun);
        journey
    }

    /// A record may stand twice, and two events of a stage share its span: the first counts.
    fn add(&mut self, Source { topic, position, content }: &Source<'_>) {
        // A letter that goes back says nothing that its topic or its answer does not say.
        if topic.starts_with("redrive.") {
            return;
        }
        let header = |name| content.header(name).unwrap_or_default();
        for span in published(topic, content, &waybill(content)) {
            if !self.spans.iter().any(|s| (s.trace_id, s.span_id) == (span.trace_id, span.span_id)) {
                self.spans.push(span);
            }
        }
        if is_dead(topic) {
            self.dead.push(Refused {
                stage: header("dead_stage").to_owned(),
                reason: header("dead_reason").to_owned(),
                message: header("dead_message").to_owned(),
            });
        } else if !self.events.iter().any(|event| event.topic == *topic) {
            self.events.push(JourneyEvent {
                topic: (*topic).to_owned(),
                position: *position,
                event: content.payload().and_then(|p| serde_json::from_slice(p).ok()).unwrap_or_default(),
            });
        }
    }

    /// Nothing is known of the order.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.dead.is_empty()
    }

    /// The payload of the event on `topic`.
    #[must_use]
    pub fn event(&self, topic: &str) -> Option<&serde_json::Value> {
        self.events.iter().find(|event| event.topic == topic).map(|event| &event.event)
    }

    /// Its traces, by time: one tree each.
    #[must_use]
    pub fn trees(&self) -> Vec<Tree<'_>> {
        trees(&self.spans)
    }
}

/// A span and what it is made of, by time.
#[derive(Debug)]
pub struct Tree<'a> {
    /// The span.
    pub span: &'a SpanRecord,
    /// Its parts.
    pub parts: Vec<Tree<'a>>,
}

impl Tree<'_> {
    /// When the last of it ended.
    #[must_use]
    pub fn end(&self) -> jiff::Timestamp {
        self.parts.iter().map(Tree::end).fold(self.span.end, jiff::Timestamp::max)
    }
}

/// The traces of `spans`, which are sorted by time: one tree each. A span whose parent is lost, with the process that had it
/// open, hangs from the first of its trace.
fn trees(spans: &[SpanRecord]) -> Vec<Tree<'_>> {
    let mut roots: Vec<&SpanRecord> = Vec::new();
    let mut parts: HashMap<SpanId, Vec<&SpanRecord>> = HashMap::new();
    for span in spans {
        let known = |id: &SpanId| spans.iter().any(|s| s.span_id == *id && s.trace_id == span.trace_id);
        let first = roots.iter().find(|root| root.trace_id == span.trace_id).map(|root| root.span_id);
        match span.parent.filter(known).or(first) {
            Some(parent) => parts.entry(parent).or_default().push(span),
            None => roots.push(span),
        }
    }
    roots.into_iter().map(|root| grow(root, &mut parts)).collect()
}

fn grow<'a>(span: &'a SpanRecord, parts: &mut HashMap<SpanId, Vec<&'a SpanRecord>>) -> Tree<'a> {
    let own = parts.remove(&span.span_id).unwrap_or_default();
    Tree { span, parts: own.into_iter().map(|part| grow(part, parts)).collect() }
}
