//! A broker in memory, for tests: topics, keys, groups, redelivery; nothing is durable.

use crate::broker::{BrokerError, Failed, Limits, Sink, Source};
use crate::record::{Message, Record};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The broker; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryBroker(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<String, Vec<Vec<Record>>>,
    committed: HashMap<(String, String, i32), i64>,
    members: HashMap<String, Vec<u64>>,
    next_member: u64,
    away: bool,
}

impl MemoryBroker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &str, partitions: usize) {
        self.state().topics.entry(name.to_owned()).or_insert_with(|| vec![Vec::new(); partitions]);
    }

    /// While away, nothing is delivered or acknowledged.
    pub fn set_away(&self, away: bool) {
        self.state().away = away;
    }

    /// All records of a topic, partition by partition.
    #[must_use]
    pub fn records(&self, topic: &str) -> Vec<Record> {
        self.state().topics.get(topic).into_iter().flatten().flatten().cloned().collect()
    }

    /// The group's next offsets of a topic, by partition.
    #[must_use]
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let state = self.state();
        let of_topic = state.committed.iter().filter(|((g, t, _), _)| g == group && t == topic);
        of_topic.map(|((_, _, partition), offset)| (*partition, *offset)).collect()
    }

    /// Joins a group on these topics.
    #[must_use]
    pub fn join(&self, group: &str, topics: &[&str]) -> MemorySource {
        let mut state = self.state();
        state.next_member += 1;
        let id = state.next_member;
        state.members.entry(group.to_owned()).or_default().push(id);
        drop(state);
        let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
        MemorySource { broker: self.clone(), group: group.to_owned(), topics, id, position: HashMap::new() }
    }

    /// A producer.
    #[must_use]
    pub fn sink(&self) -> MemorySink {
        MemorySink { broker: self.clone(), waiting: Vec::new() }
    }
}

/// A member of a group.
#[derive(Debug)]
pub struct MemorySource {
    broker: MemoryBroker,
    group: String,
    topics: Vec<Arc<str>>,
    id: u64,
    position: HashMap<(Arc<str>, i32), i64>,
}

impl MemorySource {
    /// Partitions are dealt out in turn over the members; one that is new to us begins where the group stands.
    fn take(&mut self, limits: Limits, batch: &mut Vec<Record>) {
        let broker = self.broker.clone();
        let state = broker.state();
        let Some(members) = state.members.get(&self.group) else { return };
        let Some(rank) = members.iter().position(|m| *m == self.id).filter(|_| !state.away) else { return };
        let mut bytes = 0;
        for topic in &self.topics {
            for (index, records) in state.topics.get(&**topic).into_iter().flatten().enumerate() {
                let partition = i32::try_from(index).unwrap_or(i32::MAX);
                if index % members.len() != rank {
                    self.position.remove(&(topic.clone(), partition));
                    continue;
                }
                let key = (self.group.clone(), topic.to_string(), partition);
                let begin = || state.committed.get(&key).copied().unwrap_or(0);
                let position = self.position.entry((topic.clone(), partition)).or_insert_with(begin);
                let from = usize::try_from(*position).unwrap_or(0);
                for record in records.get(from..).unwrap_or_default() {
                    if batch.len() >= limits.records || bytes >= limits.bytes {
                        return;
                    }
                    bytes += record.content.size();
                    *position = record.offset + 1;
                    batch.push(record.clone());
                }
            }
        }
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        if let Some(members) = self.broker.state().members.get_mut(&self.group) {
            members.retain(|m| *m != self.id);
        }
    }
}

impl Source for MemorySource {
    fn poll(&mut self, limits: Limits, wait: Duration, batch: &mut Vec<Record>) -> Result<(), BrokerError> {
        let until = Instant::now() + wait;
        loop {
            self.take(limits, batch);
            if !batch.is_empty() || Instant::now() >= until {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn idle(&mut self, wait: Duration) -> Result<(), BrokerError> {
        std::thread::park_timeout(wait);
        Ok(())
    }

    fn done(&mut self, next: &[(Arc<str>, i32, i64)]) -> Result<(), BrokerError> {
        let mut state = self.broker.state();
        for (topic, partition, offset) in next {
            state.committed.insert((self.group.clone(), topic.to_string(), *partition), *offset);
        }
        Ok(())
    }

    fn assigned(&self) -> bool {
        true
    }

    fn close(self) {}
}

/// A producer.
#[derive(Debug)]
pub struct MemorySink {
    broker: MemoryBroker,
    waiting: Vec<Message>,
}

impl Sink for MemorySink {
    fn send(&mut self, messages: &[Message]) {
        self.waiting = messages.to_vec();
    }

    fn wait(&mut self, limit: Duration) -> Result<Option<Failed>, BrokerError> {
        let mut state = self.broker.state();
        if state.away {
            drop(state);
            std::thread::park_timeout(limit);
            return Ok(None);
        }
        let mut failed = Failed::default();
        for (index, message) in self.waiting.drain(..).enumerate() {
            let Some(partitions) = state.topics.get_mut(&*message.topic) else {
                failed.indexes.push(index);
                failed.error = format!("no topic {}", message.topic);
                continue;
            };
            let mut hash = DefaultHasher::new();
            message.content.key().hash(&mut hash);
            let count = partitions.len();
            let partition = usize::try_from(hash.finish() % count.max(1) as u64).unwrap_or(0);
            let records = &mut partitions[partition];
            records.push(Record {
                topic: message.topic.as_ref().into(),
                partition: i32::try_from(partition).unwrap_or(i32::MAX),
                offset: i64::try_from(records.len()).unwrap_or(i64::MAX),
                timestamp_ms: 0,
                content: message.content,
            });
        }
        Ok(Some(failed))
    }
}
