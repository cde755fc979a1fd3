//! Gauges of what is in the database: read by the loop, told by the exporter, each in its own time.

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often values are read.
pub(crate) const EVERY: Duration = Duration::from_secs(30);
/// Values older than this are not told: while the database is away nobody knows.
const STALE: Duration = Duration::from_secs(120);

/// A gauge of a stage: whole numbers by one attribute, read from its tables.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// The instrument's name.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it tells.
    pub about: &'static str,
    /// The attribute that tells its values apart.
    pub attribute: &'static str,
}

impl Gauge {
    /// Makes the instrument; it tells what is set from now on.
    pub(crate) fn tell(self, meter: &Meter) -> Readings {
        let readings = Readings::default();
        let told = readings.clone();
        let _ = meter
            .i64_observable_gauge(self.name)
            .with_unit(self.unit)
            .with_description(self.about)
            .with_callback(move |observer| {
                for (of, value) in told.at(Instant::now()) {
                    observer.observe(value, &[KeyValue::new(self.attribute, of)]);
                }
            })
            .build();
        readings
    }
}

/// Values, and when they were read.
type Reading = (Instant, Vec<(String, i64)>);

/// The last values read of a gauge. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readings(Arc<Mutex<Option<Reading>>>);

impl Readings {
    pub(crate) fn set(&self, values: Vec<(String, i64)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), values));
    }

    /// What is known at a time; nothing if it was read too long before.
    fn at(&self, now: Instant) -> Vec<(String, i64)> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.filter(|(read, _)| now.duration_since(*read) < STALE).map(|(_, values)| values).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_tells_the_last_values_until_nobody_knows_any_more() {
        let readings = Readings::default();
        assert_eq!(readings.at(Instant::now()), vec![]);
        readings.set(vec![("a".into(), 1), ("b".into(), 2)]);
        readings.set(vec![("a".into(), 3)]);
        assert_eq!(readings.at(Instant::now()), vec![("a".to_owned(), 3)]);
        assert_eq!(readings.at(Instant::now() + STALE), vec![]);
    }
}
