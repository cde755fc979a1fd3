//! What always holds, each sentence of `run.rs` a test: the real loop and a real database (SQLite), a broker in memory.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod tally;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tally::notes::Note;
use tally::{Do, World, sum};
use waybill_harness::eventually;
use waybill_spine::{Record, event_id};
use waybill_telemetry::{Carrier as _, SpanRecord};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_accepted_event_is_never_lost_while_the_broker_is_away() {
    let world = World::new().await;
    world.send("a", 1, Do::Emit);
    world.broker.set_away(true);
    let running = world.start();
    world.broker.set_away(false);
    world.until_answered(1).await;
    world.send("b", 2, Do::Emit);
    world.until_answered(2).await;
    world.until_committed(2).await;
    running.stop();
}

#[tokio::test]
async fn offsets_move_only_after_the_answer_is_acknowledged() {
    let world = World::new().await;
    let running = world.start_with_sink(false);
    world.send("a", 1, Do::Emit);
    // The decision is durable, the answer is not acknowledged: the offset must stay where it is.
    eventually("the decision is kept", LIMIT, async || world.kept("a").await.ok_or("nothing kept".to_owned())).await;
    assert_eq!(world.committed(), 0);
    running.stop();
    assert_eq!(world.committed(), 0, "a stop does not move it either");
    let running = world.start();
    world.until_committed(1).await;
    assert_eq!(world.answers().len(), 1, "the answer kept in the database was published");
    running.stop();
}

