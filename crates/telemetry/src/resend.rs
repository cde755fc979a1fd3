//! Spans that were exported once, sent again from their published copies.

use crate::tls::{Signal, secured};
use crate::{SpanRecord, TelemetryError};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as OtlpSpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    /// The endpoint is none.
    #[error("not an OTLP endpoint")]
    Endpoint(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A standard variable means nothing here.
    #[error("cannot set up the export")]
    Settings(#[from] TelemetryError),
    /// The endpoint cannot be reached, or did not take them.
    #[error("the endpoint did not take spans")]
    Export(#[from] OTelSdkError),
}

/// Sends spans to an OTLP/gRPC endpoint, each under the `service.name` it had and `waybill.replayed=true`.
#[derive(Debug)]
pub struct Resend {
    endpoint: String,
    /// By service: a resource belongs to an exporter.
    exporters: HashMap<String, OtlpSpanExporter>,
}

impl Resend {
    /// To `http://host:port` or `https://host:port`, with the standard variables' certificates and headers. The connection is made with the first span.
    #[must_use]
    pub fn to(endpoint: &str) -> Self {
        Resend { endpoint: endpoint.to_owned(), exporters: HashMap::new() }
    }

    /// Sends spans of one stage, as one request. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// They were not taken: they may be sent again.
    pub async fn send(&mut self, stage: &str, spans: &[SpanRecord]) -> Result<(), ResendError> {
        let exporter = match self.exporters.entry(stage.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let builder = OtlpSpanExporter::builder().with_tonic().with_endpoint(self.endpoint.clone());
                let mut exporter = secured(builder, Signal::Traces, Some(&self.endpoint))?.build()?;
                // Without the detectors: who sends now is not who worked then.
                let resource = Resource::builder_empty().with_attributes([
                    KeyValue::new("service.name", format!("waybill-{stage}")),
                    KeyValue::new("waybill.replayed", true),
                ]);
                exporter.set_resource(&resource.build());
                entry.insert(exporter)
            }
        };
        let spans: Vec<SpanData> = spans.iter().cloned().flat_map(SpanRecord::into_otel).collect();
        Ok(exporter.export(spans).await?)
    }
}
