//! Telemetry: trace contexts, the waybill an order carries, the spans of stages and their export.
//!
//! A stage span is first a value ([`SpanRecord`]): the same value is published with the event that
//! it led to and handed to the exporter, so a replay of the topics rebuilds exactly what was
//! exported. Names and attributes are public interface: `docs/telemetry.md`.

mod context;
mod copy;
mod pipeline;
mod queue;
mod record;
mod resend;
mod settings;
mod tls;
mod trouble;
mod wire;

pub use context::{Carrier, Incoming, Stamp, Waybill, traceparent};
pub use copy::{ChildCopy, LinkCopy, SpanCopy, StampCopy};
pub use pipeline::{SpanExport, Telemetry, log_to_stderr};
pub use queue::Dropped;
pub use record::{ChildSpan, Input, SpanEvent, SpanKind, SpanLink, SpanRecord, Status};
pub use resend::{Resend, ResendError};
pub use settings::{TelemetryConfig, TelemetryError};

/// Schema of the semantic conventions that span and metric names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Most stamps a waybill may hold. The SDK and several backends keep 128 links a span;
/// half of that leaves room for links of other types, so none is ever dropped silently.
pub const MAX_STAMPS: usize = 64;
