//! Brings a cluster to the catalogue: creates what is missing, sets configs, reports what it must leave.
//! A replay is harmless: what is as declared is not touched. Nothing is deleted, ever.

use std::collections::BTreeMap;

use rdkafka::admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use crate::catalogue::{Catalogue, is_topic_name};
use crate::change::Change;
use crate::cluster::{ANSWER_WITHIN, Cluster, Patience};
use crate::error::{ClusterError, NotCreated};
use crate::reconcile::{Existing, Reconciled, Wanted, outstanding, reconcile};

/// Brings the cluster that `config` names to the catalogue, and says what it did to each topic, in the order of the catalogue.
///
/// `replication` and `partitions` override what is declared for all topics (a replication of -1 is the cluster's default).
/// Returns once every new topic has a leader for each partition and every changed setting is read back as declared.
/// If it fails half-way, what was done stays done, and a second call goes on from there.
pub async fn apply(
    config: &ClientConfig,
    catalogue: &Catalogue,
    prefix: &str,
    replication: Option<i32>,
    partitions: Option<i32>,
) -> Result<Vec<Change>, ClusterError> {
    let wanted = wanted(catalogue, prefix, replication, partitions)?;
    let cluster = Cluster::connect(config).await?;
    let changes = bring(&cluster, &wanted).await;
    cluster.close().await;
    changes
}

/// What the cluster should have.
pub(crate) fn wanted(
    catalogue: &Catalogue,
    prefix: &str,
    replication: Option<i32>,
    partitions: Option<i32>,
) -> Result<Vec<Wanted>, ClusterError> {
    let topics = catalogue.topics().iter();
    let wanted: Vec<Wanted> =
        topics.map(|topic| Wanted::new(topic, prefix, replication, partitions)).collect::<Result<_, _>>()?;
    match wanted.iter().find(|w| !is_topic_name(&w.name)) {
        Some(topic) => Err(ClusterError::Prefix { name: topic.name.clone(), prefix: prefix.to_owned() }),
        None => Ok(wanted),
    }
}

async fn bring(cluster: &Cluster, wanted: &[Wanted]) -> Result<Vec<Change>, ClusterError> {
    let names: Vec<String> = wanted.iter().map(|w| w.name.clone()).collect();
    let there = cluster.shapes(&names).await?;
    let missing: Vec<&Wanted> = wanted.iter().filter(|w| !there.contains_key(&w.name)).collect();
    let created = create(cluster, &missing).await?;

    // What another process created in the meantime is compared like what was there before.
    let existing: Vec<&Wanted> = wanted.iter().filter(|w| !created.contains(&w.name)).collect();
    let compared = compare(cluster, &existing).await?;
    configure(cluster, &existing, &compared).await?;
    Ok(changes(wanted, &compared))
}

/// What each topic comes to, in the order of the catalogue: one that was not compared was not there.
pub(crate) fn changes(wanted: &[Wanted], compared: &BTreeMap<String, Reconciled>) -> Vec<Change> {
    let mut changes = Vec::new();
    for topic in wanted {
        match compared.get(&topic.name) {
            Some(done) => changes.extend(done.changes.iter().cloned()),
            None => changes.push(Change::Created {
                topic: topic.name.clone(),
                partitions: topic.partitions,
                replication: topic.replication,
            }),
        }
    }
    changes
}

/// Creates these topics and waits until they can be used. Those that exist after all are not among the names returned.
async fn create(cluster: &Cluster, missing: &[&Wanted]) -> Result<Vec<String>, ClusterError> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let requests: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|w| NewTopic {
            name: &w.name,
            num_partitions: w.partitions,
            replication: TopicReplication::Fixed(w.replication.factor()),
            config: w.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        })
        .collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN));
    let answer = cluster.admin.create_topics(&requests, &options).await.map_err(cluster.failed("CreateTopics"))?;

    let (mut created, mut refused) = (Vec::new(), Vec::new());
    for result in answer {
        match result {
            Ok(topic) => created.push(topic),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                let settings = missing.iter().find(|w| w.name == topic).map(|w| w.settings.clone()).unwrap_or_default();
                refused.push(NotCreated { topic, code, settings });
            }
        }
    }
    if !refused.is_empty() {
        return Err(ClusterError::NotCreated(refused));
    }
    let names: Vec<String> = missing.iter().map(|w| w.name.clone()).collect();
    ready(cluster, &names).await?;
    Ok(created)
}

