//! The catalogue as its readers see it: what the repository declares, and what a mistake in the file is answered with.

use std::error::Error;

use waybill_topics::{Catalogue, Replication, Retention};

/// A catalogue of one topic, in which `key: value` replaces, or without a value takes away, what stands there.
fn with(changes: &[(&str, Option<&str>)]) -> String {
    let mut entry = vec![
        ("about", "an order was placed"),
        ("key", "order_id"),
        ("schema", "orders.new.v1"),
        ("owner", "checkout"),
        ("consumers", "[pick]"),
    ];
    for (key, value) in changes {
        entry.retain(|(name, _)| name != key);
        entry.extend(value.map(|value| (*key, value)));
    }
    let lines: String = entry.iter().map(|(key, value)| format!("    {key}: {value}\n")).collect();
    format!("defaults: {{ partitions: 6, retention: 365d, replication: broker }}\ntopics:\n  orders.new:\n{lines}")
}

/// The error and its causes, as a person is told.
fn refusal(yaml: &str) -> String {
    let Err(error) = Catalogue::parse(yaml) else { panic!("accepted:\n{yaml}") };
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push_str(": ");
        said.push_str(&error.to_string());
        cause = error.source();
    }
    said
}

#[test]
fn the_built_in_catalogue_holds_the_journey_of_an_order_and_its_dead_letters() {
    let catalogue = Catalogue::built_in().unwrap();
    let names: Vec<&str> = catalogue.names().collect();
    assert_eq!(
        names,
        [
            "checkout.requested",
            "checkout.completed",
            "checkout.rejected",
            "orders.new",
            "orders.picked",
            "orders.short",
            "orders.packed",
            "orders.shipped",
            "orders.cancel_requested",
            "orders.cancelled",
            "inventory.adjustments",
            "inventory.levels",
            "inventory.restocked",
            "notifications.email",
            "notifications.push",
            "notifications.email.results",
            "notifications.push.results",
            "dead.checkout",
            "dead.inventory",
            "dead.pick",
            "dead.pack",
            "dead.ship",
            "dead.restock",
            "dead.fanout",
            "dead.email",
            "dead.push",
            "dead.order-mail",
            "redrive.checkout",
            "redrive.inventory",
            "redrive.pick",
            "redrive.pack",
            "redrive.ship",
            "redrive.restock",
            "redrive.fanout",
            "redrive.email",
            "redrive.push",
            "redrive.order-mail",
            "redrive.dropped"
        ]
    );
    for topic in catalogue.topics() {
        let redrive = topic.name.starts_with("redrive.");
        assert_eq!(topic.partitions, if redrive { 1 } else { 6 }, "{}", topic.name);
        let levels = topic.name == "inventory.levels";
        assert_eq!(topic.retention.to_string(), if levels { "forever" } else { "365d" }, "{}", topic.name);
        assert_eq!(topic.settings().get("cleanup.policy").is_some_and(|p| p == "compact"), levels, "{}", topic.name);
        assert_eq!(topic.replication, Replication::Broker, "{}", topic.name);
        assert_eq!(topic.schema.is_none(), topic.name.starts_with("dead.") || redrive, "{}", topic.name);
    }
}

