//! Ship: the cheapest carrier that takes the parcels, a label and a tracking number each, the expected delivery.
//!
//! Consumes `orders.packed` and `orders.cancel_requested`, keyed by order. Produces `orders.shipped` or
//! `orders.cancelled`: whichever comes first decides, for there is one row an order. Replay: an order already shipped
//! keeps its labels and repeats its last answer; a label is drawn in the transaction that keeps the shipment.

use crate::carriers::{self, Carrier};
use crate::serials::Serials;
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use waybill_events::{CancelRequested, Cost, OrderCancelled, OrderPacked, OrderShipped, ShippedParcel};
use waybill_spine::{Decision, Details, Event, Input, NoCall, Outcome, Refusal, Stage};
use waybill_store::Table;
use waybill_telemetry::Waybill;

/// Currency of the built-in rate tables.
const CURRENCY: &str = "EUR";

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Ship;

/// What is asked of it.
#[derive(Clone, Debug)]
pub enum Asked {
    /// To ship an order.
    Packed(OrderPacked),
    /// Not to.
    Cancel(CancelRequested),
}

/// What has become of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Shipment {
    /// It is with a carrier.
    Shipped {
        /// The carrier.
        carrier: String,
        /// One tracking number a parcel.
        tracking_numbers: Vec<String>,
    },
    /// It is not shipped, and never will be.
    Cancelled {
        /// When that was asked for.
        cancelled_at: jiff::Timestamp,
    },
}

impl Input for Asked {
    const TOPICS: &'static [(&'static str, &'static str)] =
        &[(OrderPacked::TOPIC, OrderPacked::SCHEMA), (CancelRequested::TOPIC, CancelRequested::SCHEMA)];

    fn read(schema: &str, payload: &[u8]) -> serde_json::Result<Self> {
        Ok(match schema {
            CancelRequested::SCHEMA => Asked::Cancel(serde_json::from_slice(payload)?),
            _ => Asked::Packed(serde_json::from_slice(payload)?),
        })
    }
    fn key(&self) -> &str {
        match self {
            Asked::Packed(order) => Event::key(order),
            Asked::Cancel(request) => Event::key(request),
        }
    }
    fn waybill(&self) -> &Waybill {
        match self {
            Asked::Packed(order) => Event::waybill(order),
            Asked::Cancel(request) => Event::waybill(request),
        }
    }
    fn check(&self) -> Result<(), String> {
        match self {
            Asked::Packed(order) => Event::check(order),
            Asked::Cancel(request) => Event::check(request),
        }
    }
}

impl Stage for Ship {
    const NAME: &'static str = "ship";
    const FLOW: &'static str = crate::FLOW;
    const SPAN: &'static str = "shipping.dispatch";
    const TABLE: Table = Table("shipments");

    type Event = Asked;
    type State = Shipment;
    type Shared = Serials;
    type Call = NoCall;

    fn decide(
        &self,
        serials: &mut Serials,
        state: Option<&Shipment>,
        asked: &Asked,
        time: jiff::Timestamp,
    ) -> Outcome<Shipment> {
        match (asked, state) {
            (Asked::Packed(order), None) => ship(order, time, serials),
            (Asked::Cancel(request), None) => cancel(request, time),
            (Asked::Packed(_), Some(Shipment::Shipped { .. })) => Outcome::Repeat,
            (Asked::Cancel(_), Some(Shipment::Cancelled { .. })) => Outcome::Repeat,
            (Asked::Packed(_), Some(Shipment::Cancelled { .. })) => Outcome::Ignore("the order was cancelled before"),
            (Asked::Cancel(_), Some(Shipment::Shipped { .. })) => Outcome::Ignore("the order is with its carrier"),
        }
    }
}

fn ship(order: &OrderPacked, packed_at: jiff::Timestamp, serials: &mut Serials) -> Outcome<Shipment> {
    let sizes: Vec<(u32, [u32; 3])> = order.parcels.iter().map(|p| (p.weight_g, p.size_mm)).collect();
    let Some(quote) = carriers::cheapest(&sizes, &order.country, order.service) else {
        let why = "no carrier takes a parcel of this weight and size to this country";
        return Outcome::Reject(Refusal::new("no_carrier", why));
    };
    let Some(parcels) = label(order, quote.carrier, serials) else {
        return Outcome::Reject(Refusal::new("bug", "fewer serial numbers were drawn than there are parcels"));
    };
    let tracking_numbers: Vec<String> = parcels.iter().map(|p| p.tracking_number.clone()).collect();
    let event = OrderShipped {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        country: order.country.clone(),
        service: order.service,
        carrier: quote.carrier.name.to_owned(),
        cost: Cost { amount_minor: quote.cost_minor, currency: CURRENCY.to_owned() },
        estimated_delivery: carriers::delivery_date(packed_at, quote.business_days),
        parcels,
        waybill: Waybill::default(),
    };
    Outcome::Emit(Decision {
        span: span(&event, &tracking_numbers),
        state: Shipment::Shipped { carrier: event.carrier.clone(), tracking_numbers },
        events: vec![Box::new(event)],
    })
}

fn cancel(request: &CancelRequested, cancelled_at: jiff::Timestamp) -> Outcome<Shipment> {
    let event = OrderCancelled {
        order_id: request.order_id.clone(),
        customer_id: request.customer_id.clone(),
        waybill: Waybill::default(),
    };
    Outcome::Emit(Decision {
        span: Details {
            attributes: vec![KeyValue::new("order.id", event.order_id.clone())],
            events: vec![("cancelled", vec![])],
            ..Details::default()
        },
        state: Shipment::Cancelled { cancelled_at },
        events: vec![Box::new(event)],
    })
}

