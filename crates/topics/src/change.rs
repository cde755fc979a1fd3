//! What was done to the topics of a cluster, in words a command line can show.

use std::fmt;

use crate::catalogue::Replication;

/// What [`apply`](crate::apply) did to one topic, or found and left; or [`plan`](crate::plan) found that it would. `topic` is its name on the cluster, prefix included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was missing and is there now.
    Created {
        /// The topic.
        topic: String,
        /// With this many partitions.
        partitions: i32,
        /// With this many copies of each.
        replication: Replication,
    },
    /// Settings were brought to what is declared.
    Configured {
        /// The topic.
        topic: String,
        /// Those that were not.
        settings: Vec<Setting>,
    },
    /// It is not as declared, and was left so.
    Differs {
        /// The topic.
        topic: String,
        /// In what, and why it was left.
        difference: Difference,
    },
    /// It begins as our topics do, and nobody declared it.
    Unknown {
        /// The topic.
        topic: String,
    },
    /// It is as declared.
    Unchanged {
        /// The topic.
        topic: String,
    },
}

impl Change {
    /// The topic, by its name on the cluster.
    pub fn topic(&self) -> &str {
        match self {
            Self::Created { topic, .. }
            | Self::Configured { topic, .. }
            | Self::Differs { topic, .. }
            | Self::Unknown { topic }
            | Self::Unchanged { topic } => topic,
        }
    }
}

/// A setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Kafka's name of it.
    pub key: String,
    /// What it was; nothing where the cluster does not show it.
    pub from: Option<String>,
    /// What it is now.
    pub to: String,
}

/// What is not as declared and cannot be made so without harm. Its `Display` says which, and why it was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The number of partitions.
    Partitions {
        /// In the catalogue, or asked for.
        declared: i32,
        /// On the cluster.
        actual: i32,
    },
    /// The number of copies.
    Replication {
        /// In the catalogue, or asked for.
        declared: i32,
        /// On the cluster.
        actual: i32,
    },
    /// Settings are not as declared, but setting them would reset another one whose value the cluster does not show.
    Hidden {
        /// The setting that would be lost.
        key: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions { declared, actual } if declared > actual => write!(
                f,
                "has {actual} partitions, {declared} are declared: growing would move keys to other partitions"
            ),
            Self::Partitions { declared, actual } => write!(
                f,
                "has {actual} partitions, {declared} are declared: partitions cannot be taken away from a topic"
            ),
            Self::Replication { declared, actual } => write!(
                f,
                "has replication {actual}, {declared} is declared: changing that moves data between brokers, which is for kafka-reassign-partitions"
            ),
            Self::Hidden { key } => write!(
                f,
                "is not configured as declared: setting that would reset {key}, whose value the cluster does not show"
            ),
        }
    }
}
