//! Published copies borrowed from their record, for who reads many: lists stay the JSON they are, ids the text.

use crate::context::{FOLLOWS_FROM, MAX_STAGE, Stamp, Waybill};
use crate::record::{SpanKind, SpanRecord, Status, is_unset};
use crate::wire;
use jiff::Timestamp;
use opentelemetry::trace::TraceFlags;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A [`SpanRecord`] as it stands in a record: the same fields under the same names.
#[derive(Debug, Serialize, Deserialize)]
pub struct SpanCopy<'a> {
    /// The stage the span belongs to.
    #[serde(borrow)]
    pub stage: Cow<'a, str>,
    /// Instrumentation scope.
    #[serde(borrow)]
    pub scope: Cow<'a, str>,
    /// Version of the scope.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
    /// The span's trace.
    #[serde(borrow, deserialize_with = "wire::text::trace_id")]
    pub trace_id: Cow<'a, str>,
    /// The span.
    #[serde(borrow, deserialize_with = "wire::text::span_id")]
    pub span_id: Cow<'a, str>,
    /// The span it is a part of.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::text::parent")]
    pub parent: Option<Cow<'a, str>>,
    /// W3C trace flags.
    #[serde(serialize_with = "wire::flags", deserialize_with = "wire::read_flags")]
    pub trace_flags: TraceFlags,
    /// Span name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Span kind.
    pub kind: SpanKind,
    /// Since when the record was parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_since: Option<Timestamp>,
    /// When the stage began to decide, UTC.
    pub start: Timestamp,
    /// When it had decided, UTC.
    pub end: Timestamp,
    /// The record it is about, an [`crate::Input`].
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub input: Option<&'a RawValue>,
    /// The other attributes, an object.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<&'a RawValue>,
    /// A list of [`crate::SpanEvent`].
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub events: Option<&'a RawValue>,
    /// A list of [`crate::SpanLink`], without those to the stamps of the waybill beside it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub links: Option<&'a RawValue>,
    /// Status.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub status: Status,
    /// A list of [`crate::ChildSpan`], one per item.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub children: Option<&'a RawValue>,
}

/// A [`crate::ChildSpan`] as it stands in a record.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChildCopy<'a> {
    /// This span.
    #[serde(borrow, deserialize_with = "wire::text::span_id")]
    pub span_id: Cow<'a, str>,
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its attributes, an object.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<&'a RawValue>,
}

/// A stamp of a waybill, as far as a link tells of it.
#[derive(Debug, Deserialize)]
pub struct StampCopy<'a> {
    /// The stage.
    #[serde(borrow)]
    pub stage: Cow<'a, str>,
    /// Its span's trace.
    #[serde(borrow, deserialize_with = "wire::text::trace_id")]
    pub trace_id: Cow<'a, str>,
    /// Its span.
    #[serde(borrow, deserialize_with = "wire::text::span_id")]
    pub span_id: Cow<'a, str>,
    /// W3C trace flags.
    #[serde(borrow, deserialize_with = "wire::text::flags")]
    pub trace_flags: Cow<'a, str>,
}

/// A [`crate::SpanLink`] as it stands in a copy.
#[derive(Debug, Serialize)]
pub struct LinkCopy<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    trace_flags: &'a str,
    #[serde(rename = "type")]
    link_type: &'a str,
    stage: &'a str,
}

impl<'a> StampCopy<'a> {
    /// Those of a waybill that a stage has published: their times are not looked at, since it has left out what is malformed.
    #[must_use]
    pub fn published(waybill: &'a RawValue) -> Vec<Self> {
        match serde_json::from_str::<Vec<Self>>(waybill.get()) {
            Ok(stamps) if stamps.iter().all(|stamp| matches!(stamp.stage.len(), 1..=MAX_STAGE)) => stamps,
            Ok(_) | Err(_) => StampCopy::all(&serde_json::from_str(waybill.get()).unwrap_or_default()),
        }
    }

    /// Those of any waybill.
    #[must_use]
    pub fn all(waybill: &Waybill) -> Vec<Self> {
        let copy = |stamp: &Stamp| StampCopy {
            stage: stamp.stage.clone(),
            trace_id: stamp.trace_id.to_string().into(),
            span_id: stamp.span_id.to_string().into(),
            trace_flags: format!("{:02x}", stamp.trace_flags).into(),
        };
        waybill.stamps().iter().map(copy).collect()
    }

    /// The link to it.
    #[must_use]
    pub fn link(&self) -> LinkCopy<'_> {
        let StampCopy { stage, trace_id, span_id, trace_flags } = self;
        LinkCopy { trace_id, span_id, trace_flags, link_type: FOLLOWS_FROM, stage }
    }
}

impl SpanCopy<'_> {
    /// When the span begins, UTC.
    #[must_use]
    pub fn begun(&self) -> Timestamp {
        self.parked_since.map_or(self.start, |since| since.min(self.start))
    }

    /// The span, its links as far as they stand here.
    ///
    /// # Errors
    /// One of its lists is not what it should be.
    pub fn to_record(&self) -> serde_json::Result<SpanRecord> {
        serde_json::from_str(&serde_json::to_string(self)?)
    }
}
