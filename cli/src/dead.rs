//! `waybill dead`: what stages would not accept, and what becomes of it.

use crate::config::Config;
use crate::exit::Ended;
use crate::produce;
use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args as ClapArgs, Subcommand};
use indicatif::ProgressBar;
use jiff::Timestamp;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use waybill_journeys::Span;
use waybill_ops::{First, Letter, Listing, Moved, OpsError, Position, State, Wanted, letters, letters_at};
use waybill_spine::{KafkaConfig, Record};
use waybill_topics::Catalogue;

/// Most letters of one redrive.
const MOST: usize = 100_000;
/// Headers that are long and shown elsewhere: `waybill trace` draws the spans.
const COPIES: [&str; 3] = ["waybill_span", "waybill_parts", "dead_span"];

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Those there are, newest first, each with its reason and what was decided about it; and how many, by reason
    List(List),
    /// All that is known of one
    Show(Show),
    /// Send some back to their stage, in their order; no other stage sees them again
    Redrive(Redrive),
    /// Decide that some are not to go back; they stay on their topic
    Drop(Drop),
}

/// Which letters.
#[derive(Debug, ClapArgs)]
pub struct Which {
    /// Of these stages
    #[arg(long = "stage", value_name = "STAGE", num_args = 1.., value_delimiter = ',')]
    stages: Vec<String>,
    /// With this code, for example unreadable
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Of this order, or whatever the stage's records are keyed by
    #[arg(long = "order", value_name = "KEY")]
    key: Option<String>,
    /// Written from this time on, by the broker's timestamps, for example 2026-11-21T10:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Written before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
}

/// Which, and how to show them.
#[derive(Debug, ClapArgs)]
pub struct List {
    #[command(flatten)]
    which: Which,
    /// Only those that stand so
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(["waiting", "redriven", "dropped"]))]
    state: Option<String>,
    /// Most of them
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Which.
#[derive(Debug, ClapArgs)]
pub struct Show {
    /// Where it stands, for example dead.pick/0/17
    position: Position,
    /// With the record's payload, which may say more of a person than you need
    #[arg(long)]
    payload: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Letters by position, or by what they have in common.
#[derive(Debug, ClapArgs)]
pub struct Letters {
    /// Where they stand, for example dead.pick/0/17
    #[arg(
        value_name = "POSITION",
        required_unless_present_any = ["stages", "reason", "key", "since", "until"],
        conflicts_with_all = ["stages", "reason", "key", "since", "until"]
    )]
    positions: Vec<Position>,
    #[command(flatten)]
    which: Which,
    /// Who decides so
    #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
    by: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Which go back.
#[derive(Debug, ClapArgs)]
pub struct Redrive {
    #[command(flatten)]
    some: Letters,
    /// Also those that went back already, or were dropped
    #[arg(long)]
    again: bool,
}

/// Which do not, and why.
#[derive(Debug, ClapArgs)]
pub struct Drop {
    #[command(flatten)]
    some: Letters,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    why: String,
}

/// Runs the command.
pub fn dead(config: &Config, command: &Command) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let (kafka, catalogue) = (config.kafka(), Catalogue::built_in()?);
    match command {
        Command::List(args) => list(&kafka, &catalogue, args),
        Command::Show(args) => show(config, &kafka, &catalogue, args),
        Command::Redrive(Redrive { some, again }) => decide(&kafka, &catalogue, some, (*again, "redrive"), {
            |letters, progress| waybill_ops::redrive(&kafka, letters, &some.by, progress)
        }),
        Command::Drop(Drop { some, why }) => decide(&kafka, &catalogue, some, (false, "drop"), {
            |letters, progress| waybill_ops::drop_letters(&kafka, letters, (&some.by, why), progress)
        }),
    }
}

impl Which {
    fn wanted(&self, state: Option<String>) -> Wanted {
        Wanted {
            stages: self.stages.clone(),
            reason: self.reason.clone(),
            key: self.key.clone(),
            state,
            span: Span { since: self.since, until: self.until },
        }
    }
}

