//! A member's share of its group's partitions.
//!
//! The group divides one topic alone, the stage's first; whoever has partition 3 of it has partition 3 of the others, too. Divided all together
//! they would be counted, not weighed: the balanced share of a new process may be every partition of a topic that is never written.
//!
//! - *Every partition has an owner.* Those of a topic with more of them than the first begin again at its partition 0.
//! - *Members may differ.* One of a version that divides all topics owns what the group gives it; what another one of today's owns
//!   beside that is read by both, and repeats are harmless.
//! - *Offsets do not expire.* Brokers forget those of topics that nobody has subscribed to, a week after the last commit; so what is read rarely
//!   is committed again now and then ([`Member::renew`]).

use super::{Refusals, lock, log};
use crate::broker::Lags;
use crate::failpoint::Failpoint;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How long an answer about topics and offsets is waited for: the stage stands meanwhile.
const ASK: Duration = Duration::from_secs(2);

type Partition = (String, i32);

/// What librdkafka's callbacks tell the loop.
#[derive(Default)]
pub(super) struct Member {
    stage: String,
    /// With the deployment's prefix; the first is the one that the group divides.
    topics: Vec<String>,
    /// How many partitions each topic has, as far as it is known.
    counts: Mutex<BTreeMap<String, i32>>,
    /// The partitions of the first topic that the group has given us.
    given: Mutex<BTreeSet<i32>>,
    pub(super) owned: Mutex<BTreeSet<Partition>>,
    /// Of these, what has moved since offsets were last renewed: its offset is young.
    pub(super) moved: Mutex<BTreeSet<Partition>>,
    /// The assignment changed since partitions were last paused or resumed.
    pub(super) changed: AtomicBool,
    pub(super) lags: Lags,
    refusals: Refusals,
}

impl Member {
    pub(super) fn new(stage: &str, topics: Vec<String>, refusals: Refusals) -> Self {
        Member { stage: stage.to_owned(), topics, refusals, ..Member::default() }
    }

    /// The topic that the group divides.
    pub(super) fn first(&self) -> &str {
        self.topics.first().map_or("", String::as_str)
    }

    /// Asks how many partitions the topics have; yields whether that is known of all.
    pub(super) fn count(&self, consumer: &BaseConsumer<Self>) -> bool {
        let mut all = true;
        for topic in &self.topics {
            // A cluster that is away says nothing of the others either.
            let Ok(metadata) = consumer.fetch_metadata(Some(topic), ASK) else { return false };
            let found = metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len());
            match i32::try_from(found) {
                // Not there, or not for us to see.
                Ok(0) | Err(_) => all = false,
                Ok(count) => {
                    lock(&self.counts).insert(topic.clone(), count);
                }
            }
        }
        all
    }

    /// The partitions that go with those of the first topic.
    fn share(&self) -> BTreeSet<Partition> {
        let (given, counts) = (lock(&self.given), lock(&self.counts));
        share(&self.topics, &given, &counts)
    }

    /// Reads what is ours and is not read yet. A rebalance waits for this call even where there is nothing to add.
    pub(super) fn take(&self, consumer: &BaseConsumer<Self>, rebalance: bool) {
        let share = self.share();
        let mut owned = lock(&self.owned);
        let new: BTreeSet<Partition> = share.difference(&owned).cloned().collect();
        if new.is_empty() && !rebalance {
            return;
        }
        let result = match consumer.rebalance_protocol() {
            RebalanceProtocol::Eager => consumer.assign(&list(&share)),
            RebalanceProtocol::Cooperative | RebalanceProtocol::None => consumer.incremental_assign(&list(&new)),
        };
        match result {
            Ok(()) => owned.extend(new),
            Err(error) => tracing::warn!(stage = self.stage, %error, "partitions are not taken"),
        }
        self.changed.store(true, Relaxed);
        tracing::info!(stage = self.stage, partitions = owned.len(), "assignment changed");
    }

    /// Reads no more what is no longer ours.
    fn leave(&self, consumer: &BaseConsumer<Self>) {
        let share = self.share();
        let mut owned = lock(&self.owned);
        let old: BTreeSet<Partition> = owned.difference(&share).cloned().collect();
        let going = list(&old);
        // librdkafka keeps a pause beyond the assignment: a partition that came back would never be read again.
        if let Err(error) = consumer.resume(&going) {
            tracing::warn!(%error, "partitions that are taken away stay paused");
        }
        let result = match consumer.rebalance_protocol() {
            RebalanceProtocol::Eager => consumer.unassign(),
            RebalanceProtocol::Cooperative | RebalanceProtocol::None => consumer.incremental_unassign(&going),
        };
        if let Err(error) = result {
            tracing::warn!(stage = self.stage, %error, "partitions are not given back");
        }
        owned.retain(|partition| !old.contains(partition));
        lock(&self.moved).retain(|partition| !old.contains(partition));
        lock(&self.lags).retain(|(topic, partition, _)| owned.contains(&(topic.clone(), *partition)));
        self.changed.store(true, Relaxed);
        tracing::info!(stage = self.stage, partitions = owned.len(), "assignment changed");
    }

    /// Commits anew what is committed of partitions that did not move, so that brokers do not forget it.
    pub(super) fn renew(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        let moved = std::mem::take(&mut *lock(&self.moved));
        let owned = lock(&self.owned).clone();
        let resting = owned.difference(&moved).filter(|(topic, _)| topic != self.first()).cloned().collect();
        let committed = consumer.committed_offsets(list(&resting), ASK)?;
        let mut again = TopicPartitionList::new();
        for element in committed.elements() {
            if let Offset::Offset(offset) = element.offset() {
                again.add_partition_offset(element.topic(), element.partition(), Offset::Offset(offset))?;
            }
        }
        if again.count() > 0 { consumer.commit(&again, CommitMode::Async) } else { Ok(()) }
    }
}

