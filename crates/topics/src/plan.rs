//! What [`apply`](crate::apply) would do to a cluster, and what stands there that nobody declared. Reads only.

use std::collections::BTreeSet;

use rdkafka::config::ClientConfig;

use crate::apply::{changes, compare, wanted};
use crate::catalogue::Catalogue;
use crate::change::Change;
use crate::cluster::Cluster;
use crate::error::ClusterError;
use crate::reconcile::Wanted;

/// What differs between the catalogue and the cluster that `config` names, in the order of the catalogue; then the topics of
/// ours that it does not declare. [`Change::Created`] and [`Change::Configured`] are what an apply would do.
///
/// # Errors
/// Those of an apply that reads.
pub async fn plan(config: &ClientConfig, catalogue: &Catalogue, prefix: &str) -> Result<Vec<Change>, ClusterError> {
    let wanted = wanted(catalogue, prefix, None, None)?;
    let cluster = Cluster::connect(config).await?;
    let changes = look(&cluster, &wanted, catalogue, prefix).await;
    cluster.close().await;
    changes
}

async fn look(
    cluster: &Cluster,
    wanted: &[Wanted],
    catalogue: &Catalogue,
    prefix: &str,
) -> Result<Vec<Change>, ClusterError> {
    let all = cluster.names().await?;
    let existing: Vec<&Wanted> = wanted.iter().filter(|w| all.contains(&w.name)).collect();
    let compared = compare(cluster, &existing).await?;
    let mut changes = changes(wanted, &compared);
    let undeclared = all.into_iter().filter(|name| is_undeclared(name, catalogue, prefix));
    changes.extend(undeclared.map(|topic| Change::Unknown { topic }));
    Ok(changes)
}

/// With our prefix, and not in the catalogue. Without a prefix others' topics stand beside ours: of these only what begins
/// as one of ours does, such as `orders.`.
fn is_undeclared(name: &str, catalogue: &Catalogue, prefix: &str) -> bool {
    let Some(ours) = name.strip_prefix(prefix) else { return false };
    let family = |name: &str| name.split_once('.').map(|(family, _)| family.to_owned());
    let families: BTreeSet<String> = catalogue.names().filter_map(family).collect();
    let of_ours = !prefix.is_empty() || family(ours).is_some_and(|family| families.contains(&family));
    of_ours && catalogue.topic(ours).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_and_not_declared_is_undeclared() {
        let catalogue = Catalogue::built_in().unwrap();
        for (name, prefix, undeclared) in [
            ("orders.new", "", false),
            ("orders.old", "", true),
            ("dead.nobody", "", true),
            ("billing.invoices", "", false),
            ("__consumer_offsets", "", false),
            ("test.orders.new", "test.", false),
            ("test.billing", "test.", true),
            ("orders.old", "test.", false),
        ] {
            assert_eq!(is_undeclared(name, &catalogue, prefix), undeclared, "{name} with {prefix:?}");
        }
    }
}
