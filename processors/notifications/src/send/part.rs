//! One call: a part of a batch, twenty people or, where many messages a second go out, up to a hundred.
//!
//! The order is what keeps anybody from being told twice, and the rate from being exceeded:
//! 1. slots of the lane are taken and waited for;
//! 2. one transaction reads the stock and the people, and keeps that these may be told from now on;
//! 3. each message goes out in its slot.
//!
//! A process that dies after 2 leaves what it kept. Whoever makes the call again finds it and sends nothing: those people
//! are `unknown`. Where nothing was kept, nothing was sent.

use super::Verdict;
use super::outlet::{Outlet, Provider, Slots};
use super::people::{self, Begin, Person, Product, Reach, Waiting};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use waybill_events::Tell;
use waybill_spine::{Call, system_clock};
use waybill_store::{Store, StoreError};

/// When a call has to be over: its record is leased for half a minute.
pub(super) const CUTOFF: Duration = Duration::from_secs(25);
/// How long to wait where the database does not answer.
pub(super) const DATABASE_AWAY: Duration = Duration::from_secs(1);
/// First and longest time that a lane is closed, where the provider does not ask for more; it doubles in between.
const CLOSED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// So many messages that a push service takes none of are no chance.
const CROWD: usize = 5;

/// Some people of a batch, to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The batch,
    pub(super) batch_id: String,
    /// and the number of this part of it: one number, one try.
    pub(super) number: u32,
    pub(super) campaign_id: String,
    pub(super) product_id: String,
    /// What a mail's date is.
    pub(super) date: Timestamp,
    /// How often the provider was away in a row.
    pub(super) away: u32,
    pub(super) whom: Whom,
}

/// Which people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Whom {
    /// The next ones: subscriptions after `after` up to `to`.
    Next { after: i64, to: i64, most: u32 },
    /// These subscriptions, again.
    Those(Vec<i64>),
}

/// What a message says.
pub(super) struct Notice {
    pub campaign_id: String,
    pub product_id: String,
    pub product: Product,
    pub date: Timestamp,
}

/// What a part came to.
pub struct PartAnswer {
    pub(super) part: Part,
    pub(super) came: Came,
}

/// What a part came to.
pub(super) enum Came {
    /// Nothing has begun: the same again after this wait.
    NotYet(Duration),
    /// Nothing is left to tell of.
    SoldOut,
    /// Each was tried; where the provider takes nothing now, for how long nothing is sent.
    Tried(Vec<Tried>, Option<Duration>),
}

/// What became of one person.
pub(super) struct Tried {
    pub waiting: Waiting,
    pub interval: (Timestamp, Timestamp),
    pub became: Became,
    /// Where nobody is any more.
    pub dead: Vec<Reach>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Became {
    /// Settled, and why where it was not sent.
    Told(Tell, String),
    /// Not sent: it may go later.
    Later(Option<Duration>),
    /// Not sent, for a reason that is not this person's.
    Untried,
}

/// A message that was handed to the provider.
type Sent = (Timestamp, Timestamp, Verdict);

impl Call for Part {
    type Means = Outlet;
    type Answer = PartAnswer;

