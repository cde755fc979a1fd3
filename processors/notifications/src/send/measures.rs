//! The metrics of the notices, named in `docs/telemetry.md`: read off their spans, so the two never disagree.

use super::spans::{CHANNEL, FIRST_DELAY, RESULT, SINGLE};
use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::{KeyValue, Value};
use waybill_events::Tell;
use waybill_telemetry::SpanRecord;

/// Bounds of one sending, ms.
const MS: [f64; 12] = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 10_000.0, 25_000.0];
/// Bounds of the time to the first notice, s; 5 min is what an alert asks about.
const SECONDS: [f64; 11] = [0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];

#[derive(Clone, Debug)]
pub(super) struct Measures {
    sent: Counter<u64>,
    errors: Counter<u64>,
    latency: Histogram<f64>,
    first: Histogram<f64>,
}

impl Measures {
    pub fn new(meter: &Meter) -> Self {
        let count =
            |name, about: &'static str| meter.u64_counter(name).with_unit("{notice}").with_description(about).build();
        let histogram = |name, unit, about: &'static str, bounds: &[f64]| {
            let histogram = meter.f64_histogram(name).with_unit(unit).with_description(about);
            histogram.with_boundaries(bounds.to_vec()).build()
        };
        Measures {
            sent: count("back_in_stock.notifications.sent", "Notices that a provider has taken"),
            errors: count("back_in_stock.notifications.errors", "Notices that were not sent, or nobody knows"),
            latency: histogram("back_in_stock.notification.latency", "ms", "One sending", &MS),
            first: histogram(
                "back_in_stock.first_notification.delay",
                "s",
                "From the restock to a campaign's first notice",
                &SECONDS,
            ),
        }
    }

    pub fn ended(&self, span: &SpanRecord) {
        let value = |name: &str| span.attributes.iter().find(|of| of.key.as_str() == name).map(|of| &of.value);
        let Some(Value::String(channel)) = value(CHANNEL) else { return };
        let channel = KeyValue::new(CHANNEL, channel.clone());
        if let Some(Value::F64(delay)) = value(FIRST_DELAY) {
            self.first.record(*delay, std::slice::from_ref(&channel));
        }
        if span.name != SINGLE {
            return;
        }
        match value(RESULT) {
            Some(Value::String(result)) if result.as_str() == Tell::Sent.as_str() => {
                let ms = span.end.duration_since(span.begun()).as_secs_f64() * 1_000.0;
                self.latency.record(ms, std::slice::from_ref(&channel));
                self.sent.add(1, &[channel]);
            }
            Some(Value::String(result)) => self.errors.add(1, &[channel, KeyValue::new("error.type", result.clone())]),
            Some(_) | None => {}
        }
    }
}
