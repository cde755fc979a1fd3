//! One suite for both brokers, Kafka and memory: what the loop relies on.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use waybill_harness::{Scope, kafka};
use waybill_spine::memory::MemoryBroker;
use waybill_spine::{Content, KafkaConfig, KafkaSink, KafkaSource, Limits, Message, Record, Sink, Source};

const LIMIT: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { records: 500, bytes: 1 << 20 };
const TOPIC: &str = "things";

/// A way to join a group and to publish, on one of the brokers.
trait Broker {
    type Source: Source;
    type Sink: Sink;
    fn join(&self) -> Self::Source;
    fn sink(&self) -> Self::Sink;
}

impl Broker for MemoryBroker {
    type Source = waybill_spine::memory::MemorySource;
    type Sink = waybill_spine::memory::MemorySink;
    fn join(&self) -> Self::Source {
        MemoryBroker::join(self, "waybill.test", &[TOPIC])
    }
    fn sink(&self) -> Self::Sink {
        MemoryBroker::sink(self)
    }
}

struct Kafka {
    config: KafkaConfig,
    _scope: Scope,
}

impl Broker for Kafka {
    type Source = KafkaSource;
    type Sink = KafkaSink;
    fn join(&self) -> KafkaSource {
        KafkaSource::join(&self.config, "test", &[TOPIC]).unwrap()
    }
    fn sink(&self) -> KafkaSink {
        KafkaSink::connect(&self.config, "test").unwrap()
    }
}

async fn on_kafka(name: &str) -> Option<Kafka> {
    let scope = Scope::new(kafka()?.bootstrap(), name);
    scope.create_topics(&[(TOPIC, 4)]).await.unwrap();
    let properties = [
        ("bootstrap.servers", kafka()?.bootstrap()),
        // How long a topic may be unknown before a message to it fails.
        ("topic.metadata.propagation.max.ms", "1000"),
    ];
    let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Some(Kafka { config: KafkaConfig::new(properties, scope.prefix().to_owned()), _scope: scope })
}

fn in_memory() -> MemoryBroker {
    let broker = MemoryBroker::default();
    broker.create_topic(TOPIC, 4);
    broker
}

/// Runs a test on both brokers.
macro_rules! on_both {
    ($($name:ident => $test:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            $test(&in_memory());
            if let Some(kafka) = on_kafka(stringify!($test)).await {
                $test(&kafka);
            }
        }
    )*};
}

on_both! {
    a_record_is_read_as_it_was_published => as_published;
    records_of_a_key_come_in_order => in_order;
    what_is_done_is_not_delivered_to_the_next_member => done_stays_done;
    what_is_not_done_is_delivered_again => not_done_comes_again;
    an_idle_member_takes_nothing_and_loses_nothing => idle_takes_nothing;
    two_members_share_the_partitions => two_members;
    a_partition_that_is_taken_away_from_an_idle_member_is_read_when_it_comes_back => back_from_idle;
    a_batch_keeps_its_limits => limits;
    a_message_to_nowhere_is_reported => nowhere;
}

fn message(key: &str, number: usize) -> Message {
    Message { topic: TOPIC.into(), content: Content::new(Some(key.as_bytes()), Some(number.to_string().as_bytes())) }
}

fn publish(sink: &mut impl Sink, messages: &[Message]) -> Vec<usize> {
    sink.send(messages);
    let begun = Instant::now();
    loop {
        if let Some(failed) = sink.wait(Duration::from_millis(100)).unwrap() {
            return failed.indexes;
        }
        assert!(begun.elapsed() < LIMIT, "no report");
    }
}

/// Polls until so many records came.
fn take(source: &mut impl Source, count: usize) -> Vec<Record> {
    let (mut all, begun) = (Vec::new(), Instant::now());
    while all.len() < count {
        source.poll(LIMITS, Duration::from_millis(100), &mut all).unwrap();
        assert!(begun.elapsed() < LIMIT, "{} of {count} records came", all.len());
    }
    all
}

fn done(source: &mut impl Source, records: &[Record]) {
    let mut next: BTreeMap<(Arc<str>, i32), i64> = BTreeMap::new();
    for r in records {
        next.insert((r.topic.clone(), r.partition), r.offset + 1);
    }
    let next: Vec<_> = next.into_iter().map(|((topic, partition), offset)| (topic, partition, offset)).collect();
    source.done(&next).unwrap();
}

fn numbers(records: &[Record]) -> Vec<usize> {
    let number = |r: &Record| std::str::from_utf8(r.content.payload().unwrap()).unwrap().parse().unwrap();
    records.iter().map(number).collect()
}

fn as_published(broker: &impl Broker) {
    let mut full = message("k", 1);
    full.content.push_text("a", 1);
    full.content.push_text("a", 2);
    full.content.push("empty", None);
    full.content.push("bytes", Some(&[0, 255]));
    let bare = Message { content: Content::default(), ..message("", 2) };
    assert!(publish(&mut broker.sink(), &[full.clone(), bare.clone()]).is_empty());
    let mut source = broker.join();
    let mut records = take(&mut source, 2);
    records.sort_by_key(|r| r.content.key().is_none());
    for (record, message) in records.iter().zip([&full, &bare]) {
        assert_eq!(&*record.topic, TOPIC);
        assert_eq!(record.content, message.content);
    }
    source.close();
}

