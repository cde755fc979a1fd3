//! What can go wrong, each with its place and, where there is one, the way out.

use std::collections::BTreeMap;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::cluster::ANSWER_WITHIN;
use crate::retention::RetentionError;

/// Why a catalogue cannot be used. `place` is the topic, or `defaults`.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Not YAML, not of the right shape, an unknown word, or a word said twice: the source says which and where.
    #[error("topics.yaml cannot be read")]
    Shape(#[source] serde_yaml_ng::Error),
    /// There is no topic.
    #[error("topics.yaml: `topics` declares none")]
    Empty,
    /// The name is not one that Kafka takes.
    #[error("topics.yaml: topic {topic:?}: not a topic name: 1 to 249 letters, digits, dots, underscores and hyphens")]
    Name {
        /// The name.
        topic: String,
    },
    /// Kafka names its metrics with underscores for dots, and refuses two topics that would share them.
    #[error("topics.yaml: topic {topic}: differs from {other} only in dots and underscores, which Kafka refuses")]
    Collision {
        /// The later topic.
        topic: String,
        /// The earlier topic.
        other: String,
    },
    /// A text that must say something is empty.
    #[error("topics.yaml: topic {topic}: `{key}` is empty")]
    Blank {
        /// The topic.
        topic: String,
        /// The key.
        key: &'static str,
    },
    /// The owner or a consumer is not the name of a stage.
    #[error(
        "topics.yaml: topic {topic}: `{key}`: {stage:?} is not a stage: lower-case letters, digits and hyphens, a letter first"
    )]
    Stage {
        /// The topic.
        topic: String,
        /// `owner` or `consumers`.
        key: &'static str,
        /// What stands there.
        stage: String,
    },
    /// A stage is named twice among the consumers.
    #[error("topics.yaml: topic {topic}: `consumers` names {stage} twice")]
    ConsumerTwice {
        /// The topic.
        topic: String,
        /// The stage.
        stage: String,
    },
    /// The schema is not of the form `<topic>.v<major>`.
    #[error("topics.yaml: topic {topic}: `schema`: {schema:?} is not of the form {topic}.v1")]
    Schema {
        /// The topic.
        topic: String,
        /// What stands there.
        schema: String,
    },
    /// A topic of events without a schema.
    #[error("topics.yaml: topic {topic}: `schema` is missing: only dead.* have none")]
    NoSchema {
        /// The topic.
        topic: String,
    },
    /// A topic of dead letters with a schema.
    #[error("topics.yaml: topic {topic}: `schema`: dead letters have none, they are other topics' records untouched")]
    DeadSchema {
        /// The topic.
        topic: String,
    },
    /// The dead letters of a stage are written by another one.
    #[error("topics.yaml: topic {topic}: `owner` is {owner}, but a stage writes its own dead letters")]
    DeadOwner {
        /// The topic.
        topic: String,
        /// What stands there.
        owner: String,
    },
    /// No partitions, or fewer.
    #[error("topics.yaml: {place}: `partitions` is {partitions}: at least 1 is needed")]
    Partitions {
        /// The topic, or `defaults`.
        place: String,
        /// What stands there.
        partitions: i32,
    },
    /// The retention is not a duration.
    #[error("topics.yaml: {place}: `retention`")]
    Retention {
        /// The topic, or `defaults`.
        place: String,
        /// What is wrong with it.
        source: RetentionError,
    },
    /// The replication is neither `broker` nor a number of copies.
    #[error("topics.yaml: {place}: `replication`: {replication:?} is neither `broker` nor a number from 1 to 32767")]
    Replication {
        /// The topic, or `defaults`.
        place: String,
        /// What stands there.
        replication: String,
    },
    /// A key of `config` that cannot be one of Kafka's.
    #[error(
        "topics.yaml: topic {topic}: `config`: {key:?} is not a topic setting of Kafka: lower-case words with dots between"
    )]
    ConfigKey {
        /// The topic.
        topic: String,
        /// The key.
        key: String,
    },
    /// A key of `config` that has a word of its own in this file.
    #[error("topics.yaml: topic {topic}: `config`: say {key} as `{instead}` of the topic")]
    ConfigElsewhere {
        /// The topic.
        topic: String,
        /// The key.
        key: String,
        /// The word to use.
        instead: &'static str,
    },
}

