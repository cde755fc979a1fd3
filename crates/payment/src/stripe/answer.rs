//! What Stripe's answers mean: <https://docs.stripe.com/api/errors>, <https://docs.stripe.com/error-low-level>.
//!
//! Two rules decide the doubtful cases. What did not demonstrably come from Stripe is unknown: a proxy's 404 or a
//! cut-off body says nothing of the money. And Stripe's message is never passed on: it may quote the payment method or
//! a part of the key; type, code and parameter say as much to us.

use crate::{Charged, Refunded};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The declines after which Stripe advises to try the same card again: <https://docs.stripe.com/declines/codes>.
const SOFT: [&str; 5] =
    ["approve_with_id", "issuer_not_available", "processing_error", "reenter_transaction", "try_again_later"];

/// What is known after a call.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An answer came.
    Answer { status: u16, retry_after: Option<Duration>, body: Body },
    /// None came; why.
    Lost(String),
    /// The request could not even be written; why.
    Unsendable(String),
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Whole(Vec<u8>),
    /// Longer than we care to read.
    TooLong,
    /// The connection ended before it did; why.
    Cut(String),
}

/// What a call of either kind ends in where it does not succeed.
enum Failure {
    /// A card error, with its decline code.
    Declined(String),
    /// Nothing is left to refund.
    AlreadyRefunded,
    Refused(String),
    Unknown(String, Option<Duration>),
}

#[derive(Deserialize)]
struct PaymentIntent {
    id: String,
    status: String,
    last_payment_error: Option<StripeError>,
}

#[derive(Deserialize)]
struct StripeRefund {
    id: String,
    status: Option<String>,
}

#[derive(Deserialize)]
struct Enveloped {
    error: StripeError,
}

#[derive(Deserialize)]
struct StripeError {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
    param: Option<String>,
}

pub(crate) fn charged(reply: Reply) -> Charged {
    match read::<PaymentIntent>(reply) {
        Ok(intent) => intended(intent),
        Err(Failure::Declined(code)) => declined(code),
        Err(Failure::AlreadyRefunded) => Charged::Refused { why: "charge_already_refunded".to_owned() },
        Err(Failure::Refused(why)) => Charged::Refused { why },
        Err(Failure::Unknown(why, retry_after)) => Charged::Unknown { why, retry_after },
    }
}

pub(crate) fn refunded(reply: Reply) -> Refunded {
    match read::<StripeRefund>(reply) {
        Ok(refund) => match refund.status.as_deref() {
            // A pending refund is Stripe's to finish. Refunds of old have no status.
            Some("succeeded" | "pending") | None => Refunded::Succeeded { refund_id: Some(refund.id) },
            Some(other) => Refunded::Refused { why: format!("the refund is {}", word(other)) },
        },
        Err(Failure::AlreadyRefunded) => Refunded::Succeeded { refund_id: None },
        Err(Failure::Declined(why) | Failure::Refused(why)) => Refunded::Refused { why },
        Err(Failure::Unknown(why, retry_after)) => Refunded::Unknown { why, retry_after },
    }
}

/// A payment intent's statuses: <https://docs.stripe.com/payments/paymentintents/lifecycle>.
fn intended(intent: PaymentIntent) -> Charged {
    match intent.status.as_str() {
        "succeeded" => Charged::Succeeded { charge_id: intent.id },
        // The customer would have to act, and is not here.
        "requires_action" | "requires_confirmation" | "requires_source_action" => {
            declined("authentication_required".to_owned())
        }
        "requires_payment_method" | "canceled" => {
            declined(intent.last_payment_error.map_or_else(unknown, |error| decline_code(&error)))
        }
        other => Charged::Unknown { why: format!("the payment intent is {}", word(other)), retry_after: None },
    }
}

fn declined(code: String) -> Charged {
    let soft = SOFT.contains(&code.as_str());
    Charged::Declined { code, soft }
}

fn read<T: DeserializeOwned>(reply: Reply) -> Result<T, Failure> {
    let (status, retry_after, body) = match reply {
        Reply::Answer { status, retry_after, body } => (status, retry_after, body),
        Reply::Lost(why) => return Err(Failure::Unknown(why, None)),
        Reply::Unsendable(why) => return Err(Failure::Refused(why)),
    };
    let unknown = |why: &str| Err(Failure::Unknown(format!("{status}: {why}"), retry_after));
    let body = match body {
        Body::Whole(body) => body,
        Body::TooLong => return unknown("the answer is too long"),
        Body::Cut(why) => return unknown(&format!("the answer ends early: {why}")),
    };
    if (200..300).contains(&status) {
        return serde_json::from_slice(&body).or_else(|_| unknown("the answer cannot be read"));
    }
    match serde_json::from_slice::<Enveloped>(&body) {
        Ok(Enveloped { error }) => Err(failure(status, &error, retry_after)),
        Err(_) => unknown("no answer of Stripe's: is the url right?"),
    }
}

fn failure(status: u16, error: &StripeError, retry_after: Option<Duration>) -> Failure {
    let what = describe(status, error);
    match status {
        // Checked before the idempotency key is: it says nothing of an earlier attempt.
        401 | 403 => Failure::Refused(format!("{what}: check the key")),
        // 408: a timeout in between. 409: another call with this key is still running. 424: a dependency of Stripe's.
        408 | 409 | 424 | 429 => Failure::Unknown(what, retry_after),
        400..500 if error.kind == "card_error" => Failure::Declined(decline_code(error)),
        400..500 if error.code.as_deref() == Some("charge_already_refunded") => Failure::AlreadyRefunded,
        400..500 => Failure::Refused(what),
        _ => Failure::Unknown(what, retry_after),
    }
}

fn decline_code(error: &StripeError) -> String {
    let code = error.decline_code.as_deref().or(error.code.as_deref());
    code.map_or_else(unknown, word)
}

fn describe(status: u16, error: &StripeError) -> String {
    let mut what = format!("{status} {}", word(&error.kind));
    if let Some(code) = &error.code {
        what = format!("{what}, {}", word(code));
    }
    if let Some(param) = &error.param {
        what = format!("{what}, parameter {}", word(param));
    }
    what
}

/// A word of Stripe's vocabulary; anything else is not repeated.
fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_[]".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) { text.to_owned() } else { unknown() }
}

fn unknown() -> String {
    "unknown".to_owned()
}
