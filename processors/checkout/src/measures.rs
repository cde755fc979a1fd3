//! The metrics of the checkout, named in `docs/telemetry.md`: read off its spans, so the two never disagree.

use crate::spans;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::{KeyValue, Value};
use waybill_events::Step;
use waybill_telemetry::{SpanRecord, Status};

/// Bounds of durations, ms; 8 s is what an alert asks about.
const MS: [f64; 14] =
    [5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 8_000.0, 10_000.0, 60_000.0, 600_000.0];
/// A checkout of more lines is `large`.
const SMALL: i64 = 10;

#[derive(Clone, Debug)]
pub(crate) struct Measures {
    completed: Counter<u64>,
    duration: Histogram<f64>,
    step: Histogram<f64>,
}

impl Measures {
    pub(crate) fn new(meter: &Meter) -> Self {
        let ms = |name, about: &'static str| {
            let bounds = MS.to_vec();
            meter.f64_histogram(name).with_unit("ms").with_description(about).with_boundaries(bounds).build()
        };
        Measures {
            completed: meter
                .u64_counter("checkout.completed")
                .with_unit("{checkout}")
                .with_description("Checkouts that ended")
                .build(),
            duration: ms("checkout.duration_ms", "From taking the request to the end of the checkout"),
            step: ms("checkout.step_duration_ms", "One step of a checkout"),
        }
    }

    pub(crate) fn ended(&self, span: &SpanRecord) {
        let ms = span.end.duration_since(span.begun()).as_secs_f64() * 1_000.0;
        let step = match &*span.name {
            "cart.validate" => Step::ValidatingCart,
            "payment.process" => Step::ProcessingPayment,
            "order.create" => Step::CreatingOrder,
            "checkout.process" => return self.checkout(span, ms),
            _ => return,
        };
        let status = if span.status == Status::Unset { "ok" } else { "error" };
        self.step
            .record(ms, &[KeyValue::new("checkout.step", spans::step(step)), KeyValue::new("step.status", status)]);
    }

    fn checkout(&self, span: &SpanRecord, ms: f64) {
        let status =
            KeyValue::new("checkout.status", if span.status == Status::Unset { "confirmed" } else { "rejected" });
        let items = span.attributes.iter().find(|a| a.key.as_str() == "checkout.item_count").map(|a| &a.value);
        let bucket = if matches!(items, Some(Value::I64(items)) if *items > SMALL) { "large" } else { "small" };
        self.completed.add(1, std::slice::from_ref(&status));
        self.duration.record(ms, &[status, KeyValue::new("checkout.item_count_bucket", bucket)]);
    }
}
