//! Pack: the smallest box that holds the goods, several parcels where none does, and a packing slip.
//!
//! Consumes `orders.picked`, keyed by order. Produces `orders.packed`. Replay: an order already packed repeats its
//! last answer.

use crate::boxes::{self, Goods};
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use waybill_events::{OrderPacked, OrderPicked, Parcel, ParcelItem};
use waybill_spine::{Decision, Details, NoCall, Outcome, Stage};
use waybill_store::Table;
use waybill_telemetry::Waybill;

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Pack;

/// What is kept of a packed order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Number of parcels.
    pub parcels: u32,
    /// Weight of all parcels, g.
    pub weight_g: u32,
}

impl Stage for Pack {
    const NAME: &'static str = "pack";
    const FLOW: &'static str = crate::FLOW;
    const SPAN: &'static str = "warehouse.pack";
    const TABLE: Table = Table("packs");

    type Event = OrderPicked;
    type State = Packed;
    type Shared = ();
    type Call = NoCall;

    fn decide(&self, (): &mut (), state: Option<&Packed>, order: &OrderPicked, _: jiff::Timestamp) -> Outcome<Packed> {
        if state.is_some() {
            return Outcome::Repeat;
        }
        let goods: Vec<Goods> = order
            .lines
            .iter()
            .map(|l| Goods { line: l.line, quantity: l.quantity, size_mm: l.size_mm, weight_g: l.weight_g })
            .collect();
        let parcels: Vec<Parcel> =
            (1..).zip(boxes::pack(&goods)).map(|(nr, parcel)| to_event(nr, parcel, order)).collect();
        let state = Packed {
            parcels: u32::try_from(parcels.len()).unwrap_or(u32::MAX),
            weight_g: parcels.iter().fold(0, |sum, p| sum.saturating_add(p.weight_g)),
        };
        let slip = format!("PS-{}", order.order_id);
        Outcome::Emit(Decision {
            state,
            span: span(order, &parcels, state, &slip),
            events: vec![Box::new(OrderPacked {
                order_id: order.order_id.clone(),
                customer_id: order.customer_id.clone(),
                country: order.country.clone(),
                service: order.service,
                slip,
                parcels,
                waybill: Waybill::default(),
            })],
        })
    }
}

fn to_event(parcel: u32, packed: boxes::Parcel, order: &OrderPicked) -> Parcel {
    let items = packed.contents.into_iter().filter_map(|(line, quantity)| {
        let of = order.lines.iter().find(|l| l.line == line)?;
        Some(ParcelItem { line, product_id: of.product_id.clone(), sku: of.sku.clone(), quantity })
    });
    Parcel {
        parcel,
        items: items.collect(),
        box_size: packed.box_name.to_owned(),
        weight_g: packed.weight_g,
        size_mm: packed.outer_mm,
    }
}

fn span(order: &OrderPicked, parcels: &[Parcel], packed: Packed, slip: &str) -> Details {
    let sizes = parcels.iter().map(|p| p.box_size.as_str()).collect::<Vec<_>>().join(",");
    let units: i64 = order.lines.iter().map(|l| i64::from(l.quantity)).sum();
    Details {
        attributes: vec![
            KeyValue::new("order.id", order.order_id.clone()),
            KeyValue::new("pack.box_size", sizes),
            KeyValue::new("pack.weight_kg", f64::from(packed.weight_g) / 1_000.0),
        ],
        events: vec![
            ("packing_slip", vec![KeyValue::new("slip", slip.to_owned()), KeyValue::new("units", units)]),
            ("sealed", vec![KeyValue::new("parcels", i64::from(packed.parcels))]),
        ],
        ..Details::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_events::{PickedLine, Service};

    fn order(lines: &[(u32, [u32; 3], u32)]) -> OrderPicked {
        let line = |(line, (quantity, size_mm, weight_g)): (u32, &(u32, [u32; 3], u32))| PickedLine {
            line,
            product_id: format!("p{line}"),
            sku: format!("S{line}"),
            quantity: *quantity,
            weight_g: *weight_g,
            size_mm: *size_mm,
            bins: vec![],
        };
        OrderPicked {
            order_id: "o-1".into(),
            customer_id: "c-1".into(),
            country: "DE".into(),
            service: Service::Standard,
            lines: (1..).zip(lines).map(line).collect(),
            waybill: Waybill::default(),
        }
    }

    fn packed(lines: &[(u32, [u32; 3], u32)]) -> serde_json::Value {
        match Pack.decide(&mut (), None, &order(lines), jiff::Timestamp::UNIX_EPOCH) {
            Outcome::Emit(mut d) => crate::published(d.events[0].as_mut()),
            _ => panic!("expected a decision"),
        }
    }

    #[test]
    fn small_goods_share_the_smallest_box() {
        let event = packed(&[(1, [50, 50, 20], 80), (2, [60, 30, 10], 20)]);
        assert_eq!(event["parcels"].as_array().map(Vec::len), Some(1));
        assert_eq!(event["parcels"][0]["box"], "XS");
        assert_eq!(event["parcels"][0]["items"].as_array().map(Vec::len), Some(2));
        assert_eq!(event["slip"], "PS-o-1");
    }

    #[test]
    fn goods_that_fit_no_box_travel_in_their_own_packaging() {
        let event = packed(&[(1, [2_000, 100, 100], 3_000), (1, [50, 50, 20], 80)]);
        assert_eq!(event["parcels"].as_array().map(Vec::len), Some(2));
        assert!(event["parcels"].as_array().into_iter().flatten().any(|p| p["box"] == "own"));
    }

    #[test]
    fn a_replayed_order_repeats_its_answer() {
        let state = Packed { parcels: 1, weight_g: 1 };
        let outcome = Pack.decide(&mut (), Some(&state), &order(&[]), jiff::Timestamp::UNIX_EPOCH);
        assert!(matches!(outcome, Outcome::Repeat));
    }
}
