//! What was left of a run: told by what the receivers got, by topics as plain JSON and by tables as plain SQL.

use super::rates::{self, Window};
use super::receivers::Arrival;
use super::world::World;
use super::{CHANNELS, PRODUCT, ROLES, SEEDS, Seen};
use anyhow::Context;
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;
use waybill_harness::{Rec, read_topic};

/// What a process may take more between a tenth of the crowd and its end, KiB: those batches take some that wait for their
/// slots, of which a process has so many in hand and no more.
const FLAT: u64 = 64 * 1024;

/// What was found: counts for people, and everything that must not be.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Processes of each role that is killed.
    pub replicas: usize,
    /// Who waited.
    pub people: usize,
    /// What was killed, in this order.
    pub killed: Vec<&'static str>,
    /// People by what their results say.
    pub results: BTreeMap<String, usize>,
    /// Of those with `unknown`: how many were told.
    pub unknown_told: usize,
    /// Batches, and the people of the largest.
    pub batches: (usize, i64),
    /// From the level on its topic to the first message at a receiver; nobody was killed before.
    pub first_notice: Duration,
    /// From the restock to the end of its campaign.
    pub took: Duration,
    /// Slots that a channel may have in a second, and the most it had: email, push.
    pub granted: (i64, [i64; 2]),
    /// The fullest ten seconds of each receiver: email, push.
    pub received: [Option<Window>; 2],
    /// Most memory of a process by role, KiB: when a tenth was told, half, and in the end.
    pub memory: BTreeMap<&'static str, [u64; 3]>,
    /// Every sentence that does not hold.
    pub violations: Vec<String>,
}

/// Who waits: user and channel by subscription.
type Waiting = HashMap<i64, (String, String)>;

pub(super) async fn waiting(connection: &mut PgConnection) -> anyhow::Result<Waiting> {
    let sql = "select id, user_id, channel from subscriptions where product_id = $1";
    let rows: Vec<(i64, String, String)> = sqlx::query_as(sql).bind(PRODUCT).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(id, user, channel)| (id, (user, channel))).collect())
}

pub(super) async fn judge(world: &mut World, waiting: &Waiting, seen: Seen) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict {
        replicas: world.crowd.replicas,
        people: waiting.len(),
        killed: seen.kills.iter().map(|(role, _)| *role).collect(),
        took: seen.took,
        ..Verdict::default()
    };
    let expected = world.crowd.people / 2 * 2;
    verdict.must(waiting.len() == expected, || format!("{} of {expected} people wait", waiting.len()));
    let arrived = world.receivers.arrived();
    let told = verdict.told(&arrived, waiting);
    let mut results = HashMap::new();
    for channel in CHANNELS {
        verdict.batches(&world.topic(&format!("notifications.{channel}"))?)?;
        verdict.results(&world.topic(&format!("notifications.{channel}.results"))?, &mut results)?;
    }
    let left = self::waiting(&mut world.connection).await?;
    verdict.everyone(waiting, &results, &told, &left);
    let sql = "select coalesce(sum(unknown), 0)::int8 from batches where product_id = $1";
    let counted: i64 = sqlx::query_scalar(sql).bind(PRODUCT).fetch_one(&mut world.connection).await?;
    let unknown = verdict.results.get("unknown").copied().unwrap_or(0);
    verdict.must(usize::try_from(counted).ok() == Some(unknown), || {
        format!("{unknown} results are unknown, {counted} are counted")
    });
    verdict.rates(world, &arrived, &seen).await?;
    verdict.memory(&seen.memory);
    for topic in ["dead.inventory", "dead.restock", "dead.fanout", "dead.email", "dead.push"] {
        let dead = world.topic(topic)?.len();
        verdict.must(dead == 0, || format!("{dead} records on {topic}"));
    }
    let first = arrived.iter().flatten().filter(|arrival| is_of_crowd(arrival)).map(|arrival| arrival.at).min();
    let (first, level) = (first.context("nobody was told")?, level_told_at(&world.topic("inventory.levels")?)?);
    verdict.first_notice = Duration::from_micros(u64::try_from(first - level).unwrap_or(0));
    Ok(verdict)
}

