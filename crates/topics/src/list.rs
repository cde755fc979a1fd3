//! How the declared topics stand on a cluster. Reads only.

use rdkafka::config::ClientConfig;

use crate::catalogue::{Catalogue, RETENTION_MS};
use crate::cluster::Cluster;
use crate::error::ClusterError;
use crate::reconcile::Config;
use crate::retention::Retention;

/// A declared topic and how it stands on a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Its name in the catalogue.
    pub topic: String,
    /// Its name on the cluster: with the prefix.
    pub name: String,
    /// The stage that writes it.
    pub owner: String,
    /// The stages that read it.
    pub consumers: Vec<String>,
    /// How it is on the cluster; nothing where it does not exist.
    pub on_cluster: Option<OnCluster>,
}

/// A topic on a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnCluster {
    /// How many partitions it has.
    pub partitions: i32,
    /// The fewest copies any of them has.
    pub replication: i32,
    /// How long it keeps its records; nothing where the cluster does not say.
    pub retention: Option<Retention>,
    /// The records it holds by its offsets: high less low watermark, over all partitions. Compaction and transactions leave
    /// gaps, so it may hold fewer. Nothing where a partition cannot be asked, for instance because it has no leader.
    pub records: Option<u64>,
}

/// Lists the topics of the catalogue, in its order, as they are on the cluster that `config` names.
pub async fn list(config: &ClientConfig, catalogue: &Catalogue, prefix: &str) -> Result<Vec<Listing>, ClusterError> {
    let cluster = Cluster::connect(config).await?;
    let listings = look(&cluster, catalogue, prefix).await;
    cluster.close().await;
    listings
}

async fn look(cluster: &Cluster, catalogue: &Catalogue, prefix: &str) -> Result<Vec<Listing>, ClusterError> {
    let names: Vec<String> = catalogue.names().map(|name| format!("{prefix}{name}")).collect();
    let shapes = cluster.shapes(&names).await?;
    let there: Vec<String> = shapes.keys().cloned().collect();
    let configs = cluster.configs(&there).await?;
    let mut listings = Vec::new();
    for (topic, name) in catalogue.topics().iter().zip(names) {
        let on_cluster = match shapes.get(&name) {
            None => None,
            Some(shape) => Some(OnCluster {
                partitions: shape.partitions,
                replication: shape.replication,
                retention: configs.get(&name).and_then(|configs| retention(configs)),
                // A question about a partition that nobody leads waits until it times out.
                records: if shape.all_led { cluster.records(name.clone(), shape.partitions).await? } else { None },
            }),
        };
        let (owner, consumers) = (topic.owner.clone(), topic.consumers.clone());
        listings.push(Listing { topic: topic.name.clone(), name, owner, consumers, on_cluster });
    }
    Ok(listings)
}

fn retention(configs: &[Config]) -> Option<Retention> {
    let value = configs.iter().find(|config| config.key == RETENTION_MS)?.value.as_deref()?;
    value.parse().ok().map(Retention::from_ms)
}