/// Waits until the cluster shows these topics with a leader for each partition: a broker answers a creation before the others
/// have heard of it, and a stage that starts in between would find nothing.
async fn ready(cluster: &Cluster, names: &[String]) -> Result<(), ClusterError> {
    let patience = Patience::new();
    loop {
        let there = cluster.shapes(names).await?;
        match names.iter().find(|name| !there.get(*name).is_some_and(|shape| shape.all_led)) {
            None => return Ok(()),
            Some(_) if patience.once_more().await => {}
            Some(topic) => {
                return Err(ClusterError::NotReady { topic: topic.clone() });
            }
        }
    }
}

/// What to do about each of these topics, all of which exist.
pub(crate) async fn compare(
    cluster: &Cluster,
    existing: &[&Wanted],
) -> Result<BTreeMap<String, Reconciled>, ClusterError> {
    let names: Vec<String> = existing.iter().map(|w| w.name.clone()).collect();
    let shapes = cluster.shapes(&names).await?;
    let mut configs = cluster.configs(&names).await?;
    let mut compared = BTreeMap::new();
    for topic in existing {
        let name = topic.name.clone();
        // Deleted by someone between two questions: the next call creates it again.
        let shape = shapes.get(&name).ok_or_else(|| ClusterError::NotReady { topic: name.clone() })?;
        let configs = configs.remove(&name).unwrap_or_default();
        // A topic describes all settings its Kafka knows, so that a wrong name is found before anything is altered.
        if let Some(key) = topic.settings.keys().find(|key| !configs.iter().any(|config| config.key == **key)) {
            return Err(ClusterError::UnknownSetting { topic: name, key: key.clone() });
        }
        let found = Existing { partitions: shape.partitions, replication: shape.replication, configs };
        compared.insert(name, reconcile(topic, &found));
    }
    Ok(compared)
}

/// Sends the settings that are not as declared, and reads them back: a refusal of a single topic is not reported otherwise.
async fn configure(
    cluster: &Cluster,
    existing: &[&Wanted],
    compared: &BTreeMap<String, Reconciled>,
) -> Result<(), ClusterError> {
    let mut requests = Vec::new();
    for (name, done) in compared {
        if let Some(settings) = &done.send {
            let mut request = AlterConfig::new(ResourceSpecifier::Topic(name));
            request.entries = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            requests.push(request);
        }
    }
    if requests.is_empty() {
        return Ok(());
    }
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
    cluster.admin.alter_configs(&requests, &options).await.map_err(cluster.failed("AlterConfigs"))?;

    let sent = |w: &Wanted| compared.get(&w.name).is_some_and(|done| done.send.is_some());
    let altered: Vec<&Wanted> = existing.iter().copied().filter(|w| sent(w)).collect();
    let names: Vec<String> = altered.iter().map(|w| w.name.clone()).collect();
    let patience = Patience::new();
    loop {
        let configs = cluster.configs(&names).await?;
        let left = altered.iter().find_map(|w| {
            let configs = configs.get(&w.name).map(Vec::as_slice).unwrap_or_default();
            outstanding(w, configs).into_iter().next().map(|setting| (w.name.clone(), setting))
        });
        match left {
            None => return Ok(()),
            Some(_) if patience.once_more().await => {}
            Some((topic, setting)) => {
                let found = setting.from.unwrap_or_else(|| "a value it does not show".to_owned());
                return Err(ClusterError::NotConfigured { topic, key: setting.key, wanted: setting.to, found });
            }
        }
    }
}