/// Some others were told before.
fn is_of_crowd(arrival: &Arrival) -> bool {
    SEEDS.iter().any(|seed| arrival.user.starts_with(&format!("w-{seed}-")))
}

/// When the level that brought the product back was published, in microseconds since 1970.
fn level_told_at(levels: &[Rec]) -> anyhow::Result<i64> {
    for record in levels.iter().filter(|record| record.key_str() == Some(PRODUCT)) {
        if record.json()?["available"].as_i64() > Some(0) {
            return Ok(record.timestamp_ms.context("a record without a time")? * 1_000);
        }
    }
    anyhow::bail!("no level says that {PRODUCT} is back")
}

/// Events of the crowd's product by their id: one that stands twice must be the same.
fn once(records: &[Rec], violations: &mut Vec<String>) -> anyhow::Result<Vec<Value>> {
    let mut events: BTreeMap<&str, &Rec> = BTreeMap::new();
    for record in records {
        let id = record.header("ce_id").context("a record without ce_id")?;
        let first = events.entry(id).or_insert(record);
        if (&first.payload, &first.headers) != (&record.payload, &record.headers) {
            violations.push(format!("{id} stands for two events on {}", record.topic));
        }
    }
    let events = events.into_values().map(Rec::json).collect::<anyhow::Result<Vec<Value>>>()?;
    Ok(events.into_iter().filter(|event| event["product_id"] == PRODUCT).collect())
}

impl World {
    fn topic(&self, name: &str) -> anyhow::Result<Vec<Rec>> {
        read_topic(&self.crowd.bootstrap, &format!("{}{name}", self.crowd.prefix))
    }
}

impl Verdict {
    /// Notes a sentence that does not hold; the first hundred tell enough.
    fn must(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds && self.violations.len() < 100 {
            self.violations.push(sentence());
        }
    }

