//! Dead letters, and what was decided about each.

use crate::OpsError;
use crate::at::first_at;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use waybill_journeys::{JourneysError, Span, Topics};
use waybill_spine::{DeadLetter, KafkaConfig, Record, dead_topic, redrive_topic};
use waybill_topics::Catalogue;

/// Where letters go that are not to be redriven.
pub(crate) const DROPPED: &str = "redrive.dropped";

/// Where a letter stands: `dead.pick/0/17`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// `dead.<stage>`, without the deployment's prefix.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = OpsError;

    fn from_str(text: &str) -> Result<Self, OpsError> {
        let parsed = || {
            let (rest, offset) = text.rsplit_once('/')?;
            let (topic, partition) = rest.rsplit_once('/')?;
            let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
            let sound = topic.strip_prefix("dead.").is_some_and(|stage| !stage.is_empty());
            (sound && partition >= 0 && offset >= 0).then(|| Position { topic: topic.to_owned(), partition, offset })
        };
        parsed().ok_or_else(|| OpsError::Position(text.to_owned()))
    }
}

/// What was decided about a letter: the last decision counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Nothing yet.
    Waiting,
    /// It went back to its stage. What failed again is another letter.
    Redriven {
        /// When.
        #[serde(rename = "decided_at")]
        at: Timestamp,
        /// Who did it.
        by: String,
    },
    /// It is not to go back.
    Dropped {
        /// When.
        #[serde(rename = "decided_at")]
        at: Timestamp,
        /// Who decided so.
        by: String,
        /// Why.
        why: String,
    },
}

impl State {
    /// In one word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Redriven { .. } => "redriven",
            State::Dropped { .. } => "dropped",
        }
    }

    fn at(&self) -> Timestamp {
        match self {
            State::Waiting => Timestamp::MIN,
            State::Redriven { at, .. } | State::Dropped { at, .. } => *at,
        }
    }
}

/// A dead letter, without its payload.
#[derive(Clone, Debug, Serialize)]
pub struct Letter {
    /// Where it stands.
    pub position: Position,
    /// The record's key, an order's id for most stages; none where it has none or it is no text.
    pub key: Option<String>,
    /// What it says of the record that failed.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// What was decided about it.
    #[serde(flatten)]
    pub state: State,
}

/// Which letters. What is left open does not matter.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of these stages; of all if it is empty.
    pub stages: Vec<String>,
    /// With this code.
    pub reason: Option<String>,
    /// Of records with this key, such as an order's id.
    pub key: Option<String>,
    /// In this state, by its name.
    pub state: Option<String>,
    /// Written in this span of time.
    pub span: Span,
}

/// Which letters come first, where there are more than asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// For people who look.
    Newest,
    /// For a redrive, which keeps the order.
    Oldest,
}

/// How many letters have the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The stage.
    pub stage: String,
    /// Code of the reason.
    pub reason: String,
    /// What was decided, in one word.
    pub state: &'static str,
    /// How many.
    pub letters: u64,
}

/// What a look at dead letters came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listing {
    /// The first of them, in the order that was asked for.
    pub letters: Vec<Letter>,
    /// How many there are.
    pub matched: u64,
    /// By stage, reason and state.
    pub counts: Vec<Count>,
    /// Records of `dead.*` that are no letters.
    pub unreadable: u64,
    /// Topics that the cluster does not have, with the deployment's prefix.
    pub missing: Vec<String>,
}

/// The stages that have dead letters, in the order of the catalogue.
#[must_use]
pub fn stages(catalogue: &Catalogue) -> Vec<String> {
    catalogue.names().filter_map(|topic| topic.strip_prefix("dead.")).map(str::to_owned).collect()
}

/// These stages, or all.
pub(crate) fn chosen(catalogue: &Catalogue, asked: &[String]) -> Result<Vec<String>, OpsError> {
    let all = stages(catalogue);
    if let Some(unknown) = asked.iter().find(|stage| !all.contains(stage)) {
        return Err(OpsError::NoStage(unknown.clone(), all.join(", ")));
    }
    Ok(if asked.is_empty() { all } else { all.into_iter().filter(|stage| asked.contains(stage)).collect() })
}

