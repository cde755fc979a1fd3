//! What records tell, on both databases: the same rows in whatever order they come, and an export compared with them.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use jiff::Timestamp;
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use std::borrow::Cow;
use tempfile::TempDir;
use waybill_harness::{Database, postgres};
use waybill_journeys::{SpanRow, Target, Told, Verified};
use waybill_spine::{Content, Record};
use waybill_telemetry::{ChildSpan, Input, SpanEvent, SpanKind, SpanLink, SpanRecord, Status, Waybill};

const TIME: &str = "2026-11-21T10:00:00.123456789Z";

/// A span with everything that a span can have; `number` makes its ids.
fn span(number: u64) -> SpanRecord {
    let time: Timestamp = TIME.parse().unwrap();
    let mut span =
        SpanRecord::new(&mut rand::rng(), "pick", "waybill.fulfilment", "warehouse.pick", SpanKind::Consumer, time);
    span.trace_id = u128::from(number).into();
    span.span_id = number.into();
    span.trace_flags = opentelemetry::trace::TraceFlags::SAMPLED;
    span.end = time + jiff::SignedDuration::from_nanos(1_000_001);
    span.parked_since = Some(time - jiff::SignedDuration::from_secs(3));
    span.input = Some(Input {
        topic: "orders.new".into(),
        partition: 3,
        offset: 42,
        group: "waybill.pick".into(),
        message: Some(("o-1".into(), "an \"id\"".into())),
    });
    span.attributes = vec![
        KeyValue::new("order.id", "o-1"),
        KeyValue::new("weight", 2.0),
        KeyValue::new("huge", 1e16),
        KeyValue::new("count", 7),
        KeyValue::new("flag", true),
    ];
    let attributes = vec![KeyValue::new("reason", "wait\u{e9} \\ \"x\"")];
    span.events = vec![SpanEvent { name: "parked".into(), time, attributes }];
    span.status = Status::Error("no".into());
    span.children = vec![ChildSpan {
        span_id: (number + 1_000).into(),
        name: "warehouse.pick_item".into(),
        attributes: vec![KeyValue::new("quantity.picked", 2)],
    }];
    span
}

/// The record that `span` published, with a stamp of an earlier stage on its waybill; and the span as it was exported.
fn record(mut span: SpanRecord, ce_id: &str, (partition, offset): (i32, i64)) -> (Record, SpanRecord) {
    let mut waybill = Waybill::default();
    let mut earlier =
        SpanRecord::new(&mut rand::rng(), "checkout", "waybill.checkout", "c", SpanKind::Producer, span.start);
    (earlier.trace_id, earlier.span_id) = (77_u128.into(), 78_u64.into());
    waybill.push(earlier.stamp());
    span.links = waybill.links().collect();
    let (trace_id, span_id) =
        (opentelemetry::trace::TraceId::from(79_u128), opentelemetry::trace::SpanId::from(80_u64));
    span.links.push(SpanLink::new(trace_id, span_id, span.trace_flags, "consumed", Cow::Borrowed("elsewhere")));
    waybill.push(span.stamp());
    let payload = serde_json::json!({"order_id": "o-1", "lines": [], "waybill": waybill}).to_string();
    let mut content = Content::new(Some(b"o-1"), Some(payload.as_bytes()));
    content.push_text("ce_id", ce_id);
    content.push_text("ce_time", TIME);
    content.push("waybill_span", Some(&span.publish().unwrap()));
    (Record { topic: "orders.picked".into(), partition, offset, timestamp_ms: 0, content }, span)
}

fn told(number: u64, ce_id: &str, position: (i32, i64)) -> Told {
    Told::read(&record(span(number), ce_id, position).0).unwrap()
}

fn exported(span: SpanRecord) -> Vec<Span> {
    span.into_otel().map(Span::from).collect()
}

/// An empty target of each kind.
struct Targets {
    targets: Vec<Target>,
    folder: TempDir,
    database: Option<Database>,
}

async fn targets(name: &str) -> Targets {
    let folder = tempfile::tempdir().unwrap();
    let mut targets = vec![Target::open(folder.path().join("journeys.db").to_str().unwrap()).await.unwrap()];
    let database = match postgres() {
        Some(server) => Some(server.create_database(name).await.unwrap()),
        None => None,
    };
    if let Some(database) = &database {
        targets.push(Target::open(database.url()).await.unwrap());
    }
    Targets { targets, folder, database }
}

