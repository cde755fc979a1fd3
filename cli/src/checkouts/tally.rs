//! What many checkouts came to.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Failures that are told; the rest is counted.
const TOLD: usize = 10;

/// What a checkout came to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An order.
    Order,
    /// A proper refusal: the last part of the problem's type.
    Refused(String),
    /// Neither.
    Failed(String),
}

/// A customer's way, at its end.
#[derive(Clone, Debug)]
pub struct Visited {
    /// Status of the answer, 0 where there was none.
    pub status: u16,
    /// What it came to.
    pub outcome: Outcome,
    /// From asking for the checkout to knowing that, repeats included.
    pub took: Duration,
}

impl Visited {
    /// Neither an order nor a proper refusal.
    pub fn failed(status: u16, took: Duration, why: String) -> Self {
        Visited { status, outcome: Outcome::Failed(why), took }
    }
}

/// Counts, and how long the answers took.
#[derive(Debug, Default)]
pub struct Tally {
    outcomes: BTreeMap<(u16, &'static str, String), u64>,
    times: Vec<Duration>,
    failed: Vec<String>,
}

impl Tally {
    /// Adds one.
    pub fn add(&mut self, visited: Visited) {
        let (kind, name) = match visited.outcome {
            Outcome::Order => ("order", String::new()),
            Outcome::Refused(problem) => ("refused", problem),
            Outcome::Failed(why) => {
                self.failed.push(why);
                ("failed", String::new())
            }
        };
        *self.outcomes.entry((visited.status, kind, name)).or_default() += 1;
        self.times.push(visited.took);
    }

    /// Checkouts that became orders.
    pub fn orders(&self) -> u64 {
        self.outcomes.iter().filter(|((_, kind, _), _)| *kind == "order").map(|(_, count)| count).sum()
    }

    /// Checkouts that were refused for this reason.
    pub fn refused(&self, problem: &str) -> u64 {
        self.outcomes.iter().filter(|((_, _, name), _)| name == problem).map(|(_, count)| count).sum()
    }

    /// What the others came to, each in a line, the first ones.
    pub fn failures(&self) -> impl Iterator<Item = &String> {
        self.failed.iter().take(TOLD)
    }

    /// How many others there are.
    pub fn failed(&self) -> usize {
        self.failed.len()
    }

    /// Short, for beside a progress bar.
    pub fn short(&self) -> String {
        let mut text = format!("{} orders", self.orders());
        let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
        for ((_, kind, name), count) in self.outcomes.iter().filter(|((_, kind, _), _)| *kind != "order") {
            *refused.entry(if name.is_empty() { kind } else { name }).or_default() += count;
        }
        for (name, count) in refused {
            // Writing to a string does not fail.
            let _ = write!(text, ", {count} {name}");
        }
        text
    }

    /// The answer that so many percent of all did not take longer than.
    fn percentile(sorted: &[Duration], percent: usize) -> Duration {
        sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The table, and how fast it was.
    pub fn table(&self, took: Duration) -> String {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let [p50, p90, p99] = [50, 90, 99].map(|percent| Tally::percentile(&sorted, percent));
        let rate = self.times.len() as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE);
        format!(
            "{self}\n{} checkouts in {:.1} s, {rate:.1}/s; answered in {p50:.0?} (p50), {p90:.0?} (p90), {p99:.0?} (p99)",
            self.times.len(),
            took.as_secs_f64(),
        )
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}  {:<9}{:<22}{:>9}", "status", "outcome", "problem", "checkouts")?;
        for ((status, kind, name), count) in &self.outcomes {
            let status = if *status == 0 { "none".to_owned() } else { status.to_string() };
            write!(f, "\n{status:>6}  {kind:<9}{name:<22}{count:>9}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_status_and_problem_and_times_are_ranked() {
        let mut tally = Tally::default();
        for ms in 1..=98 {
            tally.add(Visited { status: 201, outcome: Outcome::Order, took: Duration::from_millis(ms) });
        }
        let declined = Outcome::Refused("declined".to_owned());
        tally.add(Visited { status: 402, outcome: declined.clone(), took: Duration::from_millis(99) });
        tally.add(Visited { status: 202, outcome: declined, took: Duration::from_millis(100) });
        assert_eq!((tally.orders(), tally.refused("declined"), tally.failed()), (98, 2, 0));
        assert_eq!(tally.short(), "98 orders, 2 declined");
        let table = tally.table(Duration::from_secs(2));
        let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["201", "order", "98"], "{table}");
        assert_eq!(rows[2..4], [["202", "refused", "declined", "1"], ["402", "refused", "declined", "1"]], "{table}");
        assert!(
            table.contains("100 checkouts in 2.0 s, 50.0/s; answered in 50ms (p50), 90ms (p90), 99ms (p99)"),
            "{table}"
        );
        tally.add(Visited::failed(500, Duration::ZERO, "normal-1-0: 500 internal".to_owned()));
        assert_eq!((tally.failed(), tally.failures().count()), (1, 1));
    }
}
