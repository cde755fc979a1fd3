//! The way of spans and metrics to an OTLP collector, which never holds up a stage.
//!
//! - Handing over a span costs a queue slot, never a wait: a full queue drops, and the drop is counted.
//! - What an export loses is counted too; both are the metric `waybill.spans.dropped`.
//! - After a failure it rests, longer each time, and says once a minute why.
//! - Closing takes at most [`CLOSE_LIMIT`], whatever the collector does.

use crate::queue::{Bounds, Counts, Dropped, Queue};
use crate::settings::{Sampling, TelemetryConfig, TelemetryError, number, only_grpc, resource, sampling, variable};
use crate::tls::{Signal, secured};
use crate::trouble::Telling;
use crate::{SCHEMA_URL, SpanRecord};
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::trace::{TraceFlags, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{MetricExporter, SpanExporter as OtlpSpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{
    SamplingDecision, SdkTracerProvider, ShouldSample, SpanData, SpanExporter, SpanProcessor,
};
use std::borrow::Cow;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Longest time that closing the export may take.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Spans that may wait for export; `OTEL_BSP_MAX_QUEUE_SIZE` wins.
const QUEUE: usize = 65_536;
/// Spans a request; `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` wins.
const BATCH: usize = 2_048;
/// Longest wait for a batch to fill; `OTEL_BSP_SCHEDULE_DELAY` (ms) wins.
const DELAY: Duration = Duration::from_millis(200);
/// First and longest rest after an export that failed, in which spans wait: a collector that refuses us is left alone.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Time between two exports of metrics; `OTEL_METRIC_EXPORT_INTERVAL` (ms) wins.
const METRIC_INTERVAL: Duration = Duration::from_secs(30);

/// Where finished spans go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SpanExport {
    queue: Option<Queue>,
    counts: Arc<Counts>,
    sampling: Sampling,
}

impl SpanExport {
    /// Hands over stage spans and their children, as far as their traces are sampled. Never waits.
    pub fn finish(&self, mut spans: Vec<SpanRecord>) {
        if let Some(queue) = &self.queue {
            spans.retain(SpanRecord::is_sampled);
            queue.stage(spans);
        }
    }

    /// Decides whether a span is recorded. `decided` is what was decided where its trace or its journey began, if anybody did:
    /// a journey is recorded whole, over all its traces, or not at all.
    pub fn sample(&self, span: &mut SpanRecord, decided: Option<bool>) {
        let Sampling { root, follows } = &self.sampling;
        let sampled = decided.filter(|_| *follows).unwrap_or_else(|| {
            let kind = span.kind.to_otel();
            let result = root.should_sample(None, span.trace_id, &span.name, &kind, &span.attributes, &[]);
            result.decision == SamplingDecision::RecordAndSample
        });
        span.trace_flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    }

    /// What has been dropped since the start.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.counts.dropped()
    }
}

/// The bridge's provider hands its spans to the same queue.
impl SpanProcessor for SpanExport {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        if let Some(queue) = &self.queue {
            queue.bridged(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.shutdown_with_timeout(CLOSE_LIMIT)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.as_ref().map_or(Ok(()), |queue| queue.flush(timeout))
    }
}

/// Telemetry of one service: its spans, its metrics and their way out.
#[derive(Debug)]
pub struct Telemetry {
    spans: SpanExport,
    meters: SdkMeterProvider,
    baggage: Arc<[String]>,
    resource: Resource,
}

impl Telemetry {
    /// Starts exporting. Must be called inside a tokio runtime, which drives the connection.
    ///
    /// # Errors
    /// A standard variable that asks for something that is not built in.
    pub fn start(config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        only_grpc()?;
        let resource = resource(config);
        let enabled = config.export && !matches!(variable("OTEL_SDK_DISABLED"), Some(v) if v == "true");
        let spans = span_export(enabled, &resource)?;
        let mut meters = SdkMeterProvider::builder().with_resource(resource.clone());
        if enabled {
            let exporter = secured(MetricExporter::builder().with_tonic(), Signal::Metrics, None)?.build()?;
            let mut reader = PeriodicReader::builder(Telling::new(exporter));
            if variable("OTEL_METRIC_EXPORT_INTERVAL").is_none() {
                reader = reader.with_interval(METRIC_INTERVAL);
            }
            meters = meters.with_reader(reader.build());
        }
        let telemetry = Telemetry { spans, meters: meters.build(), baggage: config.baggage.clone().into(), resource };
        telemetry.count_drops();
        Ok(telemetry)
    }

