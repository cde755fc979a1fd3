//! The stage span: opened, linked and closed here, so that no stage can forget or misname one.

use crate::item::Item;
use crate::record::Record;
use crate::stage::{Details, Input as _, Part, Stage, Trace};
use jiff::Timestamp;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanId};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use waybill_telemetry::{Carrier, ChildSpan, Incoming, Input, SpanEvent, SpanExport, SpanKind, SpanLink, SpanRecord};

/// What all spans of a stage's process have in common.
pub(crate) struct Spans {
    pub export: SpanExport,
    /// Consumer group.
    pub group: Arc<str>,
    /// The deployment's topic prefix.
    pub prefix: Arc<str>,
}

/// A stage span that waits for the answer of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    /// Its W3C `traceparent`: it is the same span when the answer has come.
    traceparent: String,
    start: Timestamp,
    events: Vec<SpanEvent>,
    /// Its parts so far: exported already, to be published with the answer.
    pub(crate) parts: Vec<SpanRecord>,
}

impl Open {
    pub(crate) fn leave(span: &mut SpanRecord, parts: Vec<SpanRecord>) -> Self {
        Open { traceparent: span.traceparent(), start: span.start, events: std::mem::take(&mut span.events), parts }
    }
}

impl Carrier for Open {
    fn header(&self, name: &str) -> Option<&str> {
        (name == "traceparent").then_some(&self.traceparent)
    }
}

impl Spans {
    /// A finished stage span over `start..end` for what a stage made of `item`; over the waits of its calls, if it made any.
    pub(crate) fn finished<S: Stage>(
        &self,
        item: &Item<S>,
        (start, end): (Timestamp, Timestamp),
        details: Details,
    ) -> SpanRecord {
        let mut rng = rand::rng();
        let (name, trace) = item.work.as_ref().map_or((S::SPAN, Trace::Linked), |work| S::span(&work.event));
        let mut span = SpanRecord::new(&mut rng, S::NAME, scope::<S>(), name, SpanKind::Consumer, start);
        let children = details.children.into_iter().map(|child| ChildSpan {
            span_id: SpanId::from(rng.random_range(1..=u64::MAX)),
            name: Cow::Borrowed(child.name),
            attributes: child.attributes,
        });
        span.children = children.collect();
        span.end = end;
        span.input = Some(self.input(item));
        span.attributes = details.attributes;
        span.links = links(item);
        span.status = details.status;
        self.place(&mut span, item, trace);
        span.events.extend(details.events.into_iter().map(|(name, attributes)| event(name, end, attributes)));
        span
    }

    /// Its trace, its parent, and what it was before its calls.
    fn place<S: Stage>(&self, span: &mut SpanRecord, item: &Item<S>, trace: Trace) {
        let parent = item.incoming.producer.as_ref().filter(|_| trace == Trace::Continued);
        if let Some(parent) = parent {
            span.trace_id = parent.trace_id();
            span.parent = Some(parent.span_id());
            span.links.retain(|link| link.span_id != parent.span_id() || link.trace_id != parent.trace_id());
        }
        let recorded = recorded(item);
        let Some(parked) = &item.parked else { return self.export.sample(span, recorded) };
        let Some(open) = &parked.open else {
            // A record that was parked has been in hand since then.
            span.parked_since = Some(parked.since);
            let attributes = vec![
                KeyValue::new("reason", parked.why.clone()),
                KeyValue::new("attempts", i64::from(parked.attempts)),
            ];
            span.events.push(event("parked", span.begun(), attributes));
            return self.export.sample(span, recorded);
        };
        let Some(before) = Incoming::read(open, &[]).producer else {
            return self.export.sample(span, recorded);
        };
        span.trace_id = before.trace_id();
        span.trace_flags = before.trace_flags();
        if parked.lapsed {
            // The span of the process that died is lost with it.
            let (trace_id, span_id, flags) = (before.trace_id(), before.span_id(), before.trace_flags());
            span.links.push(SpanLink::new(trace_id, span_id, flags, "retry_of", Cow::Borrowed(S::NAME)));
        } else {
            span.span_id = before.span_id();
            span.start = open.start;
            span.events.clone_from(&open.events);
        }
    }

    fn input<S: Stage>(&self, item: &Item<S>) -> Input {
        let Record { topic, partition, offset, .. } = &item.record;
        // A key or id that was not accepted is data from who knows where: it stays out of telemetry.
        let message = item.work.as_ref().ok().map(|work| (work.event.key().to_owned(), work.id.clone()));
        let topic = if self.prefix.is_empty() { topic.clone() } else { format!("{}{topic}", self.prefix).into() };
        Input { topic, partition: *partition, offset: *offset, group: self.group.clone(), message }
    }
}

/// Scope of its spans and of its metrics.
pub(crate) fn scope<S: Stage>() -> String {
    format!("waybill.{}", S::FLOW)
}

/// The spans of the parts of `main`, each with whether it publishes.
pub(crate) fn parts<S: Stage>(main: &SpanContext, parts: Vec<Part>) -> Vec<(SpanRecord, bool)> {
    let mut rng = rand::rng();
    let mut spans: Vec<(SpanRecord, bool)> = Vec::with_capacity(parts.len());
    for part in parts {
        let within = part.within.and_then(|i| spans.get(i)).map_or_else(|| main.clone(), |(span, _)| span.context());
        let span = SpanRecord::new(&mut rng, S::NAME, scope::<S>(), part.name, part.kind, part.interval.0);
        let mut span = span.under(&within);
        span.end = part.interval.1;
        span.attributes = part.attributes;
        span.events = part.events;
        span.links = part.links;
        span.status = part.status;
        spans.push((span, part.publishes));
    }
    spans
}

fn event(name: &'static str, time: Timestamp, attributes: Vec<KeyValue>) -> SpanEvent {
    SpanEvent { name: Cow::Borrowed(name), time, attributes }
}

/// Whether the journey is recorded: by its own context, or, of what a row of an outbox published, by the first stamp of its waybill.
fn recorded<S: Stage>(item: &Item<S>) -> Option<bool> {
    let first =
        || item.work.as_ref().ok()?.event.waybill().stamps().first().map(|stamp| stamp.trace_flags.is_sampled());
    item.incoming.recorded().or_else(first)
}

/// Links to every stamp on the waybill, to the producing span where that is another span, and to the failure that was redriven.
fn links<S: Stage>(item: &Item<S>) -> Vec<SpanLink> {
    let mut links: Vec<SpanLink> = match &item.work {
        Ok(accepted) => accepted.event.waybill().links().collect(),
        Err(_) => Vec::new(),
    };
    if let Some(producer) = &item.incoming.producer
        && !links.iter().any(|l| l.span_id == producer.span_id() && l.trace_id == producer.trace_id())
    {
        let source = item.record.content.header(crate::headers::SOURCE).unwrap_or_default();
        let stage = source.rsplit('/').next().filter(|s| !s.is_empty() && s.len() <= 64).unwrap_or("unknown");
        links.push(SpanLink::new(
            producer.trace_id(),
            producer.span_id(),
            producer.trace_flags(),
            "consumed",
            stage.to_owned().into(),
        ));
    }
    if let Some(failed) = item.redriven.as_ref().and_then(|letter| Incoming::read(letter, &[]).producer) {
        let (trace_id, span_id, flags) = (failed.trace_id(), failed.span_id(), failed.trace_flags());
        links.push(SpanLink::new(trace_id, span_id, flags, "redrive_of", Cow::Borrowed(S::NAME)));
    }
    links
}
