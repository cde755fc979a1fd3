//! What the simulator remembers, to the byte and over a restart, and what its seed decides.

use crate::simulator::Simulator;
use crate::{charge, http, refund, stripe};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use waybill_payment::simulator::{SimulatorSettings, serve};
use waybill_payment::{Charged, Provider, Refunded};

fn kept(path: &Path) -> SimulatorSettings {
    SimulatorSettings { ledger: Some(path.to_owned()), ..Default::default() }
}

/// A call by hand: status, whether it is marked as a replay, body.
async fn post(url: &str, key: &str, authorization: &str) -> (u16, bool, String) {
    let body = "amount=1999&currency=eur&confirm=true&payment_method=pm_card_visa&metadata[order_id]=7";
    let request = http().post(format!("{url}/v1/payment_intents")).header("authorization", authorization);
    let answer = request.header("idempotency-key", key).body(body).send().await.unwrap();
    let replayed = answer.headers().contains_key("idempotent-replayed");
    (answer.status().as_u16(), replayed, answer.text().await.unwrap())
}

#[tokio::test]
async fn a_replay_is_the_same_to_the_byte_and_says_so() {
    let simulator = Simulator::start(SimulatorSettings::default()).await;
    let (status, replayed, body) = post(&simulator.url, "1", "Bearer sk_test_1").await;
    assert_eq!((status, replayed), (200, false));
    assert_eq!(post(&simulator.url, "1", "Bearer sk_test_1").await, (200, true, body));
    let (status, _, _) = post(&simulator.url, "2", "Bearer nobody").await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn a_restarted_simulator_has_forgotten_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.jsonl");
    let simulator = Simulator::start(kept(&path)).await;
    let provider = stripe(&simulator.url);
    let paid = provider.charge(&charge("pm_card_visa", "1")).await.answer;
    let declined = provider.charge(&charge("pm_card_chargeDeclined", "2")).await.answer;
    let lost = provider.charge(&charge("pm_reset", "3")).await.answer;
    assert!(matches!(lost, Charged::Unknown { .. }), "{lost:?}");
    let Charged::Succeeded { charge_id } = &paid else { panic!("{paid:?}") };
    let refunded = provider.refund(&refund(charge_id, 500, "4")).await.answer;
    let before = simulator.ledger().await;
    drop(provider);
    simulator.stop().await;

    // Cut off in the middle of a line, as by a crash.
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(br#"{"key":"5","finger"#).unwrap();
    let written = fs::read_to_string(&path).unwrap();
    assert!(!written.contains("pm_"), "a payment method is in the ledger file");

    let simulator = Simulator::start(kept(&path)).await;
    let provider = stripe(&simulator.url);
    assert_eq!(simulator.ledger().await, before);
    assert_eq!(provider.charge(&charge("pm_card_visa", "1")).await.answer, paid);
    assert_eq!(provider.charge(&charge("pm_card_chargeDeclined", "2")).await.answer, declined);
    let found = provider.charge(&charge("pm_reset", "3")).await.answer;
    assert!(matches!(found, Charged::Succeeded { .. }), "{found:?}");
    assert_eq!(provider.refund(&refund(charge_id, 500, "4")).await.answer, refunded);
    let rest = provider.refund(&refund(charge_id, 1499, "5")).await.answer;
    assert!(matches!(rest, Refunded::Succeeded { refund_id: Some(_) }), "{rest:?}");
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 5);
}

#[tokio::test]
async fn an_unreadable_ledger_and_an_impossible_share_end_the_start() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"not json\n").unwrap();
    let impossible = SimulatorSettings { hard_declines: 0.7, soft_declines: 0.7, ..Default::default() };
    for (settings, kind) in [(kept(file.path()), ErrorKind::InvalidData), (impossible, ErrorKind::InvalidInput)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert_eq!(serve(listener, settings, async {}).await.unwrap_err().kind(), kind);
    }
}

/// How many of 200 charges are declined, hard and soft, and the order in which.
async fn declines(seed: u64) -> (usize, usize, Vec<Charged>) {
    let latency = Duration::ZERO..=Duration::from_millis(2);
    let settings = SimulatorSettings { seed, hard_declines: 0.2, soft_declines: 0.3, latency, ledger: None };
    let simulator = Simulator::start(settings).await;
    let provider = stripe(&simulator.url);
    let mut answers = Vec::new();
    for key in 0..200 {
        answers.push(provider.charge(&charge("pm_a_customers", &key.to_string())).await.answer);
    }
    let count = |wanted| {
        answers.iter().filter(|answer| matches!(answer, Charged::Declined { soft, .. } if *soft == wanted)).count()
    };
    (count(false), count(true), answers)
}

#[tokio::test]
async fn the_seed_decides_who_is_declined() {
    let (hard, soft, answers) = declines(1).await;
    assert!((20..=60).contains(&hard) && (35..=85).contains(&soft), "{hard} hard, {soft} soft of 200");
    assert_eq!(declines(1).await.2, answers, "the same seed");
    assert_ne!(declines(2).await.2, answers, "another seed");
}