    fn count_drops(&self) {
        let spans = self.spans.clone();
        // The instrument lives as long as its provider, which holds the callback.
        let _ = self
            .meter("waybill.telemetry")
            .u64_observable_counter("waybill.spans.dropped")
            .with_unit("{span}")
            .with_description("Spans that never reached the collector")
            .with_callback(move |observer| {
                let dropped = spans.dropped();
                observer.observe(dropped.queue_full, &[KeyValue::new("reason", "queue_full")]);
                observer.observe(dropped.export_failed, &[KeyValue::new("reason", "export_failed")]);
            })
            .build();
    }

    /// Where finished spans go.
    #[must_use]
    pub fn spans(&self) -> &SpanExport {
        &self.spans
    }

    /// The allow-list of baggage.
    #[must_use]
    pub fn baggage(&self) -> &[String] {
        &self.baggage
    }

    /// A meter of the scope `waybill.<crate>`.
    #[must_use]
    pub fn meter(&self, scope: impl Into<Cow<'static, str>>) -> Meter {
        let scope =
            InstrumentationScope::builder(scope).with_version(env!("CARGO_PKG_VERSION")).with_schema_url(SCHEMA_URL);
        self.meters.meter_with_scope(scope.build())
    }

    /// Sends the program's `tracing` spans and logs where they belong: logs to stderr (`RUST_LOG`
    /// chooses, `info` by default), spans to the collector. Once a process.
    pub fn bridge(&self) {
        let provider = SdkTracerProvider::builder()
            .with_resource(self.resource.clone())
            .with_span_processor(self.spans.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("waybill.process"));
        // Only our own spans: a client library's would be noise in a journey.
        let layer = layer.with_filter(EnvFilter::new("waybill=info"));
        // A second call keeps the first subscriber: one process, one log.
        let _ = tracing_subscriber::registry().with(layer).with(stderr_layer("info")).try_init();
    }

    /// Exports what waits, for at most [`CLOSE_LIMIT`], and says what was dropped over the whole run.
    #[must_use]
    pub fn close(self) -> Dropped {
        let (done, wait) = std::sync::mpsc::channel();
        let (spans, meters) = (self.spans.clone(), self.meters.clone());
        // A thread each, since either may hang on a collector that accepts and never answers.
        let finished = done.clone();
        let threads = [
            std::thread::Builder::new().spawn(move || {
                ignore(spans.shutdown_with_timeout(CLOSE_LIMIT));
                finished.send(()).ok();
            }),
            std::thread::Builder::new().spawn(move || {
                ignore(meters.shutdown_with_timeout(CLOSE_LIMIT));
                done.send(()).ok();
            }),
        ];
        let deadline = std::time::Instant::now() + CLOSE_LIMIT;
        for _ in threads.iter().filter(|t| t.is_ok()) {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if wait.recv_timeout(left).is_err() {
                break;
            }
        }
        self.spans.counts.dropped_at_end()
    }
}

/// What could not be sent on closing is counted in [`Dropped`]; there is nothing else to do about it.
fn ignore(result: Result<(), OTelSdkError>) {
    if let Err(error) = result {
        tracing::debug!(%error, "telemetry did not close cleanly");
    }
}

/// Logs from `level` up to stderr, for a command that exports nothing.
pub fn log_to_stderr(level: &str) {
    let _ = tracing_subscriber::registry().with(stderr_layer(level)).try_init();
}

fn stderr_layer<S>(level: &str) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    // What libraries have to say, our own messages say; RUST_LOG=librdkafka=debug brings the client's.
    let default = EnvFilter::new(format!("off,waybill={level}"));
    let filter = EnvFilter::try_from_default_env().unwrap_or(default);
    tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter(filter)
}

fn span_export(enabled: bool, resource: &Resource) -> Result<SpanExport, TelemetryError> {
    let counts = Arc::new(Counts::default());
    let mut queue = None;
    if enabled {
        let mut exporter = secured(OtlpSpanExporter::builder().with_tonic(), Signal::Traces, None)?.build()?;
        exporter.set_resource(resource);
        let limit = number("OTEL_BSP_MAX_QUEUE_SIZE")?.unwrap_or(QUEUE);
        let bounds = Bounds {
            queue: limit as u64,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")?.unwrap_or(BATCH).min(limit),
            delay: number("OTEL_BSP_SCHEDULE_DELAY")?.map_or(DELAY, |ms| Duration::from_millis(ms as u64)),
            rest: REST,
        };
        queue = Some(Queue::start(exporter, bounds, counts.clone()).map_err(TelemetryError::Thread)?);
    }
    Ok(SpanExport { queue, counts, sampling: sampling()? })
}
