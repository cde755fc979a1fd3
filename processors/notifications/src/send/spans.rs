//! The spans of the senders, named in `docs/telemetry.md`.

use super::telling::{Settled, Telling};
use jiff::{SignedDuration, Timestamp};
use opentelemetry::KeyValue;
use std::borrow::Cow;
use waybill_events::{Batch, Tell};
use waybill_spine::Part;
use waybill_telemetry::{Carrier, Incoming, SpanKind, SpanLink, Status};

/// Scope of the spans and prefix of the metrics.
pub(super) const FLOW: &str = "notifications";
/// One person's notice.
pub(super) const SINGLE: &str = "back_in_stock.send_single";
/// What became of a notice: see [`Tell`].
pub(super) const RESULT: &str = "notification.result";
pub(super) const CHANNEL: &str = "notification.channel";
/// Seconds from the restock to the campaign's first notice, on the batch that has it.
pub(super) const FIRST_DELAY: &str = "notification.first_delay_s";

/// Attributes of `back_in_stock.send_batch`.
pub(super) fn batch(channel: &'static str, batch: &Batch, telling: &Telling) -> Vec<KeyValue> {
    let count =
        |result| i64::try_from(telling.told.iter().filter(|told| result == (told.result == Tell::Sent)).count());
    let mut attributes = vec![
        KeyValue::new("product.id", batch.product_id.clone()),
        KeyValue::new("batch.index", i64::from(batch.index)),
        KeyValue::new("batch.size", i64::from(batch.size)),
        KeyValue::new(CHANNEL, channel),
        KeyValue::new("notification.sent_count", count(true).unwrap_or(i64::MAX)),
        KeyValue::new("notification.error_count", count(false).unwrap_or(i64::MAX)),
        KeyValue::new("notification.sold_out", telling.sold_out),
    ];
    if let Some(first) = telling.first_sent.filter(|_| batch.index == 0) {
        attributes.push(KeyValue::new(FIRST_DELAY, first.duration_since(batch.restocked_at).as_secs_f64()));
    }
    attributes
}

/// `back_in_stock.send_single`.
pub(super) fn single(channel: &'static str, batch: &Batch, settled: &Settled) -> Part {
    let waiting = &settled.waiting;
    let subscribed = waiting.traceparent.as_deref().and_then(subscription);
    let status = if settled.result == Tell::Sent { Status::Unset } else { Status::Error(settled.why.clone()) };
    Part {
        name: SINGLE,
        kind: SpanKind::Client,
        within: None,
        interval: settled.interval,
        attributes: vec![
            KeyValue::new("user.id", waiting.user_id.clone()),
            KeyValue::new(CHANNEL, channel),
            KeyValue::new("notification.wait_hours", hours(settled.interval.0, waiting.since)),
            KeyValue::new(RESULT, settled.result.as_str()),
        ],
        events: Vec::new(),
        links: batch.waybill.links().chain(subscribed).collect(),
        status,
        publishes: false,
    }
}

/// One decimal.
fn hours(now: Timestamp, since: Timestamp) -> f64 {
    (now.duration_since(since).max(SignedDuration::ZERO).as_secs_f64() / 360.0).round() / 10.0
}

/// The span in which somebody subscribed.
fn subscription(traceparent: &str) -> Option<SpanLink> {
    struct Kept<'a>(&'a str);
    impl Carrier for Kept<'_> {
        fn header(&self, name: &str) -> Option<&str> {
            (name == "traceparent").then_some(self.0)
        }
    }
    let span = Incoming::read(&Kept(traceparent), &[]).producer?;
    let (trace_id, span_id, flags) = (span.trace_id(), span.span_id(), span.trace_flags());
    Some(SpanLink::new(trace_id, span_id, flags, "follows_from", Cow::Borrowed("subscribe")))
}
