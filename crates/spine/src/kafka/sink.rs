//! An idempotent producer whose reports are awaited a batch at a time.

use super::{KafkaConfig, Refusals, fatal, lock, log};
use crate::broker::{BrokerError, Failed, Sink};
use crate::record::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as KafkaHeader, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The reports that are still to come for one [`Sink::send`].
#[derive(Default)]
struct Reports {
    state: Mutex<Open>,
    all_in: Condvar,
    refusals: Refusals,
}

#[derive(Default)]
struct Open {
    left: usize,
    failed: BTreeMap<usize, String>,
    fatal: Option<String>,
}

impl Reports {
    fn report(&self, index: usize, topic: &str, error: Option<&KafkaError>) {
        let why = error.map(|error| {
            let text = format!("cannot write to {topic}: {error}");
            self.refusals.hear(error.rdkafka_error_code(), &text).unwrap_or(text)
        });
        let mut open = lock(&self.state);
        open.left -= 1;
        if let Some(why) = why {
            open.failed.insert(index, why);
        }
        if open.left == 0 {
            self.all_in.notify_one();
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            // Who may write to no topic at all is told so when the producer begins, and librdkafka does not ask again.
            let denied =
                Some(RDKafkaErrorCode::ClusterAuthorizationFailed).filter(|_| reason.contains("authorization failed"));
            let why = self.refusals.sentence(denied, reason).unwrap_or_else(|| reason.to_owned());
            lock(&self.state).fatal = Some(why);
            self.all_in.notify_one();
        }
        self.refusals.warn(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        match result {
            Ok(message) => self.report(index, message.topic(), None),
            Err((error, message)) => self.report(index, message.topic(), Some(error)),
        }
    }
}

/// An idempotent producer.
pub struct KafkaSink {
    producer: ThreadedProducer<Reports>,
    prefix: String,
}

impl KafkaSink {
    /// Connects.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn connect(config: &KafkaConfig, name: &str) -> Result<Self, BrokerError> {
        let reports = Reports { refusals: config.refusals().clone(), ..Reports::default() };
        let producer = config.producer(name).create_with_context(reports).map_err(fatal)?;
        Ok(KafkaSink { producer, prefix: config.prefix.clone() })
    }
}

impl Sink for KafkaSink {
    fn send(&mut self, messages: &[Message]) {
        let context = self.producer.context();
        {
            let mut open = lock(&context.state);
            open.left = messages.len();
            open.failed.clear();
        }
        for (index, message) in messages.iter().enumerate() {
            let topic = format!("{}{}", self.prefix, message.topic);
            let content = &message.content;
            let mut headers = OwnedHeaders::new_with_capacity(content.headers().len());
            for (key, value) in content.headers() {
                headers = headers.insert(KafkaHeader { key, value });
            }
            let mut record: BaseRecord<'_, [u8], [u8], usize> =
                BaseRecord::with_opaque_to(&topic, index).headers(headers);
            if let Some(key) = content.key() {
                record = record.key(key);
            }
            if let Some(payload) = content.payload() {
                record = record.payload(payload);
            }
            if let Err((error, _)) = self.producer.send(record) {
                context.report(index, &topic, Some(&error));
            }
        }
    }

    fn wait(&mut self, limit: Duration) -> Result<Option<Failed>, BrokerError> {
        let context = self.producer.context();
        let open = lock(&context.state);
        let (mut open, _) = context
            .all_in
            .wait_timeout_while(open, limit, |open| open.left > 0 && open.fatal.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &open.fatal {
            return Err(BrokerError::Fatal(why.clone()));
        }
        if open.left > 0 {
            return Ok(None);
        }
        let failed = std::mem::take(&mut open.failed);
        drop(open);
        if failed.is_empty() {
            context.refusals.over();
        }
        let error = failed.values().next().cloned().unwrap_or_default();
        Ok(Some(Failed { indexes: failed.into_keys().collect(), error }))
    }
}
