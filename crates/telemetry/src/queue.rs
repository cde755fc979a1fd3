//! The spans that wait for export.
//!
//! A stage hands over its spans a batch of records at a time, as they are; the exporting thread brings them into the
//! exporter's form. The SDK's batch processor takes them one by one into a ring that is allocated whole (decision 005).

use crate::SpanRecord;
use crate::trouble::Trouble;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
    /// First and longest rest after an export that failed.
    pub rest: (Duration, Duration),
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

#[derive(Debug)]
enum Ended {
    Stage(Vec<SpanRecord>),
    Bridged(Box<SpanData>),
}

/// What was handed over and not yet taken. The exporting thread is woken when the first comes and when there is a
/// request's worth, and for no span between: a gateway hands over one request's spans at a time.
#[derive(Debug, Default)]
struct Inbox {
    ended: Vec<Ended>,
    /// Spans in it, and those of an unfilled request that the thread holds.
    spans: usize,
    /// Answered when everything before them was exported or dropped.
    flushes: Vec<Sender<()>>,
    /// Nobody is left who could hand over any.
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Nothing that can panic happens under the lock.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the exporting thread with the last clone of the queue.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.inbox().closed = true;
        self.0.wake.notify_one();
    }
}

/// Takes spans and never waits: what does not fit is dropped and counted.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    handle: Arc<Handle>,
    counts: Arc<Counts>,
    bounds: Bounds,
}

impl Queue {
    /// Starts the exporting thread, which ends with the last clone of the queue.
    pub(crate) fn start<E: SpanExporter + 'static>(
        exporter: E,
        bounds: Bounds,
        counts: Arc<Counts>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { inbox: Mutex::default(), wake: Condvar::new() });
        let export = Export { exporter, bounds, counts: counts.clone(), waiting: Vec::new(), due: None, rest: None };
        let inbox = shared.clone();
        std::thread::Builder::new().name("span export".to_owned()).spawn(move || export.run(&inbox))?;
        Ok(Queue { handle: Arc::new(Handle(shared)), counts, bounds })
    }

    pub(crate) fn stage(&self, mut spans: Vec<SpanRecord>) {
        let size = |span: &SpanRecord| 1 + span.children.len();
        spans.retain(|span| self.admits(size(span) as u64));
        if !spans.is_empty() {
            self.hand_over(spans.iter().map(size).sum(), Ended::Stage(spans));
        }
    }

    pub(crate) fn bridged(&self, span: SpanData) {
        if self.admits(1) {
            self.hand_over(1, Ended::Bridged(Box::new(span)));
        }
    }

    pub(crate) fn flush(&self, limit: Duration) -> OTelSdkResult {
        let (done, wait) = channel();
        self.handle.0.inbox().flushes.push(done);
        self.handle.0.wake.notify_one();
        wait.recv_timeout(limit).map_err(|_| OTelSdkError::Timeout(limit))
    }

    fn admits(&self, spans: u64) -> bool {
        if self.counts.queued.fetch_add(spans, Relaxed) + spans <= self.bounds.queue {
            return true;
        }
        self.counts.queued.fetch_sub(spans, Relaxed);
        self.counts.queue_full.fetch_add(spans, Relaxed);
        false
    }

    fn hand_over(&self, spans: usize, ended: Ended) {
        let mut inbox = self.handle.0.inbox();
        let before = inbox.spans;
        inbox.ended.push(ended);
        inbox.spans += spans;
        let (first, fills) = (before == 0, before < self.bounds.batch && inbox.spans >= self.bounds.batch);
        drop(inbox);
        if first || fills {
            self.handle.0.wake.notify_one();
        }
    }
}

struct Export<E> {
    exporter: E,
    bounds: Bounds,
    counts: Arc<Counts>,
    /// Of a request that is not full.
    waiting: Vec<SpanData>,
    /// When it leaves nevertheless.
    due: Option<Instant>,
    /// After an export that failed.
    rest: Option<Rest>,
}

/// Between two tries of an export that fails.
struct Rest {
    until: Instant,
    next: Duration,
    trouble: Trouble,
}