#[tokio::test]
async fn an_effect_happens_once_and_a_repeat_repeats_the_last_answer() {
    let world = World::new().await;
    let running = world.start();
    world.send("a", 1, Do::Emit);
    world.until_answered(1).await;
    world.send("a", 1, Do::Emit);
    world.send_as("another-event-id", "a", 5, Do::Emit);
    world.until_answered(3).await;
    let answers = world.answers();
    assert!(answers.iter().all(|a| a.content == answers[0].content));
    assert_eq!(world.kept("a").await.as_deref(), Some(r#"{"sum": 1,"asked": null,"told": null}"#));
    running.stop();
}

#[tokio::test]
async fn a_repeat_within_one_batch_is_answered_once_and_repeated() {
    let world = World::new().await;
    (0..3).for_each(|_| world.send("a", 1, Do::Emit));
    let running = world.start();
    world.until_answered(3).await;
    let answers = world.answers();
    assert!(answers.iter().all(|a| a.content == answers[0].content), "one span, one id");
    running.stop();
}

#[tokio::test]
async fn events_of_a_key_are_handled_in_order_even_when_one_is_parked() {
    let world = World::new().await;
    let running = world.start();
    world.send("a", 1, Do::ParkUntilReleased);
    world.send("a", 2, Do::Add);
    world.send("b", 9, Do::Emit);
    world.until_answered(1).await;
    world.send("a", 3, Do::Add);
    world.until_committed(4).await;
    assert_eq!(world.answers().len(), 1, "the partition went on, the key waits");
    world.release();
    world.until_answered(4).await;
    let sums: Vec<i64> = world.answers().iter().filter(|a| a.content.key() == Some(b"a")).map(sum).collect();
    assert_eq!(sums, [1, 3, 6], "1, then 2, then 3");
    world.until_nothing_is_parked().await;
    running.stop();
}

#[tokio::test]
async fn state_is_kept_under_the_subject_and_a_repeat_of_it_repeats_the_answer() {
    let world = World::new().await;
    let running = world.start();
    world.send_about("one", "a", 1, Do::Emit);
    world.send_about("two", "a", 2, Do::Emit);
    world.send_about("one", "a", 1, Do::Emit);
    world.until_answered(3).await;
    world.send_about("one", "b", 1, Do::Emit);
    world.until_answered(4).await;
    running.stop();
    let answers = world.answers();
    let ids: BTreeSet<&str> = answers.iter().map(|a| tally::text(a, "ce_id")).collect();
    assert_eq!(ids.len(), 2, "an id derives from the subject");
    assert!(answers.iter().all(|a| a.content.key() == Some(b"a")), "the first answer is keyed by its own record");
    assert_eq!(world.kept("two").await.as_deref(), Some(r#"{"sum": 2,"asked": null,"told": null}"#));
    assert_eq!(world.kept("a").await, None);
}

#[tokio::test]
async fn records_of_a_key_wait_behind_one_another_whatever_their_subjects() {
    let world = World::new().await;
    let running = world.start();
    world.send_about("one", "a", 1, Do::ParkUntilReleased);
    world.send_about("two", "a", 2, Do::Emit);
    world.send_about("three", "b", 9, Do::Emit);
    world.until_answered(1).await;
    world.until_committed(3).await;
    assert_eq!(sum(&world.answers()[0]), 9, "another key goes on");
    world.release();
    world.until_answered(3).await;
    world.until_nothing_is_parked().await;
    running.stop();
    let sums: Vec<i64> = world.answers().iter().filter(|a| a.content.key() == Some(b"a")).map(sum).collect();
    assert_eq!(sums, [1, 2]);
}

#[tokio::test]
async fn parking_survives_a_restart() {
    let world = World::new().await;
    let running = world.start();
    world.send("a", 1, Do::ParkUntilReleased);
    world.until_committed(1).await;
    running.stop();
    world.release();
    let running = world.start();
    world.until_answered(1).await;
    running.stop();
}

#[tokio::test]
async fn a_record_parked_beyond_the_stages_patience_becomes_a_dead_letter() {
    let world = World::new().await;
    let running = world.start();
    world.send("a", 1, Do::ParkForEver);
    let dead = world.until_dead(1).await;
    assert_eq!(tally::text(&dead[0], "dead_reason"), "gave_up");
    assert!(tally::text(&dead[0], "dead_attempts").parse::<i32>().unwrap() > 1);
    world.until_nothing_is_parked().await;
    running.stop();
}

#[tokio::test]
async fn a_record_that_cannot_be_accepted_goes_to_the_dead_letters_untouched() {
    let world = World::new().await;
    let bad = tally::bad_records();
    for (_, message) in &bad {
        world.send_message(message.clone());
    }
    world.send("good", 1, Do::Emit);
    let running = world.start();
    world.until_answered(1).await;
    let dead = world.until_dead(bad.len()).await;
    for (reason, message) in bad {
        let letter = dead.iter().find(|d| tally::text(d, "dead_reason") == reason).unwrap_or_else(|| {
            panic!(
                "no dead letter says {reason}: {:?}",
                dead.iter().map(|d| tally::text(d, "dead_reason")).collect::<Vec<_>>()
            )
        });
        let (letter, message) = (&letter.content, &message.content);
        assert_eq!((letter.key(), letter.payload()), (message.key(), message.payload()), "{reason}");
        assert!(letter.headers().take(message.headers().len()).eq(message.headers()), "{reason}");
        assert!(letter.header("dead_message").is_some_and(|m| !m.is_empty()), "{reason}");
    }
    running.stop();
}

#[tokio::test]
async fn a_record_that_fails_only_in_the_transaction_costs_no_other() {
    let world = World::new().await;
    world.send("a", 1, Do::Emit);
    world.send("b", 1, Do::Panic);
    world.send("c", 1, Do::AnswerTooLarge);
    world.send("d", 1, Do::Emit);
    let running = world.start();
    let dead = world.until_dead(2).await;
    world.until_answered(2).await;
    let reasons: Vec<&str> = dead.iter().map(|d| tally::text(d, "dead_reason")).collect();
    assert_eq!(reasons, ["bug", "answer_too_large"]);
    assert_eq!(world.kept("b").await, None, "nothing is kept of it");
    running.stop();
}

#[tokio::test]
async fn what_is_ignored_or_rejected_by_the_stage_moves_on() {
    let world = World::new().await;
    world.send("a", 1, Do::Ignore);
    world.send("b", 1, Do::Reject);
    let running = world.start();
    let dead = world.until_dead(1).await;
    assert_eq!(tally::text(&dead[0], "dead_reason"), "not_wanted");
    world.until_committed(2).await;
    assert!(world.answers().is_empty());
    running.stop();
}

#[tokio::test]
async fn two_members_share_the_work_and_nothing_is_done_twice() {
    let world = World::new().await;
    let one = world.start();
    for n in 0..200 {
        world.send(&format!("k{n}"), 1, Do::Emit);
    }
    let two = world.start();
    for n in 200..400 {
        world.send(&format!("k{n}"), 1, Do::Emit);
    }
    eventually("every key is answered", LIMIT, async || {
        let keys: BTreeSet<_> = world.answers().into_iter().map(|a| a.content.key().map(<[u8]>::to_vec)).collect();
        if keys.len() == 400 { Ok(()) } else { Err(format!("{} keys", keys.len())) }
    })
    .await;
    let answers = world.answers();
    let mut ids: Vec<_> =
        answers.iter().map(|a| (tally::text(a, "ce_id"), a.content.payload().map(<[u8]>::to_vec))).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 400, "a repeated answer is the same answer");
    one.stop();
    two.stop();
}

#[tokio::test]
async fn a_stage_span_links_to_every_earlier_stage_and_travels_with_its_event() {
    let world = World::new().await;
    let running = world.start();
    world.send("a", 1, Do::Emit);
    world.until_answered(1).await;
    let answer = &world.answers()[0];
    let event: tally::Counted = serde_json::from_slice(answer.content.payload().unwrap()).unwrap();
    let span = SpanRecord::read(tally::text(answer, "waybill_span"), &event.waybill).unwrap();
    assert_eq!(span.traceparent(), tally::text(answer, "traceparent"));
    assert_eq!(tally::text(answer, "ce_traceparent"), tally::ORIGIN, "where the journey began never changes");
    let links: Vec<(&str, &str)> = span.links.iter().map(|l| (&*l.link_type, &*l.stage)).collect();
    assert_eq!(links, [("follows_from", "first"), ("follows_from", "second"), ("consumed", "elsewhere")]);
    assert_eq!(event.waybill.stamps().last(), Some(&span.stamp()), "the waybill ends with this span");
    assert_eq!(event.waybill.stamps().len(), 3);
    running.stop();
}

#[tokio::test]
async fn a_call_is_made_outside_and_settled_once() {
    let world = World::new().await;
    let running = world.start();
    world.send("a", 3, Do::Ask);
    world.until_answered(1).await;
    world.until_nothing_is_parked().await;
    world.send("a", 3, Do::Ask);
    world.until_answered(2).await;
    running.stop();
    let sums: Vec<i64> = world.answers().iter().map(sum).collect();
    assert_eq!(sums, [6, 6], "a repeat repeats the answer");
    assert_eq!(*world.oracle.asked.lock().unwrap(), [3], "and asks nobody");
}

#[tokio::test]
async fn later_events_of_a_key_wait_for_its_call_and_others_go_on() {
    let world = World::new().await;
    world.oracle.silent.store(true, SeqCst);
    let running = world.start();
    world.send("a", 3, Do::Ask);
    world.until_asked(1).await;
    world.send("a", 1, Do::Add);
    world.send("b", 5, Do::Add);
    world.until_answered(1).await;
    world.until_committed(3).await;
    assert_eq!(world.answers().iter().map(sum).collect::<Vec<_>>(), [5]);
    world.oracle.silent.store(false, SeqCst);
    world.until_answered(3).await;
    world.until_nothing_is_parked().await;
    running.stop();
    assert_eq!(world.answers().iter().map(sum).collect::<Vec<_>>(), [5, 6, 7]);
}

#[tokio::test]
async fn more_calls_than_may_be_out_at_a_time_wait_for_earlier_ones_and_are_all_settled() {
    const ASKED: i64 = 1_200;
    let world = World::new().await;
    world.oracle.silent.store(true, SeqCst);
    (0..ASKED).for_each(|n| world.send(&format!("k{n}"), n, Do::Ask));
    let running = world.start();
    world.until_asked(256).await;
    world.oracle.silent.store(false, SeqCst);
    world.until_answered(ASKED as usize).await;
    world.until_nothing_is_parked().await;
    world.until_committed(ASKED).await;
    running.stop();
    let sums: i64 = world.answers().iter().map(sum).sum();
    assert_eq!(sums, ASKED * (ASKED - 1), "each twice its number, once");
}

#[tokio::test]
async fn a_call_that_nobody_settled_is_made_again_and_settled_once() {
    let world = World::new().await;
    world.oracle.silent.store(true, SeqCst);
    let first = world.start();
    world.send("a", 3, Do::Ask);
    world.until_asked(1).await;
    world.lapse().await;
    let second = world.start();
    world.until_asked(2).await;
    world.oracle.silent.store(false, SeqCst);
    world.until_answered(1).await;
    world.until_nothing_is_parked().await;
    first.stop();
    second.stop();
    let sums: Vec<i64> = world.answers().iter().map(sum).collect();
    assert_eq!(sums, [6], "settled by the one that holds the last lease");
    assert_eq!(world.kept("a").await.unwrap(), "{\"sum\": 6,\"asked\": null,\"told\": 3}");
}

#[tokio::test]
async fn an_answer_that_was_kept_but_not_published_is_published_and_not_asked_for_again() {
    let world = World::new().await;
    let deaf = world.start_with_sink(false);
    world.send("a", 3, Do::Ask);
    let kept = "{\"sum\": 6,\"asked\": null,\"told\": 3}";
    world.until_kept("a", kept).await;
    deaf.stop();
    world.lapse().await;
    let running = world.start();
    world.until_answered(1).await;
    world.until_nothing_is_parked().await;
    running.stop();
    assert_eq!(world.answers().iter().map(sum).collect::<Vec<_>>(), [6]);
    assert_eq!(*world.oracle.asked.lock().unwrap(), [3]);
}

/// Key and version of each note on its topic, by partition; a key's in order.
fn notes(world: &World) -> Vec<(String, i64)> {
    let note = |record: &Record| serde_json::from_slice(record.content.payload().unwrap()).unwrap();
    world.broker.records("notes").iter().map(note).map(|note: Note| (note.key, note.version)).collect()
}

const WRITE: &str = "insert into notes (key, version) values ('a', 1), ('a', 2), ('a', 3)";

#[tokio::test]
async fn rows_of_an_outbox_are_published_in_order_and_forgotten() {
    let world = World::new().await;
    let running = world.start();
    // More than are published at a time.
    world
        .execute(
            "with recursive v (n) as (select 1 union all select n + 1 from v where n < 1200)
                   insert into notes (key, version) select 'a', n from v",
        )
        .await;
    world.until_no_rows("select count(*) from notes").await;
    running.stop();
    let versions: Vec<i64> = notes(&world).into_iter().map(|(_, version)| version).collect();
    assert_eq!(versions, (1..=1200).collect::<Vec<_>>());
    let note = &world.broker.records("notes")[6];
    assert_eq!(tally::text(note, "ce_id"), event_id("tally", "notes", "a/7").to_string());
    assert_eq!(tally::text(note, "ce_time"), "1970-01-01T00:00:00Z");
    assert_eq!((note.content.key(), tally::text(note, "ce_subject")), (Some(&b"a"[..]), "a"));
}

#[tokio::test]
async fn rows_published_and_not_forgotten_are_published_again_as_they_were() {
    let world = World::new().await;
    world.execute("create trigger keep before delete on notes begin select raise(abort, 'not now'); end").await;
    world.execute(WRITE).await;
    let running = world.start();
    eventually("the rows are published again", LIMIT, async || match notes(&world).len() {
        found if found >= 6 => Ok(()),
        found => Err(format!("{found} notes")),
    })
    .await;
    world.send("b", 1, Do::Emit);
    world.until_answered(1).await;
    world.execute("drop trigger keep").await;
    world.until_no_rows("select count(*) from notes").await;
    running.stop();
    let records = world.broker.records("notes");
    for (record, version) in records.iter().zip((1..=3).cycle()) {
        assert_eq!(tally::text(record, "ce_id"), event_id("tally", "notes", &format!("a/{version}")).to_string());
        assert_eq!(record.content, records[version - 1].content);
    }
}

#[tokio::test]
async fn rows_stay_in_the_outbox_until_they_are_acknowledged() {
    let world = World::new().await;
    world.execute(WRITE).await;
    let deaf = world.start_with_sink(false);
    world.send("b", 1, Do::Emit);
    deaf.stop();
    assert!(notes(&world).is_empty());
    let running = world.start();
    world.until_no_rows("select count(*) from notes").await;
    running.stop();
    assert_eq!(notes(&world).len(), 3);
}

#[tokio::test]
async fn a_chore_is_done_without_any_record_and_again_after_it_failed() {
    let world = World::new().await;
    world.execute("create trigger keep before delete on alarms begin select raise(abort, 'not now'); end").await;
    world.execute("insert into alarms (key) values ('a'), ('b')").await;
    let running = world.start();
    world.send("c", 1, Do::Emit);
    world.until_answered(1).await;
    assert!(notes(&world).is_empty(), "a chore is done whole or not at all");
    world.execute("drop trigger keep").await;
    world.until_no_rows("select (select count(*) from alarms) + (select count(*) from notes)").await;
    running.stop();
    let mut told = notes(&world);
    told.sort();
    assert_eq!(told, [("a".to_owned(), 1), ("b".to_owned(), 1)]);
}
