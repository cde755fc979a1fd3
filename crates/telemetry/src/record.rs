//! A finished stage span as a value: published with its event, and exported.

use crate::context::{FOLLOWS_FROM, Stamp, Waybill};
use crate::{SCHEMA_URL, wire};
use jiff::Timestamp;
use opentelemetry::trace::{self, Link, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

/// What a span's status says; a business refusal is not an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing went wrong.
    #[default]
    Unset,
    /// The operation failed; the text says how.
    Error(String),
}

/// The OpenTelemetry span kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// Work inside the process.
    Internal,
    /// Creates messages.
    Producer,
    /// Handles a message.
    Consumer,
    /// Handles a request.
    Server,
    /// Asks another service.
    Client,
}

impl SpanKind {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SpanKind::Internal => "internal",
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
            SpanKind::Server => "server",
            SpanKind::Client => "client",
        }
    }

    pub(crate) fn to_otel(self) -> trace::SpanKind {
        match self {
            SpanKind::Internal => trace::SpanKind::Internal,
            SpanKind::Producer => trace::SpanKind::Producer,
            SpanKind::Consumer => trace::SpanKind::Consumer,
            SpanKind::Server => trace::SpanKind::Server,
            SpanKind::Client => trace::SpanKind::Client,
        }
    }
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanEvent {
    /// What happened.
    pub name: Cow<'static, str>,
    /// When, UTC.
    pub time: Timestamp,
    /// Its attributes.
    #[serde(with = "wire::attributes", default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
}

/// A link to a span, of whatever trace, with `link.type` and `link.stage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanLink {
    /// Trace of the linked span.
    #[serde(serialize_with = "wire::trace_id", deserialize_with = "wire::read_trace_id")]
    pub trace_id: TraceId,
    /// The linked span.
    #[serde(serialize_with = "wire::span_id", deserialize_with = "wire::read_span_id")]
    pub span_id: SpanId,
    /// Its W3C trace flags.
    #[serde(serialize_with = "wire::flags", deserialize_with = "wire::read_flags")]
    pub trace_flags: TraceFlags,
    /// `link.type`: `follows_from`, `consumed`, `retry_of`, `compensates` or `redrive_of`.
    #[serde(rename = "type")]
    pub link_type: Cow<'static, str>,
    /// `link.stage`: the stage of the linked span.
    pub stage: Cow<'static, str>,
}

impl SpanLink {
    /// A link with its two attributes.
    #[must_use]
    pub fn new(
        trace_id: TraceId,
        span_id: SpanId,
        trace_flags: TraceFlags,
        link_type: &'static str,
        stage: Cow<'static, str>,
    ) -> Self {
        SpanLink { trace_id, span_id, trace_flags, link_type: Cow::Borrowed(link_type), stage }
    }

    fn to_otel(&self) -> Link {
        let context = SpanContext::new(self.trace_id, self.span_id, self.trace_flags, true, TraceState::default());
        let attributes =
            vec![KeyValue::new("link.type", self.link_type.clone()), KeyValue::new("link.stage", self.stage.clone())];
        Link::new(context, attributes, 0)
    }
}

/// The record that a stage span is about: what it says in the attributes `messaging.*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Topic, with the deployment's prefix.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// The consumer group that read it.
    pub group: Arc<str>,
    /// Its key and its `ce_id`; none where it could not be accepted: such data stays out of telemetry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<(String, String)>,
}

impl Input {
    /// By OpenTelemetry's conventions for messaging and Kafka.
    fn attributes(self, list: &mut Vec<KeyValue>) {
        list.push(KeyValue::new("messaging.system", "kafka"));
        list.push(KeyValue::new("messaging.operation.name", "process"));
        list.push(KeyValue::new("messaging.operation.type", "process"));
        list.push(KeyValue::new("messaging.destination.name", self.topic));
        list.push(KeyValue::new("messaging.destination.partition.id", self.partition.to_string()));
        list.push(KeyValue::new("messaging.kafka.offset", self.offset));
        list.push(KeyValue::new("messaging.consumer.group.name", self.group));
        if let Some((key, id)) = self.message {
            list.push(KeyValue::new("messaging.kafka.message.key", key));
            list.push(KeyValue::new("messaging.message.id", id));
        }
    }
}

/// A child of a stage span: one item of its work, in the same trace. Children share the interval of the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildSpan {
    /// This span.
    #[serde(serialize_with = "wire::span_id", deserialize_with = "wire::read_span_id")]
    pub span_id: SpanId,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its attributes.
    #[serde(with = "wire::attributes", default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
}