impl<E: SpanExporter> Export<E> {
    fn run(mut self, shared: &Shared) {
        loop {
            let Inbox { ended, flushes, closed, .. } = self.take(shared);
            let hurry = closed || !flushes.is_empty();
            for ended in ended {
                match ended {
                    Ended::Bridged(span) => self.waiting.push(*span),
                    Ended::Stage(spans) => {
                        for span in spans {
                            self.waiting.extend(span.into_otel());
                            if self.waiting.len() >= self.bounds.batch {
                                self.export(shared, hurry);
                            }
                        }
                    }
                }
            }
            if hurry || self.due.is_some_and(|due| due <= Instant::now()) {
                self.export(shared, hurry);
            }
            for done in flushes {
                // Whoever asked may have given up.
                let _ = done.send(());
            }
            if closed {
                return;
            }
        }
    }

    /// Waits until there is a request's worth or the time of what waits is over.
    fn take(&mut self, shared: &Shared) -> Inbox {
        let mut inbox = shared.inbox();
        inbox.spans += self.waiting.len();
        self.due = self.due.filter(|_| !self.waiting.is_empty());
        loop {
            if inbox.closed || !inbox.flushes.is_empty() || inbox.spans >= self.bounds.batch {
                break;
            }
            if inbox.spans == 0 {
                inbox = shared.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let due = *self.due.get_or_insert_with(|| Instant::now() + self.bounds.delay);
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inbox = shared.wake.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let closed = inbox.closed;
        Inbox { closed, ..std::mem::take(&mut *inbox) }
    }

    fn export(&mut self, shared: &Shared, hurry: bool) {
        self.due = None;
        if self.waiting.is_empty() {
            return;
        }
        if !hurry {
            self.rest(shared);
        }
        let batch = std::mem::replace(&mut self.waiting, Vec::with_capacity(self.bounds.batch));
        let size = batch.len() as u64;
        let result = futures_executor::block_on(self.exporter.export(batch));
        self.counts.queued.fetch_sub(size, Relaxed);
        match result {
            Ok(()) => {
                if let Some(Rest { trouble, .. }) = self.rest.take() {
                    trouble.over("spans");
                }
            }
            Err(error) => {
                self.counts.export_failed.fetch_add(size, Relaxed);
                let (first, most) = self.bounds.rest;
                let now = Instant::now();
                let rest = self.rest.get_or_insert_with(|| Rest { until: now, next: first, trouble: Trouble::begin() });
                rest.until = now + rest.next;
                rest.next = (rest.next * 2).min(most);
                rest.trouble.lose("spans", size, error);
            }
        }
    }

    /// Until it is time to try again, or nobody can wait for that.
    fn rest(&self, shared: &Shared) {
        let Some(rest) = &self.rest else { return };
        let mut inbox = shared.inbox();
        while !inbox.closed && inbox.flushes.is_empty() {
            let left = rest.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inbox = shared.wake.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SpanKind;
    use opentelemetry::trace::TraceFlags;

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
        let mut span = SpanRecord::new(
            &mut rand::rng(),
            "pick",
            "waybill.test",
            "test",
            SpanKind::Consumer,
            jiff::Timestamp::UNIX_EPOCH,
        );
        span.trace_flags = TraceFlags::SAMPLED;
        span
    }

    const LIMIT: Duration = Duration::from_secs(10);
    const BOUNDS: Bounds = Bounds {
        queue: 10,
        batch: 4,
        delay: Duration::from_secs(3_600),
        rest: (Duration::from_millis(40), Duration::from_millis(80)),
    };

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
    fn a_collector_that_refuses_is_left_alone_for_longer_each_time() {
        let (collector, counts) = (Collector(Arc::default(), Arc::default(), true), Arc::new(Counts::default()));
        let bounds = Bounds { queue: 100, ..BOUNDS };
        let begun = Instant::now();
        let queue = Queue::start(collector.clone(), bounds, counts.clone()).unwrap();
        queue.stage((0..20).map(|_| span()).collect());
        while collector.0.lock().unwrap().len() < 5 {
            assert!(begun.elapsed() < LIMIT);
            std::thread::yield_now();
        }
        assert!(begun.elapsed() >= Duration::from_millis(40 + 80 + 80 + 80), "{:?}", begun.elapsed());
        // Whoever closes does not wait for the next try.
        let bounds = Bounds { queue: 100, rest: (Duration::from_secs(3_600), Duration::from_secs(3_600)), ..BOUNDS };
        let queue = Queue::start(collector.clone(), bounds, counts.clone()).unwrap();
        queue.stage((0..8).map(|_| span()).collect());
        queue.flush(LIMIT).unwrap();
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
