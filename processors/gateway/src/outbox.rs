//! The way of accepted requests to `checkout.requested` and `orders.cancel_requested`.
//!
//! A thread of its own, as every stage has: it owns the producer and a connection. A request hands over its message
//! after its transaction; what is lost on the way (a crash, a full queue) is found in the table by the relay, which asks
//! every second for rows older than one, oldest first, until each is acknowledged. A message may so be published
//! twice, with one `ce_id`.

use crate::observe::Came;
use crate::problem::{Problem, told};
use crate::reach::{Loop, Reach};
use crate::{STAGE, checkout_rows, order_rows, outbox_rows as rows};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use waybill_spine::{BrokerError, Emit, KafkaConfig, KafkaSink, Message, Outbound, Shutdown, Sink, system_clock};
use waybill_store::{Store, StoreError};
use waybill_telemetry::Waybill;

/// Messages that may wait; more are left to the relay.
const QUEUE: usize = 1_024;
/// Longest wait for a message; also how soon a stop is seen.
const POLL: Duration = Duration::from_millis(200);
/// How often the relay looks, and how old a row it takes: younger ones are on their way.
const RELAY: Duration = Duration::from_secs(1);
/// Rows of one look.
const ROWS: i64 = 500;
/// How often old requests are looked for, and how many are deleted at a time.
const PURGE: (Duration, i64) = (Duration::from_secs(60), 1_000);
/// An acknowledgement that takes longer means that Kafka is away.
const SLOW: Duration = Duration::from_secs(2);
/// Longest wait for the database, and, on a stop, for acknowledgements.
const LIMIT: Duration = Duration::from_secs(5);

/// A message to be published, and its place in the table.
pub(crate) struct Entry {
    pub id: i64,
    pub message: Message,
}

/// The message of a request as it is published, now or by the relay, of the SERVER span as far as that has come; and the
/// same encoded, as it is kept until then.
pub(crate) fn message(came: &Came, event: &mut dyn Emit) -> Result<(Message, Vec<u8>), Problem> {
    let mut span = came.span.clone();
    span.end = system_clock();
    let copy = span.publish().map_err(|error| Problem::internal(&error))?;
    let key = event.key().to_owned();
    // Whatever the caller says, what it asks for begins here.
    let outbound = Outbound { stage: STAGE, key: &key, span: &span, incoming: &came.incoming, begins: true };
    let message = outbound.message(event, &Waybill::none(), &copy).map_err(|error| Problem::internal(&error))?;
    let kept = postcard::to_stdvec(&message).map_err(|error| Problem::internal(&error))?;
    Ok((message, kept))
}

/// Where requests hand over their messages. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox(Sender<Entry>);

impl Outbox {
    pub(crate) fn new() -> (Self, Receiver<Entry>) {
        let (sender, receiver) = channel(QUEUE);
        (Outbox(sender), receiver)
    }

    /// Never waits: a message that does not fit is found by the relay.
    pub(crate) fn publish(&self, entry: Entry) {
        self.0.try_send(entry).ok();
    }
}

/// The thread's own.
pub(crate) struct Relay {
    sink: KafkaSink,
    store: Store,
    entries: Receiver<Entry>,
    reach: Reach,
    keep: Duration,
    stop: Shutdown,
}

impl Relay {
    pub(crate) fn new(
        kafka: &KafkaConfig,
        store: Store,
        entries: Receiver<Entry>,
        reach: Reach,
        keep: Duration,
        stop: Shutdown,
    ) -> Result<Self, BrokerError> {
        Ok(Relay { sink: KafkaSink::connect(kafka, STAGE)?, store, entries, reach, keep, stop })
    }

    /// Runs until it is told to stop and nothing waits.
    pub(crate) async fn run(mut self) -> Result<(), BrokerError> {
        let (mut relayed, mut purged): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            self.reach.turn(Loop::Outbox);
            let mut batch = self.next().await;
            if batch.is_empty() && self.stop.requested() {
                return Ok(());
            }
            if relayed.is_none_or(|last| last.elapsed() >= RELAY) {
                self.unpublished(&mut batch).await;
                relayed = Some(Instant::now());
            }
            self.publish(batch).await?;
            if purged.is_none_or(|last| last.elapsed() >= PURGE.0) {
                self.purge().await;
                purged = Some(Instant::now());
            }
        }
    }

    /// All that waits; the first may be waited for.
    async fn next(&mut self) -> Vec<Entry> {
        let mut batch = Vec::new();
        if let Ok(Some(entry)) = timeout(POLL, self.entries.recv()).await {
            batch.push(entry);
            while let Ok(entry) = self.entries.try_recv() {
                batch.push(entry);
            }
        }
        batch
    }

    /// Adds what is unpublished and not in the batch.
    async fn unpublished(&mut self, batch: &mut Vec<Entry>) {
        let found = within(rows::unpublished(&mut self.store, RELAY, ROWS)).await;
        self.reach.set_no_database(found.is_none());
        let there: HashSet<i64> = batch.iter().map(|entry| entry.id).collect();
        let missed = found.unwrap_or_default().into_iter().filter(|(id, _)| !there.contains(id));
        batch.extend(missed.map(|(id, message)| Entry { id, message }));
    }

    /// Publishes, waits for all in-sync replicas, and forgets what they have.
    async fn publish(&mut self, batch: Vec<Entry>) -> Result<(), BrokerError> {
        if batch.is_empty() {
            return Ok(());
        }
        let (ids, messages): (Vec<i64>, Vec<Message>) =
            batch.into_iter().map(|entry| (entry.id, entry.message)).unzip();
        self.sink.send(&messages);
        let begun = Instant::now();
        let failed = loop {
            self.reach.turn(Loop::Outbox);
            if let Some(failed) = self.sink.wait(POLL)? {
                break failed;
            }
            self.reach.set_unacknowledged(begun.elapsed() > SLOW);
            if self.stop.requested() && begun.elapsed() > LIMIT {
                // The rows stay: the next start sends them.
                return Ok(());
            }
        };
        self.reach.set_unacknowledged(!failed.indexes.is_empty());
        if !failed.indexes.is_empty() {
            tracing::warn!(count = failed.indexes.len(), error = failed.error, "requests not published; tried again");
        }
        let taken = ids.iter().enumerate().filter(|(index, _)| failed.indexes.binary_search(index).is_err());
        let taken: Vec<i64> = taken.map(|(_, id)| *id).collect();
        // Where this fails, the relay publishes them once more.
        within(rows::published(&mut self.store, &taken)).await;
        Ok(())
    }

    async fn purge(&mut self) {
        loop {
            let keys = within(checkout_rows::purge(&mut self.store, self.keep, PURGE.1)).await.unwrap_or(0);
            let cancels = within(order_rows::purge(&mut self.store, self.keep, PURGE.1)).await.unwrap_or(0);
            if keys + cancels == 0 {
                return;
            }
            tracing::debug!(keys, cancels, "old requests");
            self.reach.turn(Loop::Outbox);
        }
    }
}

/// What the database says in time; what it does not say is said in the log.
async fn within<T>(work: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    match timeout(LIMIT, work).await {
        Ok(Ok(done)) => return Some(done),
        Ok(Err(error)) => tracing::warn!(error = told(&error), "the relay's database"),
        Err(_) => tracing::warn!("the relay's database did not answer within {LIMIT:?}"),
    }
    None
}
