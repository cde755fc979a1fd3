//! Spans as a test asks about them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde_json::Value;

/// Attributes by name, as JSON values.
pub type Attributes = BTreeMap<String, Value>;

/// A span, with the resource and the scope it came under.
#[derive(Debug, Clone)]
pub struct Caught {
    /// The resource's attributes.
    pub resource: Attributes,
    /// The instrumentation scope's name,
    pub scope_name: String,
    /// its version,
    pub scope_version: String,
    /// the schema URL: the scope's, else the resource's.
    pub schema_url: String,
    /// The span as it came over the wire.
    pub span: Span,
}

impl Caught {
    /// The span's name.
    pub fn name(&self) -> &str {
        &self.span.name
    }

    /// Server, client, producer, consumer or internal.
    pub fn kind(&self) -> SpanKind {
        self.span.kind()
    }

    /// 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// The parent's span id; none in a root.
    pub fn parent(&self) -> Option<String> {
        let parent = hex(&self.span.parent_span_id);
        (!parent.trim_start_matches('0').is_empty()).then_some(parent)
    }

    /// The span's own attributes.
    pub fn attributes(&self) -> Attributes {
        attributes(&self.span.attributes)
    }

    /// What it links to: trace id, span id, the link's attributes.
    pub fn links(&self) -> Vec<(String, String, Attributes)> {
        let links = self.span.links.iter();
        links.map(|link| (hex(&link.trace_id), hex(&link.span_id), attributes(&link.attributes))).collect()
    }

    /// Its events in order: name and attributes.
    pub fn events(&self) -> Vec<(String, Attributes)> {
        let events = self.span.events.iter();
        events.map(|event| (event.name.clone(), attributes(&event.attributes))).collect()
    }

    /// As the collector's file exporter writes it: a request with this span alone, on one line of JSON.
    pub fn otlp_line(&self) -> anyhow::Result<String> {
        let service = self.resource.get("service.name").and_then(Value::as_str).unwrap_or_default();
        let service = Any::StringValue(service.to_owned());
        let service = KeyValue {
            key: "service.name".to_owned(),
            value: Some(AnyValue { value: Some(service) }),
            ..KeyValue::default()
        };
        let scope = InstrumentationScope {
            name: self.scope_name.clone(),
            version: self.scope_version.clone(),
            ..InstrumentationScope::default()
        };
        let scope_spans =
            ScopeSpans { scope: Some(scope), spans: vec![self.span.clone()], schema_url: self.schema_url.clone() };
        let resource = Resource { attributes: vec![service], ..Resource::default() };
        let resource_spans =
            ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], ..ResourceSpans::default() };
        Ok(serde_json::to_string(&ExportTraceServiceRequest { resource_spans: vec![resource_spans] })?)
    }

    /// The status and its message; unset where none was sent.
    pub fn status(&self) -> (StatusCode, &str) {
        match &self.span.status {
            Some(status) => (status.code(), &status.message),
            None => (StatusCode::Unset, ""),
        }
    }
}

pub(crate) fn flatten(batches: Vec<ResourceSpans>) -> Vec<Caught> {
    let mut caught = Vec::new();
    for batch in batches {
        let resource = attributes(&batch.resource.unwrap_or_default().attributes);
        for scope_spans in batch.scope_spans {
            let InstrumentationScope { name, version, .. } = scope_spans.scope.unwrap_or_default();
            let schema_url = first_of(scope_spans.schema_url, &batch.schema_url);
            caught.extend(scope_spans.spans.into_iter().map(|span| Caught {
                resource: resource.clone(),
                scope_name: name.clone(),
                scope_version: version.clone(),
                schema_url: schema_url.clone(),
                span,
            }));
        }
    }
    caught
}

/// A scope without a schema URL has its resource's.
pub(crate) fn first_of(scope: String, resource: &str) -> String {
    if scope.is_empty() { resource.to_owned() } else { scope }
}

pub(crate) fn attributes(pairs: &[KeyValue]) -> Attributes {
    pairs.iter().map(|pair| (pair.key.clone(), json(pair.value.as_ref()))).collect()
}

fn json(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        // An index into a table that only profiles have.
        None | Some(Any::StringValueStrindex(_)) => Value::Null,
        Some(Any::StringValue(text)) => Value::from(text.as_str()),
        Some(Any::BoolValue(flag)) => Value::from(*flag),
        Some(Any::IntValue(number)) => Value::from(*number),
        Some(Any::DoubleValue(number)) => Value::from(*number),
        Some(Any::BytesValue(bytes)) => Value::from(hex(bytes)),
        Some(Any::ArrayValue(array)) => array.values.iter().map(|v| json(Some(v))).collect(),
        Some(Any::KvlistValue(list)) => attributes(&list.values).into_iter().collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
