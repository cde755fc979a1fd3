//! Every step of the checkout and every undo, each with every fault: it fails, the process crashes before it and after it,
//! its record is delivered twice, it is undone twice. After each case the slate is clean: the checker finds that stock,
//! money and orders agree, that nothing waits, and that no payment method is kept.
//!
//! Cases of one story share a shop, and each is judged alone, when it is over.

mod lane;

use lane::Lane;

/// What a customer meets, and so which steps are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// There is no such cart.
    NoCart,
    /// The price has changed.
    Stale,
    /// There is less than is wanted.
    SoldOut,
    /// All goes well.
    Bought,
    /// The card is declined: the goods are released.
    Declined,
    /// The answer of the provider is lost: it is asked again.
    AnswerLost,
    /// The reservation ran out while the bank thought, and the goods went to others: the money is refunded.
    Lapsed,
    /// The reservation ran out, and the goods are still there.
    Retaken,
    /// The bins held less: what is missing is refunded.
    Short,
    /// The customer cancels: all is refunded.
    Cancelled,
}

/// What the process or its surroundings do at the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Nothing: the story itself is the failure.
    Nothing,
    /// The process aborts at the nth pass of a point.
    Crash(&'static str, u32),
    /// The database breaks the transaction that does this to a row, once: table, condition.
    Conflict(&'static str, &'static str),
    /// The transaction that settles an answer is committed, and the process cannot know.
    CommitLost,
    /// The provider is away when it is called, and comes back.
    Away,
    /// A record of this topic is delivered again at once, and once more when all is over.
    Again(&'static str),
}

/// Where the faults are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    FetchCart,
    VerifyPrices,
    Reserve,
    Charge,
    CreateOrder,
    Release,
    RefundLapsed,
    RefundShort,
    RefundCancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Fails,
    CrashesBefore,
    CrashesAfter,
    Twice,
    UndoneTwice,
}

use Fault::{CrashesAfter, CrashesBefore, Fails, Twice, UndoneTwice};
use Step::{
    Charge, CreateOrder, FetchCart, RefundCancelled, RefundLapsed, RefundShort, Release, Reserve, VerifyPrices,
};
use Story::{AnswerLost, Bought, Cancelled, Declined, Lapsed, NoCart, Retaken, Short, SoldOut, Stale};
use Strike::{Again, Away, CommitLost, Conflict, Crash, Nothing};

const REQUEST: &str = "checkout.requested";
const STEPS: [Step; 9] =
    [FetchCart, VerifyPrices, Reserve, Charge, CreateOrder, Release, RefundLapsed, RefundShort, RefundCancelled];
const FAULTS: [Fault; 5] = [Fails, CrashesBefore, CrashesAfter, Twice, UndoneTwice];

