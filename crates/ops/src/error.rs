//! What can go wrong with a look; a letter that cannot be read is no error.

use rdkafka::error::KafkaError;
use waybill_journeys::JourneysError;
use waybill_spine::{BrokerError, KafkaConfig};

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// No broker answers, or it stopped answering.
    #[error("no Kafka broker answers at {0}: start one, or name yours with --brokers")]
    Kafka(String, #[source] KafkaError),
    /// The brokers turn us away, or do not let us do it.
    #[error("Kafka refuses: {0}")]
    Refused(String),
    /// A topic cannot be read.
    #[error(transparent)]
    Read(#[from] JourneysError),
    /// A topic that letters go to is not there.
    #[error("there is no topic {0}: run `waybill topics apply`")]
    NoTopic(String),
    /// A stage that there is not.
    #[error("there is no stage {0}: there are {1}")]
    NoStage(String, String),
    /// A position that does not look like one.
    #[error("{0} is no position of a dead letter: it looks like dead.pick/0/17")]
    Position(String),
    /// A position where no letter stands, or none that can be read.
    #[error("there is no dead letter at {0}: {1}")]
    NoLetter(String, String),
    /// Letters cannot be written.
    #[error("{done} of {all} letters were written; the others were not, or nobody knows: what was, is shown as such")]
    Write {
        /// Letters that all in-sync replicas have.
        done: u64,
        /// Letters to write.
        all: u64,
        /// Why.
        #[source]
        source: BrokerError,
    },
}

impl OpsError {
    pub(crate) fn away(kafka: &KafkaConfig, error: KafkaError) -> Self {
        match kafka.refused(&error) {
            Some(reason) => OpsError::Refused(reason),
            None => OpsError::Kafka(kafka.unreachable(), error),
        }
    }
}
