//! A week in an afternoon: the whole flow under load for as long as one likes, while each of its processes is restarted
//! in turn and whatever it stands on goes away for a while. In the end nothing may be lost or done twice, and no process
//! may have grown.

mod meter;
mod verdict;
mod world;

use anyhow::{Context, ensure};
use std::path::Path;
use std::time::{Duration, Instant};
use waybill_spine::system_clock;
use world::Soak;

/// All must be drained so soon after the last customer was served: the lease of a call is half a minute, and a campaign
/// looks for its end every few seconds.
const DRAIN: Duration = Duration::from_secs(90);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A product that people wait for sells out, and comes back.
    Restock,
    /// Every process is asked to end, one at a time, and the next one is ended once its successor is ready.
    RollAll,
    /// The same with one process of each stage: the others grow old.
    RollOne,
    /// A broker is shut down as an operator does it, and started again.
    StopBroker,
    /// A broker is killed, and started again.
    KillBroker,
    /// Postgres ends without a checkpoint, and starts again.
    RestartPostgres,
    /// The collector refuses what it gets.
    CollectorRefuses,
    /// The collector takes what it gets and never answers.
    CollectorHangs,
    /// The collector is well again.
    CollectorBack,
    /// The mail server is gone, its connections cut.
    MailAway,
    /// The mail server is back.
    MailBack,
}

/// When, in hundredths of the time that customers come.
const SCHEDULE: [(u32, Step); 27] = [
    (2, Step::Restock),
    (5, Step::RollAll),
    (14, Step::Restock),
    (16, Step::CollectorRefuses),
    (20, Step::StopBroker),
    (24, Step::RestartPostgres),
    (26, Step::CollectorBack),
    (28, Step::Restock),
    (30, Step::MailAway),
    (33, Step::Restock),
    (37, Step::RestartPostgres),
    (40, Step::MailBack),
    (44, Step::KillBroker),
    (48, Step::Restock),
    (50, Step::RollOne),
    (60, Step::CollectorHangs),
    (62, Step::RestartPostgres),
    (65, Step::Restock),
    (68, Step::KillBroker),
    (70, Step::CollectorBack),
    (72, Step::MailAway),
    (75, Step::StopBroker),
    (79, Step::MailBack),
    (80, Step::RollOne),
    (89, Step::Restock),
    (92, Step::RestartPostgres),
    (96, Step::KillBroker),
];

/// Makes the run.
///
/// # Errors
/// A server or a process does not do what it must, or something does not hold.
pub async fn soak(binary: &Path, minutes: u64) -> anyhow::Result<()> {
    let length = Duration::from_secs(minutes * 60);
    let mut soak = Soak::open(binary, length).await?;
    let begun = Instant::now();
    for (hundredth, step) in SCHEDULE {
        soak.calm_until(begun + length * hundredth / 100).await?;
        let from = Instant::now();
        say(&format!("{step:?} begins"));
        let note = soak.make(step).await.with_context(|| format!("{step:?}"))?;
        say(&format!("{step:?} over after {:.1} s  {note}", from.elapsed().as_secs_f64()));
    }
    soak.customers_are_served().await?;
    let served = Instant::now();
    say(&format!("all customers are served, {:.0} s after the first", begun.elapsed().as_secs_f64()));
    soak.until_drained().await;
    let drained = served.elapsed();
    say(&format!("drained {:.1} s later", drained.as_secs_f64()));
    let mut violations = soak.judge().await?;
    if drained > DRAIN {
        violations.push(format!("not drained within {DRAIN:?}"));
    }
    violations.iter().for_each(|sentence| println!("VIOLATION: {sentence}"));
    ensure!(violations.is_empty(), "{} sentences do not hold", violations.len());
    println!("{minutes} minutes: nothing lost, no effect twice, everybody told, no process grew");
    Ok(())
}

/// With the time on the wall, for whoever reads it beside other logs.
fn say(text: &str) {
    println!("{:.0}  {text}", system_clock());
}
