//! The senders: [`Tell`] tells the people of a batch, by mail or by push message; [`OrderMail`] writes to whoever ordered.
//!
//! What always holds:
//! - *Nobody is told twice of one restock.* That the sending of a part begins is kept before its first message; whoever
//!   finds it kept by another sends nothing, and its people are `unknown`. See [`Part`].
//! - *Whoever was not told stays subscribed.* Only what the provider took is told as `sent`, and only `sent` and
//!   `unreachable` end a subscription.
//! - *A lane's rate holds over all processes.* A message goes out in a slot of its lane, which the database grants.
//! - *Orders do not wait behind a campaign.* Their mails have a stage, a lane and connections of their own.

#[cfg(test)]
mod decisions;
mod email;
mod lane;
mod marks;
mod measures;
mod orders;
mod orders_rows;
mod outlet;
mod part;
mod people;
mod push;
mod settings;
mod spans;
mod stage;
mod telling;
#[cfg(test)]
mod tries;

pub use email::{Mailer, MailerError};
pub use orders::{OrderEvent, OrderLetter, OrderMail, OrderMailed};
pub use outlet::Outlet;
pub use part::Part;
pub use settings::{Rates, SettingsError, Shop};
pub use stage::{Email, Push, Tell};
pub use telling::Telling;

use std::time::Duration;

/// What became of messages is settled a few times a tenth of a second: nobody waits for it.
const GATHER: Duration = Duration::from_millis(20);

/// What became of one message. No text has an address, a token or a name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The provider has it.
    Sent,
    /// The provider may have it.
    Unknown(String),
    /// Not sent; it may go later.
    Later {
        /// What happened.
        why: String,
        /// How long the provider asks to wait.
        after: Option<Duration>,
    },
    /// Not sent, and nobody else's message would go now.
    Closed {
        /// What happened.
        why: String,
        /// How long to send nothing.
        wait: Duration,
    },
    /// The provider will not take it.
    Refused(String),
    /// Nobody is there: it is not to be tried again.
    Dead(String),
}
