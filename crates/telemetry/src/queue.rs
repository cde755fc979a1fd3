//! The spans that wait for export.
//!
//! A stage hands over its spans a batch of records at a time, as they are; the exporting thread brings them into the
//! exporter's form. The SDK's batch processor takes them one by one into a ring that is allocated whole (decision 005).

use crate::SpanRecord;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How spans are gathered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Spans that may wait.
    pub queue: u64,
    /// Spans of one request; a stage span and its children stay together, so it may be a few more.
    pub batch: usize,
    /// Longest wait for a request to fill.
    pub delay: Duration,
}

/// Spans that never reached the collector, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The queue was full.
    pub queue_full: u64,
    /// The collector refused them or did not answer.
    pub export_failed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Spans that wait, or are on their way.
    queued: AtomicU64,
    queue_full: AtomicU64,
    export_failed: AtomicU64,
}

impl Counts {
    pub(crate) fn dropped(&self) -> Dropped {
        Dropped { queue_full: self.queue_full.load(Relaxed), export_failed: self.export_failed.load(Relaxed) }
    }

    /// What is dropped if the process ends now.
    pub(crate) fn dropped_at_end(&self) -> Dropped {
        let dropped = self.dropped();
        Dropped { export_failed: dropped.export_failed + self.queued.load(Relaxed), ..dropped }
    }
}

enum Ended {
    Stage(Vec<SpanRecord>),
    Bridged(Box<SpanData>),
    /// Answered when everything before it was exported or dropped.
    Flush(Sender<()>),
}

/// Takes spans and never waits: what does not fit is dropped and counted.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    sender: Sender<Ended>,
    counts: Arc<Counts>,
    limit: u64,
}

impl Queue {
    /// Starts the exporting thread, which ends with the last clone of the queue.
    pub(crate) fn start<E: SpanExporter + 'static>(
        exporter: E,
        bounds: Bounds,
        counts: Arc<Counts>,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let export = Export { exporter, bounds, counts: counts.clone(), waiting: Vec::new() };
        std::thread::Builder::new().name("span export".to_owned()).spawn(move || export.run(&receiver))?;
        Ok(Queue { sender, counts, limit: bounds.queue })
    }

    pub(crate) fn stage(&self, mut spans: Vec<SpanRecord>) {
        let size = |span: &SpanRecord| 1 + span.children.len() as u64;
        spans.retain(|span| self.admits(size(span)));
        if !spans.is_empty() {
            self.send(Ended::Stage(spans));
        }
    }

    pub(crate) fn bridged(&self, span: SpanData) {
        if self.admits(1) {
            self.send(Ended::Bridged(Box::new(span)));
        }
    }

    pub(crate) fn flush(&self, limit: Duration) -> OTelSdkResult {
        let (done, wait) = channel();
        self.send(Ended::Flush(done));
        wait.recv_timeout(limit).map_err(|_| OTelSdkError::Timeout(limit))
    }

    fn admits(&self, spans: u64) -> bool {
        if self.counts.queued.fetch_add(spans, Relaxed) + spans <= self.limit {
            return true;
        }
        self.counts.queued.fetch_sub(spans, Relaxed);
        self.counts.queue_full.fetch_add(spans, Relaxed);
        false
    }

    fn send(&self, ended: Ended) {
        // The thread lives as long as this sender; were it gone, its spans would be counted as never exported.
        let _ = self.sender.send(ended);
    }
}

struct Export<E> {
    exporter: E,
    bounds: Bounds,
    counts: Arc<Counts>,
    waiting: Vec<SpanData>,
}

