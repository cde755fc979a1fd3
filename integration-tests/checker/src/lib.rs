//! An independent checker: what always holds of the chain ([`Chain`]) and of a shop's checkouts ([`Shop`]), told by topics,
//! tables and the payment provider's log alone.
//!
//! It shares no code with the processors and never asks them: events are read as plain JSON, rows as plain SQL.

mod books;
mod canaries;
mod journeys;
mod offsets;

pub use books::{Books, Shop};
pub use offsets::OffsetWatch;

use anyhow::Context;
use journeys::Topics;
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A drained chain to check.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Kafka.
    pub bootstrap: String,
    /// Before every topic and group name.
    pub prefix: String,
    /// Postgres.
    pub database: String,
    /// Units in all bins at the start.
    pub units: i64,
}

/// What was found: counts for people, and everything that must not be.
#[derive(Debug, Default)]
pub struct Report {
    /// Distinct orders on `orders.new`.
    pub orders: usize,
    /// Distinct orders on `orders.shipped`.
    pub shipped: usize,
    /// Orders of which there was nothing to ship.
    pub nothing: usize,
    /// Orders that ended as a dead letter.
    pub dead: usize,
    /// Records that stand more than once, by topic: allowed, with an equal id.
    pub duplicates: BTreeMap<String, usize>,
    /// Labels, one a parcel.
    pub labels: usize,
    /// Every sentence that does not hold.
    pub violations: Vec<String>,
}

impl Report {
    pub(crate) fn must(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        must(&mut self.violations, holds, sentence);
    }
}

/// Notes a sentence that does not hold; the first hundred tell enough.
fn must(violations: &mut Vec<String>, holds: bool, sentence: impl FnOnce() -> String) {
    if !holds && violations.len() < 100 {
        violations.push(sentence());
    }
}

fn tell(violations: &[String], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match violations.len() {
        0 => writeln!(f, "nothing is violated"),
        n => {
            writeln!(f, "{n} violations:")?;
            violations.iter().try_for_each(|v| writeln!(f, "  {v}"))
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { orders, shipped, nothing, dead, labels, .. } = self;
        writeln!(f, "{orders} orders: {shipped} shipped, {nothing} with nothing to ship, {dead} dead letters")?;
        writeln!(f, "{labels} labels, no two alike")?;
        for (topic, duplicates) in &self.duplicates {
            writeln!(f, "{topic}: {duplicates} records stand more than once")?;
        }
        tell(&self.violations, f)
    }
}

impl Chain {
    /// Checks everything; what does not hold is in the report.
    ///
    /// # Errors
    /// Kafka or Postgres cannot be read.
    pub async fn check(&self) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let topics = Topics::read(&self.bootstrap, &self.prefix, &mut report)?;
        topics.check(&mut report);
        self.tables(&topics, &mut report).await?;
        Ok(report)
    }

    /// The tables say the same as the topics.
    async fn tables(&self, topics: &Topics, report: &mut Report) -> anyhow::Result<()> {
        let mut database = PgConnection::connect(&self.database).await.context("cannot reach the database")?;
        let left: i64 =
            sqlx::query_scalar("select coalesce(sum(quantity), 0)::int8 from bins").fetch_one(&mut database).await?;
        let taken = topics.units_picked();
        report.must(left + taken == self.units, || {
            format!("bins do not add up: {} at the start, {taken} picked, {left} left", self.units)
        });
        let parked: i64 = sqlx::query_scalar("select count(*) from parked").fetch_one(&mut database).await?;
        report.must(parked == 0, || format!("{parked} records are still parked"));
        let picks: Vec<String> = sqlx::query_scalar("select key from picks").fetch_all(&mut database).await?;
        let picks: BTreeSet<String> = picks.into_iter().collect();
        for order in topics.accepted() {
            report.must(picks.contains(order), || format!("{order}: no pick is kept"));
        }
        let shipments: Vec<(String, String)> =
            sqlx::query_as("select key, state::text from shipments").fetch_all(&mut database).await?;
        let kept: BTreeMap<String, BTreeSet<String>> = shipments
            .into_iter()
            .map(|(key, state)| {
                let state: serde_json::Value = serde_json::from_str(&state)?;
                Ok((key, journeys::texts(&state["tracking_numbers"])))
            })
            .collect::<anyhow::Result<_>>()?;
        for (order, labels) in topics.labels() {
            let same = kept.get(&order) == Some(&labels);
            report.must(same, || format!("{order}: the labels on the topic are not those of the table"));
        }
        let (shipped, shipments) = (topics.labels().len(), kept.values().filter(|labels| !labels.is_empty()).count());
        report.must(shipments == shipped, || format!("{shipments} shipments are kept, {shipped} were told"));
        Ok(())
    }
}
