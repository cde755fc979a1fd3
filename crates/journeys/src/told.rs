//! What a record tells of a journey.

use crate::row::{self, SpanRow};
use jiff::Timestamp;
use serde::Deserialize;
use waybill_spine::{DeadLetter, Record, headers};
use waybill_telemetry::{Carrier, Input, SpanCopy, Waybill};

/// A record of an order topic, as far as it tells of an order's journey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What makes it one record, however often it stands on its topic: its `ce_id`. A dead letter has the `ce_id` of the
    /// record that failed, so its own span names it, also when it goes back: a record may fail twice, under two spans.
    pub ce_id: String,
    /// Topic, without the deployment's prefix.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// When it happened, nanoseconds since 1970.
    pub time_ns: i64,
    /// The order; none of a dead letter whose key is no text.
    pub order_id: Option<String>,
    /// Why a stage would not accept it, if it is a dead letter.
    pub reason: Option<String>,
    /// Its spans with their children, the one that published it first.
    pub spans: Vec<SpanRow>,
}

/// The waybill is all that is read of a payload.
#[derive(Default, Deserialize)]
struct Payload {
    #[serde(default)]
    waybill: Waybill,
}

impl Told {
    /// Reads a record.
    ///
    /// # Errors
    /// Why it tells nothing, for a person.
    pub fn read(record: &Record) -> Result<Self, String> {
        let told = match record.topic.split_once('.') {
            Some(("dead", _)) => dead(record),
            Some(("redrive", _)) => redriven(record),
            Some(_) | None => event(record),
        }?;
        if told.ids().any(|text| text.contains('\0')) {
            return Err("a name or an id has a NUL character".to_owned());
        }
        Ok(told)
    }

    /// What goes into columns as it came.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let spans =
            self.spans.iter().flat_map(|s| [&s.stage, &s.scope, &s.version, &s.name].into_iter().chain(&s.status));
        [&self.ce_id].into_iter().chain(&self.order_id).chain(&self.reason).chain(spans).map(String::as_str)
    }
}

fn event(record: &Record) -> Result<Told, String> {
    let header = |name| record.content.header(name);
    let order_id = key(record).ok_or("the key is missing or no text")?;
    let ce_id = header(headers::ID).filter(|id| !id.is_empty()).ok_or("it has no ce_id")?;
    let mut spans = Vec::new();
    let source = source(record, Some(&order_id));
    if let Some(copy) = header(headers::SPAN) {
        let copy = read(copy, headers::SPAN)?;
        let Payload { waybill } = serde_json::from_slice(record.content.payload().unwrap_or_default())
            .map_err(|e| format!("its payload is not JSON with a waybill: {e}"))?;
        spans.push(row::row(&copy, &source, (Some(&waybill), true)).map_err(|e| bad(headers::SPAN, &e))?);
    }
    if let Some(parts) = header(headers::PARTS) {
        let parts: Vec<SpanCopy<'_>> = serde_json::from_str(parts).map_err(|e| bad(headers::PARTS, &e))?;
        for part in &parts {
            spans.push(row::row(part, &source, (None, false)).map_err(|e| bad(headers::PARTS, &e))?);
        }
    }
    let ce_id = ce_id.to_owned();
    Ok(told(record, ce_id, Some(order_id), time(record, header(headers::TIME)), None, spans))
}

/// A letter that went back to its stage. Its spans are told by other records: this one says that something is done about it.
fn redriven(record: &Record) -> Result<Told, String> {
    let letter = DeadLetter::read(&record.content)?;
    let time_ns = record.timestamp_ms.saturating_mul(1_000_000);
    Ok(told(record, letter.traceparent, key(record), time_ns, None, Vec::new()))
}

/// Ours are the last of its headers: those before are the failed record's own.
fn dead(record: &Record) -> Result<Told, String> {
    let header = |name: &str| {
        let named = record.content.headers().filter(|(n, _)| *n == name);
        named.filter_map(|(_, value)| std::str::from_utf8(value?).ok()).last()
    };
    let order_id = key(record);
    let copy = read(header("dead_span").ok_or("a dead letter without dead_span")?, "dead_span")?;
    // What was not accepted was not linked to, either: neither its key and id nor its waybill are in telemetry.
    let input = copy.input.and_then(|input| serde_json::from_str::<Input>(input.get()).ok());
    let accepted = input.is_none_or(|input| input.message.is_some());
    let payload = record.content.payload().filter(|_| accepted);
    let waybill = payload.and_then(|json| serde_json::from_slice::<Payload>(json).ok()).unwrap_or_default().waybill;
    let span = row::row(&copy, &source(record, order_id.as_deref()), (Some(&waybill), false));
    let span = span.map_err(|e| bad("dead_span", &e))?;
    let [stage, reason, message] =
        ["dead_stage", "dead_reason", "dead_message"].map(|name| header(name).unwrap_or("unknown").replace('\0', ""));
    let reason = format!("{stage}: {reason}: {message}");
    let ce_id = format!("{}-{}", copy.trace_id, copy.span_id);
    Ok(told(record, ce_id, order_id, time(record, header("dead_at")), Some(reason), vec![span]))
}

fn told(
    record: &Record,
    ce_id: String,
    order_id: Option<String>,
    time_ns: i64,
    reason: Option<String>,
    spans: Vec<SpanRow>,
) -> Told {
    let (topic, partition, offset) = (record.topic.to_string(), record.partition, record.offset);
    Told { ce_id, topic, partition, offset, time_ns, order_id, reason, spans }
}

fn key(record: &Record) -> Option<String> {
    let key = std::str::from_utf8(record.content.key()?).ok()?;
    (!key.contains('\0')).then(|| key.to_owned())
}

fn source<'a>(record: &'a Record, order_id: Option<&'a str>) -> row::Source<'a> {
    row::Source { topic: &record.topic, partition: record.partition, offset: record.offset, order_id }
}

fn read<'a>(copy: &'a str, name: &str) -> Result<SpanCopy<'a>, String> {
    serde_json::from_str(copy).map_err(|e| bad(name, &e))
}

fn bad(name: &str, error: &serde_json::Error) -> String {
    format!("header {name} is not the copy of a span: {error}")
}

/// What the header says, else Kafka's own.
fn time(record: &Record, said: Option<&str>) -> i64 {
    let said = said.and_then(|time| time.parse::<Timestamp>().ok()).and_then(|t| i64::try_from(t.as_nanosecond()).ok());
    said.unwrap_or_else(|| record.timestamp_ms.saturating_mul(1_000_000))
}
