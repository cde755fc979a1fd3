//! The adapter against the simulator.

use crate::{LONG, charge, http, refund, status, stripe, stripe_within};
use std::io;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use waybill_harness::eventually;
use waybill_money::{Currency, Money};
use waybill_payment::simulator::{Ledger, SimulatorSettings, serve};
use waybill_payment::{Charged, Provider, Refunded, Stripe};

pub struct Simulator {
    pub url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Simulator {
    pub async fn start(settings: SimulatorSettings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, settings, async {
            let _ = stopped.await;
        }));
        Simulator { url, stop, task }
    }

    pub async fn ledger(&self) -> Ledger {
        let answer = http().get(format!("{}/ledger", self.url)).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

async fn quick() -> (Simulator, Stripe) {
    let simulator = Simulator::start(SimulatorSettings::default()).await;
    let provider = stripe(&simulator.url);
    (simulator, provider)
}

/// Repeats a charge as a saga does, until it is known.
async fn settled(provider: &Stripe, method: &str, key: &str) -> Charged {
    eventually("the charge is known", LONG, async || match provider.charge(&charge(method, key)).await.answer {
        Charged::Unknown { why, .. } => Err(why),
        known @ (Charged::Succeeded { .. } | Charged::Declined { .. } | Charged::Refused { .. }) => Ok(known),
    })
    .await
}

fn charge_id(charged: Charged) -> String {
    let Charged::Succeeded { charge_id } = charged else { panic!("{charged:?}") };
    charge_id
}

#[tokio::test]
async fn a_charge_succeeds_and_stands_in_the_ledger() {
    let (simulator, provider) = quick().await;
    let id = charge_id(provider.charge(&charge("pm_card_visa", "1")).await.answer);
    let ledger = simulator.ledger().await;
    assert_eq!((ledger.keys, ledger.charges.len()), (1, 1));
    let entry = &ledger.charges[0];
    assert_eq!((&*entry.charge_id, &*entry.order_id, &*entry.idempotency_key), (&*id, "order-7", "1"));
    assert_eq!((entry.amount, &*entry.currency, entry.refunded, entry.keys), (1999, "EUR", 0, 1));
    simulator.stop().await;
}

#[tokio::test]
async fn magic_methods_are_declined_as_stripes_are() {
    let (simulator, provider) = quick().await;
    for (method, code, soft) in [
        ("pm_card_chargeDeclined", "generic_decline", false),
        ("pm_card_visa_chargeDeclined", "generic_decline", false),
        ("pm_card_visa_chargeDeclinedProcessingError", "processing_error", true),
    ] {
        let answer = provider.charge(&charge(method, method)).await.answer;
        assert_eq!(answer, Charged::Declined { code: code.to_owned(), soft });
        assert_eq!(provider.charge(&charge(method, method)).await.answer, answer, "a decline is repeated too");
    }
    assert_eq!(simulator.ledger().await.charges, []);
}

#[tokio::test]
async fn a_repeated_key_charges_once_and_says_the_same() {
    let (simulator, provider) = quick().await;
    let first = provider.charge(&charge("pm_card_visa", "1")).await.answer;
    for _ in 0..3 {
        assert_eq!(provider.charge(&charge("pm_card_visa", "1")).await.answer, first);
    }
    assert_eq!(simulator.ledger().await.charges.len(), 1);
    let other = provider.charge(&charge("pm_card_visa", "2")).await.answer;
    assert_ne!(other, first);
    assert_eq!(simulator.ledger().await.charges.len(), 2);
}

#[tokio::test]
async fn a_key_with_other_parameters_is_refused() {
    let (simulator, provider) = quick().await;
    charge_id(provider.charge(&charge("pm_card_visa", "1")).await.answer);
    let mut dearer = charge("pm_card_visa", "1");
    dearer.amount = Money::new(2999, Currency::EUR);
    for other in [dearer, charge("pm_slow", "1")] {
        let attempted = provider.charge(&other).await;
        assert_eq!(attempted.answer, Charged::Refused { why: "400 idempotency_error".to_owned() });
    }
    let refund = provider.refund(&refund("pi_1", 1, "1")).await;
    assert!(matches!(refund.answer, Refunded::Refused { .. }), "{refund:?}");
    assert_eq!(simulator.ledger().await.charges[0].amount, 1999);
}

#[tokio::test]
async fn a_key_in_use_is_unknown() {
    let hour = Duration::from_hours(1);
    let simulator = Simulator::start(SimulatorSettings { latency: hour..=hour, ..Default::default() }).await;
    let provider = stripe_within(&simulator.url, Duration::from_millis(300));
    eventually("the first call is running", LONG, async || {
        let attempted = provider.charge(&charge("pm_card_visa", "1")).await;
        assert!(matches!(attempted.answer, Charged::Unknown { .. }), "{attempted:?}");
        if status(&attempted.call) == Some(409) { Ok(()) } else { Err(format!("{attempted:?}")) }
    })
    .await;
    assert_eq!(simulator.ledger().await.keys, 0);
}

#[tokio::test]
async fn concurrent_calls_with_one_key_charge_once() {
    let latency = Duration::from_millis(20)..=Duration::from_millis(100);
    let simulator = Simulator::start(SimulatorSettings { latency, ..Default::default() }).await;
    let mut calls = JoinSet::new();
    for _ in 0..16 {
        let provider = stripe(&simulator.url);
        calls.spawn(async move {
            loop {
                match provider.charge(&charge("pm_card_visa", "1")).await.answer {
                    // In use: another of these calls is running.
                    Charged::Unknown { .. } => {}
                    answer @ (Charged::Succeeded { .. } | Charged::Declined { .. } | Charged::Refused { .. }) => {
                        return charge_id(answer);
                    }
                }
            }
        });
    }
    let mut ids = timeout(LONG, calls.join_all()).await.unwrap();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(simulator.ledger().await.charges.len(), 1);
}

#[tokio::test]
async fn a_reset_after_the_charge_is_repeated_and_charges_once() {
    let (simulator, provider) = quick().await;
    let attempted = provider.charge(&charge("pm_reset", "1")).await;
    let Charged::Unknown { why, .. } = &attempted.answer else { panic!("{attempted:?}") };
    assert!(why.contains("reset"), "{why}");
    assert_eq!(status(&attempted.call), None);
    let made = simulator.ledger().await.charges;
    assert_eq!(made.len(), 1);
    let id = charge_id(provider.charge(&charge("pm_reset", "1")).await.answer);
    assert_eq!(id, made[0].charge_id);
    assert_eq!(simulator.ledger().await.charges, made);
}

#[tokio::test]
async fn a_charge_goes_on_when_its_caller_has_left() {
    let simulator = Simulator::start(SimulatorSettings::default()).await;
    let provider = stripe_within(&simulator.url, Duration::from_millis(300));
    for (method, key) in [("pm_slow", "1"), ("pm_slow_1", "2")] {
        let first = provider.charge(&charge(method, key)).await.answer;
        assert!(matches!(first, Charged::Unknown { .. }), "{method}: {first:?}");
        charge_id(settled(&provider, method, key).await);
    }
    assert_eq!(simulator.ledger().await.charges.len(), 2);
}

#[tokio::test]
async fn a_charge_is_refunded_once_however_often_it_is_asked() {
    let (simulator, provider) = quick().await;
    let id = charge_id(provider.charge(&charge("pm_card_visa", "1")).await.answer);
    let first = provider.refund(&refund(&id, 1999, "r1")).await.answer;
    assert!(matches!(first, Refunded::Succeeded { refund_id: Some(_) }), "{first:?}");
    assert_eq!(provider.refund(&refund(&id, 1999, "r1")).await.answer, first);
    let another = provider.refund(&refund(&id, 1999, "r2")).await.answer;
    assert_eq!(another, Refunded::Succeeded { refund_id: None });
    assert_eq!(simulator.ledger().await.charges[0].refunded, 1999);
}

#[tokio::test]
async fn parts_are_refunded_and_never_more_than_was_charged() {
    let (simulator, provider) = quick().await;
    let id = charge_id(provider.charge(&charge("pm_card_visa", "1")).await.answer);
    let part = provider.refund(&refund(&id, 500, "r1")).await.answer;
    assert!(matches!(part, Refunded::Succeeded { refund_id: Some(_) }), "{part:?}");
    let too_much = provider.refund(&refund(&id, 1500, "r2")).await.answer;
    assert!(matches!(too_much, Refunded::Refused { .. }), "{too_much:?}");
    let nobodys = provider.refund(&refund("pi_nobodys", 1, "r3")).await.answer;
    assert!(matches!(nobodys, Refunded::Refused { .. }), "{nobodys:?}");
    let entry = &simulator.ledger().await.charges[0];
    assert_eq!((entry.refunded, entry.keys), (500, 2));
}
