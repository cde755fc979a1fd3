//! How far the telling of a batch has come: first the people of its range, part by part, then those who can be tried again.

use super::part::{Became, Part, Tried, Whom};
use super::people::Waiting;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use waybill_events::{Batch, Tell, Told};

/// Waits before somebody is tried again; then no more.
const RETRY: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(300)];
/// Longest wait that a provider may ask for.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Those whose time comes within this are tried together.
const TOGETHER: Duration = Duration::from_secs(2);
/// How long a provider may be away.
const PATIENCE: SignedDuration = SignedDuration::from_hours(24);

/// How far the telling of a batch has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Telling {
    /// When it was decided: the date of its mails.
    date: Timestamp,
    /// The number of the part that is under way, or was the last.
    pub(super) part: u32,
    /// The last subscription that was looked at,
    after: i64,
    /// and how many were found so far.
    found: u32,
    /// Nobody is left whom nobody has looked at.
    over: bool,
    /// To be tried again.
    again: Vec<Again>,
    /// Settled.
    pub(super) told: Vec<Told>,
    /// The product is gone again.
    pub(super) sold_out: bool,
    /// When the first message was taken.
    pub(super) first_sent: Option<Timestamp>,
    /// The provider takes nothing.
    away: Option<Away>,
}

/// What became of somebody, for good.
pub(super) struct Settled {
    pub waiting: Waiting,
    pub interval: (Timestamp, Timestamp),
    pub result: Tell,
    /// Why it was not sent.
    pub why: String,
}

/// Somebody to be tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Again {
    waiting: Waiting,
    /// How often it was tried.
    tries: usize,
    due: Timestamp,
}

/// How long the provider has been away.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Away {
    since: Timestamp,
    /// How often in a row it was found away.
    times: u32,
    /// When it is asked again.
    until: Timestamp,
}

impl Telling {
    /// Nobody was told yet.
    pub(super) fn new(batch: &Batch, date: Timestamp) -> Self {
        Telling {
            date,
            part: 0,
            after: batch.after,
            found: 0,
            over: false,
            again: Vec::new(),
            told: Vec::new(),
            sold_out: false,
            first_sent: None,
            away: None,
        }
    }

    /// The next part, of at most so many people, and how long it has to wait; none where the batch is at its end.
    pub(super) fn next(&self, batch: &Batch, most: u32, now: Timestamp) -> Option<(Part, Duration)> {
        let (whom, due) = if !self.over {
            let most = most.min(batch.size - self.found);
            (Whom::Next { after: self.after, to: batch.to, most }, now)
        } else {
            let first = self.again.iter().map(|again| again.due).min()?;
            let together = self.again.iter().filter(|again| again.due <= first + TOGETHER);
            (Whom::Those(together.take(most as usize).map(|again| again.waiting.subscription_id).collect()), first)
        };
        let due = self.away.map_or(due, |away| due.max(away.until));
        let part = Part {
            batch_id: batch.batch_id.clone(),
            number: self.part,
            campaign_id: batch.campaign_id.clone(),
            product_id: batch.product_id.clone(),
            date: self.date,
            away: self.away.map_or(0, |away| away.times),
            whom,
        };
        Some((part, Duration::try_from(due.duration_since(now)).unwrap_or_default()))
    }

    /// The product is gone again: who was not told waits on.
    pub(super) fn sold_out(&mut self) {
        self.sold_out = true;
        self.over = true;
        self.again.clear();
    }

    /// Takes in what became of a part. Yields whom it settles.
    pub(super) fn took(
        &mut self,
        batch: &Batch,
        whom: &Whom,
        tried: &[Tried],
        closed: Option<Duration>,
        now: Timestamp,
    ) -> Vec<Settled> {
        let mut before = Vec::new();
        match whom {
            Whom::Next { most, .. } => self.looked(batch, *most, tried),
            Whom::Those(those) => {
                // Who has unsubscribed meanwhile was not tried and is not tried again.
                let again = std::mem::take(&mut self.again).into_iter();
                (before, self.again) = again.partition(|again| those.contains(&again.waiting.subscription_id));
            }
        }
        self.part += 1;
        self.away = closed.map(|wait| self.away(wait, now));
        let mut settled = Vec::new();
        for one in tried {
            let id = one.waiting.subscription_id;
            let tries = before.iter().find(|again| again.waiting.subscription_id == id).map_or(0, |again| again.tries);
            settled.extend(self.settle(one, tries, now));
        }
        if self.away.is_some_and(|away| now.duration_since(away.since) > PATIENCE) {
            settled.extend(self.give_up(now));
        }
        self.told.extend(settled.iter().map(|one| Told {
            subscription_id: one.waiting.subscription_id,
            user_id: one.waiting.user_id.clone(),
            result: one.result,
        }));
        settled
    }

    fn looked(&mut self, batch: &Batch, most: u32, tried: &[Tried]) {
        let found = u32::try_from(tried.len()).unwrap_or(u32::MAX);
        self.found = self.found.saturating_add(found);
        self.after = tried.last().map_or(self.after, |last| last.waiting.subscription_id);
        self.over = found < most || self.after >= batch.to || self.found >= batch.size;
    }

    /// Settles somebody, or lets them be tried again.
    fn settle(&mut self, one: &Tried, tries: usize, now: Timestamp) -> Option<Settled> {
        let (waiting, interval) = (one.waiting.clone(), one.interval);
        let (tries, wait) = match &one.became {
            Became::Told(result, why) => {
                if *result == Tell::Sent {
                    self.first_sent = Some(self.first_sent.map_or(interval.1, |first| first.min(interval.1)));
                }
                return Some(Settled { waiting, interval, result: *result, why: why.clone() });
            }
            Became::Untried => (tries, Duration::ZERO),
            Became::Later(after) => match RETRY.get(tries) {
                Some(wait) => (tries + 1, after.unwrap_or_default().min(LONGEST).max(*wait)),
                None => {
                    let why = "the provider has not taken it for too long".to_owned();
                    return Some(Settled { waiting, interval, result: Tell::Failed, why });
                }
            },
        };
        self.again.push(Again { waiting, tries, due: now + wait });
        None
    }

    fn away(&self, wait: Duration, now: Timestamp) -> Away {
        let (since, times) = self.away.map_or((now, 0), |away| (away.since, away.times));
        Away { since, times: times + 1, until: now + wait }
    }

    /// The provider has been away for too long. Who was never looked at is not told, and waits on.
    fn give_up(&mut self, now: Timestamp) -> impl Iterator<Item = Settled> + use<> {
        self.over = true;
        let left = std::mem::take(&mut self.again).into_iter();
        left.map(move |again| Settled {
            waiting: again.waiting,
            interval: (now, now),
            result: Tell::Failed,
            why: "the provider was away for too long".to_owned(),
        })
    }
}
