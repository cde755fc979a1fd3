//! Topics, schemas, examples and Rust types say the same. (Stages are tied in `cli`, which knows them all.)

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use waybill_events::{
    CancelRequested, CheckoutCompleted, CheckoutRejected, CheckoutRequested, EmailBatch, EmailResults, OrderCancelled,
    OrderPacked, OrderPicked, OrderPlaced, OrderShipped, OrderShort, PushBatch, PushResults, Restocked,
    StockAdjustment, StockLevel,
};
use waybill_spine::Event;
use waybill_topics::Catalogue;

fn schemas() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

fn cases(folder: PathBuf) -> Vec<(PathBuf, Value)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    files.map(|path| (path.clone(), serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())).collect()
}

/// What was ever published is still read.
fn read_published<E: Event>() {
    for revision in std::fs::read_dir(schemas().join("published")).unwrap() {
        let folder = revision.unwrap().path().join("examples").join(E::TOPIC);
        // The event may be newer than the revision.
        for (path, example) in folder.exists().then(|| cases(folder)).into_iter().flatten() {
            let event: Result<E, _> = serde_json::from_value(example);
            let event = event.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            event.check().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

/// Ties one Rust type to its topic, its schema and its examples.
fn tie<E: Event>() -> &'static str {
    let catalogue = Catalogue::built_in().unwrap();
    let topic = catalogue.topic(E::TOPIC).unwrap();
    assert_eq!(topic.schema.as_ref().unwrap().to_string(), E::SCHEMA);
    assert!(schemas().join(format!("{}.json", E::SCHEMA)).exists());
    let valid = cases(schemas().join("examples").join(E::TOPIC));
    assert!(valid.len() >= 2, "{}: too few examples", E::TOPIC);
    for (path, example) in valid {
        let event: E = serde_json::from_value(example.clone()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        event.check().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(event.key(), example[&topic.key], "{}", path.display());
        let written = serde_json::to_value(&event).unwrap();
        assert_eq!(written, example, "{}: what is read is written again, nothing lost", path.display());
    }
    read_published::<E>();
    E::TOPIC
}

#[test]
fn every_event_is_tied_to_its_topic_schema_and_examples() {
    let tied = [
        tie::<CheckoutRequested>(),
        tie::<CheckoutCompleted>(),
        tie::<CheckoutRejected>(),
        tie::<OrderPlaced>(),
        tie::<OrderPicked>(),
        tie::<OrderShort>(),
        tie::<OrderPacked>(),
        tie::<OrderShipped>(),
        tie::<CancelRequested>(),
        tie::<OrderCancelled>(),
        tie::<StockAdjustment>(),
        tie::<StockLevel>(),
        tie::<Restocked>(),
        tie::<EmailBatch>(),
        tie::<PushBatch>(),
        tie::<EmailResults>(),
        tie::<PushResults>(),
    ];
    let catalogue = Catalogue::built_in().unwrap();
    let with_schema: BTreeSet<&str> =
        catalogue.topics().iter().filter(|t| t.schema.is_some()).map(|t| t.name.as_str()).collect();
    assert_eq!(with_schema, BTreeSet::from(tied), "a topic has an event, an event has a topic");
}

/// What a schema refuses, a stage refuses too, unless it only concerns writers.
#[test]
fn bad_orders_are_refused_by_the_type_as_by_the_schema() {
    // Writers announce what they add, readers ignore what they do not know; a bad context costs only its link.
    let writers_only = [
        "an-email-address",
        "line-with-a-price",
        "missing-waybill",
        "span-id-not-hexadecimal",
        "stamp-not-in-utc",
        "stamp-without-an-end",
        "trace-flags-a-number",
        "trace-id-all-zero",
        "trace-id-too-short",
        "trace-id-upper-case",
        "unknown-property",
    ];
    let mut refused = 0;
    for (path, example) in cases(schemas().join("examples/orders.new/invalid")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if writers_only.contains(&name.as_str()) {
            continue;
        }
        let event = serde_json::from_value::<OrderPlaced>(example).map_err(|e| e.to_string());
        assert!(event.and_then(|e| e.check()).is_err(), "{name} is accepted");
        refused += 1;
    }
    assert!(refused >= 10, "only {refused} cases were tried");
}

#[test]
fn bad_words_about_stock_and_notices_are_refused_by_the_type_as_by_the_schema() {
    let refused = |topic: &str, read: fn(Value) -> Result<(), String>| {
        for (path, example) in cases(schemas().join("examples").join(topic).join("invalid")) {
            assert!(read(example).is_err(), "{} is accepted", path.display());
        }
    };
    fn read<E: Event>(example: Value) -> Result<(), String> {
        serde_json::from_value::<E>(example).map_err(|e| e.to_string())?.check()
    }
    refused(StockAdjustment::TOPIC, read::<StockAdjustment>);
    refused(StockLevel::TOPIC, read::<StockLevel>);
    refused(CancelRequested::TOPIC, read::<CancelRequested>);
    refused(Restocked::TOPIC, read::<Restocked>);
    refused(EmailBatch::TOPIC, read::<EmailBatch>);
    refused(PushBatch::TOPIC, read::<PushBatch>);
    refused(EmailResults::TOPIC, read::<EmailResults>);
    refused(PushResults::TOPIC, read::<PushResults>);
}