    async fn make(self, outlet: Outlet, _: bool) -> PartAnswer {
        let cutoff = Instant::now() + CUTOFF;
        let Some(_turn) = outlet.turn().await else {
            return PartAnswer { part: self, came: Came::NotYet(Duration::ZERO) };
        };
        let mut store = outlet.connect();
        let came = match self.tell(&outlet, &mut store, cutoff).await {
            Ok(came) => {
                outlet.give_back(store);
                came
            }
            Err(error) => {
                tracing::warn!(%error, "people cannot be looked up; they are told later");
                Came::NotYet(DATABASE_AWAY)
            }
        };
        PartAnswer { part: self, came }
    }
}

impl Part {
    async fn tell(&self, outlet: &Outlet, store: &mut Store, cutoff: Instant) -> Result<Came, StoreError> {
        let most = match &self.whom {
            Whom::Next { most, .. } => *most,
            Whom::Those(those) => u32::try_from(those.len()).unwrap_or(u32::MAX),
        };
        let slots = match outlet.slots(store, most).await? {
            Ok(slots) => slots,
            Err(wait) => return Ok(Came::NotYet(wait.min(CLOSED.1))),
        };
        sleep_until(slots.nth(0)).await;
        let channel = match outlet.provider() {
            Provider::Mail(_) => "email",
            Provider::Push(_) => "push",
        };
        let (product, people) = match people::begin(store, channel, self).await? {
            Begin::SoldOut => return Ok(Came::SoldOut),
            Begin::Begun(people) => return Ok(Came::Tried(people.into_iter().map(forgotten).collect(), None)),
            Begin::Now(product, people) => (product, people),
        };
        let times = times(outlet, store, &people, (slots, most as usize)).await;
        let Part { campaign_id, product_id, date, .. } = self.clone();
        let notice = Arc::new(Notice { campaign_id, product_id, product, date });
        let sent = send(outlet, &notice, &people, times, cutoff).await;
        let closed = closed(&sent, channel, self.away);
        if let Some(wait) = closed {
            outlet.close(store, wait, why_closed(&sent)).await;
        }
        let tried = people.into_iter().zip(sent).map(|(person, sent)| tried(person, sent, closed.is_some()));
        Ok(Came::Tried(tried.collect(), closed))
    }
}

/// When each message of each person goes; none where there is no slot for it. Slots were taken for one message a person:
/// who has several devices needs more.
async fn times(
    outlet: &Outlet,
    store: &mut Store,
    people: &[Person],
    (slots, taken): (Slots, usize),
) -> Vec<Vec<Option<Instant>>> {
    let messages: usize = people.iter().map(|person| person.reaches.len()).sum();
    let missing = u32::try_from(messages.saturating_sub(taken)).unwrap_or(u32::MAX);
    let more = if missing == 0 { None } else { outlet.slots(store, missing).await.ok().and_then(Result::ok) };
    let mut next = 0..;
    let mut slot = || {
        let index = next.next().unwrap_or(usize::MAX);
        if index < taken { Some(slots.nth(index)) } else { more.map(|more| more.nth(index - taken)) }
    };
    let mut times: Vec<Vec<Option<Instant>>> = people.iter().map(|_| Vec::new()).collect();
    // Everybody's first device before anybody's second.
    for round in 0..people.iter().map(|person| person.reaches.len()).max().unwrap_or(0) {
        for (times, _) in times.iter_mut().zip(people).filter(|(_, person)| person.reaches.len() > round) {
            times.push(slot());
        }
    }
    times
}

/// Sends all messages, each at its time; none of a message that was not handed over.
async fn send(
    outlet: &Outlet,
    notice: &Arc<Notice>,
    people: &[Person],
    times: Vec<Vec<Option<Instant>>>,
    cutoff: Instant,
) -> Vec<Vec<Option<Sent>>> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for (person, times) in people.iter().zip(times) {
        let messages = person.reaches.iter().zip(times).map(|(reach, at)| {
            let (outlet, notice, stop) = (outlet.clone(), notice.clone(), stop.clone());
            let (id, reach) = (person.waiting.subscription_id, reach.clone());
            tokio::spawn(async move {
                sleep_until(at?).await;
                let _leave = outlet.leave(cutoff).await?;
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let began = system_clock();
                let verdict = outlet.tell(&notice, id, &reach, cutoff).await;
                stop.fetch_or(matches!(verdict, Verdict::Closed { .. }), Ordering::Relaxed);
                Some((began, system_clock(), verdict))
            })
        });
        tasks.push(messages.collect::<Vec<_>>());
    }
    let mut sent = Vec::with_capacity(tasks.len());
    for of_person in tasks {
        let mut messages = Vec::with_capacity(of_person.len());
        for task in of_person {
            let broken = |error: tokio::task::JoinError| {
                let now = system_clock();
                Some((now, now, Verdict::Unknown(format!("the sending broke off: {error}"))))
            };
            messages.push(task.await.unwrap_or_else(broken));
        }
        sent.push(messages);
    }
    sent
}

/// How long the lane is to be closed, if the provider takes nothing now. A mail server says so; of a push service it shows
/// where it takes none of many.
fn closed(sent: &[Vec<Option<Sent>>], channel: &str, away: u32) -> Option<Duration> {
    let verdicts = || sent.iter().flatten().flatten().map(|(_, _, verdict)| verdict);
    let asked = verdicts().filter_map(|verdict| match verdict {
        Verdict::Closed { wait, .. } => Some(*wait),
        Verdict::Sent | Verdict::Unknown(_) | Verdict::Later { .. } | Verdict::Refused(_) | Verdict::Dead(_) => None,
    });
    let asked = asked.max().or_else(|| {
        let later = verdicts().map(|verdict| match verdict {
            Verdict::Later { after, .. } => Some(after.unwrap_or_default()),
            Verdict::Sent | Verdict::Unknown(_) | Verdict::Closed { .. } | Verdict::Refused(_) | Verdict::Dead(_) => {
                None
            }
        });
        let later: Option<Vec<Duration>> = later.collect();
        later.filter(|later| channel == "push" && later.len() >= CROWD)?.into_iter().max()
    })?;
    Some(asked.max(lane_closed(away)))
}

/// What the first of them was told that was not let out. Reasons hold no address.
fn why_closed(sent: &[Vec<Option<Sent>>]) -> &str {
    let mut reasons = sent.iter().flatten().flatten().filter_map(|(_, _, verdict)| match verdict {
        Verdict::Closed { why, .. } | Verdict::Later { why, .. } => Some(&**why),
        Verdict::Sent | Verdict::Unknown(_) | Verdict::Refused(_) | Verdict::Dead(_) => None,
    });
    reasons.next().unwrap_or_default()
}