fn list(kafka: &KafkaConfig, catalogue: &Catalogue, args: &List) -> anyhow::Result<Ended> {
    let wanted = args.which.wanted(args.state.clone());
    let listing = letters(kafka, catalogue, &wanted, (First::Newest, args.limit as usize))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&listing)?);
    } else {
        print!("{}", table(&listing));
    }
    notes(&listing);
    Ok(Ended::Done)
}

fn notes(listing: &Listing) {
    for topic in &listing.missing {
        eprintln!("there is no topic {topic}: run `waybill topics apply`");
    }
    if listing.unreadable > 0 {
        eprintln!("{} records of dead.* are no dead letters", listing.unreadable);
    }
}

fn table(listing: &Listing) -> String {
    let mut text = String::new();
    for Letter { position, key, letter, state } in &listing.letters {
        let (at, key, state) = (letter.at, key.as_deref().unwrap_or("no key"), state.name());
        let tries = if letter.attempts == 1 { String::new() } else { format!(" ({} tries)", letter.attempts) };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:<24}  {at:.0}  {state:<8}  {key}\n    {}{tries}: {}",
            position.to_string(),
            letter.reason,
            letter.message
        );
    }
    for count in &listing.counts {
        let _ = writeln!(text, "{:>8}  {:<8}  {}: {}", count.letters, count.state, count.stage, count.reason);
    }
    if listing.matched > listing.letters.len() as u64 {
        let _ = writeln!(text, "{} dead letters, the newest {} are shown", listing.matched, listing.letters.len());
    } else {
        let _ = writeln!(text, "{} dead letters", listing.matched);
    }
    text
}

fn show(config: &Config, kafka: &KafkaConfig, catalogue: &Catalogue, args: &Show) -> anyhow::Result<Ended> {
    let found = match letters_at(kafka, catalogue, std::slice::from_ref(&args.position)) {
        Ok(found) => found,
        Err(error @ OpsError::NoLetter(..)) => return Ok(not_found(&error)),
        Err(error) => return Err(error.into()),
    };
    for (letter, record) in &found {
        let link = config.trace_link(letter.letter.trace_id());
        if args.json {
            let mut json = serde_json::to_value(letter)?;
            json["trace_id"] = letter.letter.trace_id().into();
            json["trace_link"] = link.into();
            json["headers"] = headers(record).collect::<serde_json::Map<_, _>>().into();
            if args.payload {
                json["payload"] = payload(record).into();
            }
            println!("{}", serde_json::to_string_pretty(&json)?);
        } else {
            print!("{}", story(letter, record, link, args.payload));
        }
    }
    Ok(Ended::Done)
}

fn not_found(error: &OpsError) -> Ended {
    eprintln!("{error}; `waybill dead list` shows those there are");
    Ended::NotFound
}

/// The record's own headers and ours, but for the copies of spans.
fn headers(record: &Record) -> impl Iterator<Item = (String, serde_json::Value)> {
    let shown = record.content.headers().filter(|(name, _)| !COPIES.contains(name));
    shown.map(|(name, value)| (name.to_owned(), value.map(String::from_utf8_lossy).into()))
}

