//! After the checkout: money back for what the warehouse could not find. The stock itself is the inventory's to correct.

use crate::payment::{Answered, Payment, PaymentAnswer, RefundReason};
use crate::saga::{Awaits, Saga, Status};
use crate::spans;
use crate::stage::{Said, next_try};
use jiff::Timestamp;
use std::time::Duration;
use waybill_events::OrderShort;
use waybill_money::Money;
use waybill_payment::Refunded;
use waybill_spine::{Decision, Details, Outcome, Refusal};

/// An order came short: what is missing is paid back, once.
pub(crate) fn short(saga: Option<&Saga>, short: &OrderShort) -> Said {
    let Some(saga) = saga.filter(|saga| saga.status >= Status::Confirmed) else {
        return Outcome::Ignore("the order did not come from a checkout");
    };
    if saga.refunded_minor > 0 {
        return Outcome::Ignore("it is paid back already");
    }
    match missing(saga, short) {
        Some(amount) if amount.amount > 0 => refund(saga.clone(), short, amount, Duration::ZERO, Details::default()),
        Some(_) => Outcome::Ignore("what is missing cost nothing"),
        None => Outcome::Reject(Refusal::new("other_order", "what is missing was not bought by this order")),
    }
}

/// What the missing pieces cost; none where the order did not buy them.
fn missing(saga: &Saga, short: &OrderShort) -> Option<Money> {
    let mut sum = Money::new(0, saga.amount()?.currency);
    for line in &short.lines {
        let bought = saga.lines.iter().find(|b| b.line.line == line.line && b.line.product_id == line.product_id)?;
        let pieces = line.requested.min(bought.line.quantity).saturating_sub(line.picked);
        sum = sum.checked_add(bought.price.checked_mul(pieces).ok()?).ok()?;
    }
    Some(sum)
}

fn refund(saga: Saga, short: &OrderShort, amount: Money, wait: Duration, span: Details) -> Said {
    let Some(charge_id) = saga.charge_id.clone() else {
        return Outcome::Reject(Refusal::new("bug", "an order that cost something and was never paid"));
    };
    let call = Payment::Refund { order_id: short.order_id.clone(), charge_id, amount, reason: RefundReason::Short };
    Outcome::Call { state: Saga { awaits: Some(Awaits::Refund), ..saga }, call, wait, span }
}

/// The provider has answered the refund.
pub(crate) fn refunded(saga: &Saga, short: &OrderShort, answer: &PaymentAnswer, now: Timestamp) -> Said {
    let (Answered::Refunded(attempted), Some(amount)) = (&answer.what, missing(saga, short)) else {
        return Outcome::Reject(Refusal::new("bug", "an answer came that the order does not wait for"));
    };
    let span = spans::paid_back(&short.order_id, saga, answer);
    match &attempted.answer {
        Refunded::Succeeded { .. } => {
            let state = Saga { refunded_minor: amount.amount, ..saga.known() };
            Outcome::Emit(Decision { state, events: vec![], span })
        }
        Refunded::Refused { why } => {
            let why = format!("the provider refuses to refund charge {:?}: {why}", saga.charge_id);
            Outcome::Reject(Refusal::new("refund_refused", why))
        }
        Refunded::Unknown { why, retry_after } => match saga.asked_in_vain(now) {
            Some(next) => refund(next, short, amount, next_try(saga.unknown, *retry_after), span),
            None => {
                let why = format!("nobody knows whether money went back, look it up at the provider: {why}");
                Outcome::Reject(Refusal::new("payment_unknown", why))
            }
        },
    }
}
