//! A campaign: how far the telling of one restock has come, and what comes after each of its steps.

use crate::fanout::FanoutSettings;
use crate::progress::Now;
use crate::step::Looked;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;
use waybill_events::Restocked;

/// Namespace of campaign ids (a random UUID, fixed for ever).
const NAMESPACE: Uuid = Uuid::from_u128(0x2b8e_61d4_90c7_4f3a_a5d1_7c39_e806_4bf2);
/// How often an open campaign looks whether its product is sold out, and whether its batches are settled.
const TICK: Duration = Duration::from_secs(2);
/// How long to wait before a step that failed is made again.
const RETRY: Duration = Duration::from_secs(1);

/// What is kept under a subject of fanout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// A campaign.
    Campaign(Campaign),
    /// The results of a batch, which are taken.
    Taken,
}

/// How far a campaign has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// Counts the steps: one that comes too late finds that the campaign has gone on.
    pub(crate) step: i64,
    /// What the next step is to do.
    pub(crate) doing: Doing,
    /// The last subscription that was looked at.
    pub(crate) cursor: i64,
    /// Batches planned so far; the number of the next one.
    pub(crate) planned: i32,
    /// Those of each channel: email, push.
    pub(crate) positions: [i32; 2],
    /// The stock's last version without anything, when the campaign began: a later one ends it.
    pub(crate) zero_version: Option<i64>,
    /// The wave that is planned or watched.
    pub(crate) wave: Wave,
    /// What became of the waves before.
    pub(crate) tally: Tally,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doing {
    /// Plans batches of the wave.
    Plan,
    /// Waits for what becomes of them.
    Watch,
    /// Nothing any more.
    Ended,
}

/// The people who are told at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wave {
    /// Not before this time, by the database's clock.
    pub not_before: Timestamp,
    /// Its first batch, and the first of each channel.
    pub first: i32,
    pub first_positions: [i32; 2],
    /// When its first batches go out; none before the first are planned.
    pub begins: Option<Timestamp>,
    /// People still to be planned; none before the stock is read.
    pub left: Option<i64>,
}

/// What a wave, or several, came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Tally {
    /// Batches.
    pub batches: i64,
    /// People in them, as they were planned.
    pub people: i64,
    /// Those who were told.
    pub sent: i64,
    /// Those who were not, or perhaps.
    pub errors: i64,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Another step, after a wait.
    Step(Campaign, Duration),
    /// Nothing.
    End(Campaign),
}

/// What a restock's campaign is kept under. No batch has such a subject: an id has no slash.
pub(crate) fn subject(restocked: &Restocked) -> String {
    format!("{}/{}", restocked.product_id, restocked.zero_version)
}

/// The id of the campaign that tells of a restock.
pub(crate) fn campaign_id(subject: &str) -> String {
    Uuid::new_v5(&NAMESPACE, subject.as_bytes()).to_string()
}

impl Campaign {
    pub(crate) fn of(restocked: &Restocked) -> Self {
        Campaign {
            step: 1,
            doing: Doing::Plan,
            cursor: 0,
            planned: 0,
            positions: [0; 2],
            zero_version: None,
            wave: Wave::new(restocked.tell_at, 0, [0; 2]),
            tally: Tally::default(),
        }
    }

    /// Whether the stock was gone since the campaign began, or is.
    pub(crate) fn sold_out(&self, available: i64, last_zero_version: i64) -> bool {
        available < 1 || self.zero_version.is_some_and(|zero| zero < last_zero_version)
    }

    /// Goes by what a step came to.
    pub(crate) fn next(mut self, looked: &Looked, settings: &FanoutSettings) -> Next {
        match looked {
            Looked::Failed(_) => self.again(RETRY),
            Looked::Early { wait } => self.again(*wait),
            Looked::SoldOut if self.planned == self.wave.first => self.end(),
            Looked::SoldOut => self.watch(),
            Looked::Planned(planned) => {
                self.zero_version = Some(planned.zero_version);
                self.cursor = planned.cursor;
                self.planned += planned.batches.iter().sum::<i32>();
                for (position, more) in self.positions.iter_mut().zip(planned.batches) {
                    *position += more;
                }
                self.wave.begins = self.wave.begins.or(planned.begins);
                self.wave.left = Some(planned.left);
                match planned.left > 0 && planned.more {
                    true => self.again(Duration::ZERO),
                    false if self.planned == self.wave.first => self.end(),
                    false => self.watch(),
                }
            }
            Looked::Open => self.watch(),
            Looked::Settled { tally, go_on, at } => {
                self.tally.add(tally);
                if !go_on {
                    return self.end();
                }
                self.doing = Doing::Plan;
                let pause = settings.pause();
                self.wave = Wave::new(at.checked_add(pause).unwrap_or(*at), self.planned, self.positions);
                self.again(pause.min(TICK))
            }
        }
    }

    /// What it does, for people who look.
    pub(crate) fn now(&self) -> Now {
        match self.doing {
            Doing::Plan => Now::Plans(self.wave.not_before),
            Doing::Watch => Now::Watches,
            Doing::Ended => Now::Ended,
        }
    }

    fn again(self, wait: Duration) -> Next {
        Next::Step(Campaign { step: self.step + 1, ..self }, wait)
    }

    fn watch(self) -> Next {
        Campaign { doing: Doing::Watch, ..self }.again(TICK)
    }

    fn end(self) -> Next {
        Next::End(Campaign { doing: Doing::Ended, ..self })
    }
}

impl Wave {
    fn new(not_before: Timestamp, first: i32, first_positions: [i32; 2]) -> Self {
        Wave { not_before, first, first_positions, begins: None, left: None }
    }

    /// How long to wait before it is time. A pause between waves is interrupted: the product may be sold out.
    pub(crate) fn early(&self, now: Timestamp, first: bool) -> Option<Duration> {
        let wait = Duration::try_from(self.not_before.duration_since(now)).ok().filter(|wait| !wait.is_zero())?;
        Some(if first { wait } else { wait.min(TICK) })
    }
}

impl Tally {
    fn add(&mut self, wave: &Tally) {
        self.batches += wave.batches;
        self.people += wave.people;
        self.sent += wave.sent;
        self.errors += wave.errors;
    }
}

#[cfg(test)]
#[path = "campaign_steps.rs"]
mod steps;
