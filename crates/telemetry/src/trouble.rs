//! What is said of an export that fails: at once, once a minute while it lasts, and when it is over.

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a failure that lasts is told.
const TELL: Duration = Duration::from_secs(60);

/// An export that fails again and again.
#[derive(Debug)]
pub(crate) struct Trouble {
    told: Option<Instant>,
    /// Spans, or exports of metrics.
    lost: u64,
}

impl Trouble {
    pub(crate) fn begin() -> Self {
        Trouble { told: None, lost: 0 }
    }

    /// One more failure. `why` is told, and must hold no secret.
    pub(crate) fn lose(&mut self, what: &str, lost: u64, why: impl Display) {
        self.lost += lost;
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            tracing::warn!(
                lost = self.lost,
                %why,
                "{what} cannot be exported and are dropped; orders go on \
                 (waybill.spans.dropped counts spans; is a collector at OTEL_EXPORTER_OTLP_ENDPOINT that takes our certificate \
                 and OTEL_EXPORTER_OTLP_HEADERS?)"
            );
        }
    }

    /// It went through.
    pub(crate) fn over(self, what: &str) {
        tracing::info!(lost = self.lost, "{what} are exported again");
    }
}

/// An exporter of metrics that says so where it fails: what the SDK says itself is not shown.
pub(crate) struct Telling<E> {
    exporter: E,
    trouble: Mutex<Option<Trouble>>,
}

impl<E> Telling<E> {
    pub(crate) fn new(exporter: E) -> Self {
        Telling { exporter, trouble: Mutex::default() }
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Telling<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.exporter.export(metrics).await;
        // Nothing that can panic happens under the lock.
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                if let Some(trouble) = trouble.take() {
                    trouble.over("metrics");
                }
            }
            Err(error) => trouble.get_or_insert_with(Trouble::begin).lose("metrics", 1, error),
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
