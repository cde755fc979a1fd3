//! After the checkout: money back for what the warehouse could not find, and for an order that was cancelled. The stock
//! itself is the inventory's to correct.

use crate::payment::{Answered, Payment, PaymentAnswer, RefundReason};
use crate::saga::{Awaits, Saga, Status};
use crate::spans;
use crate::stage::{Said, next_try};
use jiff::Timestamp;
use std::time::Duration;
use waybill_events::{OrderCancelled, OrderShort};
use waybill_money::Money;
use waybill_payment::Refunded;
use waybill_spine::{Decision, Details, Outcome, Refusal};

/// Money to be paid back.
pub(crate) struct Back<'a> {
    order_id: &'a str,
    amount: Money,
    reason: RefundReason,
}

impl<'a> Back<'a> {
    /// What the missing pieces cost; none where the order did not buy them.
    pub(crate) fn short(saga: &Saga, short: &'a OrderShort) -> Option<Self> {
        let mut amount = Money::new(0, saga.amount()?.currency);
        for line in &short.lines {
            let bought =
                saga.lines.iter().find(|b| b.line.line == line.line && b.line.product_id == line.product_id)?;
            let pieces = line.requested.min(bought.line.quantity).saturating_sub(line.picked);
            amount = amount.checked_add(bought.price.checked_mul(pieces).ok()?).ok()?;
        }
        Some(Back { order_id: &short.order_id, amount, reason: RefundReason::Short })
    }

    /// All that was not paid back already.
    pub(crate) fn cancelled(saga: &Saga, order: &'a OrderCancelled) -> Option<Self> {
        let total = saga.amount()?;
        let amount = Money::new(total.amount - saga.refunded_minor, total.currency);
        Some(Back { order_id: &order.order_id, amount, reason: RefundReason::Cancelled })
    }

    fn pay(&self, saga: Saga, wait: Duration, span: Details) -> Said {
        let Some(charge_id) = saga.charge_id.clone() else {
            return Outcome::Reject(Refusal::new("bug", "an order that cost something and was never paid"));
        };
        let call =
            Payment::Refund { order_id: self.order_id.to_owned(), charge_id, amount: self.amount, reason: self.reason };
        Outcome::Call { state: Saga { awaits: Some(Awaits::Refund), ..saga }, call, wait, span }
    }
}

/// An order came short: what is missing is paid back, once.
pub(crate) fn short(saga: Option<&Saga>, short: &OrderShort) -> Said {
    let Some(saga) = saga.filter(|saga| saga.status >= Status::Confirmed) else {
        return Outcome::Ignore("the order did not come from a checkout");
    };
    if saga.refunded_minor > 0 {
        return Outcome::Ignore("it is paid back already");
    }
    match Back::short(saga, short) {
        Some(back) if back.amount.amount > 0 => back.pay(saga.clone(), Duration::ZERO, Details::default()),
        Some(_) => Outcome::Ignore("what is missing cost nothing"),
        None => Outcome::Reject(Refusal::new("other_order", "what is missing was not bought by this order")),
    }
}

/// An order was cancelled: the rest of the money goes back, once.
pub(crate) fn cancelled(saga: Option<&Saga>, order: &OrderCancelled) -> Said {
    let Some(saga) = saga.filter(|saga| saga.status >= Status::Confirmed) else {
        return Outcome::Ignore("the order did not come from a checkout");
    };
    match Back::cancelled(saga, order) {
        _ if saga.status == Status::Cancelled => Outcome::Ignore("it is paid back already"),
        Some(back) if back.amount.amount > 0 => back.pay(saga.clone(), Duration::ZERO, Details::default()),
        Some(_) | None => Outcome::Keep(Saga { status: Status::Cancelled, ..saga.clone() }),
    }
}

/// The provider has answered the refund.
pub(crate) fn refunded(saga: &Saga, back: Option<Back<'_>>, answer: &PaymentAnswer, now: Timestamp) -> Said {
    let (Answered::Refunded(attempted), Some(back)) = (&answer.what, back) else {
        return Outcome::Reject(Refusal::new("bug", "an answer came that the order does not wait for"));
    };
    let span = spans::paid_back(back.order_id, saga, answer);
    match &attempted.answer {
        Refunded::Succeeded { .. } => {
            let status = if back.reason == RefundReason::Cancelled { Status::Cancelled } else { saga.status };
            let state = Saga { status, refunded_minor: saga.refunded_minor + back.amount.amount, ..saga.known() };
            Outcome::Emit(Decision { state, events: vec![], span })
        }
        Refunded::Refused { why } => {
            let why = format!("the provider refuses to refund charge {:?}: {why}", saga.charge_id);
            Outcome::Reject(Refusal::new("refund_refused", why))
        }
        Refunded::Unknown { why, retry_after } => match saga.asked_in_vain(now) {
            Some(next) => back.pay(next, next_try(saga.unknown, *retry_after), span),
            None => {
                let why = format!("nobody knows whether money went back, look it up at the provider: {why}");
                Outcome::Reject(Refusal::new("payment_unknown", why))
            }
        },
    }
}