#[tokio::test]
async fn tables_of_another_version_and_files_of_others_are_refused_and_left_as_they_are() {
    let mut targets = targets("journeys_layout").await;
    let file = targets.folder.path().join("journeys.db").to_str().unwrap().to_owned();
    let mut names = vec![file];
    names.extend(targets.database.as_ref().map(|database| database.url().to_owned()));
    for (target, name) in targets.targets.iter_mut().zip(&names) {
        drop(Target::open(name).await.unwrap());
        match target {
            Target::Sqlite(db) => sqlx::raw_sql("pragma user_version = 1").execute(db).await.map(drop).unwrap(),
            Target::Postgres(db) => {
                sqlx::raw_sql("comment on table stage_spans is null").execute(db).await.map(drop).unwrap();
            }
        }
        let error = Target::open(name).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("replay again"), "{error}");
        assert_eq!(target.all_spans().await.unwrap(), [], "the tables are there");
    }
}

#[test]
fn a_row_tells_the_span_that_was_published() {
    let (record, span) = record(span(1), "a", (0, 0));
    let told = Told::read(&record).unwrap();
    assert_eq!((told.ce_id.as_str(), told.order_id.as_deref()), ("a", Some("o-1")));
    let rebuilt: Vec<Span> = told.spans.iter().flat_map(|row| row.to_otlp().unwrap()).collect();
    assert_eq!(rebuilt, exported(span));
    assert_eq!(told.spans.iter().map(|row| row.stamp).collect::<Vec<_>>(), [true]);
}

#[test]
fn a_dead_letter_tells_its_own_span_and_not_that_of_the_failed_record() {
    let (mut failed, _) = record(span(1), "a", (0, 0));
    let mut refusing = span(5);
    // Nothing of it was accepted, so nothing of it is in the span.
    refusing.input = refusing.input.map(|input| Input { message: None, ..input });
    failed.topic = "dead.pack".into();
    failed.content.push("dead_span", Some(b"of an earlier failure"));
    failed.content.push_text("dead_stage", "pack");
    failed.content.push_text("dead_reason", "unreadable");
    failed.content.push_text("dead_message", "it is no order");
    failed.content.push("dead_span", Some(&refusing.publish().unwrap()));
    let told = Told::read(&failed).unwrap();
    assert_eq!(told.reason.as_deref(), Some("pack: unreadable: it is no order"));
    let rebuilt: Vec<Span> = told.spans.iter().flat_map(|row| row.to_otlp().unwrap()).collect();
    assert_eq!(rebuilt, exported(refusing));
    assert!(told.spans.iter().all(|row| !row.stamp));
}

