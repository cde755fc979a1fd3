//! A published copy borrowed from its record, for who reads many: its lists stay the JSON they are.

use crate::record::{SpanKind, SpanRecord, Status, is_unset};
use crate::wire;
use jiff::Timestamp;
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
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
    #[serde(serialize_with = "wire::trace_id", deserialize_with = "wire::read_trace_id")]
    pub trace_id: TraceId,
    /// The span.
    #[serde(serialize_with = "wire::span_id", deserialize_with = "wire::read_span_id")]
    pub span_id: SpanId,
    /// The span it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::optional_span_id")]
    pub parent: Option<SpanId>,
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
    #[serde(serialize_with = "wire::span_id", deserialize_with = "wire::read_span_id")]
    pub span_id: SpanId,
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its attributes, an object.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<&'a RawValue>,
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
