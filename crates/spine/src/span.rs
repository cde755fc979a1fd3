//! The stage span: opened, linked and closed here, so that no stage can forget or misname one.

use crate::batch::Item;
use crate::record::Record;
use crate::stage::{Details, Event, Stage};
use jiff::Timestamp;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanId;
use rand::Rng;
use std::borrow::Cow;
use std::sync::Arc;
use waybill_telemetry::{Carrier, ChildSpan, Input, SpanEvent, SpanExport, SpanKind, SpanLink, SpanRecord, Status};

/// What all spans of a stage's process have in common.
pub(crate) struct Spans {
    pub export: SpanExport,
    /// Consumer group.
    pub group: Arc<str>,
    /// The deployment's topic prefix.
    pub prefix: Arc<str>,
}

impl Spans {
    /// A finished stage span over `start..end` for what a stage made of `item`.
    pub(crate) fn finished<S: Stage>(
        &self,
        item: &Item<S::Event>,
        (start, end): (Timestamp, Timestamp),
        details: Details,
        status: Status,
    ) -> SpanRecord {
        let mut rng = rand::rng();
        let mut span = SpanRecord::new(&mut rng, S::NAME, S::FLOW, S::SPAN, SpanKind::Consumer, start);
        span.children = details
            .children
            .into_iter()
            .map(|child| ChildSpan {
                span_id: SpanId::from(rng.random_range(1..=u64::MAX)),
                name: Cow::Borrowed(child.name),
                attributes: child.attributes,
            })
            .collect();
        // A record that was parked has been in hand since then.
        span.parked_since = item.parked.as_ref().map(|p| p.since);
        span.end = end;
        span.input = Some(self.input(item));
        span.attributes = details.attributes;
        span.events = details.events.into_iter().map(|(name, attributes)| event(name, end, attributes)).collect();
        span.links = links(item);
        span.status = status;
        if let Some(parked) = &item.parked {
            let attributes = vec![
                KeyValue::new("reason", parked.why.clone()),
                KeyValue::new("attempts", i64::from(parked.attempts)),
            ];
            span.events.insert(0, event("parked", span.begun(), attributes));
        }
        self.export.sample(&mut span, None);
        span
    }

    fn input<E: Event>(&self, item: &Item<E>) -> Input {
        let Record { topic, partition, offset, .. } = &item.record;
        // A key or id that was not accepted is data from who knows where: it stays out of telemetry.
        let message = item.work.as_ref().ok().map(|work| (work.event.key().to_owned(), work.id.clone()));
        let topic = if self.prefix.is_empty() { topic.clone() } else { format!("{}{topic}", self.prefix).into() };
        Input { topic, partition: *partition, offset: *offset, group: self.group.clone(), message }
    }
}

fn event(name: &'static str, time: Timestamp, attributes: Vec<KeyValue>) -> SpanEvent {
    SpanEvent { name: Cow::Borrowed(name), time, attributes }
}

/// Links to every stamp on the waybill, and to the producing span where that is another span.
fn links<E: Event>(item: &Item<E>) -> Vec<SpanLink> {
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
    links
}
