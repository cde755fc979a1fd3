//! The catalogue: `topics.yaml`, parsed and checked. Whoever holds one may rely on what the checks say.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::CatalogueError;
use crate::file::{Defaults, Entry, File};
use crate::retention::Retention;

/// The declared topics, in the order of the file.
#[derive(Clone, Debug)]
pub struct Catalogue {
    topics: Vec<Topic>,
}

/// One declared topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name, without the prefix of a cluster.
    pub name: String,
    /// What one of its records means.
    pub about: String,
    /// What its records are keyed by.
    pub key: String,
    /// The schema of its values; none for dead letters, also redriven ones: they are other topics' records untouched.
    pub schema: Option<SchemaRef>,
    /// The one stage that writes it.
    pub owner: String,
    /// The stages that read it.
    pub consumers: Vec<String>,
    /// How many partitions it is created with.
    pub partitions: i32,
    /// How long it keeps its records.
    pub retention: Retention,
    /// How many copies of each partition it is created with.
    pub replication: Replication,
    /// Further settings under Kafka's own names; never `retention.ms`, which is `retention`.
    pub config: BTreeMap<String, String>,
}

impl Topic {
    /// All settings of the topic under Kafka's own names, the retention among them.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = self.config.clone();
        settings.insert(RETENTION_MS.to_owned(), self.retention.as_ms().to_string());
        settings
    }
}

pub(crate) const RETENTION_MS: &str = "retention.ms";

/// The schema of a topic: its event and major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaRef {
    /// The event, which is also the name of the topic.
    pub event: String,
    /// The major version, from 1.
    pub major: u32,
}

impl SchemaRef {
    /// Its file in `schemas/`.
    pub fn file(&self) -> String {
        format!("{self}.json")
    }

    /// Its `$id`, which records carry as `ce_dataschema`.
    pub fn id(&self) -> String {
        format!("urn:waybill:schema:{}:v{}", self.event, self.major)
    }
}

impl fmt::Display for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.v{}", self.event, self.major)
    }
}

/// How many copies of each partition a topic is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// As many as the cluster makes by default (its `default.replication.factor`).
    Broker,
    /// This many.
    Factor(i32),
}

impl Replication {
    /// The number in a request to Kafka, where -1 stands for the cluster's default.
    pub fn factor(self) -> i32 {
        match self {
            Self::Broker => -1,
            Self::Factor(n) => n,
        }
    }
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker => f.write_str("broker"),
            Self::Factor(n) => write!(f, "{n}"),
        }
    }
}

impl Catalogue {
    /// The catalogue this program was built with: the repository's `topics.yaml`.
    pub fn built_in() -> Result<Self, CatalogueError> {
        Self::parse(include_str!("../../../topics.yaml"))
    }

    /// Parses and checks a catalogue.
    pub fn parse(yaml: &str) -> Result<Self, CatalogueError> {
        let file: File = serde_yaml_ng::from_str(yaml).map_err(CatalogueError::Shape)?;
        let defaults = Settled::defaults(&file.defaults)?;
        let mut topics: Vec<Topic> = Vec::new();
        for (name, entry) in file.topics.0 {
            let topic = check(name, entry, &defaults)?;
            if let Some(other) = topics.iter().find(|t| t.name.replace('.', "_") == topic.name.replace('.', "_")) {
                return Err(CatalogueError::Collision { topic: topic.name, other: other.name.clone() });
            }
            topics.push(topic);
        }
        if topics.is_empty() { Err(CatalogueError::Empty) } else { Ok(Self { topics }) }
    }

    /// All topics, in the order of the file.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The names of all topics, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|t| t.name.as_str())
    }

    /// The topic of this name (without a prefix).
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|t| t.name == name)
    }

    /// The topics that this stage writes.
    pub fn owned_by(&self, stage: &str) -> impl Iterator<Item = &Topic> {
        self.topics.iter().filter(move |t| t.owner == stage)
    }

    /// The topics that this stage reads.
    pub fn consumed_by(&self, stage: &str) -> impl Iterator<Item = &Topic> {
        self.topics.iter().filter(move |t| t.consumers.iter().any(|c| c == stage))
    }
}

/// The words that may stand in `defaults` and in a topic.
struct Settled {
    partitions: i32,
    retention: Retention,
    replication: Replication,
}

impl Settled {
    fn defaults(defaults: &Defaults) -> Result<Self, CatalogueError> {
        Ok(Self {
            partitions: partitions("defaults", defaults.partitions)?,
            retention: retention("defaults", &defaults.retention.0)?,
            replication: replication("defaults", &defaults.replication.0)?,
        })
    }
}

