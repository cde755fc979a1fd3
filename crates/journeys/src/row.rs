//! A span as a row.

use jiff::Timestamp;
use opentelemetry::trace::TraceFlags;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde::de::value::StrDeserializer;
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use waybill_telemetry::{ChildCopy, LinkCopy, SpanCopy, SpanKind, SpanLink, SpanRecord, StampCopy, Status};

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

/// A stage span or a part of one, with its children: one row. Ids are lower hex, times nanoseconds since 1970. Text is borrowed
/// from its record, or of its own.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns of `stage_spans`, described in tables_sqlite.sql")]
pub struct SpanRow<T = String> {
    pub trace_id: T,
    pub span_id: T,
    pub parent_span_id: Option<T>,
    pub trace_flags: i64,
    pub stage: T,
    pub scope: T,
    pub version: T,
    pub name: T,
    pub kind: T,
    pub start_ns: i64,
    pub decided_ns: i64,
    pub end_ns: i64,
    pub stamp: bool,
    pub order_id: Option<T>,
    pub input: Option<T>,
    pub attributes: T,
    pub status: Option<T>,
    pub links: T,
    pub events: T,
    pub children: T,
    pub topic: T,
    pub partition_id: i32,
    pub record_offset: i64,
}

impl SpanRow<Cow<'_, str>> {
    /// The same with text of its own.
    #[must_use]
    pub fn into_owned(self) -> SpanRow {
        SpanRow {
            trace_id: self.trace_id.into_owned(),
            span_id: self.span_id.into_owned(),
            parent_span_id: self.parent_span_id.map(Cow::into_owned),
            trace_flags: self.trace_flags,
            stage: self.stage.into_owned(),
            scope: self.scope.into_owned(),
            version: self.version.into_owned(),
            name: self.name.into_owned(),
            kind: self.kind.into_owned(),
            start_ns: self.start_ns,
            decided_ns: self.decided_ns,
            end_ns: self.end_ns,
            stamp: self.stamp,
            order_id: self.order_id.map(Cow::into_owned),
            input: self.input.map(Cow::into_owned),
            attributes: self.attributes.into_owned(),
            status: self.status.map(Cow::into_owned),
            links: self.links.into_owned(),
            events: self.events.into_owned(),
            children: self.children.into_owned(),
            topic: self.topic.into_owned(),
            partition_id: self.partition_id,
            record_offset: self.record_offset,
        }
    }
}

/// The record that tells of spans.
pub(crate) struct Source<'a> {
    pub topic: &'a str,
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

/// The row of a span; `stamps` are those of the record's payload, for the span that publishes it.
pub(crate) fn row<'a>(
    copy: SpanCopy<'a>,
    source: &Source<'a>,
    (stamps, stamp): (&[StampCopy<'_>], bool),
) -> serde_json::Result<SpanRow<Cow<'a, str>>> {
    Ok(SpanRow {
        trace_flags: copy.trace_flags.to_u8().into(),
        kind: copy.kind.name().into(),
        start_ns: nanos(copy.begun())?,
        decided_ns: nanos(copy.start)?,
        end_ns: nanos(copy.end)?,
        stamp: stamp && copy.kind != SpanKind::Server,
        order_id: source.order_id.map(Cow::Borrowed),
        input: copy.input.map(|input| input.get().into()),
        attributes: object(copy.attributes)?.into(),
        links: links(&copy, stamps)?,
        events: events(copy.events)?,
        children: children(copy.children)?.into(),
        topic: source.topic.into(),
        partition_id: source.partition,
        record_offset: source.offset,
        trace_id: copy.trace_id,
        span_id: copy.span_id,
        parent_span_id: copy.parent,
        stage: copy.stage,
        scope: copy.scope,
        version: copy.version,
        name: copy.name,
        status: match copy.status {
            Status::Unset => None,
            Status::Error(why) => Some(why.into()),
        },
    })
}

fn children(children: Option<&RawValue>) -> serde_json::Result<&str> {
    let Some(children) = children else { return Ok("[]") };
    for child in serde_json::from_str::<Vec<ChildCopy<'_>>>(children.get())? {
        object(child.attributes)?;
    }
    Ok(children.get())
}

fn nanos(time: Timestamp) -> serde_json::Result<i64> {
    i64::try_from(time.as_nanosecond()).map_err(|_| serde_json::Error::custom(format!("{time} is out of range")))
}

fn object(attributes: Option<&RawValue>) -> serde_json::Result<&str> {
    match attributes.map(RawValue::get) {
        None => Ok("{}"),
        Some(json) if json.starts_with('{') => Ok(json),
        Some(_) => Err(serde_json::Error::custom("attributes are not an object")),
    }
}

/// Those to the stamps, the last of which is the span's own, then its others.
fn links(copy: &SpanCopy<'_>, stamps: &[StampCopy<'_>]) -> serde_json::Result<Cow<'static, str>> {
    let own = |stamp: &StampCopy<'_>| (&stamp.trace_id, &stamp.span_id) == (&copy.trace_id, &copy.span_id);
    let earlier: Vec<LinkCopy<'_>> = stamps.iter().filter(|stamp| !own(stamp)).map(StampCopy::link).collect();
    let Some(others) = copy.links else {
        return if earlier.is_empty() { Ok("[]".into()) } else { Ok(serde_json::to_string(&earlier)?.into()) };
    };
    let others: Vec<SpanLink> = serde_json::from_str(others.get())?;
    let [earlier, others] = [serde_json::to_string(&earlier)?, serde_json::to_string(&others)?];
    Ok(match (earlier.as_str(), others.as_str()) {
        (all, "[]") | ("[]", all) => all.to_owned(),
        (earlier, others) => format!("{},{}", &earlier[..earlier.len() - 1], &others[1..]),
    }
    .into())
}

fn events(events: Option<&RawValue>) -> serde_json::Result<Cow<'static, str>> {
    let Some(events) = events else { return Ok("[]".into()) };
    let events: Vec<WireEvent<'_>> = serde_json::from_str(events.get())?;
    let events = events.into_iter().map(|WireEvent { name, time, attributes }| {
        object(attributes)?;
        Ok(RowEvent { name, time_ns: nanos(time)?, attributes })
    });
    Ok(serde_json::to_string(&events.collect::<serde_json::Result<Vec<_>>>()?)?.into())
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
            trace_id: Cow::Borrowed(&self.trace_id),
            span_id: Cow::Borrowed(&self.span_id),
            parent: self.parent_span_id.as_deref().map(Cow::Borrowed),
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
