//! An order's journey, as the stages publish it and keep it.

use jiff::{SignedDuration, Timestamp};
use opentelemetry::KeyValue;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::borrow::Cow;
use waybill_journeys::Journey;
use waybill_spine::{Content, Message, headers};
use waybill_telemetry::{ChildSpan, SpanEvent, SpanKind, SpanLink, SpanRecord, Stamp, Status, Waybill};

/// When the order was asked for.
pub const BEGUN: &str = "2026-11-20T09:00:00Z";

/// What a stage keeps.
pub struct Made {
    /// `checkouts`, `picks`, `packs`, `shipments`.
    pub table: &'static str,
    pub messages: Vec<Message>,
}

/// A journey over four traces: a checkout with parts, then hours of waiting before each stage.
pub struct Maker {
    order: String,
    rng: SmallRng,
    stamps: Vec<Stamp>,
    now: Timestamp,
}

impl Maker {
    pub fn of(order: &str) -> Self {
        let rng = SmallRng::seed_from_u64(7);
        Maker { order: order.to_owned(), rng, stamps: Vec::new(), now: BEGUN.parse().unwrap() }
    }

    fn after(&mut self, wait: SignedDuration) -> Timestamp {
        self.now = self.now.checked_add(wait).unwrap();
        self.now
    }

    fn span(&mut self, stage: &'static str, name: &'static str, kind: SpanKind, took: SignedDuration) -> SpanRecord {
        let mut span = SpanRecord::new(&mut self.rng, stage, "test", name, kind, self.now);
        span.end = self.after(took);
        span.attributes = vec![KeyValue::new("order.id", self.order.clone())];
        span
    }

    /// The event on `topic`, with the span and its parts.
    fn message(
        &mut self,
        topic: &'static str,
        payload: serde_json::Value,
        mut span: SpanRecord,
        parts: &[SpanRecord],
    ) -> Message {
        self.stamps.push(span.stamp());
        let mut payload = payload;
        payload["order_id"] = self.order.clone().into();
        payload["waybill"] = serde_json::to_value(&self.stamps).unwrap();
        let bytes = serde_json::to_vec(&payload).unwrap();
        // As the spine does: links to the stamps are in the payload.
        let mut content = Content::new(Some(self.order.as_bytes()), Some(&bytes));
        let waybill: Waybill = serde_json::from_value(payload["waybill"].clone()).unwrap();
        let own = |link: &SpanLink| (link.trace_id, link.span_id) == (span.trace_id, span.span_id);
        let links: Vec<SpanLink> = waybill.links().filter(|link| !own(link)).collect();
        span.links.splice(..0, links);
        content.push(headers::SPAN, Some(&span.publish().unwrap()));
        if !parts.is_empty() {
            content.push(headers::PARTS, Some(&serde_json::to_vec(parts).unwrap()));
        }
        Message { topic: Cow::Borrowed(topic), content }
    }

    pub fn checkout(&mut self) -> Made {
        let begun = self.now;
        let mut process =
            self.span("checkout", "checkout.process", SpanKind::Internal, SignedDuration::from_millis(128));
        process.events.push(SpanEvent { name: "cart_validated".into(), time: begun, attributes: Vec::new() });
        let mut payment = self.span("checkout", "payment.process", SpanKind::Client, SignedDuration::ZERO);
        payment = payment.under(&process.context());
        (payment.start, payment.end) = (begun.checked_add(SignedDuration::from_millis(20)).unwrap(), process.end);
        payment.attributes.push(KeyValue::new("payment.amount", 4_711_i64));
        let complete = self.span("checkout", "checkout.complete", SpanKind::Producer, SignedDuration::ZERO);
        let complete = complete.under(&process.context());
        let new = self.message("orders.new", serde_json::json!({}), complete, &[process, payment]);
        Made { table: "checkouts", messages: vec![new] }
    }

    pub fn pick(&mut self) -> Made {
        self.after(SignedDuration::from_hours(3));
        let mut span = self.span("pick", "warehouse.pick", SpanKind::Consumer, SignedDuration::from_micros(12));
        for line in 0..3_u64 {
            span.children.push(ChildSpan {
                span_id: (1_000 + line).into(),
                name: "warehouse.pick_item".into(),
                attributes: vec![KeyValue::new("product.id", format!("p-{line}"))],
            });
        }
        let short = serde_json::json!({"lines": [{"sku": "SKU-1", "requested": 3, "picked": 1}]});
        let picked = self.message("orders.picked", serde_json::json!({}), span.clone(), &[]);
        self.stamps.pop();
        let short = self.message("orders.short", short, span, &[]);
        Made { table: "picks", messages: vec![picked, short] }
    }

    pub fn pack(&mut self) -> Made {
        self.after(SignedDuration::from_hours(20));
        let mut span = self.span("pack", "warehouse.pack", SpanKind::Consumer, SignedDuration::from_micros(9));
        span.status = Status::Error("the scales <b>failed</b>".to_owned());
        Made { table: "packs", messages: vec![self.message("orders.packed", serde_json::json!({}), span, &[])] }
    }

    pub fn ship(&mut self) -> Made {
        self.after(SignedDuration::from_hours(30));
        let span = self.span("ship", "shipping.dispatch", SpanKind::Consumer, SignedDuration::from_micros(15));
        let shipped = serde_json::json!({
            "carrier": "swiftline", "estimated_delivery": "2026-11-25",
            "parcels": [{"parcel": 1, "box": "L", "tracking_number": "700000009105"}],
        });
        Made { table: "shipments", messages: vec![self.message("orders.shipped", shipped, span, &[])] }
    }

    /// All four stages.
    pub fn all(&mut self) -> Vec<Made> {
        vec![self.checkout(), self.pick(), self.pack(), self.ship()]
    }
}

/// The journey that all these answers tell.
pub fn journey(order: &str, made: Vec<Made>) -> Journey {
    let messages = made.into_iter().flat_map(|made| made.messages);
    let kept: Vec<(String, Content)> = messages.map(|message| (message.topic.into_owned(), message.content)).collect();
    Journey::kept(order, &kept)
}
