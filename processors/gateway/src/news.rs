//! What the stages say: `checkout.completed` and `checkout.rejected` wake the requests that wait for them,
//! `inventory.levels` renews what is told of the stock.
//!
//! Every replica reads all partitions, without a group: the request may wait on any of them. Reading begins at the
//! offsets that were the ends when the gateway started, asked for before any request is taken, so no outcome of a
//! request taken here is missed.

use crate::STAGE;
use crate::levels::{Level, Levels};
use crate::outcome::Outcome;
use crate::reach::{Loop, Reach};
use crate::waiting::Waiting;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;
use waybill_events::{CheckoutCompleted, CheckoutRejected, StockLevel};
use waybill_spine::{BrokerError, Event, KafkaConfig, Reader, Record, Shutdown, detach, headers};
use waybill_telemetry::Carrier;

const TOPICS: [&str; 3] = [CheckoutCompleted::TOPIC, CheckoutRejected::TOPIC, StockLevel::TOPIC];
/// Longest wait for a record; also how soon a stop is seen.
const POLL: Duration = Duration::from_millis(100);
/// Longest wait for an answer about topics and offsets.
const ASK: Duration = Duration::from_secs(2);
/// Wait after a start that failed.
const AGAIN: Duration = Duration::from_millis(500);

/// The thread's own.
pub(crate) struct News {
    consumer: Reader,
    prefix: String,
    waiting: Waiting,
    levels: Levels,
    reach: Reach,
    stop: Shutdown,
}

impl News {
    pub(crate) fn new(
        kafka: &KafkaConfig,
        waiting: Waiting,
        levels: Levels,
        reach: Reach,
        stop: Shutdown,
    ) -> Result<Self, BrokerError> {
        let mut client = kafka.admin();
        client
            .set("client.id", format!("waybill-{STAGE}"))
            // Asked for by the client library; no group is joined and nothing is committed.
            .set("group.id", format!("{}waybill.{STAGE}", kafka.prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "2048");
        let consumer = client.create_with_context(kafka.refusals().clone());
        let consumer = consumer.map_err(|error| BrokerError::Fatal(error.to_string()))?;
        Ok(News { consumer, prefix: kafka.prefix.clone(), waiting, levels, reach, stop })
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(self) -> Result<(), BrokerError> {
        let mut told = false;
        while let Err(error) = self.begin() {
            self.reach.turn(Loop::News);
            if self.stop.requested() {
                return Ok(());
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "waiting for the topics of outcomes and levels");
            }
            std::thread::sleep(AGAIN);
        }
        self.reach.set_reading(true);
        let mut in_doubt = false;
        while !self.stop.requested() {
            self.reach.turn(Loop::News);
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.take(&detach(&message, self.named(message.topic()))),
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    return Err(BrokerError::Fatal(format!("fatal: {code}")));
                }
                // librdkafka goes on trying; whether the brokers answer is asked below.
                Some(Err(error)) => {
                    tracing::debug!(%error, "kafka");
                    in_doubt = true;
                }
            }
            if in_doubt {
                in_doubt = self.consumer.fetch_metadata(Some(&self.full(TOPICS[0])), ASK).is_err();
                self.reach.set_reading(!in_doubt);
            }
        }
        Ok(())
    }

    /// Begins to read every partition at its end of now.
    fn begin(&self) -> KafkaResult<()> {
        let mut ends = TopicPartitionList::new();
        for topic in TOPICS {
            let topic = self.full(topic);
            let metadata = self.consumer.fetch_metadata(Some(&topic), ASK)?;
            let partitions = metadata.topics().first().map_or(&[][..], |found| found.partitions());
            if partitions.is_empty() {
                return Err(KafkaError::MetadataFetch(rdkafka::error::RDKafkaErrorCode::UnknownTopicOrPartition));
            }
            for partition in partitions {
                let (_, end) = self.consumer.fetch_watermarks(&topic, partition.id(), ASK)?;
                ends.add_partition_offset(&topic, partition.id(), Offset::Offset(end))?;
            }
        }
        self.consumer.assign(&ends)
    }

    fn take(&self, record: &Record) {
        match record.content.header(headers::TYPE) {
            Some(CheckoutCompleted::SCHEMA) => {
                self.read(record, |event: CheckoutCompleted| self.waiting.wake(event.key(), || Outcome::Confirmed));
            }
            Some(CheckoutRejected::SCHEMA) => {
                self.read(record, |event: CheckoutRejected| {
                    let order_id = event.order_id.clone();
                    self.waiting.wake(&order_id, || Outcome::Rejected(event.into()));
                });
            }
            Some(StockLevel::SCHEMA) => self.read(record, |event: StockLevel| {
                self.levels.raise(&event.product_id, Level { version: event.version, available: event.available });
            }),
            // Another's version: who waits for it looks into the database when its time is up.
            _ => tracing::debug!(topic = &*record.topic, offset = record.offset, "not an event that is known here"),
        }
    }

    fn read<E: Event>(&self, record: &Record, act: impl FnOnce(E)) {
        let event: Option<E> = serde_json::from_slice(record.content.payload().unwrap_or_default()).ok();
        match event.filter(|event| event.check().is_ok()) {
            Some(event) => act(event),
            None => {
                let (partition, offset) = (record.partition, record.offset);
                tracing::warn!(topic = &*record.topic, partition, offset, "an event that cannot be read");
            }
        }
    }

    fn full(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    fn named(&self, topic: &str) -> Arc<str> {
        topic.strip_prefix(self.prefix.as_str()).unwrap_or(topic).into()
    }
}