fn label(order: &OrderPacked, carrier: &Carrier, serials: &mut Serials) -> Option<Vec<ShippedParcel>> {
    let of = u32::try_from(order.parcels.len()).ok()?;
    let label = |parcel: &waybill_events::Parcel| {
        let tracking_number = carrier.tracking_number(serials.draw()?);
        let label =
            carrier.label(&tracking_number, &order.order_id, parcel.parcel, of, parcel.weight_g, &order.country);
        Some(ShippedParcel {
            parcel: parcel.parcel,
            box_size: parcel.box_size.clone(),
            weight_g: parcel.weight_g,
            tracking_number,
            label,
        })
    };
    order.parcels.iter().map(label).collect()
}

fn span(event: &OrderShipped, tracking_numbers: &[String]) -> Details {
    let parcels = i64::try_from(event.parcels.len()).unwrap_or(i64::MAX);
    Details {
        attributes: vec![
            KeyValue::new("order.id", event.order_id.clone()),
            KeyValue::new("shipping.carrier", event.carrier.clone()),
            KeyValue::new("shipping.tracking_number", tracking_numbers.join(",")),
            KeyValue::new("shipping.estimated_delivery", event.estimated_delivery.to_string()),
        ],
        events: vec![
            ("label", vec![KeyValue::new("labels", parcels)]),
            ("handed_over", vec![KeyValue::new("parcels", parcels)]),
        ],
        ..Details::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_events::{Parcel, Service};

    fn order(weights: &[u32]) -> OrderPacked {
        let parcel = |(parcel, weight_g): (u32, &u32)| Parcel {
            parcel,
            box_size: "M".into(),
            weight_g: *weight_g,
            size_mm: [300, 200, 150],
            items: vec![],
        };
        OrderPacked {
            order_id: "o-1".into(),
            customer_id: "c-1".into(),
            country: "DE".into(),
            service: Service::Standard,
            slip: "PS-o-1".into(),
            parcels: (1..).zip(weights).map(parcel).collect(),
            waybill: Waybill::default(),
        }
    }

    fn request() -> Asked {
        Asked::Cancel(CancelRequested { order_id: "o-1".into(), customer_id: "c-1".into() })
    }

    fn decide(serials: &mut Serials, state: Option<&Shipment>, asked: &Asked) -> Outcome<Shipment> {
        Ship.decide(serials, state, asked, "2026-11-20T15:00:00Z".parse().unwrap())
    }

    #[test]
    fn each_parcel_gets_a_label_and_a_valid_number_of_its_own() {
        let packed = Asked::Packed(order(&[800, 900]));
        let Outcome::Emit(mut decision) = decide(&mut Serials((1..=2).collect()), None, &packed) else {
            panic!("expected a decision");
        };
        let Shipment::Shipped { tracking_numbers: numbers, .. } = &decision.state else { panic!("not shipped") };
        assert_eq!(numbers.len(), 2);
        assert_ne!(numbers[0], numbers[1]);
        assert!(numbers.iter().all(|n| carriers::is_valid_tracking_number(n)), "{numbers:?}");
        let event = crate::published(decision.events[0].as_mut());
        assert!(event["parcels"][1]["label"].as_str().is_some_and(|l| l.contains("^BC")));
        let day: jiff::civil::Date = event["estimated_delivery"].as_str().unwrap().parse().unwrap();
        assert!(day > jiff::civil::date(2026, 11, 22), "a Friday's parcel is not delivered before Monday: {day}");
    }

    #[test]
    fn what_no_carrier_takes_is_rejected() {
        let outcome = decide(&mut Serials([1].into()), None, &Asked::Packed(order(&[u32::MAX])));
        assert!(matches!(outcome, Outcome::Reject(r) if r.reason == "no_carrier"));
    }

    #[test]
    fn the_first_to_come_decides_between_shipping_and_cancelling() {
        let shipped = Shipment::Shipped { carrier: "x".into(), tracking_numbers: vec![] };
        let cancelled = Shipment::Cancelled { cancelled_at: jiff::Timestamp::UNIX_EPOCH };
        let packed = Asked::Packed(order(&[800]));
        let table = [
            ("packed first", None, &packed, "orders.shipped"),
            ("packed, replayed", Some(&shipped), &packed, "repeat"),
            ("asked to cancel after shipping", Some(&shipped), &request(), "the order is with its carrier"),
            ("asked to cancel first, out of order", None, &request(), "orders.cancelled"),
            ("asked to cancel, replayed", Some(&cancelled), &request(), "repeat"),
            ("packed after it was cancelled", Some(&cancelled), &packed, "the order was cancelled before"),
        ];
        for (given, state, asked, then) in table {
            let mut serials = Serials([1].into());
            let found = match decide(&mut serials, state, asked) {
                Outcome::Emit(decision) => decision.events[0].topic(),
                Outcome::Repeat => "repeat",
                Outcome::Ignore(why) => why,
                _ => "something else",
            };
            assert_eq!(found, then, "{given}");
            assert_eq!(serials.draw().is_none(), then == "orders.shipped", "{given}: a label is drawn to ship alone");
        }
    }

    #[test]
    fn what_is_kept_is_read_as_it_was_written() {
        let cancelled_at = "2026-11-20T15:00:00.5Z".parse().unwrap();
        let shipped = Shipment::Shipped { carrier: "x".into(), tracking_numbers: vec!["1".into()] };
        for state in [shipped, Shipment::Cancelled { cancelled_at }] {
            let kept = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<Shipment>(&kept).unwrap(), state, "{kept}");
        }
    }
}
