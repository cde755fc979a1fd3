//! The topics of Waybill: what `topics.yaml` declares, and a Kafka cluster brought to it.
//!
//! - [`Catalogue`] is the file, parsed and checked: which topics there are, what their records mean, who writes and who reads
//!   them. [`Catalogue::built_in`] is the one this program was built with.
//! - [`apply`] creates on a cluster what is missing and sets configs to what is declared. It never deletes a topic and never
//!   changes the partitions of one that exists: it reports the difference instead. Applied twice, it changes nothing.
//! - [`plan`] says what an apply would do, and which topics nobody declared.
//! - [`list`] says how the declared topics stand on a cluster.
//! - [`grants`] says what each role may do there.
//!
//! On a cluster a topic is named prefix + name; the prefix is empty unless a cluster is shared.

mod acls;
mod apply;
mod catalogue;
mod change;
mod cluster;
mod error;
mod file;
mod list;
mod plan;
mod reconcile;
mod retention;

pub use acls::{Grant, Groups, grants, roles};
pub use apply::apply;
pub use catalogue::{Catalogue, Replication, SchemaRef, Topic};
pub use change::{Change, Difference, Setting};
pub use error::{CatalogueError, ClusterError, NotCreated};
pub use list::{Listing, OnCluster, list};
pub use plan::plan;
pub use retention::{Retention, RetentionError};