/// Partition `p` of any topic goes with partition `p` of the first, counted around where that has fewer.
fn share(topics: &[String], given: &BTreeSet<i32>, counts: &BTreeMap<String, i32>) -> BTreeSet<Partition> {
    let Some((first, others)) = topics.split_first() else { return BTreeSet::new() };
    let mut share: BTreeSet<Partition> = given.iter().map(|partition| (first.clone(), *partition)).collect();
    let Some(around) = counts.get(first).filter(|count| **count > 0) else { return share };
    for topic in others {
        let partitions = 0..counts.get(topic).copied().unwrap_or(0);
        share.extend(partitions.filter(|p| given.contains(&(p % around))).map(|p| (topic.clone(), p)));
    }
    share
}

fn list(partitions: &BTreeSet<Partition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

impl ClientContext for Member {
    fn stats_raw(&self, json: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Stats {
            topics: BTreeMap<String, Topic>,
        }
        #[derive(serde::Deserialize)]
        struct Topic {
            partitions: BTreeMap<String, Partition>,
        }
        #[derive(serde::Deserialize)]
        struct Partition {
            partition: i32,
            consumer_lag_stored: i64,
        }
        let Ok(stats) = serde_json::from_slice::<Stats>(json) else { return };
        let owned = lock(&self.owned);
        let mut lags = lock(&self.lags);
        lags.clear();
        for (topic, t) in stats.topics {
            for p in t.partitions.into_values() {
                if p.consumer_lag_stored >= 0 && owned.contains(&(topic.clone(), p.partition)) {
                    lags.push((topic.clone(), p.partition, p.consumer_lag_stored));
                }
            }
        }
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.refusals.warn(&error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let of_first = partitions.elements_for_topic(self.first());
        let partitions: BTreeSet<i32> = of_first.iter().map(|element| element.partition()).collect();
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            lock(&self.given).extend(partitions);
            self.count(consumer);
            self.take(consumer, true);
            self.refusals.over();
        } else {
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS {
                tracing::warn!(error = %RDKafkaErrorCode::from(code), "rebalance");
            }
            lock(&self.given).retain(|partition| !partitions.contains(partition));
            self.leave(consumer);
        }
        Failpoint::DuringRebalance.pass();
    }

    fn commit_callback(&self, result: Result<(), KafkaError>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets not committed; the records come again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Partition, share};
    use std::collections::{BTreeMap, BTreeSet};

    const COUNTS: [(&str, i32); 4] = [("first", 3), ("same", 3), ("fewer", 1), ("more", 7)];

    fn share_of(given: &[i32], counts: &[(&str, i32)]) -> BTreeSet<Partition> {
        let topics = COUNTS.map(|(topic, _)| topic.to_owned());
        let counts: BTreeMap<String, i32> = counts.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
        share(&topics, &given.iter().copied().collect(), &counts)
    }

    #[test]
    fn every_partition_of_every_topic_has_one_owner() {
        let [a, b] = [share_of(&[0, 2], &COUNTS), share_of(&[1], &COUNTS)];
        assert!(a.is_disjoint(&b));
        assert_eq!(a.len() + b.len(), 3 + 3 + 1 + 7);
        assert!(b.contains(&("more".to_owned(), 4)) && b.contains(&("same".to_owned(), 1)));
    }

    #[test]
    fn whoever_is_given_nothing_owns_nothing() {
        assert_eq!(share_of(&[], &COUNTS), BTreeSet::new());
    }

    #[test]
    fn a_topic_that_is_not_known_yet_costs_no_other() {
        let known = share_of(&[0, 1, 2], &COUNTS[..2]);
        assert_eq!(known.len(), 6);
        assert_eq!(share_of(&[1], &[]), BTreeSet::from([("first".to_owned(), 1)]));
    }
}