/// What stood in the way on the cluster, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No broker is named.
    #[error("`bootstrap.servers` is not set: name at least one broker as host:port")]
    NoServers,
    /// librdkafka does not take the settings: the source says which.
    #[error("the settings of the Kafka client are not valid")]
    Settings(#[source] KafkaError),
    /// Nobody answered.
    #[error(
        "no broker at {servers} answered within {} s ({reason}): check `bootstrap.servers`, the network and the security settings",
        ANSWER_WITHIN.as_secs()
    )]
    Unreachable {
        /// The brokers that were tried.
        servers: String,
        /// What the client said about it.
        reason: String,
    },
    /// A request as a whole failed.
    #[error("the cluster at {servers} did not carry out {request}")]
    Request {
        /// The brokers that were asked.
        servers: String,
        /// Kafka's name of the request.
        request: &'static str,
        /// What came instead of an answer.
        source: KafkaError,
    },
    /// Prefix and name make no topic name.
    #[error(
        "{name:?} is not a topic name: choose another prefix than {prefix:?}, of letters, digits, dots, underscores and hyphens"
    )]
    Prefix {
        /// The name.
        name: String,
        /// The prefix.
        prefix: String,
    },
    /// An override that no topic can have.
    #[error(
        "{what} {value} is not possible: it must be 1 or more (for replication also -1, the default of the cluster)"
    )]
    Override {
        /// Partitions or replication.
        what: &'static str,
        /// What was asked for.
        value: i32,
    },
    /// Topics the cluster would not create. Those it did create stay; applying again goes on from there.
    #[error("{}", sentences(.0))]
    NotCreated(Vec<NotCreated>),
    /// A topic was created or is said to exist, but cannot be seen with a leader for all its partitions.
    #[error(
        "topic {topic} exists, but was not ready within {} s: are all brokers up, and may this client DESCRIBE it?",
        ANSWER_WITHIN.as_secs()
    )]
    NotReady {
        /// The topic.
        topic: String,
    },
    /// The settings of a topic cannot be read, so they cannot be changed either: what is not repeated would be lost.
    #[error("the settings of topic {topic} cannot be read: this client needs the right to DESCRIBE_CONFIGS on it")]
    NotReadable {
        /// The topic.
        topic: String,
    },
    /// A setting that no topic of this cluster has.
    #[error("topic {topic}: {key} is not a topic setting that this Kafka knows: correct `config` in topics.yaml")]
    UnknownSetting {
        /// The topic.
        topic: String,
        /// What is declared.
        key: String,
    },
    /// The cluster did not take a setting. It does not say why.
    #[error(
        "topic {topic} did not take {key}={wanted}, it still has {found}: is that value one this Kafka knows, does a policy of the cluster forbid it, and may this client ALTER_CONFIGS?"
    )]
    NotConfigured {
        /// The topic.
        topic: String,
        /// Kafka's name of the setting.
        key: String,
        /// What is declared.
        wanted: String,
        /// What the topic has.
        found: String,
    },
    /// A task of this program ended early, for instance because the program is shutting down.
    #[error("the question to the cluster was broken off")]
    BrokenOff(#[source] tokio::task::JoinError),
}

/// A topic the cluster would not create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCreated {
    /// The topic, by its name on the cluster.
    pub topic: String,
    /// Kafka's reason.
    pub code: RDKafkaErrorCode,
    /// The settings it was to have; the cluster does not say which of them it refuses.
    pub settings: BTreeMap<String, String>,
}

/// One sentence a reason: what one topic is refused for, the others mostly are too.
fn sentences(refused: &[NotCreated]) -> String {
    let mut said: Vec<String> = Vec::new();
    for (i, first) in refused.iter().enumerate() {
        let alike = |other: &NotCreated| other.code == first.code && advice(other) == advice(first);
        if !refused[..i].iter().any(alike) {
            let topics: Vec<&str> = refused[i..].iter().filter(|r| alike(r)).map(|r| r.topic.as_str()).collect();
            said.push(format!("not created: {}: {}{}", topics.join(", "), first.code, advice(first)));
        }
    }
    said.join("; ")
}

fn advice(refused: &NotCreated) -> String {
    // Kafka has some hundred reasons. These are those for which there is something to be said.
    if refused.code == RDKafkaErrorCode::InvalidReplicationFactor {
        ": the cluster has fewer brokers than that, ask for a lower replication".to_owned()
    } else if refused.code == RDKafkaErrorCode::InvalidConfig {
        let settings: Vec<String> = refused.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!(": this Kafka does not accept one of {}", settings.join(", "))
    } else if refused.code == RDKafkaErrorCode::PolicyViolation {
        ": a policy of the cluster forbids it, ask who runs the cluster".to_owned()
    } else if [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::ClusterAuthorizationFailed]
        .contains(&refused.code)
    {
        ": this client needs the right to CREATE it".to_owned()
    } else {
        String::new()
    }
}
