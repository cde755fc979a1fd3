//! Ship: the cheapest carrier that takes the parcels, a label and a tracking number each, the expected delivery.
//!
//! Consumes `orders.packed`, keyed by order. Produces `orders.shipped`. Replay: an order already shipped keeps its
//! labels and repeats its last answer; a label is drawn in the transaction that keeps the shipment.

use crate::carriers::{self, Carrier};
use crate::serials::Serials;
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use waybill_events::{Cost, OrderPacked, OrderShipped, ShippedParcel};
use waybill_spine::{Decision, Details, NoCall, Outcome, Refusal, Stage};
use waybill_store::Table;
use waybill_telemetry::Waybill;

/// Currency of the built-in rate tables.
const CURRENCY: &str = "EUR";

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Ship;

/// What is kept of a shipped order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// The carrier.
    pub carrier: String,
    /// One tracking number a parcel.
    pub tracking_numbers: Vec<String>,
}

impl Stage for Ship {
    const NAME: &'static str = "ship";
    const FLOW: &'static str = crate::FLOW;
    const SPAN: &'static str = "shipping.dispatch";
    const TABLE: Table = Table("shipments");

    type Event = OrderPacked;
    type State = Shipped;
    type Shared = Serials;
    type Call = NoCall;

    fn decide(
        &self,
        serials: &mut Serials,
        state: Option<&Shipped>,
        order: &OrderPacked,
        packed_at: jiff::Timestamp,
    ) -> Outcome<Shipped> {
        if state.is_some() {
            return Outcome::Repeat;
        }
        let sizes: Vec<(u32, [u32; 3])> = order.parcels.iter().map(|p| (p.weight_g, p.size_mm)).collect();
        let Some(quote) = carriers::cheapest(&sizes, &order.country, order.service) else {
            let why = "no carrier takes a parcel of this weight and size to this country";
            return Outcome::Reject(Refusal::new("no_carrier", why));
        };
        let Some(parcels) = label(order, quote.carrier, serials) else {
            return Outcome::Reject(Refusal::new("bug", "fewer serial numbers were drawn than there are parcels"));
        };
        let state = Shipped {
            carrier: quote.carrier.name.to_owned(),
            tracking_numbers: parcels.iter().map(|p| p.tracking_number.clone()).collect(),
        };
        let event = OrderShipped {
            order_id: order.order_id.clone(),
            customer_id: order.customer_id.clone(),
            country: order.country.clone(),
            service: order.service,
            carrier: state.carrier.clone(),
            cost: Cost { amount_minor: quote.cost_minor, currency: CURRENCY.to_owned() },
            estimated_delivery: carriers::delivery_date(packed_at, quote.business_days),
            parcels,
            waybill: Waybill::default(),
        };
        Outcome::Emit(Decision { span: span(&event, &state), state, events: vec![Box::new(event)] })
    }
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

fn span(event: &OrderShipped, shipped: &Shipped) -> Details {
    let parcels = i64::try_from(event.parcels.len()).unwrap_or(i64::MAX);
    Details {
        attributes: vec![
            KeyValue::new("order.id", event.order_id.clone()),
            KeyValue::new("shipping.carrier", event.carrier.clone()),
            KeyValue::new("shipping.tracking_number", shipped.tracking_numbers.join(",")),
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

    #[test]
    fn each_parcel_gets_a_label_and_a_valid_number_of_its_own() {
        let mut serials = Serials((1..=2).collect());
        let packed_at = "2026-11-20T15:00:00Z".parse().unwrap();
        let Outcome::Emit(mut decision) = Ship.decide(&mut serials, None, &order(&[800, 900]), packed_at) else {
            panic!("expected a decision");
        };
        let numbers = &decision.state.tracking_numbers;
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
        let outcome = Ship.decide(&mut Serials([1].into()), None, &order(&[u32::MAX]), jiff::Timestamp::UNIX_EPOCH);
        assert!(matches!(outcome, Outcome::Reject(r) if r.reason == "no_carrier"));
    }

    #[test]
    fn a_replayed_order_repeats_its_answer_and_draws_no_label() {
        let state = Shipped { carrier: "x".into(), tracking_numbers: vec![] };
        let mut serials = Serials([1].into());
        let outcome = Ship.decide(&mut serials, Some(&state), &order(&[1]), jiff::Timestamp::UNIX_EPOCH);
        assert!(matches!(outcome, Outcome::Repeat));
        assert_eq!(serials.draw(), Some(1));
    }
}
