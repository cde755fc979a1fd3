//! What a topic on the cluster lacks of what is declared: one pure decision, no cluster in sight.
//!
//! - Partitions and replication of a topic that exists are never changed, only reported.
//! - A setting nobody declared is left as it is, also where it was set by hand.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue::{Replication, Topic};
use crate::change::{Change, Difference, Setting};
use crate::error::ClusterError;

/// A topic as it should be on the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its name on the cluster.
    pub name: String,
    pub partitions: i32,
    pub replication: Replication,
    pub settings: BTreeMap<String, String>,
}

impl Wanted {
    /// `replication` and `partitions` override what is declared, for clusters smaller or larger than meant.
    pub(crate) fn new(
        topic: &Topic,
        prefix: &str,
        replication: Option<i32>,
        partitions: Option<i32>,
    ) -> Result<Self, ClusterError> {
        let replication = match replication {
            None => topic.replication,
            Some(-1) => Replication::Broker,
            Some(n) if (1..=i32::from(i16::MAX)).contains(&n) => Replication::Factor(n),
            Some(n) => {
                return Err(ClusterError::Override { what: "replication", value: n });
            }
        };
        let partitions = match partitions {
            None => topic.partitions,
            Some(n) if n >= 1 => n,
            Some(n) => {
                return Err(ClusterError::Override { what: "partitions", value: n });
            }
        };
        Ok(Self { name: format!("{prefix}{}", topic.name), partitions, replication, settings: topic.settings() })
    }
}

/// A topic as it is on the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Existing {
    pub partitions: i32,
    pub replication: i32,
    pub configs: Vec<Config>,
}

/// One of the settings a cluster reports for a topic, be it set or a default.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub key: String,
    /// Nothing where the cluster keeps it to itself.
    pub value: Option<String>,
    /// Set on the topic itself: lost by an alteration that does not name it.
    pub set_on_topic: bool,
}

/// What to do about a topic that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// All settings to send, since what is not named is reset; nothing where nothing is to be set.
    pub send: Option<BTreeMap<String, String>>,
    /// What to report once that is done.
    pub changes: Vec<Change>,
}

/// Compares a topic with its declaration.
pub(crate) fn reconcile(wanted: &Wanted, existing: &Existing) -> Reconciled {
    let topic = || wanted.name.clone();
    let mut changes = Vec::new();
    let mut send = None;

    let settings = outstanding(wanted, &existing.configs);
    if !settings.is_empty() {
        match full_set(wanted, &existing.configs) {
            Ok(full) => {
                send = Some(full);
                changes.push(Change::Configured { topic: topic(), settings });
            }
            Err(key) => changes.push(Change::Differs { topic: topic(), difference: Difference::Hidden { key } }),
        }
    }
    if existing.partitions != wanted.partitions {
        let difference = Difference::Partitions { declared: wanted.partitions, actual: existing.partitions };
        changes.push(Change::Differs { topic: topic(), difference });
    }
    match wanted.replication {
        // Whatever the cluster made by default at the time is as declared.
        Replication::Broker => {}
        Replication::Factor(n) if n == existing.replication => {}
        Replication::Factor(n) => {
            let difference = Difference::Replication { declared: n, actual: existing.replication };
            changes.push(Change::Differs { topic: topic(), difference });
        }
    }
    if changes.is_empty() {
        changes.push(Change::Unchanged { topic: topic() });
    }
    Reconciled { send, changes }
}

/// The declared settings that do not have their value on the cluster.
pub(crate) fn outstanding(wanted: &Wanted, configs: &[Config]) -> Vec<Setting> {
    let found = |key: &str| configs.iter().find(|c| c.key == key).and_then(|c| c.value.clone());
    wanted
        .settings
        .iter()
        .map(|(key, to)| Setting { key: key.clone(), from: found(key), to: to.clone() })
        .filter(|s| !s.from.as_deref().is_some_and(|from| same_value(from, &s.to)))
        .collect()
}

/// Everything set on the topic with the declared settings over it, or the key of a setting that could not be repeated.
fn full_set(wanted: &Wanted, configs: &[Config]) -> Result<BTreeMap<String, String>, String> {
    let mut full = BTreeMap::new();
    for config in configs.iter().filter(|c| c.set_on_topic && !wanted.settings.contains_key(&c.key)) {
        let value = config.value.clone().ok_or_else(|| config.key.clone())?;
        full.insert(config.key.clone(), value);
    }
    full.extend(wanted.settings.clone());
    Ok(full)
}

