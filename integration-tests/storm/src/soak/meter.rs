//! What the processes take of the machine while they grow old: looked at all along, judged in the end.

use super::say;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use waybill_harness::{Usage, usage};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// A process that is younger still fills its caches and pools.
const WARM: Duration = Duration::from_secs(90);
/// Looks at a process, beyond that age, that tell something about it: two minutes.
const ENOUGH: u32 = 12;
/// What a process may take more later than earlier: so many hundredths, and this many KiB, files or threads.
const MEMORY: (u64, u64) = (15, 2_048);
/// A client keeps a connection to each broker that it ever had to ask, so a leader that moves is a file more.
const FILES: (u64, u64) = (10, 2);
/// Beside its predecessor: a process inherits the files that the clients of its parent have open, some tens.
const FILES_BESIDE: (u64, u64) = (100, 2);
const THREADS: (u64, u64) = (0, 1);
/// It keeps its books in memory, all of them, and its connections are its clients': a stand-in, no part of a shop.
const STAND_IN: &str = "payment-simulator";

/// One process from its start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    role: &'static str,
    pid: u32,
    born: Instant,
    /// Age and what it took.
    looks: Vec<(Duration, Usage)>,
}

#[derive(Default)]
struct Seen {
    /// By place: one after the other.
    lives: Vec<Vec<Life>>,
    stop: bool,
}

/// Looks at the processes until it is dropped.
pub struct Meter {
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    pub fn start() -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let of_thread = seen.clone();
        let thread = std::thread::spawn(move || {
            loop {
                std::thread::park_timeout(EVERY);
                let mut seen = lock(&of_thread);
                if seen.stop {
                    return;
                }
                say(&seen.look());
            }
        });
        Meter { seen, thread: Some(thread) }
    }

    /// From now on this process has this place: it was started just now.
    pub fn watch(&self, place: usize, role: &'static str, pid: u32) {
        let mut seen = lock(&self.seen);
        if seen.lives.len() <= place {
            seen.lives.resize(place + 1, Vec::new());
        }
        seen.lives[place].push(Life { role, pid, born: Instant::now(), looks: Vec::new() });
    }

    /// All lives, by place.
    pub fn lives(&self) -> Vec<Vec<Life>> {
        lock(&self.seen).lives.clone()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        lock(&self.seen).stop = true;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does not panic, and there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}