/// How long a lane is closed whose provider has been away so many times in a row.
pub(super) fn lane_closed(away: u32) -> Duration {
    CLOSED.0.saturating_mul(1 << away.min(8)).min(CLOSED.1)
}

/// Somebody whom another process may have told.
fn forgotten(waiting: Waiting) -> Tried {
    let now = system_clock();
    let became = Became::Told(Tell::Unknown, "whoever sent it is gone".to_owned());
    Tried { waiting, interval: (now, now), became, dead: Vec::new() }
}

fn tried(person: Person, sent: Vec<Option<Sent>>, closed: bool) -> Tried {
    let now = system_clock();
    let began = sent.iter().flatten().map(|(began, ..)| *began).min().unwrap_or(now);
    let ended = sent.iter().flatten().map(|(_, ended, _)| *ended).max().unwrap_or(now);
    let verdicts: Vec<Option<Verdict>> = sent.into_iter().map(|sent| sent.map(|(_, _, verdict)| verdict)).collect();
    let became = match became(&verdicts) {
        Became::Later(_) if closed => Became::Untried,
        other => other,
    };
    let reaches = person.reaches.into_iter().zip(&verdicts);
    let dead = reaches.filter(|(_, verdict)| matches!(verdict, Some(Verdict::Dead(_)))).map(|(reach, _)| reach);
    Tried { waiting: person.waiting, interval: (began, ended), became, dead: dead.collect() }
}

/// What becomes of somebody of whose messages this became: told by any is told, and may have been told is not told again.
fn became(verdicts: &[Option<Verdict>]) -> Became {
    let rank = |verdict: &Option<Verdict>| match verdict {
        Some(Verdict::Sent) => (5, Became::Told(Tell::Sent, String::new())),
        Some(Verdict::Unknown(why)) => (4, Became::Told(Tell::Unknown, why.clone())),
        Some(Verdict::Later { after, .. }) => (3, Became::Later(*after)),
        Some(Verdict::Closed { .. }) | None => (2, Became::Untried),
        Some(Verdict::Refused(why)) => (1, Became::Told(Tell::Failed, why.clone())),
        Some(Verdict::Dead(why)) => (0, Became::Told(Tell::Unreachable, why.clone())),
    };
    let best = verdicts.iter().map(rank).max_by_key(|(rank, _)| *rank);
    let nowhere = || Became::Told(Tell::Unreachable, "there is nowhere to tell them".to_owned());
    best.map_or_else(nowhere, |(_, became)| became)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(seconds: u64) -> Verdict {
        Verdict::Later { why: String::new(), after: Some(Duration::from_secs(seconds)) }
    }

    #[test]
    fn who_was_told_by_one_device_is_told_and_who_may_have_been_is_not_tried_again() {
        let told = |tell: Tell| Became::Told(tell, String::new());
        let (unknown, dead) = (Verdict::Unknown(String::new()), Verdict::Dead(String::new()));
        let refused = Verdict::Refused(String::new());
        for (verdicts, expected) in [
            (vec![Some(dead.clone()), Some(Verdict::Sent), Some(unknown.clone())], told(Tell::Sent)),
            (vec![Some(unknown), Some(later(1)), None], told(Tell::Unknown)),
            (vec![Some(later(1)), Some(refused.clone())], Became::Later(Some(Duration::from_secs(1)))),
            (vec![None, Some(refused.clone())], Became::Untried),
            (vec![Some(refused), Some(dead.clone())], told(Tell::Failed)),
            (vec![Some(dead.clone()), Some(dead)], told(Tell::Unreachable)),
        ] {
            assert_eq!(became(&verdicts), expected, "{verdicts:?}");
        }
        assert!(matches!(became(&[]), Became::Told(Tell::Unreachable, _)));
    }

    #[test]
    fn a_lane_is_closed_by_a_word_of_the_mail_server_and_by_a_crowd_that_no_push_service_takes() {
        let sent = |verdict: Verdict| vec![Some((Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, verdict))];
        let crowd = || vec![sent(later(40)), sent(later(2)), sent(later(2)), sent(later(2)), sent(later(2))];
        assert_eq!(closed(&crowd(), "push", 0), Some(Duration::from_secs(40)));
        assert_eq!(closed(&crowd(), "email", 0), None, "each mail may have its own reason");
        assert_eq!(closed(&crowd()[1..], "push", 0), None, "four may be chance");
        assert_eq!(closed(&[crowd(), vec![sent(Verdict::Sent)]].concat(), "push", 0), None);
        let slow = || sent(Verdict::Closed { why: String::new(), wait: Duration::from_secs(20) });
        assert_eq!(closed(&[sent(Verdict::Sent), slow()], "email", 0), Some(Duration::from_secs(20)));
        assert_eq!(closed(&[slow()], "email", 2), Some(Duration::from_secs(40)), "away for the third time");
        assert_eq!(lane_closed(99), CLOSED.1);
    }
}
