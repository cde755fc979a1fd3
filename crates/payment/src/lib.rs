//! What a saga needs of a payment provider: to charge, to refund, and to know what it does not know.
//!
//! - [`Charge`] and [`Refund`] carry an idempotency key. The provider does what it is asked once a key, so an answer
//!   that was lost is asked for again by repeating the call, same key and same content.
//! - An answer is closed: [`Charged`], [`Refunded`]. `Unknown` is one of them and means: money may have moved.
//! - [`Provider`] has one adapter, [`Stripe`], and one server to try it against, the [`simulator`].
//!
//! Nothing here repeats a call, logs or reads a clock: when to repeat is the saga's decision, and an
//! [`Attempted`] says what its span needs.

pub mod simulator;

mod settings;
mod stripe;

pub use settings::{Settings, SettingsError};
pub use stripe::Stripe;

use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::time::Duration;
use waybill_money::Money;

/// Takes the amount of an order from a customer.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Whose money it is; the provider keeps it beside the charge.
    pub order_id: String,
    /// How much.
    pub amount: Money,
    /// From where.
    pub method: PaymentMethod,
    /// One a charge: kept over repeats, new after a decline.
    pub idempotency_key: String,
}

/// Gives back a charge, or a part of it.
#[derive(Clone, Debug)]
pub struct Refund {
    /// Whose money it is.
    pub order_id: String,
    /// The charge, as [`Charged::Succeeded`] named it.
    pub charge_id: String,
    /// How much of it.
    pub amount: Money,
    /// One a refund, kept over repeats.
    pub idempotency_key: String,
}

/// The provider's token for a customer's card. Whoever holds it can charge the customer, so it is never printed.
#[derive(Clone)]
pub struct PaymentMethod(SecretString);

impl PaymentMethod {
    /// Takes a token.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        PaymentMethod(SecretString::from(token.into()))
    }

    /// The token itself, for a provider's request.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for PaymentMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentMethod(REDACTED)")
    }
}

/// The answer to a [`Charge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charged {
    /// The money is taken.
    Succeeded {
        /// What a [`Refund`] names.
        charge_id: String,
    },
    /// The bank does not pay. The same key gets the same answer again.
    Declined {
        /// The reason in the provider's words, `unknown` where none is given.
        code: String,
        /// The same card may pay when asked again, under a new key.
        soft: bool,
    },
    /// The provider will never take this request: ours to mend. It says nothing of earlier attempts under this key:
    /// if one of them ended in [`Charged::Unknown`], money may have moved all the same.
    Refused {
        /// The reason, without a secret.
        why: String,
    },
    /// Money may have moved. Repeating the call, same key and same content, finds out and charges at most once.
    Unknown {
        /// What happened, without a secret.
        why: String,
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
}

/// The answer to a [`Refund`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refunded {
    /// The provider gives the money back, or has done so before.
    Succeeded {
        /// The provider's name for the refund; none where it says that nothing is left to refund.
        refund_id: Option<String>,
    },
    /// The provider will never take this request: for a person to look at. As with [`Charged::Refused`], it says
    /// nothing of earlier attempts.
    Refused {
        /// The reason, without a secret.
        why: String,
    },
    /// The money may be on its way. Repeating the call, same key and same content, finds out.
    Unknown {
        /// What happened, without a secret.
        why: String,
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
}

/// An answer, and how it was come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted<A> {
    /// The answer.
    pub answer: A,
    /// The call; none where the request was refused before anything was sent.
    pub call: Option<Call>,
}

/// An HTTP call, for its span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `http.request.method`.
    pub method: &'static str,
    /// `url.full`; holds no secret.
    pub url: String,
    /// `server.address`.
    pub server_address: String,
    /// `server.port`.
    pub server_port: u16,
    /// `http.response.status_code`; none where no answer came.
    pub status: Option<u16>,
    /// From before the connection to the end of the answer.
    pub latency: Duration,
}

/// A payment provider. Every failure is an answer, so nothing here returns an error.
///
/// A future that is dropped on the way leaves what an `Unknown` leaves.
pub trait Provider {
    /// Charges, at most once a key.
    fn charge(&self, charge: &Charge) -> impl Future<Output = Attempted<Charged>> + Send;

    /// Refunds, at most once a key and never more than was charged.
    fn refund(&self, refund: &Refund) -> impl Future<Output = Attempted<Refunded>> + Send;
}