impl<E: SpanExporter> Export<E> {
    fn run(mut self, receiver: &Receiver<Ended>) {
        let mut due = None;
        loop {
            let ended = match due {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => receiver.recv_timeout(Instant::saturating_duration_since(&due, Instant::now())),
            };
            match ended {
                Ok(Ended::Stage(spans)) => {
                    for span in spans {
                        self.waiting.extend(span.into_otel());
                        if self.waiting.len() >= self.bounds.batch {
                            self.export();
                        }
                    }
                }
                Ok(Ended::Bridged(span)) => self.waiting.push(*span),
                Ok(Ended::Flush(done)) => {
                    self.export();
                    // Whoever asked may have given up.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.export(),
                Err(RecvTimeoutError::Disconnected) => return self.export(),
            }
            due = (!self.waiting.is_empty()).then(|| due.unwrap_or_else(|| Instant::now() + self.bounds.delay));
        }
    }

    fn export(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.waiting, Vec::with_capacity(self.bounds.batch));
        let size = batch.len() as u64;
        let result = futures_executor::block_on(self.exporter.export(batch));
        self.counts.queued.fetch_sub(size, Relaxed);
        if result.is_err() && self.counts.export_failed.fetch_add(size, Relaxed) == 0 {
            tracing::warn!(
                "spans cannot be exported and are dropped; orders go on \
                 (waybill.spans.dropped counts them; is a collector at OTEL_EXPORTER_OTLP_ENDPOINT?)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SpanKind;
    use opentelemetry::trace::TraceFlags;
    use std::sync::Mutex;

    /// Keeps the sizes of its requests; refuses, or does not answer, while told to.
    #[derive(Clone, Debug, Default)]
    struct Collector(Arc<Mutex<Vec<usize>>>, Arc<Mutex<()>>, bool);

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            drop(self.1.lock());
            self.0.lock().unwrap().push(batch.len());
            if self.2 { Err(OTelSdkError::InternalFailure("refused".to_owned())) } else { Ok(()) }
        }
    }

    fn span() -> SpanRecord {
        let mut span =
            SpanRecord::new(&mut rand::rng(), "pick", "test", "test", SpanKind::Consumer, jiff::Timestamp::UNIX_EPOCH);
        span.trace_flags = TraceFlags::SAMPLED;
        span
    }

    const LIMIT: Duration = Duration::from_secs(10);
    const BOUNDS: Bounds = Bounds { queue: 10, batch: 4, delay: Duration::from_secs(3_600) };

    #[test]
    fn spans_leave_in_requests_of_the_batch_size_and_the_rest_when_flushed() {
        let (collector, counts) = (Collector::default(), Arc::new(Counts::default()));
        let queue = Queue::start(collector.clone(), BOUNDS, counts.clone()).unwrap();
        queue.stage((0..6).map(|_| span()).collect());
        queue.bridged(span().into_otel().next().unwrap());
        queue.flush(LIMIT).unwrap();
        assert_eq!(*collector.0.lock().unwrap(), [4, 3]);
        assert_eq!(counts.dropped_at_end(), Dropped::default());
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
        let (collector, counts) = (Collector::default(), Arc::new(Counts::default()));
        let held = collector.1.lock();
        let queue = Queue::start(collector.clone(), BOUNDS, counts.clone()).unwrap();
        (0..25).for_each(|_| queue.stage(vec![span()]));
        assert_eq!(counts.dropped(), Dropped { queue_full: 15, export_failed: 0 });
        assert_eq!(counts.dropped_at_end(), Dropped { queue_full: 15, export_failed: 10 });
        assert!(queue.flush(Duration::from_millis(1)).is_err());
        drop(held);
        queue.flush(LIMIT).unwrap();
        assert_eq!(counts.dropped_at_end(), Dropped { queue_full: 15, export_failed: 0 });
    }

    #[test]
    fn what_a_collector_refuses_is_counted() {
        let (collector, counts) = (Collector(Arc::default(), Arc::default(), true), Arc::new(Counts::default()));
        let queue = Queue::start(collector, BOUNDS, counts.clone()).unwrap();
        queue.stage(vec![span(), span()]);
        queue.flush(LIMIT).unwrap();
        assert_eq!(counts.dropped(), Dropped { queue_full: 0, export_failed: 2 });
    }

    #[test]
    fn a_request_that_does_not_fill_leaves_after_the_delay() {
        let (collector, counts) = (Collector::default(), Arc::new(Counts::default()));
        let bounds = Bounds { delay: Duration::from_millis(1), ..BOUNDS };
        let queue = Queue::start(collector.clone(), bounds, counts).unwrap();
        queue.stage(vec![span()]);
        let begun = Instant::now();
        while collector.0.lock().unwrap().is_empty() {
            assert!(begun.elapsed() < LIMIT);
            std::thread::yield_now();
        }
        drop(queue);
    }
}
