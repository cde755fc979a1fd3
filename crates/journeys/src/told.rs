//! What a record tells of a journey.

use crate::row::{self, SpanRow};
use jiff::Timestamp;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use waybill_spine::{Content, DeadLetter, Record, headers};
use waybill_telemetry::{Input, SpanCopy, StampCopy, Waybill};

/// A record of an order topic, as far as it tells of an order's journey. Text is borrowed from the record, or of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<T = String> {
    /// What makes it one record, however often it stands on its topic: its `ce_id`. A dead letter has the `ce_id` of the
    /// record that failed, so its own span names it, also when it goes back: a record may fail twice, under two spans.
    pub ce_id: T,
    /// Topic, without the deployment's prefix.
    pub topic: T,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// When it happened, nanoseconds since 1970.
    pub time_ns: i64,
    /// The order; none of a dead letter whose key is no text.
    pub order_id: Option<T>,
    /// Why a stage would not accept it, if it is a dead letter.
    pub reason: Option<T>,
    /// Its spans with their children, the one that published it first.
    pub spans: Vec<SpanRow<T>>,
}

/// The waybill is all that is read of a payload.
#[derive(Default, Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default)]
    waybill: Option<&'a RawValue>,
}

/// A record as it is seen, wherever it stands.
struct Seen<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl Told {
    /// Reads a record.
    ///
    /// # Errors
    /// Why it tells nothing, for a person.
    pub fn read(record: &Record) -> Result<Self, String> {
        Told::of_record(record).map(Told::into_owned)
    }
}

impl<'a> Told<Cow<'a, str>> {
    /// Reads a record where it stands.
    pub(crate) fn of_record(record: &'a Record) -> Result<Self, String> {
        let Record { topic, partition, offset, timestamp_ms, content } = record;
        let (key, payload, headers) = (content.key(), content.payload(), content.headers().collect());
        let (partition, offset, timestamp_ms) = (*partition, *offset, *timestamp_ms);
        seen(&Seen { topic, partition, offset, timestamp_ms, key, payload, headers })
    }

    /// Reads a message where it stands; `topic` is without the deployment's prefix.
    pub(crate) fn of(message: &'a BorrowedMessage<'_>, topic: &'a str) -> Result<Self, String> {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        seen(&Seen {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key(),
            payload: message.payload(),
            headers: headers.map(|header| (header.key, header.value)).collect(),
        })
    }

    /// The same with text of its own.
    #[must_use]
    pub fn into_owned(self) -> Told {
        Told {
            ce_id: self.ce_id.into_owned(),
            topic: self.topic.into_owned(),
            partition: self.partition,
            offset: self.offset,
            time_ns: self.time_ns,
            order_id: self.order_id.map(Cow::into_owned),
            reason: self.reason.map(Cow::into_owned),
            spans: self.spans.into_iter().map(SpanRow::into_owned).collect(),
        }
    }

    /// What goes into columns as it came.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let spans =
            self.spans.iter().flat_map(|s| [&s.stage, &s.scope, &s.version, &s.name].into_iter().chain(&s.status));
        [&self.ce_id].into_iter().chain(&self.order_id).chain(&self.reason).chain(spans).map(AsRef::as_ref)
    }
}

fn seen<'a>(record: &Seen<'a>) -> Result<Told<Cow<'a, str>>, String> {
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

fn event<'a>(record: &Seen<'a>) -> Result<Told<Cow<'a, str>>, String> {
    if record.key().is_none() {
        return Err("the key is missing or no text".to_owned());
    }
    let ce_id = record.first(headers::ID).filter(|id| !id.is_empty()).ok_or("it has no ce_id")?;
    let mut spans = Vec::with_capacity(1);
    let source = record.source();
    if let Some(copy) = record.first(headers::SPAN) {
        let copy = read(copy, headers::SPAN)?;
        let payload: Payload<'_> = serde_json::from_slice(record.payload.unwrap_or_default())
            .map_err(|e| format!("its payload is not JSON with a waybill: {e}"))?;
        let stamps = payload.waybill.map(StampCopy::published).unwrap_or_default();
        spans.push(row::row(copy, &source, (&stamps, true)).map_err(|e| bad(headers::SPAN, &e))?);
    }
    if let Some(parts) = record.first(headers::PARTS) {
        let parts: Vec<SpanCopy<'a>> = serde_json::from_str(parts).map_err(|e| bad(headers::PARTS, &e))?;
        for part in parts {
            spans.push(row::row(part, &source, (&[], false)).map_err(|e| bad(headers::PARTS, &e))?);
        }
    }
    let time_ns = record.time(record.first(headers::TIME));
    Ok(record.told(ce_id.into(), time_ns, None, spans))
}