/// The table. A step that has nothing to undo is one whose refusal is told again.
const CASES: &[(Step, Fault, Story, Strike)] = &[
    (FetchCart, Fails, NoCart, Nothing),
    (FetchCart, CrashesBefore, NoCart, Crash("after_decode", 1)),
    (FetchCart, CrashesAfter, NoCart, Crash("after_commit", 1)),
    (FetchCart, Twice, NoCart, Again(REQUEST)),
    (FetchCart, UndoneTwice, NoCart, Crash("after_reports", 1)),
    (VerifyPrices, Fails, Stale, Nothing),
    (VerifyPrices, CrashesBefore, Stale, Crash("after_decode", 1)),
    (VerifyPrices, CrashesAfter, Stale, Crash("after_commit", 1)),
    (VerifyPrices, Twice, Stale, Again(REQUEST)),
    (VerifyPrices, UndoneTwice, Stale, Crash("after_reports", 1)),
    (Reserve, Fails, SoldOut, Nothing),
    (Reserve, Fails, Bought, Conflict("stock", "new.reserved > old.reserved")),
    (Reserve, CrashesBefore, Bought, Crash("after_decode", 1)),
    (Reserve, CrashesAfter, Bought, Crash("after_commit", 1)),
    (Reserve, Twice, Bought, Again(REQUEST)),
    (Reserve, UndoneTwice, Declined, Crash("after_settle", 1)),
    (Charge, Fails, Declined, Nothing),
    (Charge, Fails, AnswerLost, Nothing),
    (Charge, Fails, Bought, Away),
    (Charge, CrashesBefore, Bought, Crash("before_call", 1)),
    (Charge, CrashesAfter, Bought, Crash("after_call", 1)),
    (Charge, CrashesAfter, AnswerLost, Crash("after_call", 1)),
    (Charge, Twice, AnswerLost, Again(REQUEST)),
    (Charge, UndoneTwice, Lapsed, Crash("after_call", 2)),
    (CreateOrder, Fails, Lapsed, Nothing),
    (CreateOrder, Fails, Retaken, Nothing),
    (CreateOrder, Fails, Bought, Conflict("stock", "new.sold > old.sold")),
    (CreateOrder, CrashesBefore, Bought, Crash("before_settle", 1)),
    (CreateOrder, CrashesAfter, Bought, Crash("after_settle", 1)),
    (CreateOrder, CrashesAfter, Bought, Crash("after_produce", 1)),
    (CreateOrder, CrashesAfter, Bought, CommitLost),
    (CreateOrder, Twice, Retaken, Again(REQUEST)),
    (CreateOrder, UndoneTwice, Cancelled, Again("orders.cancel_requested")),
    (Release, Fails, Declined, Conflict("stock", "new.available > old.available")),
    (Release, CrashesBefore, Declined, Crash("before_settle", 1)),
    (Release, CrashesAfter, Declined, Crash("after_settle", 1)),
    (Release, CrashesAfter, Declined, CommitLost),
    (Release, Twice, Declined, Again(REQUEST)),
    (Release, UndoneTwice, Declined, Crash("after_produce", 1)),
    (RefundLapsed, Fails, Lapsed, Away),
    (RefundLapsed, CrashesBefore, Lapsed, Crash("before_call", 2)),
    (RefundLapsed, CrashesAfter, Lapsed, Crash("before_settle", 2)),
    (RefundLapsed, CrashesBefore, Lapsed, CommitLost),
    (RefundLapsed, Twice, Lapsed, Again(REQUEST)),
    (RefundLapsed, UndoneTwice, Lapsed, Crash("after_settle", 2)),
    (RefundShort, Fails, Short, Away),
    (RefundShort, CrashesBefore, Short, Crash("before_call", 2)),
    (RefundShort, CrashesAfter, Short, Crash("after_call", 2)),
    (RefundShort, Twice, Short, Again("orders.short")),
    (RefundShort, UndoneTwice, Short, Crash("after_settle", 2)),
    (RefundCancelled, Fails, Cancelled, Away),
    (RefundCancelled, CrashesBefore, Cancelled, Crash("before_call", 2)),
    (RefundCancelled, CrashesAfter, Cancelled, Crash("after_call", 2)),
    (RefundCancelled, Twice, Cancelled, Again("orders.cancelled")),
    (RefundCancelled, UndoneTwice, Cancelled, Crash("after_settle", 2)),
];

#[test]
fn every_step_meets_every_fault() {
    for (step, fault) in STEPS.iter().flat_map(|step| FAULTS.iter().map(move |fault| (step, fault))) {
        assert!(CASES.iter().any(|(s, f, ..)| s == step && f == fault), "{step:?} × {fault:?}");
    }
}

/// All cases of these stories, one after the other, in a shop of their own.
async fn play(name: &str, stories: &[Story]) {
    let Some(mut lane) = Lane::open(name).await else { return };
    for (number, (step, fault, story, strike)) in CASES.iter().enumerate().filter(|(_, case)| stories.contains(&case.2))
    {
        let case = format!("{step:?} × {fault:?}: {story:?}, {strike:?}");
        lane.play(number, &case, *story, *strike).await;
        lane.assert_clean_slate(&case).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_refusal_the_slate_is_clean() {
    play("refused", &[NoCart, Stale, SoldOut]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_purchase_the_slate_is_clean() {
    play("bought", &[Bought]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_payment_the_slate_is_clean() {
    play("declined", &[Declined, AnswerLost]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_lapsed_reservation_the_slate_is_clean() {
    play("lapsed", &[Lapsed, Retaken]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_short_order_the_slate_is_clean() {
    play("short", &[Short]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_cancelled_order_the_slate_is_clean() {
    play("cancelled", &[Cancelled]).await;
}
