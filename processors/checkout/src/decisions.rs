//! Given, when, then: what a payment's answer comes to where the loop's tests cannot wait for it.

use crate::input::CheckoutInput;
use crate::payment::{Answered, Payment, PaymentAnswer, RefundReason};
use crate::saga::{Awaits, Saga, Status};
use crate::stage::{Checkout, Said};
use crate::till::Till;
use jiff::Timestamp;
use std::time::Duration;
use waybill_events::{CheckoutRequested, Cost, Service, Step};
use waybill_payment::{Attempted, Charged};
use waybill_spine::{Outcome, Stage as _};

const HOUR: Duration = Duration::from_secs(3_600);

fn charging() -> Saga {
    Saga {
        status: Status::Running,
        step: Step::ProcessingPayment,
        customer_id: "c1".into(),
        cart_id: "k1".into(),
        total: Some(Cost { amount_minor: 1_000, currency: "EUR".into() }),
        item_count: 1,
        failure: None,
        country: "DE".into(),
        service: Service::Standard,
        lines: vec![],
        awaits: Some(Awaits::Charge),
        requested_at: Timestamp::UNIX_EPOCH,
        attempt: 1,
        unknown: 0,
        unknown_since: None,
        charge_id: None,
        refunded_minor: 0,
        abort: false,
    }
}

/// What the checkout makes of an answer, so long after the request.
fn settled(saga: &Saga, answer: Charged, again: bool, after: Duration) -> Said {
    settled_at(&mut Till::default(), saga, answer, again, after)
}

fn settled_at(till: &mut Till, saga: &Saga, answer: Charged, again: bool, after: Duration) -> Said {
    let request = CheckoutRequested { order_id: "o1".into(), customer_id: "c1".into(), cart_id: "k1".into() };
    let now = Timestamp::UNIX_EPOCH + after;
    let what = Answered::Charged(Attempted { answer, call: None });
    let answer = PaymentAnswer { began: now, ended: now, again, what };
    Checkout::default().settle(till, Some(saga), &CheckoutInput::Requested(request), &answer, now)
}

fn refused() -> Charged {
    Charged::Refused { why: "check the key".into() }
}

fn unknown() -> Charged {
    Charged::Unknown { why: "timeout".into(), retry_after: None }
}

/// The attempt and the wait of the charge that comes next.
fn next(said: Said) -> (u32, u32, Duration) {
    match said {
        Outcome::Call { state, call: Payment::Charge { attempt, .. }, wait, .. } => (attempt, state.unknown, wait),
        _ => panic!("no charge comes next"),
    }
}

fn succeeded() -> Charged {
    Charged::Succeeded { charge_id: "ch_1".into() }
}

fn rejected(said: Said) -> serde_json::Value {
    match said {
        Outcome::Emit(decision) if decision.state.status == Status::Rejected => {
            serde_json::to_value(decision.state.failure.unwrap().reason).unwrap()
        }
        _ => panic!("it is not rejected"),
    }
}

#[test]
fn a_charge_that_is_refused_at_once_took_nothing_and_ends_the_checkout() {
    assert_eq!(rejected(settled(&charging(), refused(), false, HOUR)), "payment_unavailable");
}

#[test]
fn a_charge_that_is_refused_after_one_of_unknown_outcome_is_asked_for_again() {
    let saga = Saga { unknown: 1, unknown_since: Some(Timestamp::UNIX_EPOCH), ..charging() };
    assert_eq!(next(settled(&saga, refused(), false, HOUR)).0, 1, "under the same key");
    assert_eq!(next(settled(&charging(), refused(), true, HOUR)).0, 1, "a process may have died with the answer");
}

#[test]
fn an_unknown_outcome_is_asked_for_under_the_same_key_ever_less_often_and_then_by_a_person() {
    let (attempt, asked, first) = next(settled(&charging(), unknown(), false, HOUR));
    assert_eq!((attempt, asked), (1, 1));
    let later = Saga { unknown: 9, unknown_since: Some(Timestamp::UNIX_EPOCH), ..charging() };
    let (attempt, asked, wait) = next(settled(&later, unknown(), false, HOUR));
    assert_eq!((attempt, asked), (1, 10));
    assert!(wait > first && wait <= Duration::from_secs(60), "{wait:?}");
    let mut till = Till::default();
    let said = settled_at(&mut till, &later, unknown(), false, 24 * HOUR);
    assert!(matches!(said, Outcome::Reject(refusal) if refusal.reason == "payment_unknown"));
    assert_eq!(till.ended, ["o1"], "the payment method is erased");
}

#[test]
fn a_card_that_declines_for_now_is_tried_under_new_keys_while_the_customer_waits() {
    let soft = || Charged::Declined { code: "processing_error".into(), soft: true };
    assert_eq!(next(settled(&charging(), soft(), false, Duration::ZERO)).0, 2);
    assert_eq!(rejected(settled(&Saga { attempt: 3, ..charging() }, soft(), false, Duration::ZERO)), "declined");
    assert_eq!(rejected(settled(&charging(), soft(), false, HOUR)), "declined", "nobody waits that long");
}

#[test]
fn who_ends_a_checkout_ends_it_at_the_next_step_and_never_before_its_payment_is_settled() {
    let soft = Charged::Declined { code: "processing_error".into(), soft: true };
    let saga = Saga { abort: true, ..charging() };
    assert_eq!(rejected(settled(&saga, soft, false, Duration::ZERO)), "aborted", "no other attempt");
    assert_eq!(rejected(settled(&saga, refused(), false, Duration::ZERO)), "aborted", "nothing was taken");
    assert_eq!(next(settled(&saga, refused(), true, Duration::ZERO)).0, 1, "something may have been taken");
    assert_eq!(next(settled(&saga, unknown(), false, Duration::ZERO)).0, 1, "something may have been taken");
    match settled(&saga, succeeded(), false, Duration::ZERO) {
        Outcome::Call { state, call: Payment::Refund { reason, .. }, .. } => {
            assert_eq!((state.awaits, reason), (Some(Awaits::Refund), RefundReason::Aborted));
        }
        _ => panic!("the money does not go back"),
    }
}