/// A finished stage span with its children: what is published and what is exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanRecord {
    /// The stage the span belongs to.
    pub stage: Cow<'static, str>,
    /// Instrumentation scope, `waybill.<crate>`.
    pub scope: Cow<'static, str>,
    /// Version of the scope.
    pub version: Cow<'static, str>,
    /// The span's trace, new for every stage.
    #[serde(serialize_with = "wire::trace_id", deserialize_with = "wire::read_trace_id")]
    pub trace_id: TraceId,
    /// The span.
    #[serde(serialize_with = "wire::span_id", deserialize_with = "wire::read_span_id")]
    pub span_id: SpanId,
    /// The span of the same trace that this one is a part of; none where the trace begins here.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::optional_span_id")]
    pub parent: Option<SpanId>,
    /// W3C trace flags; not sampled means published but not exported.
    #[serde(serialize_with = "wire::flags", deserialize_with = "wire::read_flags")]
    pub trace_flags: TraceFlags,
    /// Span name, for example `warehouse.pick`.
    pub name: Cow<'static, str>,
    /// Span kind.
    pub kind: SpanKind,
    /// Since when the record was parked, if it was, UTC: the span begins then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_since: Option<Timestamp>,
    /// When the stage began to decide, UTC.
    pub start: Timestamp,
    /// When it had decided, UTC.
    pub end: Timestamp,
    /// The record it is about; none where no record led here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Input>,
    /// The other attributes, as `docs/telemetry.md` lists them.
    #[serde(with = "wire::attributes", default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    /// Events of the span.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<SpanEvent>,
    /// Links to the spans that led here: those of the waybill first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<SpanLink>,
    /// Status.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub status: Status,
    /// One child per item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildSpan>,
}

pub(crate) fn is_unset(status: &Status) -> bool {
    *status == Status::Unset
}

impl SpanRecord {
    /// A span over `time..time` that begins a trace, not sampled yet; the scope is `waybill.<flow>` or `waybill.<crate>`.
    pub fn new(
        rng: &mut impl Rng,
        stage: &'static str,
        scope: impl Into<Cow<'static, str>>,
        name: &'static str,
        kind: SpanKind,
        time: Timestamp,
    ) -> Self {
        SpanRecord {
            stage: Cow::Borrowed(stage),
            scope: scope.into(),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            trace_id: TraceId::from(rng.random_range(1..=u128::MAX)),
            span_id: SpanId::from(rng.random_range(1..=u64::MAX)),
            parent: None,
            trace_flags: TraceFlags::default(),
            name: Cow::Borrowed(name),
            kind,
            parked_since: None,
            start: time,
            end: time,
            input: None,
            attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            status: Status::Unset,
            children: Vec::new(),
        }
    }

    /// Makes it a part of `parent`: the same trace, sampled or not as that one is.
    #[must_use]
    pub fn under(mut self, parent: &SpanContext) -> Self {
        self.trace_id = parent.trace_id();
        self.parent = Some(parent.span_id());
        self.trace_flags = parent.trace_flags();
        self
    }

    /// What names this span to others.
    #[must_use]
    pub fn context(&self) -> SpanContext {
        SpanContext::new(self.trace_id, self.span_id, self.trace_flags, false, TraceState::default())
    }

