//! What can go wrong with all of a replay; a bad record is no error.

use rdkafka::error::KafkaError;
use waybill_spine::KafkaConfig;
use waybill_telemetry::ResendError;

/// Why a replay or a question failed.
#[derive(Debug, thiserror::Error)]
pub enum JourneysError {
    /// A target of another kind.
    #[error("not a target: name a FILE.db, sqlite://FILE or postgres://…")]
    Target,
    /// A file that is not there.
    #[error("there is no {0}: `waybill replay --to {0}` makes it")]
    NoTarget(String),
    /// Tables of another version, or something else.
    #[error(
        "{0} was not made by this version of waybill: a target holds nothing that the topics do not, so remove it, or its \
             tables, and replay again; or name another"
    )]
    Layout(String),
    /// The target cannot be opened, read or written.
    #[error("the target does not answer")]
    Database(#[from] sqlx::Error),
    /// The file cannot be filled.
    #[error("the target cannot be written")]
    Filling(#[from] rusqlite::Error),
    /// No broker answers, or it stopped answering.
    #[error("no Kafka broker answers at {0}: start one, or name yours with --brokers")]
    Kafka(String, #[source] KafkaError),
    /// The brokers turn us away, or do not let us do it.
    #[error("Kafka refuses: {0}")]
    Refused(String),
    /// No topic that was asked for exists.
    #[error("none of the topics exists: {0}; run `waybill topics apply`, or name another --prefix")]
    NoTopics(String),
    /// An export that cannot be read.
    #[error("line {line} is not an ExportTraceServiceRequest in OTLP's JSON")]
    Export {
        /// From 1.
        line: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A file that cannot be read.
    #[error("cannot read")]
    Read(#[from] std::io::Error),
    /// An endpoint that takes no spans.
    #[error("{sent} of {all} spans were sent; {endpoint} did not take the next ones in {tries} tries")]
    Send {
        /// Spans that were taken.
        sent: u64,
        /// Spans to send.
        all: u64,
        /// Where to.
        endpoint: String,
        /// How often it was tried.
        tries: u32,
        /// The last answer.
        #[source]
        source: ResendError,
    },
    /// The reading thread ended early.
    #[error("the reading thread panicked")]
    Reader,
    /// A row of the target that is no span.
    #[error("span {span_id} of trace {trace_id} is not as a replay writes it: drop the target and replay again")]
    Row {
        /// Its trace.
        trace_id: String,
        /// The span.
        span_id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl JourneysError {
    pub(crate) fn away(kafka: &KafkaConfig, error: KafkaError) -> Self {
        match kafka.refused(&error) {
            Some(reason) => JourneysError::Refused(reason),
            None => JourneysError::Kafka(kafka.unreachable(), error),
        }
    }
}