#[test]
fn a_record_that_tells_nothing_says_why() {
    let change = |change: fn(&mut Record)| {
        let (mut record, _) = record(span(1), "a", (0, 0));
        change(&mut record);
        Told::read(&record).unwrap_err()
    };
    let with = |name: &'static str, value: &'static [u8]| {
        let mut content = Content::new(Some(b"o-1"), Some(b"{}"));
        content.push_text("ce_id", "a");
        content.push(name, Some(value));
        let record = Record { topic: "orders.new".into(), partition: 0, offset: 0, timestamp_ms: 0, content };
        Told::read(&record)
    };
    assert!(change(|r| r.content = Content::new(None, None)).contains("key"));
    assert!(change(|r| r.content = Content::new(Some(b"o-1"), None)).contains("ce_id"));
    assert!(change(|r| r.topic = "dead.pick".into()).contains("dead_span"));
    assert!(with("waybill_span", b"{\"stage\":").unwrap_err().contains("waybill_span"));
    assert!(with("waybill_parts", b"{}").unwrap_err().contains("waybill_parts"));
    assert!(with("other", b"{}").unwrap().spans.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_records_with_one_id_the_first_counts_in_whatever_order_they_are_read() {
    // Three ids: one stands three times with other spans, one twice with the same, one once.
    let all = [
        told(1, "a", (0, 5)),
        told(2, "a", (0, 9)),
        told(3, "a", (1, 1)),
        told(4, "b", (0, 6)),
        told(4, "b", (0, 8)),
        told(6, "c", (2, 0)),
    ];
    let mut expected: Vec<SpanRow> = [0, 3, 5].iter().flat_map(|i| all[*i].spans.clone()).collect();
    expected.sort_by(|a, b| (&a.trace_id, &a.span_id).cmp(&(&b.trace_id, &b.span_id)));
    for (number, (order, batch)) in [
        ([0, 1, 2, 3, 4, 5], 6),
        ([5, 4, 3, 2, 1, 0], 6),
        ([2, 1, 0, 4, 5, 3], 1),
        ([1, 4, 0, 3, 2, 5], 2),
        ([4, 2, 5, 1, 3, 0], 3),
    ]
    .into_iter()
    .enumerate()
    {
        let mut place = targets(&format!("first-{number}")).await;
        for target in &mut place.targets {
            let mut repeats = 0;
            for _again in 0..2 {
                for batch in order.chunks(batch) {
                    let written = target.write(batch.iter().map(|i| all[*i].clone()).collect()).await.unwrap();
                    repeats += written.repeats;
                }
            }
            assert!(repeats >= 3, "{repeats} repeats in {order:?}");
            assert_eq!(target.all_spans().await.unwrap(), expected, "{order:?} {batch} at a time");
        }
    }
}

/// A line of an export with these spans.
fn line(spans: Vec<Span>) -> String {
    let scope = InstrumentationScope { name: "waybill.fulfilment".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    serde_json::to_string(&ExportTraceServiceRequest { resource_spans }).unwrap() + "\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_compared_field_by_field() {
    let mut place = targets("compare").await;
    for target in &mut place.targets {
        let (record, span) = record(span(1), "a", (0, 0));
        target.write(vec![Told::read(&record).unwrap()]).await.unwrap();
        let whole = exported(span);
        let verified = Verified::compare(target, line(whole.clone()).as_bytes()).await.unwrap();
        assert_eq!((verified.equal, verified.differences(), verified.unexported), (2, 0, 0), "{verified:?}");

        type Change = fn(&mut Span);
        let changes: [(&str, Change); 10] = [
            ("name", |s| s.name.push('x')),
            ("kind", |s| s.kind = 1),
            ("start", |s| s.start_time_unix_nano += 1),
            ("end", |s| s.end_time_unix_nano += 1),
            ("parent", |s| s.parent_span_id = vec![1; 8]),
            ("attributes", |s| s.attributes.truncate(3)),
            ("events", |s| s.events[0].time_unix_nano += 1),
            ("links", |s| s.links.truncate(1)),
            ("status", |s| s.status = None),
            ("dropped", |s| s.dropped_links_count = 1),
        ];
        for (field, change) in changes {
            let mut other = whole.clone();
            change(&mut other[0]);
            let verified = Verified::compare(target, line(other).as_bytes()).await.unwrap();
            assert_eq!((verified.equal, verified.differing), (1, 1), "{field}: {verified:?}");
            let fields = &verified.differing_listed[0].fields;
            assert!(fields.len() == 1 && fields[0].starts_with(&format!("{field}: ")), "{field}: {fields:?}");
        }

        // One that nobody published, and one that was not exported.
        let other = exported(crate::span(9)).remove(0);
        let verified = Verified::compare(target, line(vec![whole[0].clone(), other]).as_bytes()).await.unwrap();
        assert_eq!((verified.equal, verified.unpublished, verified.unexported), (1, 1, 1), "{verified:?}");
        assert_eq!(verified.unpublished_listed[0].span_id, format!("{:016x}", 9));
        assert!(Verified::compare(target, b"{\"resourceSpans\": 7}\n".as_slice()).await.is_err());
    }
}

/// As the collector's file exporter writes: 64-bit numbers as text, defaults left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_of_the_collectors_file_exporter_is_read() {
    let mut place = targets("form").await;
    let time: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
    let mut plain =
        SpanRecord::new(&mut rand::rng(), "pack", "waybill.fulfilment", "warehouse.pack", SpanKind::Consumer, time);
    (plain.trace_id, plain.span_id) = (1_u128.into(), 2_u64.into());
    plain.trace_flags = opentelemetry::trace::TraceFlags::SAMPLED;
    plain.attributes = vec![KeyValue::new("pack.weight_kg", 2.5), KeyValue::new("n", 3), KeyValue::new("s", "x")];
    let mut content = Content::new(Some(b"o-1"), Some(b"{}"));
    content.push_text("ce_id", "a");
    content.push("waybill_span", Some(&plain.publish().unwrap()));
    let record = Record { topic: "orders.packed".into(), partition: 0, offset: 0, timestamp_ms: 0, content };
    let export = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"waybill-pack"}}]},"scopeSpans":[{"scope":{"name":"waybill.fulfilment","version":"0.1.0"},"spans":[{"traceId":"00000000000000000000000000000001","spanId":"0000000000000002","parentSpanId":"","flags":257,"name":"warehouse.pack","kind":5,"startTimeUnixNano":"1795255200000000000","endTimeUnixNano":"1795255200000000000","attributes":[{"key":"pack.weight_kg","value":{"doubleValue":2.5}},{"key":"n","value":{"intValue":"3"}},{"key":"s","value":{"stringValue":"x"}}],"status":{}}],"schemaUrl":"https://opentelemetry.io/schemas/1.44.0"}]}]}"#;
    for target in &mut place.targets {
        target.write(vec![Told::read(&record).unwrap()]).await.unwrap();
        let verified = Verified::compare(target, export.as_bytes()).await.unwrap();
        assert_eq!((verified.equal, verified.differences()), (1, 0), "{verified:?}");
    }
}