/// A letter that went back to its stage. Its spans are told by other records: this one says that something is done about it.
fn redriven<'a>(record: &Seen<'a>) -> Result<Told<Cow<'a, str>>, String> {
    let mut content = Content::new(record.key, record.payload);
    record.headers.iter().for_each(|(name, value)| content.push(name, *value));
    let letter = DeadLetter::read(&content)?;
    Ok(record.told(letter.traceparent.into(), record.time(None), None, Vec::new()))
}

/// Ours are the last of its headers: those before are the failed record's own.
fn dead<'a>(record: &Seen<'a>) -> Result<Told<Cow<'a, str>>, String> {
    let copy: SpanCopy<'a> = read(record.last("dead_span").ok_or("a dead letter without dead_span")?, "dead_span")?;
    // What was not accepted was not linked to, either: neither its key and id nor its waybill are in telemetry.
    let input = copy.input.and_then(|input| serde_json::from_str::<Input>(input.get()).ok());
    let accepted = input.is_none_or(|input| input.message.is_some());
    let payload = record.payload.filter(|_| accepted);
    let waybill = payload.and_then(|json| serde_json::from_slice::<Payload<'_>>(json).ok()).unwrap_or_default().waybill;
    let waybill: Waybill = waybill.and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default();
    let ce_id = format!("{}-{}", copy.trace_id, copy.span_id);
    let span =
        row::row(copy, &record.source(), (&StampCopy::all(&waybill), false)).map_err(|e| bad("dead_span", &e))?;
    let [stage, reason, message] = ["dead_stage", "dead_reason", "dead_message"]
        .map(|name| record.last(name).unwrap_or("unknown").replace('\0', ""));
    let reason = format!("{stage}: {reason}: {message}");
    Ok(record.told(ce_id.into(), record.time(record.last("dead_at")), Some(reason.into()), vec![span]))
}

impl<'a> Seen<'a> {
    /// The first value of a header that is text.
    fn first(&self, name: &str) -> Option<&'a str> {
        self.named(name).next()
    }

    /// The last one.
    fn last(&self, name: &str) -> Option<&'a str> {
        self.named(name).last()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(n, _)| *n == name)
            .filter_map(|(_, value)| std::str::from_utf8((*value)?).ok())
    }

    fn key(&self) -> Option<&'a str> {
        std::str::from_utf8(self.key?).ok().filter(|key| !key.contains('\0'))
    }

    fn source(&self) -> row::Source<'a> {
        row::Source { topic: self.topic, partition: self.partition, offset: self.offset, order_id: self.key() }
    }

    /// What the header says, else Kafka's own.
    fn time(&self, said: Option<&str>) -> i64 {
        let said = said.and_then(|time| time.parse::<Timestamp>().ok());
        let said = said.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        said.unwrap_or_else(|| self.timestamp_ms.saturating_mul(1_000_000))
    }

    fn told(
        &self,
        ce_id: Cow<'a, str>,
        time_ns: i64,
        reason: Option<Cow<'a, str>>,
        spans: Vec<SpanRow<Cow<'a, str>>>,
    ) -> Told<Cow<'a, str>> {
        let (topic, partition, offset, order_id) = (self.topic.into(), self.partition, self.offset, self.key());
        Told { ce_id, topic, partition, offset, time_ns, order_id: order_id.map(Cow::Borrowed), reason, spans }
    }
}

fn read<'a>(copy: &'a str, name: &str) -> Result<SpanCopy<'a>, String> {
    serde_json::from_str(copy).map_err(|e| bad(name, &e))
}

fn bad(name: &str, error: &serde_json::Error) -> String {
    format!("header {name} is not the copy of a span: {error}")
}