fn in_order(broker: &impl Broker) {
    let mut sink = broker.sink();
    let messages: Vec<Message> = (0..300).map(|n| message(&format!("k{}", n % 7), n)).collect();
    for chunk in messages.chunks(60) {
        assert!(publish(&mut sink, chunk).is_empty());
    }
    let mut source = broker.join();
    let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let records = take(&mut source, 300);
    for (record, number) in records.iter().zip(numbers(&records)) {
        let before = last.insert(record.content.key().unwrap().to_vec(), number);
        assert!(before.is_none_or(|b| b < number), "{before:?} before {number}");
    }
    source.close();
}

fn done_stays_done(broker: &impl Broker) {
    let mut sink = broker.sink();
    publish(&mut sink, &[message("a", 1), message("b", 2)]);
    let mut source = broker.join();
    let records = take(&mut source, 2);
    done(&mut source, &records);
    source.close();
    publish(&mut sink, &[message("a", 3)]);
    let mut source = broker.join();
    assert_eq!(numbers(&take(&mut source, 1)), [3]);
    source.close();
}

fn not_done_comes_again(broker: &impl Broker) {
    publish(&mut broker.sink(), &[message("a", 1), message("a", 2), message("a", 3)]);
    let mut source = broker.join();
    let records = take(&mut source, 3);
    done(&mut source, &records[..1]);
    source.close();
    let mut source = broker.join();
    assert_eq!(numbers(&take(&mut source, 2)), [2, 3]);
    source.close();
}

fn idle_takes_nothing(broker: &impl Broker) {
    let mut sink = broker.sink();
    let mut source = broker.join();
    publish(&mut sink, &[message("a", 1)]);
    take(&mut source, 1);
    source.idle(Duration::from_millis(50)).unwrap();
    publish(&mut sink, &[message("a", 2), message("b", 3), message("c", 4)]);
    source.idle(Duration::from_millis(200)).unwrap();
    let found: BTreeSet<usize> = numbers(&take(&mut source, 3)).into_iter().collect();
    assert_eq!(found, BTreeSet::from([2, 3, 4]));
    source.close();
}

fn two_members(broker: &impl Broker) {
    let (mut one, mut two) = (broker.join(), broker.join());
    let mut sink = broker.sink();
    let begun = Instant::now();
    let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
    let mut number = 0;
    // Members of a Kafka group get their share a moment later.
    while of_one.is_empty() || of_two.is_empty() {
        publish(&mut sink, &[message(&format!("k{number}"), number)]);
        number += 1;
        one.poll(LIMITS, Duration::from_millis(20), &mut of_one).unwrap();
        two.poll(LIMITS, Duration::from_millis(20), &mut of_two).unwrap();
        assert!(begun.elapsed() < LIMIT, "one has {}, two has {}", of_one.len(), of_two.len());
    }
    one.close();
    two.close();
}

fn back_from_idle(broker: &impl Broker) {
    let (mut one, mut sink) = (broker.join(), broker.sink());
    let of_every_partition = |from: usize| (from..from + 40).map(|n| message(&format!("k{n}"), n)).collect::<Vec<_>>();
    publish(&mut sink, &of_every_partition(0));
    let first = take(&mut one, 40);
    done(&mut one, &first);
    // Another member gets some of the partitions while this one idles.
    let (mut two, mut of_two, begun) = (broker.join(), Vec::new(), Instant::now());
    while of_two.is_empty() {
        publish(&mut sink, &of_every_partition(100));
        one.idle(Duration::from_millis(20)).unwrap();
        two.poll(LIMITS, Duration::from_millis(20), &mut of_two).unwrap();
        assert!(begun.elapsed() < LIMIT, "the second member has no partition");
    }
    // This one goes on without them, then they come back.
    let mut rest = Vec::new();
    one.poll(LIMITS, Duration::ZERO, &mut rest).unwrap();
    two.close();
    publish(&mut sink, &of_every_partition(1_000));
    let (mut missing, begun): (BTreeSet<usize>, _) = ((1_000..1_040).collect(), Instant::now());
    while !missing.is_empty() {
        let mut batch = Vec::new();
        one.poll(LIMITS, Duration::from_millis(100), &mut batch).unwrap();
        numbers(&batch).iter().for_each(|number| _ = missing.remove(number));
        assert!(begun.elapsed() < LIMIT, "{missing:?} never came");
    }
    one.close();
}

fn limits(broker: &impl Broker) {
    let large = Message { content: Content::new(Some(b"k"), Some(&[7; 1_000])), ..message("k", 1) };
    publish(&mut broker.sink(), &vec![large; 50]);
    let mut source = broker.join();
    take(&mut source, 1);
    source.close();
    let mut source = broker.join();
    let (mut batch, begun) = (Vec::new(), Instant::now());
    let limits = Limits { records: 10, bytes: 1 << 20 };
    while batch.is_empty() {
        source.poll(limits, Duration::from_millis(100), &mut batch).unwrap();
        assert!(begun.elapsed() < LIMIT);
    }
    assert!(batch.len() <= 10, "{} records", batch.len());
    batch.clear();
    source.poll(Limits { records: 500, bytes: 3_000 }, Duration::from_secs(5), &mut batch).unwrap();
    assert!((1..=3).contains(&batch.len()), "{} records of 1,000 bytes", batch.len());
    source.close();
}

fn nowhere(broker: &impl Broker) {
    let mut sink = broker.sink();
    let lost = Message { topic: "no-such-topic".into(), ..message("k", 1) };
    assert_eq!(publish(&mut sink, &[message("k", 1), lost, message("k", 2)]), [1]);
    assert!(publish(&mut sink, &[message("k", 3)]).is_empty(), "and the sink goes on");
}
