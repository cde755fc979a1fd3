//! What each role may do on a cluster: what its topics say, and nothing else.
//!
//! A right to write or read implies the one to see; the right to write to any topic that of an idempotent producer.

use std::collections::BTreeSet;

use crate::catalogue::Catalogue;

/// Looks, and writes nothing: replay, the journeys, the lag, the dead letters.
const READER: &str = "reader";
/// Creates and sets topics (`topics apply`), and reads or writes none.
const DEPLOY: &str = "deploy";
/// Serves the pages and tells how long records wait, so it reads what all stages do.
const GATEWAY: &str = "gateway";
/// People on call.
const OPERATOR: &str = "operator";

/// Rights that some roles have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who: stages, and the roles beside them.
    pub roles: Vec<String>,
    /// What they may do, by Kafka's own words.
    pub operations: &'static [&'static str],
    /// With which topics, by their names on the cluster.
    pub topics: Vec<String>,
    /// With which groups.
    pub groups: Groups,
}

/// Consumer groups, by their names on the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// None.
    None,
    /// This one.
    One(String),
    /// All that begin so.
    Prefixed(String),
}

/// All roles that rights are given to, in the order of the catalogue.
pub fn roles(catalogue: &Catalogue) -> Vec<String> {
    let of_topics = catalogue.topics().iter().flat_map(|t| std::iter::once(&t.owner).chain(&t.consumers)).cloned();
    let mut seen = BTreeSet::new();
    of_topics.chain([READER.to_owned(), DEPLOY.to_owned()]).filter(|role| seen.insert(role.clone())).collect()
}

/// What the roles may do, on a cluster where names begin with `prefix`: as few grants as say it.
pub fn grants(catalogue: &Catalogue, prefix: &str) -> Vec<Grant> {
    let full = |name: &str| format!("{prefix}{name}");
    let all: Vec<String> = catalogue.names().map(full).collect();
    let named = |roles: &[&str]| roles.iter().map(|role| (*role).to_owned()).collect::<Vec<_>>();
    let mut grants = Vec::new();
    for role in roles(catalogue) {
        let written: Vec<String> = catalogue.owned_by(&role).map(|topic| full(&topic.name)).collect();
        let read: Vec<String> = catalogue.consumed_by(&role).map(|topic| full(&topic.name)).collect();
        if !written.is_empty() {
            let roles = vec![role.clone()];
            grants.push(Grant { roles, operations: &["Write"], topics: written, groups: Groups::None });
        }
        if !read.is_empty() {
            let groups = Groups::One(full(&format!("waybill.{role}")));
            grants.push(Grant { roles: vec![role], operations: &["Read"], topics: read, groups });
        }
    }
    let looking = named(&[GATEWAY, OPERATOR, READER]);
    let (roles, topics) = (looking.clone(), all.clone());
    grants.push(Grant { roles, operations: &["Read", "DescribeConfigs"], topics, groups: Groups::None });
    // How far each group has come. Reading without a group asks for the right to see the name that it has all the same.
    let groups = Groups::Prefixed(full("waybill."));
    grants.push(Grant { roles: looking, operations: &["Describe"], topics: vec![], groups });
    let operations = &["Create", "Describe", "DescribeConfigs", "AlterConfigs"];
    grants.push(Grant { roles: named(&[DEPLOY]), operations, topics: all, groups: Groups::None });
    grants
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(role: &str) -> Vec<Grant> {
        let mut grants = grants(&Catalogue::built_in().unwrap(), "shop.");
        grants.retain(|grant| grant.roles.iter().any(|of| of == role));
        grants
    }

    #[test]
    fn a_stage_writes_what_it_owns_and_reads_what_it_consumes_with_its_group() {
        let [write, read] = &of("pick")[..] else { panic!("{:?}", of("pick")) };
        assert_eq!(write.operations, ["Write"]);
        assert_eq!(write.topics, ["shop.orders.picked", "shop.orders.short", "shop.dead.pick"]);
        assert_eq!(write.groups, Groups::None);
        assert_eq!(read.operations, ["Read"]);
        assert_eq!(read.topics, ["shop.orders.new", "shop.redrive.pick"]);
        assert_eq!(read.groups, Groups::One("shop.waybill.pick".to_owned()));
    }

    #[test]
    fn each_topic_is_written_by_its_owner_alone_and_nobody_is_given_what_is_not_declared() {
        let catalogue = Catalogue::built_in().unwrap();
        let grants = grants(&catalogue, "");
        for topic in catalogue.topics() {
            let writes = |grant: &&Grant| grant.operations.contains(&"Write") && grant.topics.contains(&topic.name);
            let writers: Vec<&String> = grants.iter().filter(writes).flat_map(|grant| &grant.roles).collect();
            assert_eq!(writers, [&topic.owner], "{}", topic.name);
        }
        assert!(grants.iter().flat_map(|grant| &grant.topics).all(|name| catalogue.topic(name).is_some()));
        let told = ["Read", "Write", "Create", "Describe", "DescribeConfigs", "AlterConfigs"];
        assert!(grants.iter().flat_map(|grant| grant.operations).all(|operation| told.contains(operation)));
    }

    #[test]
    fn who_looks_writes_nothing_and_who_deploys_reads_nothing() {
        assert!(of("reader").iter().all(|grant| !grant.operations.contains(&"Write")));
        assert!(of("deploy").iter().all(|grant| !grant.operations.contains(&"Read")));
        let [write] = &of("external")[..] else { panic!("{:?}", of("external")) };
        assert_eq!(write.topics, ["shop.inventory.adjustments"]);
    }
}
