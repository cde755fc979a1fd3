//! A crowd under fire: very many people wait for one product, it comes back, and all of them are told, at the rate that is
//! allowed, while fanout and the senders are killed at random. In the end each was told once, or it is known why not.
//!
//! The seed decides who is killed after how many messages; when exactly each kill hits is the machine's doing.

mod rates;
mod receivers;
mod verdict;
mod world;

pub use receivers::{Arrival, Receivers};
pub use verdict::Verdict;

use anyhow::bail;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use waybill_spine::system_clock;
use world::World;

/// What they wait for.
const PRODUCT: &str = "p-crowd";
/// Those that are killed.
const ROLES: [&str; 3] = ["fanout", "email", "push"];
const CHANNELS: [&str; 2] = ["email", "push"];
/// Of their names, by channel: `w-2-17`, as `waybill produce subscribers` calls people.
const SEEDS: [u64; 2] = [2, 3];
/// Nobody is told and no batch ends for so long: that is a standstill. The lease of a call is half a minute.
const STANDSTILL: Duration = Duration::from_secs(120);
/// Between two lines that say how far it is.
const TELL: Duration = Duration::from_secs(5);

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// The binary under test.
    pub binary: PathBuf,
    /// Kafka.
    pub bootstrap: String,
    /// Before every topic and group name.
    pub prefix: String,
    /// An empty Postgres database.
    pub database: String,
    /// Decides the kills.
    pub seed: u64,
    /// Who waits: half of them are told by mail, half by push.
    pub people: usize,
    /// How often a process of fanout, email or push is killed.
    pub kills: usize,
    /// Processes of each.
    pub replicas: usize,
    /// Messages a second of each channel, over all processes.
    pub rate: f64,
}

/// What was seen while they were told.
#[derive(Debug, Default)]
struct Seen {
    /// Role, and when it was killed, in microseconds since 1970.
    kills: Vec<(&'static str, i64)>,
    /// Most memory that a process of a role had had when a tenth was told, half, and in the end, KiB.
    memory: [BTreeMap<&'static str, u64>; 3],
    /// From the restock to the end.
    took: Duration,
    /// Most slots in a second that were granted, by channel, looked at all along.
    granted: [i64; 2],
}

impl Crowd {
    /// Makes the run.
    ///
    /// # Errors
    /// A server or a process does not do what it must, or nothing goes on; what does not hold is in [`Verdict::violations`].
    pub async fn run(self) -> anyhow::Result<Verdict> {
        let mut world = World::open(self).await?;
        world.subscribe().await?;
        let waiting = verdict::waiting(&mut world.connection).await?;
        let seen = tell(&mut world).await?;
        world.close().await?;
        verdict::judge(&mut world, &waiting, seen).await
    }

    /// Who is killed after how many messages, the first first.
    fn kills(&self) -> Vec<(usize, &'static str)> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut victims: Vec<&str> = ROLES.into_iter().cycle().take(self.kills).collect();
        victims.shuffle(&mut rng);
        // The last quarter is told in peace: not everybody is told whom a victim had in hand.
        let last = (self.people * 3 / 4).max(2);
        let mut after: Vec<usize> = victims.iter().map(|_| rng.random_range(1..last)).collect();
        after.sort_unstable();
        after.into_iter().zip(victims).collect()
    }
}

/// The product comes back; yields when everybody was told.
async fn tell(world: &mut World) -> anyhow::Result<Seen> {
    let mut rng = StdRng::seed_from_u64(world.crowd.seed);
    let kills = world.crowd.kills();
    let (people, before) = (world.crowd.people, world.receivers.count());
    let mut seen = Seen::default();
    world.restock(PRODUCT)?;
    let begun = Instant::now();
    let (mut said, mut best, mut since) = (Instant::now(), (0, 0), Instant::now());
    loop {
        let told = world.receivers.count() - before;
        while let Some((_, role)) = kills.get(seen.kills.len()).filter(|(after, _)| told >= *after) {
            // What the victim took counts, too.
            world.peaks()?;
            world.kill(role, &mut rng)?;
            seen.kills.push((role, system_clock().as_microsecond()));
        }
        for (memory, share) in seen.memory.iter_mut().zip([10, 2]) {
            if told * share >= people && memory.is_empty() {
                *memory = world.peaks()?;
            }
        }
        if world.has_ended(PRODUCT).await? {
            seen.memory[2] = world.peaks()?;
            seen.took = begun.elapsed();
            return Ok(seen);
        }
        if said.elapsed() >= TELL {
            said = Instant::now();
            world.peaks()?;
            let granted = rates::granted(&mut world.connection, Some(3 * TELL)).await?;
            for (most, now) in seen.granted.iter_mut().zip(granted) {
                *most = now.max(*most);
            }
            let sql = "select count(*) from batches where settled_at is not null";
            let settled: i64 = sqlx::query_scalar(sql).fetch_one(&mut world.connection).await?;
            println!(
                "{:6.1} s  {told:>7} messages, {settled} batches ended, {} kills, at most {granted:?} slots in a second",
                begun.elapsed().as_secs_f64(),
                seen.kills.len()
            );
            if (told, settled) != best {
                (best, since) = ((told, settled), Instant::now());
            }
            if since.elapsed() > STANDSTILL {
                world.dump();
                bail!("nothing goes on for {STANDSTILL:?}: {told} of {people} told, {settled} batches ended");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
