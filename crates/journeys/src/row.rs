//! A span as a row.

use jiff::Timestamp;
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde::de::value::StrDeserializer;
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use waybill_telemetry::{ChildCopy, SpanCopy, SpanKind, SpanLink, SpanRecord, Status, Waybill};

/// The columns of `stage_spans`, in the order of [`SpanRow`]'s fields.
pub(crate) const COLUMNS: [&str; 23] = [
    "trace_id",
    "span_id",
    "parent_span_id",
    "trace_flags",
    "stage",
    "scope",
    "version",
    "name",
    "kind",
    "start_ns",
    "decided_ns",
    "end_ns",
    "stamp",
    "order_id",
    "input",
    "attributes",
    "status",
    "links",
    "events",
    "children",
    "topic",
    "partition_id",
    "record_offset",
];

/// A stage span or a part of one, with its children: one row. Ids are lower hex, times nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns of `stage_spans`, described in tables_sqlite.sql")]
pub struct SpanRow {
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: Option<String>,
    pub trace_flags: i64,
    pub stage: String,
    pub scope: String,
    pub version: String,
    pub name: String,
    pub kind: String,
    pub start_ns: i64,
    pub decided_ns: i64,
    pub end_ns: i64,
    pub stamp: bool,
    pub order_id: Option<String>,
    pub input: Option<String>,
    pub attributes: String,
    pub status: Option<String>,
    pub links: String,
    pub events: String,
    pub children: String,
    pub topic: String,
    pub partition_id: i32,
    pub record_offset: i64,
}

/// The record that tells of spans.
pub(crate) struct Source<'a> {
    pub topic: &'a Arc<str>,
    pub partition: i32,
    pub offset: i64,
    pub order_id: Option<&'a str>,
}

/// An event of a span on the wire.
#[derive(Serialize, Deserialize)]
struct WireEvent<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    time: Timestamp,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    attributes: Option<&'a RawValue>,
}

/// The same in a row.
#[derive(Serialize, Deserialize)]
struct RowEvent<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    time_ns: i64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    attributes: Option<&'a RawValue>,
}

/// The row of a span; `waybill` is that of the record's payload, for the span that publishes it.
pub(crate) fn row(
    copy: &SpanCopy<'_>,
    source: &Source<'_>,
    (waybill, stamp): (Option<&Waybill>, bool),
) -> serde_json::Result<SpanRow> {
    Ok(SpanRow {
        trace_id: copy.trace_id.to_string(),
        span_id: copy.span_id.to_string(),
        parent_span_id: copy.parent.map(|id| id.to_string()),
        trace_flags: copy.trace_flags.to_u8().into(),
        stage: copy.stage.clone().into_owned(),
        scope: copy.scope.clone().into_owned(),
        version: copy.version.clone().into_owned(),
        name: copy.name.clone().into_owned(),
        kind: copy.kind.name().to_owned(),
        start_ns: nanos(copy.begun())?,
        decided_ns: nanos(copy.start)?,
        end_ns: nanos(copy.end)?,
        stamp: stamp && copy.kind != SpanKind::Server,
        order_id: source.order_id.map(str::to_owned),
        input: copy.input.map(|input| input.get().to_owned()),
        attributes: object(copy.attributes)?,
        status: match &copy.status {
            Status::Unset => None,
            Status::Error(why) => Some(why.clone()),
        },
        links: links(copy, waybill)?,
        events: events(copy.events)?,
        children: children(copy.children)?,
        topic: source.topic.to_string(),
        partition_id: source.partition,
        record_offset: source.offset,
    })
}

fn children(children: Option<&RawValue>) -> serde_json::Result<String> {
    let Some(children) = children else { return Ok("[]".to_owned()) };
    for child in serde_json::from_str::<Vec<ChildCopy<'_>>>(children.get())? {
        object(child.attributes)?;
    }
    Ok(children.get().to_owned())
}

fn nanos(time: Timestamp) -> serde_json::Result<i64> {
    i64::try_from(time.as_nanosecond()).map_err(|_| serde_json::Error::custom(format!("{time} is out of range")))
}

