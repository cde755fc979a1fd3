//! Offsets are never ahead of effects: watched all along, not only at the end.

use crate::Chain;
use anyhow::Context;
use sqlx::{Connection, PgConnection};
use std::collections::BTreeMap;
use waybill_harness::{TopicReader, committed};

/// Stage, its input, the table of its decisions.
const STAGES: [(&str, &str, &str); 3] = [
    ("pick", "orders.new", "select key from picks where key = any($1)"),
    ("pack", "orders.picked", "select key from packs where key = any($1)"),
    ("ship", "orders.packed", "select key from shipments where key = any($1)"),
];

/// Compares committed offsets with the tables, again and again, each time only what is new.
pub struct OffsetWatch {
    chain: Chain,
    readers: BTreeMap<&'static str, TopicReader>,
    /// Records that were found committed, with their effects there.
    pub seen: u64,
}

impl OffsetWatch {
    /// From the beginning of the topics.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub fn new(chain: &Chain) -> anyhow::Result<Self> {
        let reader = |topic: &str| TopicReader::from_beginning(&chain.bootstrap, &format!("{}{topic}", chain.prefix));
        let readers =
            STAGES.iter().map(|(stage, topic, _)| Ok((*stage, reader(topic)?))).collect::<anyhow::Result<_>>()?;
        Ok(OffsetWatch { chain: chain.clone(), readers, seen: 0 })
    }

    /// One look; the orders whose offset is committed although no decision is kept, if any.
    ///
    /// # Errors
    /// Kafka or Postgres does not answer: look again later.
    pub async fn look(&mut self) -> anyhow::Result<Vec<String>> {
        let mut violations = Vec::new();
        for (stage, topic, sql) in STAGES {
            let Chain { bootstrap, prefix, .. } = &self.chain;
            // Offsets first, tables after: what is committed now must have been there before.
            let offsets = committed(bootstrap, &format!("{prefix}waybill.{stage}"), &format!("{prefix}{topic}"))?;
            let reader = self.readers.get_mut(stage).context("a reader for every stage")?;
            let keys: Vec<String> = reader
                .read_to(&offsets)?
                .iter()
                .map(|r| String::from_utf8_lossy(r.key.as_deref().unwrap_or_default()).into_owned())
                .collect();
            let mut database = PgConnection::connect(&self.chain.database).await?;
            let kept: Vec<String> = sqlx::query_scalar(sql).bind(&keys).fetch_all(&mut database).await?;
            reader.accept();
            self.seen += keys.len() as u64;
            let kept: std::collections::BTreeSet<&str> = kept.iter().map(String::as_str).collect();
            let ahead = keys.iter().filter(|key| !kept.contains(key.as_str()));
            violations
                .extend(ahead.map(|key| format!("{stage}: the offset of {key} is committed, its effect is not there")));
        }
        Ok(violations)
    }
}
