//! Counters and times of availability and subscriptions.

use crate::SCOPE;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use waybill_telemetry::Telemetry;

/// Milliseconds: from what a cache takes to what a database may.
const MILLISECONDS: [f64; 14] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 500.0];

/// Where a level came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Cache,
    Database,
}

impl Source {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Source::Cache => "cache",
            Source::Database => "database",
        }
    }
}

/// The instruments.
pub(crate) struct Measures {
    latency: Histogram<f64>,
    /// Products that were asked for: known, and not. Counted at every question, read at every export.
    cache: Arc<[AtomicU64; 2]>,
    subscriptions: Counter<u64>,
}

impl Measures {
    pub(crate) fn new(telemetry: &Telemetry) -> Self {
        let meter = telemetry.meter(SCOPE);
        let cache: Arc<[AtomicU64; 2]> = Arc::default();
        let counts = cache.clone();
        meter
            .u64_observable_counter("inventory.check.cache")
            .with_unit("{product}")
            .with_description("Products that were asked for, known or not")
            .with_callback(move |counter| {
                for (count, result) in counts.iter().zip(["hit", "miss"]) {
                    counter.observe(count.load(Ordering::Relaxed), &[KeyValue::new("cache.result", result)]);
                }
            })
            .build();
        Measures {
            latency: meter
                .f64_histogram("inventory.check.latency")
                .with_unit("ms")
                .with_description("What finding out what is available took")
                .with_boundaries(MILLISECONDS.to_vec())
                .build(),
            cache,
            subscriptions: meter
                .u64_counter("back_in_stock.subscriptions")
                .with_unit("{subscription}")
                .with_description("Subscriptions that are new")
                .build(),
        }
    }

    /// A question was answered: `hits` products were known, `misses` were not.
    pub(crate) fn checked(&self, took: Duration, hits: u64, misses: u64) {
        let source = if misses > 0 { Source::Database } else { Source::Cache };
        self.latency.record(took.as_secs_f64() * 1_000.0, &[KeyValue::new("inventory.source", source.as_str())]);
        for (count, more) in self.cache.iter().zip([hits, misses]) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(crate) fn subscribed(&self, category: String, channel: &'static str) {
        let attributes = [KeyValue::new("product.category", category), KeyValue::new("notification.channel", channel)];
        self.subscriptions.add(1, &attributes);
    }
}
