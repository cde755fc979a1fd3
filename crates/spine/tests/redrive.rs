//! Dead letters that go back to their stage: the real loop and a real database (SQLite), a broker in memory.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

#[expect(dead_code, reason = "other tests use the rest")]
mod tally;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tally::{Do, World, sum, text};
use waybill_harness::eventually;
use waybill_spine::{DeadLetter, Message, Record, event_id};
use waybill_telemetry::SpanRecord;

const LIMIT: Duration = Duration::from_secs(30);

fn redrive(world: &World, letter: &Record) {
    let content = DeadLetter::redriven(&letter.content).unwrap();
    world.send_message(Message { topic: "redrive.tally".into(), content });
}

async fn until_taken_back(world: &World, count: i64) {
    eventually(&format!("{count} redriven records are taken"), LIMIT, async || {
        let committed: i64 = world.broker.committed("waybill.tally", "redrive.tally").values().sum();
        if committed >= count { Ok(()) } else { Err(format!("{committed} committed")) }
    })
    .await;
}

#[tokio::test]
async fn what_is_redriven_has_its_effect_once_and_links_to_the_failure() {
    let world = World::new().await;
    let running = world.start();
    // Given up after the stage's patience.
    world.send("a", 7, Do::ParkUntilReleased);
    let dead = world.until_dead(1).await;
    let letter = DeadLetter::read(&dead[0].content).unwrap();
    assert_eq!((letter.reason.as_str(), letter.topic.as_str()), ("gave_up", "numbers"));
    assert!(letter.attempts > 1, "{letter:?}");

    world.release();
    redrive(&world, &dead[0]);
    world.until_answered(1).await;
    until_taken_back(&world, 1).await;
    running.stop();
    let answers = world.answers();
    assert_eq!((answers.len(), sum(&answers[0])), (1, 7));
    assert_eq!(text(&answers[0], "ce_id"), event_id("tally", "sums", "a").to_string());
    assert_eq!(text(&answers[0], "ce_traceparent"), tally::ORIGIN, "the journey began where it began");
    let span: SpanRecord = serde_json::from_str(text(&answers[0], "waybill_span")).unwrap();
    let link = span.links.iter().find(|link| link.link_type == "redrive_of").unwrap();
    let failed = format!("00-{}-{}-01", link.trace_id, link.span_id);
    assert_eq!((failed, &*link.stage), (letter.traceparent, "tally"));
    assert_eq!(&*span.input.unwrap().topic, "redrive.tally", "where it was read");
}

#[tokio::test]
async fn what_is_redriven_and_fails_again_is_a_letter_of_the_first_record_with_all_its_tries() {
    let world = World::new().await;
    let running = world.start();
    world.send("a", 1, Do::Reject);
    let first = world.until_dead(1).await.remove(0);
    redrive(&world, &first);
    let dead = world.until_dead(2).await;
    redrive(&world, dead.iter().find(|letter| **letter != first).unwrap());
    let dead = world.until_dead(3).await;
    running.stop();
    let mut letters: Vec<DeadLetter> = dead.iter().map(|letter| DeadLetter::read(&letter.content).unwrap()).collect();
    letters.sort_by_key(|letter| letter.attempts);
    assert_eq!(letters.iter().map(|letter| letter.attempts).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(letters.iter().all(|l| (l.topic.as_str(), l.offset, l.reason.as_str()) == ("numbers", 0, "not_wanted")));
    assert!(dead.iter().all(|letter| letter.content.payload() == first.content.payload()));
    let headers = |letter: &Record| letter.content.headers().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert!(dead.iter().all(|letter| headers(letter) == headers(&first)), "headers do not pile up");
    let of_last = dead.iter().find(|letter| text(letter, "dead_attempts") == "3").unwrap();
    let span: SpanRecord = serde_json::from_str(text(of_last, "dead_span")).unwrap();
    let link = span.links.iter().find(|link| link.link_type == "redrive_of").unwrap();
    assert!(
        letters[1].traceparent.contains(&link.span_id.to_string()),
        "to the last failure, which links to the first"
    );
}

#[tokio::test]
async fn what_is_redriven_waits_behind_what_waits_of_its_key() {
    let world = World::new().await;
    let running = world.start();
    world.send("a", 1, Do::ParkUntilReleased);
    let dead = world.until_dead(1).await;
    world.release();
    world.oracle.silent.store(true, SeqCst);
    world.send("a", 2, Do::Ask);
    world.until_asked(1).await;
    redrive(&world, &dead[0]);
    until_taken_back(&world, 1).await;
    assert_eq!(world.answers().len(), 0, "the partition went on, the key waits");
    world.oracle.silent.store(false, SeqCst);
    world.until_answered(2).await;
    world.until_nothing_is_parked().await;
    running.stop();
    assert_eq!(world.answers().iter().map(sum).collect::<Vec<_>>(), [4, 5], "twice two, and then one");
}

#[tokio::test]
async fn what_is_redriven_and_no_letter_becomes_one() {
    let world = World::new().await;
    let running = world.start();
    let mut stray = tally::message("id", "a", None, 1, Do::Emit);
    stray.topic = "redrive.tally".into();
    world.send_message(stray);
    let dead = world.until_dead(1).await;
    running.stop();
    let letter = DeadLetter::read(&dead[0].content).unwrap();
    assert_eq!((letter.reason.as_str(), letter.topic.as_str()), ("no_letter", "redrive.tally"));
    assert!(letter.message.contains("dead_reason"), "{}", letter.message);
}
