//! CloudEvents 1.0 binary mode on Kafka, and the contexts beside it.
//!
//! Header names: CloudEvents Kafka protocol binding §3.2; `ce_traceparent`: its distributed tracing
//! extension (where the journey started, unchanged on the way); `traceparent`: W3C (the last hop).

use crate::record::{Content, Message, Record};
use crate::stage::{Emit, Input, Refusal};
use jiff::Timestamp;
use uuid::Uuid;
use waybill_telemetry::{Carrier, Incoming, SpanRecord, Waybill};

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
    /// The copies of the spans around it where a stage span has parts, a JSON list; on the first event of an answer.
    pub const PARTS: &str = "waybill_parts";
}

/// Namespace of event ids (a random UUID, fixed for ever).
const NAMESPACE: Uuid = Uuid::from_u128(0x6c1f_5b0e_3a64_4b0b_9d0e_2f6a_7d31_c5e2);

/// The id of the event that `stage` publishes about `subject` on `topic`: the same, however often it is made.
#[must_use]
pub fn event_id(stage: &str, topic: &str, subject: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{stage}/{topic}/{subject}").as_bytes())
}

/// An accepted record: its event and what the headers say.
pub(crate) struct Accepted<E> {
    pub event: E,
    pub id: String,
    pub time: Timestamp,
}

/// Reads a record of `topic` as an event `E`. One that was redriven stands elsewhere.
pub(crate) fn accept<E: Input>(record: &Record, topic: &str) -> Result<Accepted<E>, Refusal> {
    let key = record.content.key().ok_or_else(|| Refusal::new("no_key", "the record has no key"))?;
    let id = required(record, headers::ID)?;
    let kind = required(record, headers::TYPE)?;
    let schema = E::TOPICS.iter().find(|(name, _)| *name == topic).map_or("nothing", |(_, schema)| schema);
    if kind != schema {
        return Err(other_type(topic, schema, kind));
    }
    let time = required(record, headers::TIME)?;
    let time = time
        .parse()
        .map_err(|e| Refusal::new("bad_header", format!("header {} is not an RFC 3339 time: {e}", headers::TIME)))?;
    let payload = record.content.payload().unwrap_or_default();
    if payload.is_empty() {
        return Err(Refusal::new("no_payload", "the record has no payload"));
    }
    let event = E::read(schema, payload)
        .map_err(|e| Refusal::new("unreadable", format!("the payload is not a valid {schema}: {e}")))?;
    event.check().map_err(|why| Refusal::new("invalid", why))?;
    if event.key().as_bytes() != key {
        return Err(Refusal::new("key_mismatch", "the record's key and the event's own key differ"));
    }
    Ok(Accepted { event, id: id.to_owned(), time })
}

fn required<'a>(record: &'a Record, name: &str) -> Result<&'a str, Refusal> {
    match record.content.header(name) {
        Some(value) if !value.is_empty() && value.len() <= 256 => Ok(value),
        Some(_) => Err(Refusal::new("bad_header", format!("header {name} is empty or longer than 256 bytes"))),
        None => Err(Refusal::new(
            "missing_header",
            format!("header {name} is missing: events come in CloudEvents binary mode"),
        )),
    }
}

fn other_type(topic: &str, known: &str, kind: &str) -> Refusal {
    let kind: String = kind.chars().take(100).collect();
    if kind.strip_prefix(topic).is_some_and(|v| v.starts_with(".v")) {
        Refusal::new("unknown_version", format!("{kind} is a version this stage does not know; it knows {known}"))
    } else {
        Refusal::new("unknown_type", format!("{kind} does not belong on this topic; expected {known}"))
    }
}

/// What goes out with an event: who says it, of which subject, and the span it came from.
pub struct Outbound<'a> {
    /// The stage that publishes it.
    pub stage: &'a str,
    /// The business key it was decided under: its id derives from it.
    pub key: &'a str,
    /// The finished stage span.
    pub span: &'a SpanRecord,
    /// The contexts that came in.
    pub incoming: &'a Incoming,
    /// Whether the journey begins here.
    pub begins: bool,
}

impl Outbound<'_> {
    /// The message for one event. `copy` is the published copy of [`Outbound::span`], as JSON.
    ///
    /// # Errors
    /// The event cannot be written as JSON.
    pub fn message(&self, event: &mut dyn Emit, waybill: &Waybill, copy: &[u8]) -> Result<Message, serde_json::Error> {
        let Message { topic, mut content } = written(event, waybill, (self.stage, self.key, self.span.end))?;
        let traceparent = self.span.traceparent();
        let origin = self.incoming.origin.as_deref().filter(|_| !self.begins);
        content.push_text("ce_traceparent", origin.unwrap_or(&traceparent));
        content.push(headers::SPAN, Some(copy));
        if let Some(baggage) = &self.incoming.baggage {
            content.push_text("baggage", baggage);
        }
        content.push_text("traceparent", traceparent);
        Ok(Message { topic, content })
    }
}

