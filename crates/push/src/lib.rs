//! A push message and the two ways it goes: web push (RFC 8030, 8291, 8292) and Firebase Cloud Messaging.
//!
//! - [`Push`] sends a [`Message`] to a [`Target`]. The answer is closed: [`Answer`]. `Unknown` is one of them and means:
//!   the message may be on its way. Neither way knows an idempotency key, so a repeat may show it twice; the same
//!   [`Message::topic`] makes the second replace the first.
//! - An endpoint is a URL that a stranger gave us. [`Endpoints`] says which are called: the gateway asks it when
//!   somebody subscribes, and every sending asks it again.
//! - A [`Target`] names a device, so it is never printed, and no answer repeats what a server said in its own words.
//!
//! Nothing here repeats a sending or logs: when to repeat is the caller's decision, and an [`Attempted`] says what its
//! span needs. (Within one sending, an access token that FCM takes no more is renewed once.)

mod address;
mod endpoints;
mod fcm;
mod http;
mod jwt;
mod message;
mod settings;
mod target;
mod vapid;
mod web;

pub use endpoints::{EndpointError, Endpoints};
pub use message::{Message, Urgency};
pub use settings::{Settings, SettingsError};
pub use target::{FcmToken, Subscription, Target, TargetError};
pub use vapid::{VapidKey, VapidKeyError};

use fcm::Fcm;
use http::Sending;
use std::time::Duration;
use web::WebPush;

/// The wall clock: of signatures' validity and of nothing else.
pub type Clock = fn() -> jiff::Timestamp;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The push service has it.
    Sent,
    /// The target will never be reached again: it is to be forgotten.
    Gone,
    /// Nothing was delivered; the same again may be, later.
    Later {
        /// What happened, without a secret.
        why: String,
        /// How long the service asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The same again would be refused again.
    Refused {
        /// What is to be mended.
        fault: Fault,
        /// The reason, without a secret.
        why: String,
    },
    /// The request was sent and no answer came: the message may be on its way.
    Unknown {
        /// What happened, without a secret.
        why: String,
    },
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The message: other targets would refuse it, too.
    Message,
    /// The target: other targets may well take the message.
    Target,
    /// Our keys and settings: nothing gets through until they are mended.
    Setup,
}

/// An answer, and how it was come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// The answer.
    pub answer: Answer,
    /// The last call; none where the message was refused before anything was sent.
    pub call: Option<Call>,
}

/// An HTTP call (`POST`), for its span. It has no URL: an endpoint's path is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `server.address`.
    pub server_address: String,
    /// `server.port`.
    pub server_port: u16,
    /// `http.response.status_code`; none where no answer came.
    pub status: Option<u16>,
    /// From before the connection to the end of the answer.
    pub latency: Duration,
}

/// The ways that are set up.
#[derive(Debug)]
pub struct Push {
    web: Option<WebPush>,
    fcm: Option<Fcm>,
    timeout: Duration,
}

impl Push {
    /// Makes the clients; nothing is called yet.
    ///
    /// # Errors
    /// A setting does not work, or neither way is set up.
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self, SettingsError> {
        let web = WebPush::new(settings, clock)?;
        let fcm = Fcm::new(settings, clock)?;
        if web.is_none() && fcm.is_none() {
            return Err(SettingsError::Nothing);
        }
        Ok(Push { web, fcm, timeout: settings.checked_timeout()? })
    }

    /// Sends a message. It takes `timeout` at most, whatever it comes to.
    ///
    /// A future that is dropped on the way leaves what an [`Answer::Unknown`] leaves.
    pub async fn send(&self, target: &Target, message: &Message) -> Attempted {
        let sending = match Sending::new(message, self.timeout) {
            Ok(sending) => sending,
            Err(why) => return refused(Fault::Message, why),
        };
        match (target, &self.web, &self.fcm) {
            (Target::Web(subscription), Some(web), _) => web.send(subscription, &sending).await,
            (Target::Fcm(token), _, Some(fcm)) => fcm.send(token, &sending).await,
            (Target::Web(_), None, _) => refused(Fault::Setup, "web push is not set up: see push.vapidkey"),
            (Target::Fcm(_), _, None) => refused(Fault::Setup, "FCM is not set up: see push.fcmkeyfile"),
        }
    }
}

/// Refused before anything was sent.
fn refused(fault: Fault, why: impl Into<String>) -> Attempted {
    Attempted { answer: Answer::Refused { fault, why: why.into() }, call: None }
}
