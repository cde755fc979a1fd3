//! CloudEvents 1.0 binary mode on Kafka, and the contexts beside it.
//!
//! Header names: CloudEvents Kafka protocol binding §3.2; `ce_traceparent`: its distributed tracing
//! extension (where the journey started, unchanged on the way); `traceparent`: W3C (the last hop).

use crate::record::{Header, Message, Record};
use crate::stage::{Event, Refusal};
use jiff::Timestamp;
use uuid::Uuid;
use waybill_telemetry::{Carrier, Incoming, SpanRecord};

/// The names of the headers.
pub mod headers {
    /// The id of the event: equal ids are one event.
    pub const ID: &str = "ce_id";
    /// The schema: `<topic>.v<major>`.
    pub const TYPE: &str = "ce_type";
    /// When it happened.
    pub const TIME: &str = "ce_time";
    /// Who says so: `/waybill/<stage>`.
    pub const SOURCE: &str = "ce_source";
    /// The published copy of the stage span, JSON.
    pub const SPAN: &str = "waybill_span";
}

/// Namespace of event ids (a random UUID, fixed for ever).
const NAMESPACE: Uuid = Uuid::from_u128(0x6c1f_5b0e_3a64_4b0b_9d0e_2f6a_7d31_c5e2);

/// The id of the event that `stage` publishes about `key` on `topic`: the same, however often it is made.
#[must_use]
pub fn event_id(stage: &str, topic: &str, key: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{stage}/{topic}/{key}").as_bytes())
}

/// An accepted record: its event and what the headers say.
pub(crate) struct Accepted<E> {
    pub event: E,
    pub id: String,
    pub time: Timestamp,
}

/// Reads a record as an event `E`.
pub(crate) fn accept<E: Event>(record: &Record) -> Result<Accepted<E>, Refusal> {
    let key = record.key.as_deref().ok_or_else(|| Refusal::new("no_key", "the record has no key"))?;
    let id = required(record, headers::ID)?;
    let kind = required(record, headers::TYPE)?;
    if kind != E::SCHEMA {
        return Err(other_type::<E>(kind));
    }
    let time = required(record, headers::TIME)?;
    let time = time
        .parse()
        .map_err(|e| Refusal::new("bad_header", format!("header {} is not an RFC 3339 time: {e}", headers::TIME)))?;
    let payload = record.payload.as_deref().unwrap_or_default();
    if payload.is_empty() {
        return Err(Refusal::new("no_payload", "the record has no payload"));
    }
    let event: E = serde_json::from_slice(payload)
        .map_err(|e| Refusal::new("unreadable", format!("the payload is not a valid {}: {e}", E::SCHEMA)))?;
    event.check().map_err(|why| Refusal::new("invalid", why))?;
    if event.key().as_bytes() != key {
        return Err(Refusal::new("key_mismatch", "the record's key and the event's own key differ"));
    }
    Ok(Accepted { event, id: id.to_owned(), time })
}

fn required<'a>(record: &'a Record, name: &str) -> Result<&'a str, Refusal> {
    match record.header(name) {
        Some(value) if !value.is_empty() && value.len() <= 256 => Ok(value),
        Some(_) => Err(Refusal::new("bad_header", format!("header {name} is empty or longer than 256 bytes"))),
        None => Err(Refusal::new(
            "missing_header",
            format!("header {name} is missing: events come in CloudEvents binary mode"),
        )),
    }
}

fn other_type<E: Event>(kind: &str) -> Refusal {
    let kind: String = kind.chars().take(100).collect();
    let known = E::SCHEMA;
    if kind.strip_prefix(E::TOPIC).is_some_and(|v| v.starts_with(".v")) {
        Refusal::new("unknown_version", format!("{kind} is a version this stage does not know; it knows {known}"))
    } else {
        Refusal::new("unknown_type", format!("{kind} does not belong on this topic; expected {known}"))
    }
}

/// What goes out with an event: who says it, of which key, and the span it came from.
pub struct Outbound<'a> {
    /// The stage that publishes it.
    pub stage: &'a str,
    /// The business key.
    pub key: &'a str,
    /// The finished stage span.
    pub span: &'a SpanRecord,
    /// The contexts that came in; a journey that starts here has none.
    pub incoming: &'a Incoming,
}

impl Outbound<'_> {
    /// The message for one event. `span` is the published copy of [`Outbound::span`], as JSON.
    #[must_use]
    pub fn message(&self, topic: &'static str, schema: &'static str, payload: Vec<u8>, span: &[u8]) -> Message {
        let mut id = Uuid::encode_buffer();
        let id = event_id(self.stage, topic, self.key).as_hyphenated().encode_lower(&mut id);
        let traceparent = self.span.traceparent();
        let origin = self.incoming.origin.as_deref().unwrap_or(&traceparent);
        let mut out = vec![
            Header::new("ce_specversion", "1.0"),
            Header::new(headers::ID, id.as_bytes()),
            Header::new(headers::TYPE, schema),
            Header::new(headers::SOURCE, format!("/waybill/{}", self.stage)),
            Header::new(headers::TIME, self.span.end.to_string()),
            Header::new("ce_subject", self.key),
            Header::new("ce_dataschema", format!("urn:waybill:schema:{}", schema.replace(".v", ":v"))),
            Header::new("content-type", "application/json"),
            Header::new("ce_traceparent", origin),
            Header::new(headers::SPAN, span),
        ];
        if let Some(baggage) = &self.incoming.baggage {
            out.push(Header::new("baggage", baggage.as_str()));
        }
        out.push(Header::new("traceparent", traceparent));
        Message { topic: topic.into(), key: Some(self.key.as_bytes().to_vec()), payload: Some(payload), headers: out }
    }
}

/// The dead letter of a record: its bytes and headers untouched, ours appended.
pub(crate) fn dead_letter(
    stage: &'static str,
    record: &Record,
    refusal: &Refusal,
    attempts: i32,
    span: &SpanRecord,
    copy: Vec<u8>,
) -> Message {
    let mut headers = record.headers.clone();
    let message: String = refusal.message.chars().take(1_000).collect();
    headers.extend([
        Header::new("dead_reason", refusal.reason),
        Header::new("dead_message", message),
        Header::new("dead_stage", stage),
        Header::new("dead_topic", record.topic.as_bytes()),
        Header::new("dead_partition", record.partition.to_string()),
        Header::new("dead_offset", record.offset.to_string()),
        Header::new("dead_timestamp", record.timestamp_ms.to_string()),
        Header::new("dead_attempts", attempts.to_string()),
        Header::new("dead_at", span.end.to_string()),
        Header::new("dead_traceparent", span.traceparent()),
        Header::new("dead_span", copy),
    ]);
    Message { topic: format!("dead.{stage}").into(), key: record.key.clone(), payload: record.payload.clone(), headers }
}