/// An event that no span wrote: a row of an outbox, or what comes from outside.
pub struct BareEvent {
    /// The event.
    pub event: Box<dyn Emit>,
    /// What its id derives from, with stage and topic: its own alone, and the same whenever it is published.
    pub subject: String,
    /// When it happened.
    pub time: Timestamp,
    /// The spans that led to it.
    pub waybill: Waybill,
}

impl BareEvent {
    /// The message, as `stage` publishes it.
    ///
    /// # Errors
    /// The event cannot be written as JSON.
    pub fn message(&mut self, stage: &str) -> Result<Message, serde_json::Error> {
        written(self.event.as_mut(), &self.waybill, (stage, &self.subject, self.time))
    }
}

/// An event with its attributes, as `stage` publishes it about `subject`.
fn written(
    event: &mut dyn Emit,
    waybill: &Waybill,
    (stage, subject, time): (&str, &str, Timestamp),
) -> Result<Message, serde_json::Error> {
    let (topic, schema, key) = (event.topic(), event.schema(), event.key().to_owned());
    let mut content = Content::written(&key, |out| event.write(waybill, out))?;
    let mut id = Uuid::encode_buffer();
    let id = event_id(stage, topic, subject).as_hyphenated().encode_lower(&mut id);
    content.push_text("ce_specversion", "1.0");
    content.push_text(headers::ID, id);
    content.push_text(headers::TYPE, schema);
    content.push_text(headers::SOURCE, format_args!("/waybill/{stage}"));
    content.push_text(headers::TIME, time);
    content.push_text("ce_subject", key);
    content.push_text("ce_dataschema", format_args!("urn:waybill:schema:{}", schema.replace(".v", ":v")));
    content.push_text("content-type", "application/json");
    Ok(Message { topic: topic.into(), content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Event;
    use proptest::prelude::{any, prop, proptest};
    use std::sync::Arc;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Thing {
        key: String,
        #[serde(default)]
        waybill: Waybill,
    }

    impl Event for Thing {
        const TOPIC: &'static str = "things";
        const SCHEMA: &'static str = "things.v1";
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

    /// Headers as strangers write them: the names that are looked for, with nothing, text or bytes.
    fn stranger(key: Option<Vec<u8>>, payload: Option<Vec<u8>>, headers: &[(usize, Option<Vec<u8>>)]) -> Record {
        let names =
            [headers::ID, headers::TYPE, headers::TIME, headers::SOURCE, "traceparent", "tracestate", "baggage", ""];
        let mut content = Content::new(key.as_deref(), payload.as_deref());
        headers.iter().for_each(|(name, value)| content.push(names[name % names.len()], value.as_deref()));
        Record { topic: Arc::from("things"), partition: 0, offset: 0, timestamp_ms: 0, content }
    }

    proptest! {
        #[test]
        fn any_record_is_accepted_or_refused_with_a_reason(
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
            payload in prop::option::of(prop::collection::vec(any::<u8>(), 0..99)),
            json in prop::option::of("\\{\"key\":\"[a-c]\"(,\"waybill\":(\\[[\\[\\]{}0-9,\"a-z:]{0,20}\\]|7|null))?\\}"),
            headers in prop::collection::vec((0_usize..8, prop::option::of(prop::collection::vec(any::<u8>(), 0..60))), 0..9),
            known in any::<bool>(),
        ) {
            let mut record = stranger(key, json.map(String::into_bytes).or(payload), &headers);
            if known {
                record.content.push_text(headers::ID, "id");
                record.content.push_text(headers::TYPE, "things.v1");
                record.content.push_text(headers::TIME, "2026-11-21T10:00:00Z");
            }
            let _ = Incoming::read(&record.content, &["a".to_owned()]);
            match accept::<Thing>(&record, "things") {
                Ok(accepted) => assert_eq!(accepted.event.key.as_bytes(), record.content.key().unwrap_or_default()),
                Err(refusal) => assert!(!refusal.message.is_empty()),
            }
        }

        #[test]
        fn content_gives_back_what_it_was_given(
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
            payload in prop::option::of(prop::collection::vec(any::<u8>(), 0..99)),
            headers in prop::collection::vec(("[a-z]{0,9}", prop::option::of(prop::collection::vec(any::<u8>(), 0..60))), 0..9),
        ) {
            let mut content = Content::new(key.as_deref(), payload.as_deref());
            headers.iter().for_each(|(name, value)| content.push(name, value.as_deref()));
            let kept: Content = postcard::from_bytes(&postcard::to_stdvec(&content).unwrap()).unwrap();
            assert_eq!(kept, content);
            assert_eq!((content.key(), content.payload()), (key.as_deref(), payload.as_deref()));
            assert!(content.headers().eq(headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()))));
        }
    }
}