    /// How often each was told.
    fn told<'a>(&mut self, arrived: &'a [Vec<Arrival>; 2], waiting: &Waiting) -> HashMap<&'a str, usize> {
        let mut told: HashMap<&str, usize> = HashMap::new();
        for arrival in arrived.iter().flatten().filter(|arrival| is_of_crowd(arrival)) {
            *told.entry(&arrival.user).or_default() += 1;
        }
        let known: BTreeSet<&str> = waiting.values().map(|(user, _)| user.as_str()).collect();
        for (user, times) in &told {
            self.must(*times == 1, || format!("{user} was told {times} times"));
            self.must(known.contains(user), || format!("{user} was told and did not wait"));
        }
        told
    }

    fn batches(&mut self, records: &[Rec]) -> anyhow::Result<()> {
        let mut batches = once(records, &mut self.violations)?;
        batches.sort_by_key(|batch| batch["index"].as_i64());
        let mut last = 0;
        for batch in &batches {
            let size = batch["size"].as_i64().context("a batch without a size")?;
            self.batches = (self.batches.0 + 1, self.batches.1.max(size));
            self.must((1..=100).contains(&size), || format!("a batch of {size}: {}", batch["batch_id"]));
            self.must(batch["after"].as_i64() >= Some(last), || format!("it overlaps the one before: {batch}"));
            last = batch["to"].as_i64().context("a batch without an end")?;
        }
        Ok(())
    }

    fn results(&mut self, records: &[Rec], all: &mut HashMap<i64, String>) -> anyhow::Result<()> {
        for event in once(records, &mut self.violations)? {
            for one in event["people"].as_array().context("results without people")? {
                let id = one["subscription_id"].as_i64().context("a result without a subscription")?;
                let result = one["result"].as_str().context("a result without a result")?;
                let before = all.insert(id, result.to_owned());
                self.must(before.is_none(), || format!("subscription {id} stands in two results"));
            }
        }
        Ok(())
    }

    /// Everybody who waited has a result that agrees with what came, and waits on only where it says why.
    fn everyone(
        &mut self,
        waiting: &Waiting,
        results: &HashMap<i64, String>,
        told: &HashMap<&str, usize>,
        left: &Waiting,
    ) {
        for (id, (user, channel)) in waiting {
            let came = told.contains_key(user.as_str());
            let Some(result) = results.get(id) else {
                self.must(false, || format!("{user} has no result, came: {came}"));
                continue;
            };
            *self.results.entry(result.clone()).or_default() += 1;
            let agrees = match result.as_str() {
                "sent" => came,
                "unknown" => {
                    self.unknown_told += usize::from(came);
                    true
                }
                // The receivers take everything, from everybody.
                _ => false,
            };
            let over = result == "sent";
            self.must(agrees, || format!("{user} is {result} by {channel}, came: {came}"));
            self.must(over != left.contains_key(id), || format!("{user} is {result} and waits on: {}", !over));
        }
        let strangers = results.keys().filter(|id| !waiting.contains_key(id)).count();
        self.must(strangers == 0, || format!("{strangers} results are of people who did not wait"));
    }

    async fn rates(&mut self, world: &mut World, arrived: &[Vec<Arrival>; 2], seen: &Seen) -> anyhow::Result<()> {
        let (rate, replicas) = (world.crowd.rate, world.crowd.replicas);
        #[expect(clippy::cast_possible_truncation, reason = "messages, far below the limit")]
        let allowed = rate.ceil() as i64;
        let all = rates::granted(&mut world.connection, None).await?;
        self.granted = (allowed, [0, 1].map(|channel| all[channel].max(seen.granted[channel])));
        for (index, channel) in CHANNELS.into_iter().enumerate() {
            let granted = self.granted.1[index];
            self.must(granted <= allowed, || {
                format!("{granted} slots of {channel} in a second, {allowed} are allowed")
            });
            let (fullest, too_full) = rates::received(index, &arrived[index], &seen.kills, replicas, rate);
            self.received[index] = Some(fullest);
            self.must(too_full.is_none(), || format!("too many came by {channel} in ten seconds: {too_full:?}"));
        }
        Ok(())
    }

    fn memory(&mut self, memory: &[BTreeMap<&'static str, u64>; 3]) {
        for role in ROLES {
            let [early, half, late] = memory.each_ref().map(|peaks| peaks.get(role).copied().unwrap_or_default());
            self.memory.insert(role, [early, half, late]);
            self.must(late <= early + FLAT, || format!("{role} took {early} KiB, then {late}"));
        }
    }

    /// The counts, as one line of JSON has them.
    #[must_use]
    pub fn json(&self) -> Value {
        let memory: BTreeMap<_, _> = self.memory.iter().map(|(role, kib)| (role, kib.map(|kib| kib / 1024))).collect();
        let ten_seconds: Vec<_> = self.received.iter().flatten().map(|window| [window.got, window.may]).collect();
        json!({
            "replicas": self.replicas, "people": self.people, "kills": self.killed.len(), "results": self.results,
            "unknown_told": self.unknown_told, "batches": self.batches.0, "largest_batch": self.batches.1,
            "first_notice_ms": self.first_notice.as_millis(), "took_s": self.took.as_secs(),
            "granted_per_s": self.granted.1, "allowed_per_s": self.granted.0, "received_and_allowed_in_10_s": ten_seconds,
            "peak_mib_at_10_50_and_100_percent": memory, "violations": self.violations.len(),
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} processes each, {} kills: {:?}", self.replicas, self.killed.len(), self.killed)?;
        writeln!(
            f,
            "of {} people {:?}; {} of the unknown were told; {} batches of {} at most",
            self.people, self.results, self.unknown_told, self.batches.0, self.batches.1
        )?;
        let late = if self.first_notice < Duration::from_secs(1) { "" } else { " (LATE: more than 1 s)" };
        writeln!(f, "the first was told after {:?}{late}, all within {:?}", self.first_notice, self.took)?;
        let (allowed, granted) = self.granted;
        writeln!(f, "email and push: {granted:?} slots in a second of {allowed}; in ten: {:?}", self.received)?;
        writeln!(f, "KiB at most, at a tenth, at half and in the end: {:?}", self.memory)?;
        self.violations.iter().try_for_each(|sentence| writeln!(f, "VIOLATION: {sentence}"))
    }
}
