//! Whatever is read in whatever order, a file that was filled has the rows of one that was written to row by row.

use super::*;
use std::path::Path;
use waybill_spine::{Content, Record};

const COPY: &str = r#"{"stage":"pick","scope":"waybill.fulfilment","version":"0.1.0","trace_id":"TRACE","span_id":"SPAN","trace_flags":"01","name":"warehouse.pick","kind":"consumer","start":"2026-11-21T10:00:00Z","end":"2026-11-21T10:00:00.000000001Z","attributes":{"order.id":"o-1"}}"#;

/// A record with a span of these numbers.
fn record(topic: &str, (partition, offset): (i32, i64), ce_id: &str, span: u64) -> Record {
    let copy = COPY.replace("TRACE", &format!("{span:032x}")).replace("SPAN", &format!("{span:016x}"));
    let mut content = Content::new(Some(b"o-1"), Some(b"{\"waybill\":[]}"));
    content.push_text("ce_id", ce_id);
    content.push_text("waybill_span", copy);
    Record { topic: topic.into(), partition, offset, timestamp_ms: offset, content }
}

/// One id three times with other spans, one twice with the same, one once, and two events of one answer.
fn records() -> Vec<Record> {
    vec![
        record("orders.picked", (0, 5), "a", 1),
        record("orders.picked", (0, 9), "a", 2),
        record("orders.picked", (1, 1), "a", 3),
        record("orders.picked", (0, 6), "b", 4),
        record("orders.picked", (0, 8), "b", 4),
        record("orders.short", (0, 1), "c", 6),
        record("orders.picked", (2, 0), "d", 6),
    ]
}

fn fill(filling: &mut Filling, records: &[Record]) {
    let told: Vec<_> = records.iter().map(|record| Told::of_record(record).unwrap()).collect();
    let read_to = records.iter().map(|r| ((r.topic.to_string(), r.partition), r.offset + 1)).collect();
    filling.write(&told, read_to).unwrap();
}

async fn target(file: &Path) -> (Target, String) {
    let mut target = Target::open(file.to_str().unwrap()).await.unwrap();
    let file = target.file_to_fill(u64::MAX, false).await.unwrap().unwrap();
    (target, file)
}

async fn rows(target: &mut Target) -> (Vec<SpanRow>, Vec<(String, String, i32, i64)>) {
    let records = target.ask("select ce_id, topic, partition_id, record_offset from records order by 1, 2", &[], &[]);
    let records = records.await.unwrap();
    (target.all_spans().await.unwrap(), records)
}

#[tokio::test]
async fn a_filled_file_has_the_rows_of_one_that_was_written_to_row_by_row() {
    let (folder, all) = (tempfile::tempdir().unwrap(), records());
    let mut by_row = Target::open(folder.path().join("rows.db").to_str().unwrap()).await.unwrap();
    by_row.write(all.iter().map(|record| Told::read(record).unwrap()).collect()).await.unwrap();
    let expected = rows(&mut by_row).await;
    assert_eq!((expected.0.len(), expected.1.len()), (3, 4));
    for (number, order) in [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [2, 6, 1, 4, 0, 5, 3]].into_iter().enumerate()
    {
        let (mut target, file) = target(&folder.path().join(format!("filled-{number}.db"))).await;
        let mut filling = Filling::open(&file, true).unwrap();
        let order: Vec<Record> = order.iter().map(|i| all[*i].clone()).collect();
        fill(&mut filling, &order);
        // As much again was read by a run that died.
        filling.keep().unwrap();
        fill(&mut filling, &order[2..]);
        filling.keep().unwrap();
        let settled = target.settle().await.unwrap();
        assert!(settled.repeats >= 3, "{settled:?}");
        assert_eq!(rows(&mut target).await, expected);
        assert_eq!(target.settle().await.unwrap(), Settled::default());
        // From now on it is written to row by row.
        assert_eq!(target.file_to_fill(3, false).await.unwrap(), None);
        target.write(order.iter().map(|record| Told::read(record).unwrap()).collect()).await.unwrap();
        assert_eq!(rows(&mut target).await, expected);
    }
}

#[tokio::test]
async fn a_file_whose_filling_was_interrupted_is_whole_for_who_asks_it_and_who_goes_on() {
    let (folder, all) = (tempfile::tempdir().unwrap(), records());
    let path = folder.path().join("journeys.db");
    let (_target, file) = target(&path).await;
    let mut filling = Filling::open(&file, true).unwrap();
    fill(&mut filling, &all[..6]);
    filling.keep().unwrap();
    // What is not kept is gone with the process.
    fill(&mut filling, &all[6..]);
    drop(filling);
    let mut asked = Target::existing(path.to_str().unwrap()).await.unwrap();
    assert!(!asked.is_filling().await.unwrap());
    assert_eq!(rows(&mut asked).await.1.len(), 3);
    assert_eq!(asked.read_to().await.unwrap().get(&("orders.short".to_owned(), 0)), Some(&2));
    assert_eq!(asked.read_to().await.unwrap().get(&("orders.picked".to_owned(), 2)), None);
    // A question between two transactions of a filling costs it nothing.
    let mut filling = Filling::open(&file, true).unwrap();
    fill(&mut filling, &all);
    filling.keep().unwrap();
    assert!(asked.settle().await.unwrap().repeats > 0);
    fill(&mut filling, &all);
    filling.keep().unwrap();
    asked.settle().await.unwrap();
    assert_eq!(rows(&mut asked).await.1.len(), 4);
}

#[tokio::test]
async fn a_run_over_some_records_does_not_say_how_far_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let (mut target, file) = target(&folder.path().join("journeys.db")).await;
    let mut filling = Filling::open(&file, false).unwrap();
    fill(&mut filling, &records());
    filling.keep().unwrap();
    assert!(target.read_to().await.unwrap().is_empty());
}
