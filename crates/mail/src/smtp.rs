//! SMTP to one server, over a few connections that are kept (RFC 5321).
//!
//! The library's own pool tells neither how far a mail came before its connection broke, nor does it limit how long a
//! server may take. Both decide here what the answer is, so the steps are driven one by one.
//!
//! Where the server allows it (RFC 2920), a mail takes one packet: its text goes with the envelope of the next one.

mod answer;
mod session;
mod stream;
mod tls;

pub use answer::{Answer, Reply};

use crate::message::Message;
use crate::settings::{Settings, SettingsError};
use answer::{Failed, Fault, Step};
use session::{Dialer, Session};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Servers close a connection that is idle after some minutes, some after one; firewalls forget it without a word.
const IDLE: Duration = Duration::from_secs(30);

/// Sends mails through one server.
pub struct Smtp(Arc<Sender>);

struct Sender {
    dialer: Dialer,
    connections: usize,
    desk: Mutex<Desk>,
}

/// What waits, and who works on it: a task for each connection in use, which ends when nothing waits.
#[derive(Default)]
struct Desk {
    waiting: VecDeque<Job>,
    next: u64,
    tasks: usize,
    idle: Vec<(Session, Instant)>,
}

struct Job {
    number: u64,
    message: Message,
    answer: oneshot::Sender<Answer>,
}

impl Smtp {
    /// Reads the settings; nothing is connected yet.
    ///
    /// # Errors
    /// A setting does not work.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        if !(1..=1000).contains(&settings.connections) {
            return Err(SettingsError::Connections);
        }
        let dialer = Dialer::new(settings)?;
        Ok(Smtp(Arc::new(Sender { dialer, connections: settings.connections, desk: Mutex::default() })))
    }

    /// Sends a mail, once. Every failure is an answer, so this returns no error. It waits for one of the `connections`; where
    /// none is free until `until`, it is not sent.
    ///
    /// A future that is dropped on the way leaves what an `Unknown` leaves.
    pub async fn send(&self, message: Message, until: Instant) -> Answer {
        let (answer, mut answered) = oneshot::channel();
        let number = self.0.take(message, answer);
        match timeout_at(until, &mut answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::Unknown { why: "the sending broke off".to_owned() },
            Err(_) if self.0.withdraw(number) => {
                Answer::Later { why: "no connection was free in time".to_owned(), retry_after: None }
            }
            Err(_) => Answer::Unknown { why: "no answer in time".to_owned() },
        }
    }

    /// Says goodbye to the server on all connections that are not in use.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut self.0.desk().idle);
        for (session, _) in idle {
            session.quit().await;
        }
    }
}

impl Sender {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a mail wait, and sees to it that somebody comes for it.
    fn take(self: &Arc<Self>, message: Message, answer: oneshot::Sender<Answer>) -> u64 {
        let mut desk = self.desk();
        let number = desk.next;
        desk.next += 1;
        desk.waiting.push_back(Job { number, message, answer });
        if desk.tasks < self.connections {
            desk.tasks += 1;
            tokio::spawn(self.clone().work());
        }
        number
    }

    /// Whether this mail waited still; it does no more.
    fn withdraw(&self, number: u64) -> bool {
        let mut desk = self.desk();
        let place = desk.waiting.iter().position(|job| job.number == number);
        place.and_then(|place| desk.waiting.remove(place)).is_some()
    }

    /// Sends what waits, over one connection.
    async fn work(self: Arc<Self>) {
        let (mut session, mut next) = (self.kept(), None);
        while let Some(job) = next.take().or_else(|| self.next(&mut session)) {
            let (answer, ahead) = self.deliver(&mut session, &job.message).await;
            next = ahead;
            // Named, but nobody waits for it any more: the server is not told the rest.
            if next.as_ref().is_some_and(|job| job.answer.is_closed()) {
                (session, next) = (None, None);
            }
            // Whoever asked may have gone.
            job.answer.send(answer).ok();
        }
    }

    /// The connection used last, so that a few stay warm; the others grow old.
    fn kept(&self) -> Option<Session> {
        let mut desk = self.desk();
        desk.idle.retain(|(_, since)| since.elapsed() < IDLE);
        desk.idle.pop().map(|(session, _)| session)
    }

    /// The mail that has waited longest. Where none waits the task is over, and its session is kept.
    fn next(&self, session: &mut Option<Session>) -> Option<Job> {
        let mut desk = self.desk();
        let job = desk.waiting.pop_front();
        if job.is_none() {
            desk.tasks -= 1;
            desk.idle.extend(session.take().map(|session| (session, Instant::now())));
        }
        job
    }

    /// Sends a mail, and the envelope of the next one with its text. Leaves the session where it is still good.
    async fn deliver(&self, home: &mut Option<Session>, message: &Message) -> (Answer, Option<Job>) {
        let kept = match home.take() {
            Some(mut session) => {
                let named = session.envelope(message).await;
                Some((session, named)).filter(|(_, named)| !named.as_ref().is_err_and(is_stale))
            }
            None => None,
        };
        let (mut session, named) = match kept {
            Some(kept) => kept,
            None => match self.dialer.open().await {
                Ok(mut session) => {
                    let named = session.envelope(message).await;
                    (session, named)
                }
                Err(failed) => return (failed.answer(), None),
            },
        };
        let mut ahead = None;
        let outcome = match named {
            Ok(()) => {
                ahead = if session.pipelines() { self.desk().waiting.pop_front() } else { None };
                session.text(&message.text, ahead.as_ref().map(|job| &job.message)).await
            }
            Err(failed) => Err(failed),
        };
        let good = match &outcome {
            Ok(_) => true,
            Err(Failed { fault: Fault::Reply(reply, _), step }) => {
                // A reply to the final dot ends the mail, and the next one is named by then.
                reply.code != 421 && (*step == Step::End || session.reset().await)
            }
            Err(Failed { fault: Fault::Silence(_), .. }) => false,
        };
        *home = Some(session).filter(|_| good);
        (outcome.map_or_else(Failed::answer, |reply| Answer::Sent { reply }), ahead)
    }
}

/// A kept connection may have been closed meanwhile, or have had all the mails that the server allows it: what comes of the
/// first command is no word about the mail, which is sent on a new connection.
fn is_stale(failed: &Failed) -> bool {
    failed.step == Step::Mail
        && match &failed.fault {
            Fault::Reply(reply, _) => reply.code < 500,
            Fault::Silence(_) => true,
        }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").finish_non_exhaustive()
    }
}