fn check(name: String, entry: Entry, defaults: &Settled) -> Result<Topic, CatalogueError> {
    if !is_topic_name(&name) {
        return Err(CatalogueError::Name { topic: name });
    }
    for (key, text) in [("about", &entry.about), ("key", &entry.key)] {
        if text.trim().is_empty() {
            return Err(CatalogueError::Blank { topic: name, key });
        }
    }
    let place = format!("topic {name}");
    Ok(Topic {
        schema: schema(&name, entry.schema.as_deref(), &entry.owner)?,
        owner: stage(&name, "owner", entry.owner)?,
        consumers: consumers(&name, entry.consumers)?,
        partitions: entry.partitions.map_or(Ok(defaults.partitions), |n| partitions(&place, n))?,
        retention: entry.retention.map_or(Ok(defaults.retention), |text| retention(&place, &text.0))?,
        replication: entry.replication.map_or(Ok(defaults.replication), |text| replication(&place, &text.0))?,
        config: config(&name, entry.config.0.into_iter().map(|(key, value)| (key, value.0)))?,
        about: entry.about,
        key: entry.key,
        name,
    })
}

/// What Kafka takes as the name of a topic.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let chars = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(chars) && name != "." && name != ".."
}

fn stage(topic: &str, key: &'static str, stage: String) -> Result<String, CatalogueError> {
    let fits = stage.starts_with(|c: char| c.is_ascii_lowercase())
        && stage.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if fits { Ok(stage) } else { Err(CatalogueError::Stage { topic: topic.to_owned(), key, stage }) }
}

fn consumers(topic: &str, stages: Vec<String>) -> Result<Vec<String>, CatalogueError> {
    let mut consumers = Vec::with_capacity(stages.len());
    for name in stages {
        let name = stage(topic, "consumers", name)?;
        if consumers.contains(&name) {
            return Err(CatalogueError::ConsumerTwice { topic: topic.to_owned(), stage: name });
        }
        consumers.push(name);
    }
    Ok(consumers)
}

fn schema(topic: &str, schema: Option<&str>, owner: &str) -> Result<Option<SchemaRef>, CatalogueError> {
    let name = || topic.to_owned();
    match (topic.strip_prefix("dead."), schema) {
        (Some(stage), _) if stage != owner => Err(CatalogueError::DeadOwner { topic: name(), owner: owner.to_owned() }),
        (Some(_), None) => Ok(None),
        (Some(_), Some(_)) => Err(CatalogueError::DeadSchema { topic: name() }),
        (None, None) if topic.starts_with("redrive.") => Ok(None),
        (None, None) => Err(CatalogueError::NoSchema { topic: name() }),
        (None, Some(text)) => text
            .strip_prefix(topic)
            .and_then(|rest| rest.strip_prefix(".v"))
            .filter(|major| major.starts_with(|c: char| ('1'..='9').contains(&c)))
            .and_then(|major| major.parse().ok())
            .map(|major| Some(SchemaRef { event: name(), major }))
            .ok_or_else(|| CatalogueError::Schema { topic: name(), schema: text.to_owned() }),
    }
}

fn partitions(place: &str, partitions: i32) -> Result<i32, CatalogueError> {
    if partitions >= 1 {
        Ok(partitions)
    } else {
        Err(CatalogueError::Partitions { place: place.to_owned(), partitions })
    }
}

fn retention(place: &str, text: &str) -> Result<Retention, CatalogueError> {
    text.parse().map_err(|source| CatalogueError::Retention { place: place.to_owned(), source })
}

fn replication(place: &str, text: &str) -> Result<Replication, CatalogueError> {
    match text.parse::<i16>() {
        _ if text == "broker" => Ok(Replication::Broker),
        Ok(n) if n >= 1 => Ok(Replication::Factor(n.into())),
        Ok(_) | Err(_) => Err(CatalogueError::Replication { place: place.to_owned(), replication: text.to_owned() }),
    }
}

fn config(
    topic: &str,
    entries: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, CatalogueError> {
    let mut config = BTreeMap::new();
    for (key, value) in entries {
        if key == RETENTION_MS {
            return Err(CatalogueError::ConfigElsewhere { topic: topic.to_owned(), key, instead: "retention" });
        }
        let fits = key.split('.').all(|word| {
            !word.is_empty()
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        });
        if !fits {
            return Err(CatalogueError::ConfigKey { topic: topic.to_owned(), key });
        }
        config.insert(key, value);
    }
    Ok(config)
}