/// Kafka writes values its own way: `delete,compact` for `compact, delete`, `0.5` for `0.50`.
fn same_value(a: &str, b: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    let items = |text: &str| text.split(',').map(|item| item.trim().to_owned()).collect::<BTreeSet<_>>();
    // Integers are compared as such: as a floating-point number a retention may lose its last milliseconds.
    if let (Ok(a), Ok(b)) = (a.parse::<i64>(), b.parse::<i64>()) {
        return a == b;
    }
    a == b || items(a) == items(b) || number(a).is_some_and(|a| number(b) == Some(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    const YAML: &str = "
defaults: { partitions: 6, retention: 1d, replication: broker }
topics:
  orders.new:
    { about: a, key: order_id, schema: orders.new.v1, owner: checkout, consumers: [pick], config: { cleanup.policy: 'compact, delete' } }
";

    fn wanted(replication: Option<i32>, partitions: Option<i32>) -> Wanted {
        let catalogue = Catalogue::parse(YAML).unwrap();
        Wanted::new(catalogue.topic("orders.new").unwrap(), "test.", replication, partitions).unwrap()
    }

    fn existing(configs: &[(&str, Option<&str>, bool)]) -> Existing {
        let configs = configs
            .iter()
            .map(|(key, value, set)| Config { key: (*key).into(), value: value.map(Into::into), set_on_topic: *set })
            .collect();
        Existing { partitions: 6, replication: 3, configs }
    }

    const AS_DECLARED: [(&str, Option<&str>, bool); 3] = [
        ("retention.ms", Some("86400000"), true),
        ("cleanup.policy", Some("compact,delete"), true),
        ("segment.bytes", Some("1073741824"), false),
    ];

    fn topic() -> String {
        "test.orders.new".into()
    }

    #[test]
    fn a_topic_as_declared_is_left_alone() {
        let done = reconcile(&wanted(None, None), &existing(&AS_DECLARED));
        assert_eq!(done, Reconciled { send: None, changes: vec![Change::Unchanged { topic: topic() }] });
    }

    #[test]
    fn a_default_that_happens_to_be_the_declared_value_will_do() {
        let mut configs = AS_DECLARED;
        configs[0].2 = false;
        assert_eq!(reconcile(&wanted(None, None), &existing(&configs)).send, None);
    }

    #[test]
    fn what_was_set_by_hand_survives_an_alteration() {
        let mut configs = AS_DECLARED;
        configs[0].1 = Some("604800000");
        configs[2] = ("segment.bytes", Some("1048576"), true);
        let done = reconcile(&wanted(None, None), &existing(&configs));
        let send = done.send.unwrap();
        assert_eq!(send.get("segment.bytes").map(String::as_str), Some("1048576"));
        assert_eq!(send.get("retention.ms").map(String::as_str), Some("86400000"));
        assert_eq!(send.len(), 3);
        let setting = Setting { key: "retention.ms".into(), from: Some("604800000".into()), to: "86400000".into() };
        assert_eq!(done.changes, [Change::Configured { topic: topic(), settings: vec![setting] }]);
    }

    #[test]
    fn a_default_is_not_pinned_by_an_alteration() {
        let mut configs = AS_DECLARED;
        configs[0].1 = Some("604800000");
        let send = reconcile(&wanted(None, None), &existing(&configs)).send.unwrap();
        assert!(!send.contains_key("segment.bytes"), "{send:?}");
    }

    #[test]
    fn a_setting_the_cluster_hides_is_not_reset() {
        let configs = [("retention.ms", Some("1"), true), ("vendor.secret", None, true)];
        let done = reconcile(&wanted(None, None), &existing(&configs));
        assert_eq!(done.send, None);
        let difference = Difference::Hidden { key: "vendor.secret".into() };
        assert_eq!(done.changes, [Change::Differs { topic: topic(), difference }]);
    }

    #[test]
    fn partitions_and_replication_are_reported_and_left() {
        let done = reconcile(&wanted(Some(2), Some(12)), &existing(&AS_DECLARED));
        assert_eq!(done.send, None);
        let said: Vec<String> = done
            .changes
            .iter()
            .map(|change| match change {
                Change::Differs { difference, .. } => difference.to_string(),
                Change::Created { .. }
                | Change::Configured { .. }
                | Change::Unknown { .. }
                | Change::Unchanged { .. } => {
                    format!("{change:?}")
                }
            })
            .collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("growing would move keys to other partitions"), "{said:?}");
        assert!(said[1].contains("has replication 3, 2 is declared"), "{said:?}");
    }

    #[test]
    fn fewer_partitions_than_there_are_is_said_to_be_impossible() {
        let done = reconcile(&wanted(None, Some(1)), &existing(&AS_DECLARED));
        let difference = Difference::Partitions { declared: 1, actual: 6 };
        assert!(difference.to_string().contains("cannot be taken away"));
        assert_eq!(done.changes, [Change::Differs { topic: topic(), difference }]);
    }

    #[test]
    fn an_impossible_override_is_refused() {
        let catalogue = Catalogue::parse(YAML).unwrap();
        let topic = catalogue.topic("orders.new").unwrap();
        for (replication, partitions) in
            [(Some(0), None), (Some(-2), None), (Some(40_000), None), (None, Some(0)), (None, Some(-1))]
        {
            assert!(Wanted::new(topic, "", replication, partitions).is_err(), "{replication:?} {partitions:?}");
        }
        assert_eq!(Wanted::new(topic, "", Some(-1), None).unwrap().replication, Replication::Broker);
    }

    #[test]
    fn values_are_compared_as_kafka_writes_them() {
        for (a, b, same) in [
            ("delete,compact", "compact, delete", true),
            // Kafka refuses ZSTD; taking it for zstd would hide that until the topic is created elsewhere.
            ("zstd", "ZSTD", false),
            ("0.5", "0.50", true),
            ("true", "false", false),
            ("9007199254740993", "9007199254740992", false),
            ("delete", "compact", false),
            ("", "", true),
        ] {
            assert_eq!(same_value(a, b), same, "{a} {b}");
        }
    }
}