    /// Whether the span is exported.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.trace_flags.is_sampled()
    }

    /// When the span begins, UTC.
    #[must_use]
    pub fn begun(&self) -> Timestamp {
        self.parked_since.map_or(self.start, |since| since.min(self.start))
    }

    /// The copy that travels with the span's event, as JSON. Links to the stamps of the waybill are left out, since the
    /// event's payload has the waybill.
    ///
    /// # Errors
    /// The span cannot be written as JSON.
    pub fn publish(&mut self) -> serde_json::Result<Vec<u8>> {
        let stamps = self.links.iter().take_while(|link| link.link_type == FOLLOWS_FROM).count();
        let others = self.links.split_off(stamps);
        let stamps = std::mem::replace(&mut self.links, others);
        // What a span of three items takes.
        let mut copy = Vec::with_capacity(1_536);
        let written = serde_json::to_writer(&mut copy, self);
        let others = std::mem::replace(&mut self.links, stamps);
        self.links.extend(others);
        written.map(|()| copy)
    }

    /// Reads a published copy; `waybill` is the one in the payload beside it, which counts where the record was accepted:
    /// the span of one that was not has no links to its stamps.
    ///
    /// # Errors
    /// It is not the copy of a span.
    pub fn read(copy: &str, waybill: &Waybill) -> serde_json::Result<Self> {
        let mut span: SpanRecord = serde_json::from_str(copy)?;
        if span.input.as_ref().is_some_and(|input| input.message.is_none()) {
            return Ok(span);
        }
        // The last stamp of an event's waybill is this span's own.
        let stamps = waybill.links().filter(|link| (link.trace_id, link.span_id) != (span.trace_id, span.span_id));
        span.links = stamps.chain(std::mem::take(&mut span.links)).collect();
        Ok(span)
    }

    /// This span as a stamp on the waybill.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp {
            stage: self.stage.clone(),
            trace_id: self.trace_id,
            span_id: self.span_id,
            trace_flags: self.trace_flags,
            started_at: self.begun(),
            ended_at: self.end,
        }
    }

    /// The W3C `traceparent` that names this span.
    #[must_use]
    pub fn traceparent(&self) -> String {
        crate::traceparent(self.trace_id, self.span_id, self.trace_flags)
    }

    /// The span and its children in the exporter's form.
    pub fn into_otel(self) -> impl Iterator<Item = SpanData> {
        let scope = InstrumentationScope::builder(self.scope.clone())
            .with_version(self.version.clone())
            .with_schema_url(SCHEMA_URL)
            .build();
        let context =
            |span_id| SpanContext::new(self.trace_id, span_id, self.trace_flags, false, TraceState::default());
        let begun = self.begun();
        let mut attributes = Vec::with_capacity(9 + self.attributes.len());
        if let Some(input) = self.input {
            input.attributes(&mut attributes);
        }
        attributes.extend(self.attributes);
        let mut events = SpanEvents::default();
        events.events = self
            .events
            .into_iter()
            .map(|e| trace::Event::new(e.name, SystemTime::from(e.time), e.attributes, 0))
            .collect();
        let mut links = SpanLinks::default();
        links.links = self.links.iter().map(SpanLink::to_otel).collect();
        let parent = SpanData {
            span_context: context(self.span_id),
            parent_span_id: self.parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: false,
            span_kind: self.kind.to_otel(),
            name: self.name,
            start_time: begun.into(),
            end_time: self.end.into(),
            attributes,
            dropped_attributes_count: 0,
            events,
            links,
            status: match self.status {
                Status::Unset => trace::Status::Unset,
                Status::Error(why) => trace::Status::error(why),
            },
            instrumentation_scope: scope.clone(),
        };
        let children: Vec<SpanData> = self
            .children
            .into_iter()
            .map(|child| SpanData {
                span_context: context(child.span_id),
                parent_span_id: self.span_id,
                parent_span_is_remote: false,
                span_kind: trace::SpanKind::Internal,
                name: child.name,
                start_time: self.start.into(),
                end_time: self.end.into(),
                attributes: child.attributes,
                dropped_attributes_count: 0,
                events: SpanEvents::default(),
                links: SpanLinks::default(),
                status: trace::Status::Unset,
                instrumentation_scope: scope.clone(),
            })
            .collect();
        std::iter::once(parent).chain(children)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_read_back_from_json_is_the_span_that_was_published() {
        let time: Timestamp = "2026-11-21T10:00:00.123456789Z".parse().unwrap();
        let mut span = SpanRecord {
            stage: "pick".into(),
            scope: "waybill.fulfilment".into(),
            version: "0.1.0".into(),
            trace_id: TraceId::from(7u128),
            span_id: SpanId::from(8u64),
            parent: Some(SpanId::from(6u64)),
            trace_flags: TraceFlags::SAMPLED,
            name: "warehouse.pick".into(),
            kind: SpanKind::Consumer,
            parked_since: Some(time),
            start: time,
            end: time,
            input: Some(Input {
                topic: "orders.new".into(),
                partition: 3,
                offset: 42,
                group: "waybill.pick".into(),
                message: Some(("o-1".into(), "id".into())),
            }),
            attributes: vec![KeyValue::new("a", 1), KeyValue::new("b", 2.0), KeyValue::new("c", "x")],
            events: vec![SpanEvent { name: "parked".into(), time, attributes: vec![KeyValue::new("d", true)] }],
            links: vec![],
            status: Status::Error("no".into()),
            children: vec![ChildSpan {
                span_id: SpanId::from(9u64),
                name: "warehouse.pick_item".into(),
                attributes: vec![],
            }],
        };
        let mut waybill = Waybill::default();
        let ids = |n: u8| (TraceId::from(u128::from(n)), SpanId::from(u64::from(n)), TraceFlags::SAMPLED);
        let (trace_id, span_id, trace_flags) = ids(1);
        let stage = "checkout".into();
        waybill.push(Stamp { stage, trace_id, span_id, trace_flags, started_at: time, ended_at: time });
        span.links = waybill.links().collect();
        let (trace_id, span_id, flags) = ids(2);
        span.links.push(SpanLink::new(trace_id, span_id, flags, "consumed", "elsewhere".into()));
        waybill.push(span.stamp());

        let copy = String::from_utf8(span.publish().unwrap()).unwrap();
        assert!(!copy.contains("checkout"), "the waybill says it: {copy}");
        assert_eq!(SpanRecord::read(&copy, &waybill).unwrap(), span);
        assert_eq!(serde_json::from_str::<SpanRecord>(&serde_json::to_string(&span).unwrap()).unwrap(), span);
        let exported: Vec<SpanData> = span.into_otel().collect();
        assert_eq!(exported.len(), 2);
        assert_eq!(exported[1].parent_span_id, exported[0].span_context.span_id());
    }
}