fn object(attributes: Option<&RawValue>) -> serde_json::Result<String> {
    match attributes.map(RawValue::get) {
        None => Ok("{}".to_owned()),
        Some(json) if json.starts_with('{') => Ok(json.to_owned()),
        Some(_) => Err(serde_json::Error::custom("attributes are not an object")),
    }
}

/// Those to the stamps of the waybill, the last of which is the span's own, then its others.
fn links(copy: &SpanCopy<'_>, waybill: Option<&Waybill>) -> serde_json::Result<String> {
    let own = |link: &SpanLink| (link.trace_id, link.span_id) == (copy.trace_id, copy.span_id);
    let mut links: Vec<SpanLink> = waybill.into_iter().flat_map(Waybill::links).filter(|link| !own(link)).collect();
    if let Some(others) = copy.links {
        links.append(&mut serde_json::from_str(others.get())?);
    }
    serde_json::to_string(&links)
}

fn events(events: Option<&RawValue>) -> serde_json::Result<String> {
    let Some(events) = events else { return Ok("[]".to_owned()) };
    let events: Vec<WireEvent<'_>> = serde_json::from_str(events.get())?;
    let events = events.into_iter().map(|WireEvent { name, time, attributes }| {
        object(attributes)?;
        Ok(RowEvent { name, time_ns: nanos(time)?, attributes })
    });
    serde_json::to_string(&events.collect::<serde_json::Result<Vec<_>>>()?)
}

fn span_id(hex: &str) -> serde_json::Result<SpanId> {
    SpanId::from_hex(hex).map_err(serde_json::Error::custom)
}

fn parsed<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    let text: StrDeserializer<'a, serde_json::Error> = text.into_deserializer();
    T::deserialize(text)
}

impl SpanRow {
    /// The span that was published, with its children.
    ///
    /// # Errors
    /// The row is not one that a replay wrote.
    pub fn to_record(&self) -> serde_json::Result<SpanRecord> {
        let events: Vec<RowEvent<'_>> = serde_json::from_str(&self.events)?;
        let events = events.into_iter().map(|RowEvent { name, time_ns, attributes }| WireEvent {
            name,
            time: Timestamp::from_nanosecond(time_ns.into()).unwrap_or_default(),
            attributes,
        });
        let events = serde_json::value::to_raw_value(&events.collect::<Vec<_>>())?;
        let copy = SpanCopy {
            stage: Cow::Borrowed(&self.stage),
            scope: Cow::Borrowed(&self.scope),
            version: Cow::Borrowed(&self.version),
            trace_id: TraceId::from_hex(&self.trace_id).map_err(serde_json::Error::custom)?,
            span_id: span_id(&self.span_id)?,
            parent: self.parent_span_id.as_deref().map(span_id).transpose()?,
            trace_flags: TraceFlags::new(u8::try_from(self.trace_flags).unwrap_or_default()),
            name: Cow::Borrowed(&self.name),
            kind: parsed(&self.kind)?,
            parked_since: Timestamp::from_nanosecond(self.start_ns.into()).ok(),
            start: Timestamp::from_nanosecond(self.decided_ns.into()).unwrap_or_default(),
            end: Timestamp::from_nanosecond(self.end_ns.into()).unwrap_or_default(),
            input: self.input.as_deref().map(serde_json::from_str).transpose()?,
            attributes: Some(serde_json::from_str(&self.attributes)?),
            events: Some(&events),
            links: Some(serde_json::from_str(&self.links)?),
            status: self.status.clone().map_or(Status::Unset, Status::Error),
            children: Some(serde_json::from_str(&self.children)?),
        };
        copy.to_record()
    }

    /// The same as OTLP says it: the span, then its children.
    ///
    /// # Errors
    /// The row is not one that a replay wrote.
    pub fn to_otlp(&self) -> serde_json::Result<Vec<Span>> {
        Ok(self.to_record()?.into_otel().map(Span::from).collect())
    }
}