#[test]
fn a_stage_finds_what_it_writes_and_what_it_reads() {
    let catalogue = Catalogue::built_in().unwrap();
    let owned = |stage| catalogue.owned_by(stage).map(|t| t.name.as_str()).collect::<Vec<_>>();
    let read = |stage| catalogue.consumed_by(stage).map(|t| t.name.as_str()).collect::<Vec<_>>();
    assert_eq!(
        (owned("checkout"), read("checkout")),
        (
            vec!["checkout.completed", "checkout.rejected", "orders.new", "dead.checkout"],
            vec![
                "checkout.requested",
                "orders.picked",
                "orders.short",
                "orders.packed",
                "orders.shipped",
                "orders.cancelled",
                "redrive.checkout"
            ]
        )
    );
    assert_eq!(
        (owned("pick"), read("pick")),
        (vec!["orders.picked", "orders.short", "dead.pick"], vec!["orders.new", "redrive.pick"])
    );
    assert_eq!(
        (owned("pack"), read("pack")),
        (vec!["orders.packed", "dead.pack"], vec!["orders.picked", "redrive.pack"])
    );
    assert_eq!(
        (owned("ship"), read("ship")),
        (
            vec!["orders.shipped", "orders.cancelled", "dead.ship"],
            vec!["orders.packed", "orders.cancel_requested", "redrive.ship"]
        )
    );
    assert_eq!(
        (owned("inventory"), read("inventory")),
        (
            vec!["inventory.levels", "dead.inventory"],
            vec!["orders.short", "orders.cancelled", "inventory.adjustments", "redrive.inventory"]
        )
    );
    assert_eq!(
        (owned("fanout"), read("fanout")),
        (
            vec!["notifications.email", "notifications.push", "dead.fanout"],
            vec!["inventory.restocked", "notifications.email.results", "notifications.push.results", "redrive.fanout"]
        )
    );
    assert_eq!(
        (owned("order-mail"), read("order-mail")),
        (vec!["dead.order-mail"], vec!["checkout.completed", "orders.shipped", "redrive.order-mail"])
    );
    assert_eq!((owned("nobody"), read("nobody")), (vec![], vec![]));
    let schema = catalogue.topic("orders.new").unwrap().schema.clone().unwrap();
    assert_eq!(schema.to_string(), "orders.new.v1");
    assert_eq!(schema.file(), "orders.new.v1.json");
    assert_eq!(schema.id(), "urn:waybill:schema:orders.new:v1");
    assert_eq!(catalogue.topic("orders.lost"), None);
}

