//! SMTP to one server, over a few connections that are kept (RFC 5321).
//!
//! The library's own pool tells neither how far a mail came before its connection broke, nor does it limit how long a
//! server may take. Both decide here what the answer is, so the steps are driven one by one.

mod answer;
mod session;
mod stream;
mod tls;

pub use answer::{Answer, Reply};

use crate::message::Message;
use crate::settings::{Settings, SettingsError};
use answer::{Failed, Fault, Step};
use session::{Dialer, Session};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Servers close a connection that is idle after some minutes, some after one; firewalls forget it without a word.
const IDLE: Duration = Duration::from_secs(30);

/// Sends mails through one server.
pub struct Smtp {
    dialer: Dialer,
    idle: Mutex<Vec<(Session, Instant)>>,
    connections: Semaphore,
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
        let connections = Semaphore::new(settings.connections);
        Ok(Smtp { dialer: Dialer::new(settings)?, idle: Mutex::default(), connections })
    }

    /// Sends a mail, once. Every failure is an answer, so this returns no error. It waits for one of the `connections`.
    ///
    /// A future that is dropped on the way leaves what an `Unknown` leaves.
    pub async fn send(&self, message: &Message) -> Answer {
        // It is never closed, so there is always a permit, and it is held to the end.
        let _permit = self.connections.acquire().await;
        if let Some(mut session) = self.kept() {
            let outcome = session.deliver(message).await;
            if !outcome.as_ref().is_err_and(is_stale) {
                return self.settle(session, outcome).await;
            }
        }
        match self.dialer.open().await {
            Ok(mut session) => {
                let outcome = session.deliver(message).await;
                self.settle(session, outcome).await
            }
            Err(failed) => failed.answer(),
        }
    }

    /// Says goodbye to the server on all connections that are not in use.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for (session, _) in idle {
            session.quit().await;
        }
    }

    /// The one used last, so that a few stay warm; the others grow old.
    fn kept(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(session, _)| session)
    }

    /// Keeps the session where it is still good.
    async fn settle(&self, mut session: Session, outcome: Result<Reply, Failed>) -> Answer {
        let good = match &outcome {
            Ok(_) => true,
            Err(Failed { fault: Fault::Reply(reply, _), .. }) => reply.code != 421 && session.reset().await,
            Err(Failed { fault: Fault::Silence(_), .. }) => false,
        };
        if good {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((session, Instant::now()));
        }
        outcome.map_or_else(Failed::answer, |reply| Answer::Sent { reply })
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