impl Seen {
    /// A look at everybody; a line of the table: by role MiB, files and threads of each process.
    fn look(&mut self) -> String {
        let mut row: BTreeMap<&str, [Vec<String>; 3]> = BTreeMap::new();
        for life in self.lives.iter_mut().filter_map(|of_place| of_place.last_mut()) {
            // One that has just ended has a successor at the next look.
            let Ok(usage) = usage(life.pid) else { continue };
            life.looks.push((life.born.elapsed(), usage));
            let cells = row.entry(life.role).or_default();
            for (cell, value) in cells.iter_mut().zip([usage.rss / 1024, usage.files, usage.threads]) {
                cell.push(value.to_string());
            }
        }
        let mut line = String::from("MiB files threads");
        for (role, cells) in row {
            let [memory, files, threads] = cells.map(|cell| cell.join("+"));
            // Writing to a string does not fail.
            let _ = write!(line, " | {role} {memory} {files} {threads}");
        }
        line
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was taken earlier and later, and whether that is growth.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    earlier: u64,
    later: u64,
}

impl Pair {
    fn grew(&self, (hundredths, units): (u64, u64)) -> bool {
        self.later > self.earlier + self.earlier * hundredths / 100 + units
    }
}

/// Says what there is to say about the lives; and every process that grew.
///
/// A process that is restarted begins anew, so two things are compared: the first third of a life with its last, and the first
/// process of a place with the last one at the same age. Each by the median, which a passing fault does not move; files by their
/// lowest tenth: whatever waits during a fault has a connection of its own, which stays for a minute or two and then goes, and
/// what leaks never goes.
pub fn judge(lives: &[Vec<Life>]) -> (Vec<String>, Vec<String>) {
    let (mut told, mut grown) = (Vec::new(), Vec::new());
    for of_place in lives {
        for life in of_place {
            let looks: Vec<Usage> =
                life.looks.iter().filter(|(age, _)| *age >= WARM).map(|(_, usage)| *usage).collect();
            if looks.len() >= ENOUGH as usize {
                let third = looks.len() / 3;
                let what = format!("{} {} in {} min", life.role, life.pid, life.looks.len() / 6);
                let thirds = (&looks[..third], &looks[looks.len() - third..]);
                compare(&what, life.role, thirds, FILES, (&mut told, &mut grown));
            }
        }
        let old = |life: &&Life| life.looks.last().is_some_and(|(age, _)| *age >= WARM + EVERY * ENOUGH);
        let mut old = of_place.iter().filter(old);
        if let (Some(first), Some(last)) = (old.next(), old.next_back()) {
            let common = [first, last].iter().filter_map(|life| life.looks.last()).map(|(age, _)| *age).min();
            let at = |life: &Life| -> Vec<Usage> {
                let within = |(age, _): &&(Duration, Usage)| *age >= WARM && Some(*age) <= common;
                life.looks.iter().filter(within).map(|(_, usage)| *usage).collect()
            };
            let what = format!("{} {}, then {} at its age", first.role, first.pid, last.pid);
            compare(&what, first.role, (&at(first), &at(last)), FILES_BESIDE, (&mut told, &mut grown));
        }
    }
    (told, grown)
}

fn compare(
    what: &str,
    role: &str,
    (earlier, later): (&[Usage], &[Usage]),
    files: (u64, u64),
    (told, grown): (&mut Vec<String>, &mut Vec<String>),
) {
    let pair = |part: usize, of: fn(&Usage) -> u64| Pair { earlier: at(earlier, part, of), later: at(later, part, of) };
    let all = [
        ("KiB", pair(5, |usage| usage.rss), MEMORY),
        ("files", pair(1, |usage| usage.files), files),
        ("threads", pair(5, |usage| usage.threads), THREADS),
    ];
    let mut line = what.to_owned();
    for (unit, pair, bound) in all {
        let _ = write!(line, ", {} to {} {unit}", pair.earlier, pair.later);
        if pair.grew(bound) && (role != STAND_IN || unit == "threads") {
            grown.push(format!("{what}: grew from {} to {} {unit}", pair.earlier, pair.later));
        }
    }
    told.push(line);
}

/// The value that so many tenths of the looks are below.
fn at(looks: &[Usage], tenths: usize, of: fn(&Usage) -> u64) -> u64 {
    let mut values: Vec<u64> = looks.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() * tenths / 10).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process looked at for so many minutes, by what it takes at an age in seconds.
    fn life(minutes: u64, at: impl Fn(u64) -> (u64, u64, u64)) -> Life {
        let looks = (1..=minutes * 6).map(|look| {
            let (rss, files, threads) = at(look * 10);
            (EVERY * u32::try_from(look).unwrap_or(0), Usage { rss, files, threads })
        });
        Life { role: "pick", pid: 1, born: Instant::now(), looks: looks.collect() }
    }

    fn grown(lives: &[Life]) -> Vec<String> {
        judge(&[lives.to_vec()]).1
    }

    #[test]
    fn a_process_that_warms_up_and_bears_a_fault_has_not_grown() {
        // A cache fills for a minute, and for two of twenty everything waits in memory.
        let rss = |age: u64| 20_000 + age.min(60) * 300 + if (600..720).contains(&age) { 90_000 } else { 0 };
        assert_eq!(grown(&[life(20, |age| (rss(age), 40, 17))]), [""; 0]);
    }

    #[test]
    fn memory_files_and_threads_that_grow_in_a_life_are_found() {
        assert_eq!(grown(&[life(20, |age| (40_000 + age * 20, 40, 17))]).len(), 1);
        assert_eq!(grown(&[life(20, |age| (40_000, 40 + age / 60, 17))]).len(), 1);
        assert_eq!(grown(&[life(20, |age| (40_000, 40, 17 + age / 200))]).len(), 1);
        assert_eq!(grown(&[life(2, |age| (40_000 + age * 2_000, 40, 17))]).len(), 0, "too young to tell");
    }

    #[test]
    fn connections_that_come_with_a_fault_and_go_after_it_are_no_growth() {
        let files = |age: u64| 40 + if age % 300 < 60 + age / 10 { 50 } else { 0 };
        assert_eq!(grown(&[life(20, |age| (40_000, files(age), 17))]), [""; 0]);
        assert_eq!(grown(&[life(20, |age| (40_000, files(age) + age / 60, 17))]).len(), 1);
    }

    #[test]
    fn a_process_that_takes_more_than_its_predecessor_at_that_age_is_found() {
        let first = life(5, |_| (40_000, 40, 17));
        assert_eq!(grown(&[first.clone(), life(9, |_| (41_000, 40, 17))]), [""; 0]);
        assert_eq!(grown(&[first.clone(), life(9, |_| (50_000, 40, 17))]).len(), 1);
        // What it takes when it is older than the first one ever was is another question.
        let older = life(9, |age| (if age < 310 { 40_000 } else { 44_000 }, 40, 17));
        assert_eq!(grown(&[first, older]), [""; 0]);
    }
}