#[test]
fn a_topic_may_differ_from_the_defaults() {
    let yaml = with(&[
        ("partitions", Some("12")),
        ("retention", Some("1d12h")),
        ("replication", Some("3")),
        (
            "config",
            Some(
                "{ compression.type: zstd, max.message.bytes: 2097152, preallocate: true, min.cleanable.dirty.ratio: 0.5 }",
            ),
        ),
    ]);
    let topic = Catalogue::parse(&yaml).unwrap().topic("orders.new").unwrap().clone();
    assert_eq!((topic.partitions, topic.replication), (12, Replication::Factor(3)));
    assert_eq!(topic.retention, Retention::Millis(129_600_000));
    let settings: Vec<(String, String)> = topic.settings().into_iter().collect();
    let expected = [
        ("compression.type", "zstd"),
        ("max.message.bytes", "2097152"),
        ("min.cleanable.dirty.ratio", "0.5"),
        ("preallocate", "true"),
        ("retention.ms", "129600000"),
    ];
    assert_eq!(settings, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let forever = Catalogue::parse(&with(&[("retention", Some("forever"))])).unwrap();
    assert_eq!(forever.topics()[0].settings()["retention.ms"], "-1");
}

#[test]
fn a_mistake_in_a_topic_is_named_with_its_topic_and_key() {
    type Changes<'a> = &'a [(&'a str, Option<&'a str>)];
    let table: &[(Changes<'_>, &[&str])] = &[
        (&[("retain", Some("365d"))], &["topics.orders.new", "unknown field `retain`", "line"]),
        (&[("owner", None)], &["topics.orders.new", "missing field `owner`"]),
        (&[("owner", Some("[checkout, pick]"))], &["topics.orders.new.owner", "expected a string"]),
        (&[("owner", Some("''"))], &["topic orders.new", "`owner`", "not a stage"]),
        (&[("owner", Some("Checkout"))], &["topic orders.new", "`owner`", "\"Checkout\""]),
        (&[("consumers", Some("[pick, pack, pick]"))], &["topic orders.new", "`consumers` names pick twice"]),
        (&[("consumers", Some("['the picker']"))], &["topic orders.new", "`consumers`", "\"the picker\""]),
        (&[("consumers", None)], &["topics.orders.new", "missing field `consumers`"]),
        (&[("about", Some("' '"))], &["topic orders.new", "`about` is empty"]),
        (&[("key", Some("''"))], &["topic orders.new", "`key` is empty"]),
        (&[("schema", None)], &["topic orders.new", "`schema` is missing"]),
        (&[("schema", Some("orders.new"))], &["topic orders.new", "`schema`", "\"orders.new\""]),
        (
            &[("schema", Some("orders.picked.v1"))],
            &["topic orders.new", "\"orders.picked.v1\" is not of the form orders.new.v1"],
        ),
        (&[("schema", Some("orders.new.v0"))], &["topic orders.new", "`schema`"]),
        (&[("schema", Some("orders.new.v01"))], &["topic orders.new", "`schema`"]),
        (&[("schema", Some("orders.new.v1.2"))], &["topic orders.new", "`schema`"]),
        (&[("schema", Some("orders.new.v+1"))], &["topic orders.new", "`schema`"]),
        (&[("partitions", Some("0"))], &["topic orders.new", "`partitions` is 0"]),
        (&[("partitions", Some("many"))], &["topics.orders.new.partitions", "expected i32"]),
        (&[("retention", Some("a year"))], &["topic orders.new", "`retention`", "\"a year\"", "365d"]),
        (&[("retention", Some("365"))], &["topic orders.new", "`retention`", "\"365\""]),
        (&[("replication", Some("0"))], &["topic orders.new", "`replication`", "\"0\""]),
        (&[("replication", Some("-1"))], &["topic orders.new", "`replication`", "\"-1\"", "`broker`"]),
        (&[("replication", Some("all"))], &["topic orders.new", "`replication`", "\"all\""]),
        (&[("config", Some("{ retention.ms: 1 }"))], &["topic orders.new", "`config`", "retention.ms", "`retention`"]),
        (&[("config", Some("{ Compression: zstd }"))], &["topic orders.new", "`config`", "\"Compression\""]),
        (
            &[("config", Some("{ compression..type: zstd }"))],
            &["topic orders.new", "`config`", "\"compression..type\""],
        ),
        (
            &[("config", Some("{ cleanup.policy: [compact] }"))],
            &["topics.orders.new.config.cleanup.policy", "expected a text"],
        ),
        (&[("config", Some("{ a: 1, a: 2 }"))], &["topics.orders.new.config", "`a` is declared twice"]),
        (&[("about: one\n    about", Some("two"))], &["topics.orders.new", "duplicate field `about`"]),
    ];
    for (changes, parts) in table {
        let said = refusal(&with(changes));
        for part in *parts {
            assert!(said.contains(part), "{changes:?}: {part:?} is not in: {said}");
        }
    }
}

#[test]
fn a_mistake_in_the_file_as_a_whole_is_named_with_its_place() {
    let entry = "{ about: a, key: k, schema: NAME.v1, owner: checkout, consumers: [] }";
    let topic = |name: &str| format!("  {name}: {}\n", entry.replace("NAME", name.trim_matches('"')));
    let file = |defaults: &str, topics: &str| format!("defaults: {{ {defaults} }}\ntopics:\n{topics}");
    let defaults = "partitions: 6, retention: 365d, replication: broker";
    let dead = |rest: &str| format!("  dead.pick: {{ about: a, key: k, consumers: [], {rest} }}\n");
    let long = "a".repeat(250);
    let table = [
        (String::new(), "missing field `defaults`"),
        ("topics: [".to_owned(), "line"),
        (format!("defaults: {{ {defaults} }}\ntopics: {{}}\n"), "declares none"),
        (format!("version: 1\n{}", file(defaults, &topic("a"))), "unknown field `version`"),
        (file("partitions: 6, retention: 365d", &topic("a")), "missing field `replication`"),
        (file("partitions: 0, retention: 365d, replication: broker", &topic("a")), "defaults: `partitions` is 0"),
        (file("partitions: 6, retention: 1y, replication: broker", &topic("a")), "defaults: `retention`: \"1y\""),
        (file("partitions: 6, retention: 1d, replication: two", &topic("a")), "defaults: `replication`: \"two\""),
        (file(&format!("{defaults}, owner: x"), &topic("a")), "unknown field `owner`"),
        (file(defaults, &(topic("orders.new") + &topic("orders.new"))), "`orders.new` is declared twice"),
        (
            file(defaults, &(topic("orders.new") + &topic("orders_new"))),
            "orders_new: differs from orders.new only in dots",
        ),
        (file(defaults, &topic("\"orders new\"")), "topic \"orders new\": not a topic name"),
        (file(defaults, &topic("bestellungen.fürs.lager")), "not a topic name"),
        (file(defaults, &topic("\"..\"")), "topic \"..\": not a topic name"),
        (file(defaults, &topic(&long)), "not a topic name"),
        (file(defaults, &dead("owner: pack")), "topic dead.pick: `owner` is pack"),
        (
            file(defaults, &dead("owner: pick, schema: dead.pick.v1")),
            "topic dead.pick: `schema`: dead letters have none",
        ),
    ];
    for (yaml, part) in table {
        let said = refusal(&yaml);
        assert!(said.starts_with("topics.yaml"), "{said}");
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}