/// At most `most` of the letters that are `wanted`, and how many there are. Memory holds `most` of them and no payload.
///
/// # Errors
/// No broker answers, or there is no such stage.
pub fn letters(
    kafka: &KafkaConfig,
    catalogue: &Catalogue,
    wanted: &Wanted,
    (first, most): (First, usize),
) -> Result<Listing, OpsError> {
    let stages = chosen(catalogue, &wanted.stages)?;
    let (decided, mut missing) = decisions(kafka, &stages)?;
    let topics: Vec<String> = stages.iter().map(|stage| dead_topic(stage)).collect();
    let mut listing = Listing::default();
    let mut counts: BTreeMap<(String, String, &'static str), u64> = BTreeMap::new();
    let mut kept: BTreeMap<(Timestamp, Position), Letter> = BTreeMap::new();
    missing.extend(each(kafka, &topics, wanted.span, |record| {
        let Ok(letter) = read(&record, &decided) else {
            listing.unreadable += 1;
            return;
        };
        if !wanted.takes(&letter) {
            return;
        }
        listing.matched += 1;
        let of = (letter.letter.stage.clone(), letter.letter.reason.clone(), letter.state.name());
        *counts.entry(of).or_default() += 1;
        kept.insert((letter.letter.at, letter.position.clone()), letter);
        if kept.len() > most {
            match first {
                First::Newest => drop(kept.pop_first()),
                First::Oldest => drop(kept.pop_last()),
            }
        }
    })?);
    listing.letters = kept.into_values().collect();
    if first == First::Newest {
        listing.letters.reverse();
    }
    let counted = counts.into_iter();
    listing.counts = counted.map(|((stage, reason, state), letters)| Count { stage, reason, state, letters }).collect();
    listing.missing = missing;
    Ok(listing)
}

/// The letters at these positions, each with its record; in their order.
///
/// # Errors
/// No broker answers, or at one of them stands no letter.
pub fn letters_at(
    kafka: &KafkaConfig,
    catalogue: &Catalogue,
    positions: &[Position],
) -> Result<Vec<(Letter, Record)>, OpsError> {
    let mut named: Vec<String> = positions.iter().map(|p| p.topic.trim_start_matches("dead.").to_owned()).collect();
    named.sort_unstable();
    named.dedup();
    let (decided, _) = decisions(kafka, &chosen(catalogue, &named)?)?;
    let at = positions.iter().map(|p| (format!("{}{}", kafka.prefix, p.topic), p.partition, p.offset));
    let records = first_at(kafka, &at.collect::<Vec<_>>()).map_err(|error| OpsError::away(kafka, error))?;
    let found = positions.iter().zip(records).map(|(position, record)| {
        let no = |why: &str| OpsError::NoLetter(position.to_string(), why.to_owned());
        let record = record.filter(|r| r.offset == position.offset).ok_or_else(|| no("nothing stands there"))?;
        Ok((read(&record, &decided).map_err(|why| no(&why))?, record))
    });
    found.collect()
}

impl Wanted {
    fn takes(&self, letter: &Letter) -> bool {
        self.reason.as_ref().is_none_or(|reason| *reason == letter.letter.reason)
            && self.key.as_ref().is_none_or(|key| letter.key.as_ref() == Some(key))
            && self.state.as_ref().is_none_or(|state| state == letter.state.name())
    }
}

/// Every record of `topics` in `span`, partition by partition in order; yields the topics that are not there.
pub(crate) fn each(
    kafka: &KafkaConfig,
    topics: &[String],
    span: Span,
    mut take: impl FnMut(Record),
) -> Result<Vec<String>, OpsError> {
    let mut reader = match Topics::open(kafka, topics, &HashMap::new(), span) {
        Ok(reader) => reader,
        Err(JourneysError::NoTopics(_)) => {
            return Ok(topics.iter().map(|topic| format!("{}{topic}", kafka.prefix)).collect());
        }
        Err(error) => return Err(error.into()),
    };
    while let Some(record) = reader.read()? {
        take(record);
    }
    Ok(reader.absent)
}

/// What was decided, by the context of the failed span; and the topics that are not there.
fn decisions(kafka: &KafkaConfig, stages: &[String]) -> Result<(HashMap<String, State>, Vec<String>), OpsError> {
    let mut decided: HashMap<String, State> = HashMap::new();
    let topics: Vec<String> = stages.iter().map(|stage| redrive_topic(stage)).chain([DROPPED.to_owned()]).collect();
    let missing = each(kafka, &topics, Span::default(), |record| {
        // What stands there and is no letter decides nothing.
        let Ok(letter) = DeadLetter::read(&record.content) else { return };
        // Ours are the last of its headers.
        let header = |name: &str| {
            let named = record.content.headers().filter(|(n, _)| *n == name).last();
            let value = named.and_then(|(_, value)| std::str::from_utf8(value?).ok());
            value.unwrap_or("unknown").to_owned()
        };
        let at = Timestamp::from_millisecond(record.timestamp_ms).unwrap_or_default();
        let state = if &*record.topic == DROPPED {
            State::Dropped { at, by: header("dropped_by"), why: header("dropped_why") }
        } else {
            State::Redriven { at, by: header("redriven_by") }
        };
        let last = decided.entry(letter.traceparent).or_insert(State::Waiting);
        if last.at() <= state.at() {
            *last = state;
        }
    })?;
    Ok((decided, missing))
}

fn read(record: &Record, decided: &HashMap<String, State>) -> Result<Letter, String> {
    let letter = DeadLetter::read(&record.content)?;
    let (topic, partition, offset) = (record.topic.to_string(), record.partition, record.offset);
    Ok(Letter {
        position: Position { topic, partition, offset },
        key: record.content.key().and_then(|key| std::str::from_utf8(key).ok()).map(str::to_owned),
        state: decided.get(&letter.traceparent).cloned().unwrap_or(State::Waiting),
        letter,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for text in ["dead.pick/0/17", "dead.order-mail/5/0"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
        for text in ["", "dead.pick", "dead.pick/0", "dead.pick/0/x", "orders.new/0/1", "dead./0/1", "dead.pick/-1/0"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
