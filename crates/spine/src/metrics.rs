//! The metrics of a stage, named in `docs/telemetry.md`.

use crate::batch::Fate;
use crate::broker::Lags;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use std::borrow::Cow;
use std::sync::PoisonError;
use std::time::Duration;

/// Bounds that the messaging conventions advise, in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bounds for what takes hours and days, in seconds: a minute to a week, 48 h among them.
const AGES: [f64; 12] =
    [1.0, 10.0, 60.0, 600.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 172_800.0, 259_200.0, 432_000.0, 604_800.0];

pub(crate) struct Metrics {
    consumed: Counter<u64>,
    sent: Counter<u64>,
    process: Histogram<f64>,
    operation: Histogram<f64>,
    duration: Histogram<f64>,
    age: Histogram<f64>,
    dead: Counter<u64>,
    retries: Counter<u64>,
    redeliveries: Counter<u64>,
    ignored: Counter<u64>,
    malformed: Counter<u64>,
    of_stage: [KeyValue; 1],
    of_topics: Vec<OfTopic>,
}

/// Attributes of what is counted by topic.
struct OfTopic {
    /// Without the deployment's prefix.
    topic: Cow<'static, str>,
    process: [KeyValue; 4],
    stage: [KeyValue; 2],
}

impl Metrics {
    pub(crate) fn new(
        meter: &Meter,
        stage: &'static str,
        flow: &str,
        topics: impl Iterator<Item = (Cow<'static, str>, String)>,
        group: &str,
    ) -> Self {
        let seconds = |name: String, bounds: &[f64], about: &'static str| {
            meter.f64_histogram(name).with_unit("s").with_description(about).with_boundaries(bounds.to_vec()).build()
        };
        let count =
            |name, unit, about: &'static str| meter.u64_counter(name).with_unit(unit).with_description(about).build();
        Metrics {
            consumed: count("messaging.client.consumed.messages", "{message}", "Records taken from the broker"),
            sent: count("messaging.client.sent.messages", "{message}", "Records acknowledged by the broker"),
            process: seconds("messaging.process.duration".into(), &SECONDS, "From taking a record to its answer"),
            operation: seconds("messaging.client.operation.duration".into(), &SECONDS, "One call to the broker"),
            duration: seconds(format!("{flow}.stage.duration"), &SECONDS, "From taking a record to its answer"),
            age: seconds(format!("{flow}.order.age"), &AGES, "From checkout to the end of this stage"),
            dead: count("waybill.dead_letters", "{record}", "Records that could not be accepted"),
            retries: count("waybill.retries", "{record}", "Tries of parked records"),
            redeliveries: count("waybill.redeliveries", "{record}", "Records answered before, answered again"),
            ignored: count("waybill.ignored", "{record}", "Records that asked for nothing"),
            malformed: count("waybill.contexts.malformed", "{context}", "Trace contexts ignored as malformed"),
            of_stage: [KeyValue::new("stage", stage)],
            of_topics: topics
                .map(|(topic, full)| OfTopic {
                    topic,
                    process: [
                        KeyValue::new("messaging.system", "kafka"),
                        KeyValue::new("messaging.operation.name", "process"),
                        KeyValue::new("messaging.destination.name", full.clone()),
                        KeyValue::new("messaging.consumer.group.name", group.to_owned()),
                    ],
                    stage: [KeyValue::new("stage", stage), KeyValue::new("topic", full)],
                })
                .collect(),
        }
    }

    /// Reports the lag of the partitions that this member owns.
    pub(crate) fn watch_lag(meter: &Meter, stage: &'static str, lags: Lags) {
        let _ = meter
            .i64_observable_gauge("waybill.consumer.lag")
            .with_unit("{record}")
            .with_description("Records that wait, per partition")
            .with_callback(move |observer| {
                for (topic, partition, lag) in lags.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    let attributes = [
                        KeyValue::new("stage", stage),
                        KeyValue::new("topic", topic.clone()),
                        KeyValue::new("partition", i64::from(*partition)),
                    ];
                    observer.observe(*lag, &attributes);
                }
            })
            .build();
    }

    fn of_topic(&self, topic: &str) -> Option<&OfTopic> {
        self.of_topics.iter().find(|of| of.topic == topic)
    }

    /// Records from the broker: topic and malformed contexts of each.
    pub(crate) fn took<'a>(&self, records: impl Iterator<Item = (&'a str, usize)> + Clone) {
        for of in &self.of_topics {
            let of_topic = records.clone().filter(|(topic, _)| *topic == of.topic);
            let (count, malformed) = of_topic.fold((0, 0), |(count, sum), (_, malformed)| (count + 1, sum + malformed));
            let [system, _, destination, group] = &of.process;
            let operation = KeyValue::new("messaging.operation.name", "poll");
            if count > 0 {
                self.consumed.add(count, &[system.clone(), operation, destination.clone(), group.clone()]);
            }
            if malformed > 0 {
                self.malformed.add(malformed as u64, &of.stage);
            }
        }
    }

    /// A parked record of `topic` is tried again.
    pub(crate) fn retried(&self, topic: &str) {
        if let Some(of) = self.of_topic(topic) {
            self.retries.add(1, &of.stage);
        }
    }

    pub(crate) fn published(&self, messages: &[crate::Message], took: Duration) {
        let mut topics: Vec<&str> = messages.iter().map(|m| &*m.topic).collect();
        topics.sort_unstable();
        for of_one in topics.chunk_by(|a, b| a == b) {
            let attributes = [
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.name", "send"),
                KeyValue::new("messaging.operation.type", "send"),
                KeyValue::new("messaging.destination.name", of_one[0].to_owned()),
            ];
            self.sent.add(of_one.len() as u64, &attributes);
            self.operation.record(took.as_secs_f64(), &attributes);
        }
    }

    /// Everything that a batch came to, `took` after it was taken: topic and fate of each record.
    pub(crate) fn ended<'a>(&self, fates: impl Iterator<Item = (&'a str, &'a Fate)>, took: Duration) {
        let took = took.as_secs_f64();
        for (topic, fate) in fates {
            self.duration.record(took, &self.of_stage);
            let Some(of) = self.of_topic(topic) else { continue };
            match fate {
                Fate::Answered { age_s } => {
                    self.process.record(took, &of.process);
                    if let Some(age) = age_s {
                        self.age.record(*age, &self.of_stage);
                    }
                }
                Fate::Repeated => {
                    self.process.record(took, &of.process);
                    self.redeliveries.add(1, &of.stage);
                }
                Fate::Ignored(why) => {
                    self.process.record(took, &of.process);
                    let [stage, topic] = of.stage.clone();
                    self.ignored.add(1, &[stage, topic, KeyValue::new("reason", *why)]);
                }
                Fate::Kept | Fate::Parked => self.process.record(took, &of.process),
                Fate::Dead(reason) => {
                    let [a, b, c, d] = of.process.clone();
                    self.process.record(took, &[a, b, c, d, KeyValue::new("error.type", *reason)]);
                    let [stage, topic] = of.stage.clone();
                    self.dead.add(1, &[stage, topic, KeyValue::new("reason", *reason)]);
                }
            }
        }
    }
}
