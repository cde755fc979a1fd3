//! How long records wait for each stage, as a metric. The gateway tells it, since it sees also the stages that do not run.

use anyhow::Context;
use opentelemetry::KeyValue;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use waybill_ops::StageLag;
use waybill_spine::KafkaConfig;
use waybill_telemetry::Telemetry;
use waybill_topics::Catalogue;

/// The least time between two looks, however often metrics are exported: a look is a client for each group.
const LEAST: Duration = Duration::from_secs(5);
/// What is older than this is not told: while the cluster is away nobody knows.
const STALE: Duration = Duration::from_secs(120);

/// What was seen last, and when.
type Seen = Arc<Mutex<Option<(Instant, Vec<StageLag>)>>>;

/// Makes the gauge. An export tells what was seen last and asks for the next look: none is made where nothing is exported, and
/// an export never waits for one.
pub fn tell(telemetry: &Telemetry, kafka: KafkaConfig) -> anyhow::Result<()> {
    let catalogue = Catalogue::built_in()?;
    let (ask, asked) = sync_channel(1);
    let seen = Seen::default();
    let last = seen.clone();
    let _ = telemetry
        .meter("waybill.ops")
        .f64_observable_gauge("waybill.consumer.oldest_age")
        .with_unit("s")
        .with_description("How long the oldest record that waits has waited; 0 where none does")
        .with_callback(move |observer| {
            ask.try_send(()).ok();
            let last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((_, lags)) = last.as_ref().filter(|(at, _)| at.elapsed() < STALE) else { return };
            for (stage, of) in lags.iter().flat_map(|lag| lag.partitions.iter().map(|of| (&lag.stage, of))) {
                // One that did not come in time is not known.
                let age = if of.records == 0 { Some(0.0) } else { of.age_s };
                if let Some(age) = age {
                    let attributes = [
                        KeyValue::new("stage", stage.clone()),
                        KeyValue::new("topic", of.topic.clone()),
                        KeyValue::new("partition", i64::from(of.partition)),
                    ];
                    observer.observe(age, &attributes);
                }
            }
        })
        .build();
    let look = move || look(&kafka, &catalogue, &asked, &seen);
    std::thread::Builder::new().name("lag".to_owned()).spawn(look).context("no thread for the lag")?;
    Ok(())
}

/// Looks when asked; ends when nobody can ask any more.
fn look(kafka: &KafkaConfig, catalogue: &Catalogue, asked: &Receiver<()>, seen: &Seen) {
    let mut looked: Option<Instant> = None;
    while asked.recv().is_ok() {
        if looked.is_some_and(|looked| looked.elapsed() < LEAST) {
            continue;
        }
        looked = Some(Instant::now());
        match waybill_ops::lag(kafka, catalogue, &[]) {
            Ok(lags) => *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), lags)),
            Err(error) => tracing::debug!(%error, "the lag is not known"),
        }
    }
}