fn payload(record: &Record) -> Option<String> {
    record.content.payload().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Everything that is known, a line each, and what can be done.
fn story(letter: &Letter, record: &Record, link: Option<String>, with_payload: bool) -> String {
    let Letter { position, key, letter, state } = letter;
    let mut lines = vec![
        ("letter", position.to_string()),
        ("reason", format!("{}: {}", letter.reason, letter.message)),
        ("stage", letter.stage.clone()),
        ("record", format!("{}/{}/{}", letter.topic, letter.partition, letter.offset)),
        ("written", Timestamp::from_millisecond(letter.timestamp_ms).map_or("?".to_owned(), |at| at.to_string())),
        ("key", key.clone().unwrap_or_else(|| "none, or no text".to_owned())),
        ("tried", format!("{} times, the last at {}", letter.attempts, letter.at)),
        ("trace", link.unwrap_or_else(|| letter.trace_id().to_owned())),
        ("state", told(state)),
    ];
    for (name, value) in headers(record).filter(|(name, _)| !name.starts_with("dead_")) {
        lines.push(("header", format!("{name}: {}", value.as_str().unwrap_or("nothing"))));
    }
    if with_payload {
        lines.push(("payload", payload(record).unwrap_or_else(|| "none".to_owned())));
    } else {
        lines.push((
            "payload",
            format!("{} bytes, --payload shows them", record.content.payload().map_or(0, <[u8]>::len)),
        ));
    }
    lines.push(("next", next(position, state)));
    lines.iter().map(|(name, value)| format!("{name:>9}  {value}\n")).collect()
}

fn told(state: &State) -> String {
    match state {
        State::Waiting => "waiting: nothing was decided yet".to_owned(),
        State::Redriven { at, by } => format!("redriven at {at} by {by}"),
        State::Dropped { at, by, why } => format!("dropped at {at} by {by}: {why}"),
    }
}

fn next(position: &Position, state: &State) -> String {
    let again = match state {
        State::Waiting => "",
        State::Redriven { .. } | State::Dropped { .. } => " --again",
    };
    format!("once its cause is mended: `waybill dead redrive {position}{again}`")
}

/// Finds the letters, asks, and lets `act` move them.
fn decide(
    kafka: &KafkaConfig,
    catalogue: &Catalogue,
    some: &Letters,
    (again, what): (bool, &str),
    act: impl FnOnce(&[Letter], &mut dyn FnMut(u64)) -> Result<Moved, OpsError>,
) -> anyhow::Result<Ended> {
    let (chosen, refused) = match select(kafka, catalogue, some, again) {
        Ok(selected) => selected,
        Err(error) => match error.downcast::<OpsError>() {
            Ok(error @ OpsError::NoLetter(..)) => return Ok(not_found(&error)),
            Ok(error) => return Err(error.into()),
            Err(error) => return Err(error),
        },
    };
    for letter in &refused {
        eprintln!("{} was {}: --again would redrive it once more", letter.position, told(&letter.state));
    }
    if chosen.is_empty() {
        eprintln!("nothing to {what}");
        return Ok(if refused.is_empty() { Ended::NotFound } else { Ended::InPart });
    }
    if some.dry_run {
        for letter in &chosen {
            println!("would {what}  {}  {}  {}", letter.position, letter.letter.reason, letter.letter.message);
        }
        println!("{} letters", chosen.len());
        return Ok(Ended::Done);
    }
    if !some.yes && !agreed(&format!("{what} {} letters?", chosen.len()))? {
        eprintln!("nothing was done");
        return Ok(Ended::Done);
    }
    let bar = if chosen.len() > 1 { produce::bar(chosen.len() as u64, "letters") } else { ProgressBar::hidden() };
    let moved = act(&chosen, &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    let Moved { letters, gone } = moved?;
    let did = if what == "drop" { "dropped" } else { "redriven" };
    println!("{letters} letters {did}");
    if gone > 0 {
        eprintln!("{gone} letters are there no more");
    }
    Ok(if refused.is_empty() && gone == 0 { Ended::Done } else { Ended::InPart })
}

/// The letters to move, and those named that were decided about before.
fn select(
    kafka: &KafkaConfig,
    catalogue: &Catalogue,
    some: &Letters,
    again: bool,
) -> anyhow::Result<(Vec<Letter>, Vec<Letter>)> {
    if !some.positions.is_empty() {
        let mut positions = some.positions.clone();
        positions.sort_unstable();
        positions.dedup();
        let named = letters_at(kafka, catalogue, &positions)?.into_iter().map(|(letter, _)| letter);
        return Ok(named.partition(|letter| again || letter.state == State::Waiting));
    }
    let state = (!again).then(|| State::Waiting.name().to_owned());
    let listing = letters(kafka, catalogue, &some.which.wanted(state), (First::Oldest, MOST))?;
    notes(&listing);
    if listing.matched > MOST as u64 {
        eprintln!("{} letters: the oldest {MOST} now, the others by the same command again", listing.matched);
    }
    Ok((listing.letters, Vec::new()))
}

/// Asks at the terminal.
fn agreed(question: &str) -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "{question} there is nobody to ask: say --yes");
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("no answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
