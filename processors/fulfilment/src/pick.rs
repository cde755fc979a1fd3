//! Pick: takes an order's lines from their bins.
//!
//! Consumes `orders.new`, keyed by order. Produces `orders.picked` (what there was) and `orders.short` (what there
//! was not). Replay: an order already picked keeps its pick and repeats its last answer; nothing leaves a bin twice,
//! since the bins change in the transaction that keeps the pick.

use crate::bins::{Bins, Take};
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use waybill_events::{BinTake, Line, OrderPicked, OrderPlaced, OrderShort, PickedLine, ShortLine};
use waybill_spine::{Child, Decision, Details, Emit, NoCall, Outcome, Refusal, Stage};
use waybill_store::Table;
use waybill_telemetry::Waybill;

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Pick;

/// What is kept of a picked order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picked {
    /// Units ordered.
    pub requested: u32,
    /// Units taken from bins.
    pub picked: u32,
}

impl Stage for Pick {
    const NAME: &'static str = "pick";
    const FLOW: &'static str = crate::FLOW;
    const SPAN: &'static str = "warehouse.pick";
    const TABLE: Table = Table("picks");

    type Event = OrderPlaced;
    type State = Picked;
    type Shared = Bins;
    type Call = NoCall;

    fn decide(
        &self,
        bins: &mut Bins,
        state: Option<&Picked>,
        order: &OrderPlaced,
        _: jiff::Timestamp,
    ) -> Outcome<Picked> {
        if state.is_some() {
            return Outcome::Repeat;
        }
        if let Some(line) = order.lines.iter().find(|l| !bins.knows(&l.product_id)) {
            let why = format!("line {}: no bin was ever set up for product {}", line.line, line.product_id);
            return Outcome::Reject(Refusal::new("unknown_product", why));
        }
        let takes: Vec<Vec<Take>> = order.lines.iter().map(|l| bins.take(&l.product_id, l.quantity)).collect();
        let picked: Vec<(&Line, u32)> =
            order.lines.iter().zip(&takes).map(|(l, t)| (l, t.iter().map(|t| t.quantity).sum())).collect();
        Outcome::Emit(Decision {
            state: Picked {
                requested: order.lines.iter().map(|l| l.quantity).sum(),
                picked: picked.iter().map(|(_, n)| n).sum(),
            },
            events: events(order, &picked, &takes),
            span: span(order, &picked, &takes),
        })
    }
}

fn events(order: &OrderPlaced, picked: &[(&Line, u32)], takes: &[Vec<Take>]) -> Vec<Box<dyn Emit>> {
    let mut events: Vec<Box<dyn Emit>> = Vec::with_capacity(2);
    let lines: Vec<PickedLine> = picked
        .iter()
        .zip(takes)
        .filter(|((_, quantity), _)| *quantity > 0)
        .map(|((line, quantity), takes)| PickedLine {
            line: line.line,
            product_id: line.product_id.clone(),
            sku: line.sku.clone(),
            quantity: *quantity,
            weight_g: line.weight_g,
            size_mm: line.size_mm,
            bins: takes.iter().map(Take::to_event).collect(),
        })
        .collect();
    if !lines.is_empty() {
        events.push(Box::new(OrderPicked {
            order_id: order.order_id.clone(),
            customer_id: order.customer_id.clone(),
            country: order.country.clone(),
            service: order.service,
            lines,
            waybill: Waybill::default(),
        }));
    }
    let short: Vec<ShortLine> = picked
        .iter()
        .filter(|(line, quantity)| *quantity < line.quantity)
        .map(|(line, quantity)| ShortLine {
            line: line.line,
            product_id: line.product_id.clone(),
            sku: line.sku.clone(),
            requested: line.quantity,
            picked: *quantity,
        })
        .collect();
    if !short.is_empty() {
        events.push(Box::new(OrderShort {
            order_id: order.order_id.clone(),
            customer_id: order.customer_id.clone(),
            lines: short,
            waybill: Waybill::default(),
        }));
    }
    events
}

fn span(order: &OrderPlaced, picked: &[(&Line, u32)], takes: &[Vec<Take>]) -> Details {
    let zones: BTreeSet<&str> = takes.iter().flatten().map(|t| &*t.zone).collect();
    let zones = zones.into_iter().collect::<Vec<_>>().join(",");
    let children = picked.iter().zip(takes).map(|((line, quantity), takes)| {
        let bins = takes.iter().map(|t| &*t.bin).collect::<Vec<_>>().join(",");
        Child {
            name: "warehouse.pick_item",
            attributes: vec![
                KeyValue::new("product.id", line.product_id.clone()),
                KeyValue::new("product.sku", line.sku.clone()),
                KeyValue::new("warehouse.bin", bins),
                KeyValue::new("quantity.requested", i64::from(line.quantity)),
                KeyValue::new("quantity.picked", i64::from(*quantity)),
            ],
        }
    });
    Details {
        attributes: vec![KeyValue::new("order.id", order.order_id.clone()), KeyValue::new("warehouse.zone", zones)],
        children: children.collect(),
        ..Details::default()
    }
}

impl Take {
    fn to_event(&self) -> BinTake {
        BinTake { zone: self.zone.to_string(), bin: self.bin.to_string(), quantity: self.quantity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bins::Bin;
    use waybill_events::Service;

    fn order(lines: &[(&str, u32)]) -> OrderPlaced {
        OrderPlaced {
            order_id: "o-1".into(),
            customer_id: "c-1".into(),
            country: "DE".into(),
            service: Service::Standard,
            lines: (1..)
                .zip(lines)
                .map(|(line, (product, quantity))| Line {
                    line,
                    product_id: (*product).into(),
                    sku: format!("SKU-{product}"),
                    quantity: *quantity,
                    weight_g: 100,
                    size_mm: [10, 10, 10],
                })
                .collect(),
            waybill: Waybill::default(),
        }
    }

    fn bins(rows: &[(&str, &str, &str, u32)]) -> Bins {
        Bins::from_rows(rows.iter().map(|(product_id, bin, zone, quantity)| Bin {
            product_id: (*product_id).into(),
            bin: (*bin).into(),
            zone: (*zone).into(),
            quantity: (*quantity).into(),
        }))
    }

    fn decide(bins: &mut Bins, state: Option<&Picked>, order: &OrderPlaced) -> Outcome<Picked> {
        Pick.decide(bins, state, order, jiff::Timestamp::UNIX_EPOCH)
    }

    fn emitted(outcome: Outcome<Picked>) -> (Picked, Vec<serde_json::Value>) {
        match outcome {
            Outcome::Emit(mut d) => {
                let events = d.events.iter_mut().map(|e| crate::published(e.as_mut())).collect();
                (d.state, events)
            }
            _ => panic!("expected a decision"),
        }
    }

    #[test]
    fn lines_are_taken_from_their_bins() {
        let mut bins = bins(&[("p1", "A-1", "A", 5), ("p2", "B-1", "B", 1), ("p2", "B-2", "B", 9)]);
        let (state, events) = emitted(decide(&mut bins, None, &order(&[("p1", 2), ("p2", 3)])));
        assert_eq!(state, Picked { requested: 5, picked: 5 });
        assert_eq!(events.len(), 1, "nothing is short");
        let taken = serde_json::json!([
            {"zone": "B", "bin": "B-1", "quantity": 1}, {"zone": "B", "bin": "B-2", "quantity": 2}]);
        assert_eq!(events[0]["lines"][1]["bins"], taken);
        assert_eq!(bins.held("p1"), 3);
        assert_eq!(bins.held("p2"), 7);
    }

    #[test]
    fn a_short_line_is_told_and_the_rest_goes_on() {
        let mut bins = bins(&[("p1", "A-1", "A", 1), ("p2", "B-1", "B", 0)]);
        let (state, events) = emitted(decide(&mut bins, None, &order(&[("p1", 2), ("p2", 1), ("p1", 1)])));
        assert_eq!(state, Picked { requested: 4, picked: 1 });
        assert_eq!(events[0]["lines"].as_array().map(Vec::len), Some(1));
        assert_eq!(events[1]["lines"][0]["picked"], 1);
        assert_eq!(events[1]["lines"][1]["picked"], 0);
        assert_eq!(events[1]["lines"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn an_order_of_which_there_is_nothing_is_only_short() {
        let (_, events) = emitted(decide(&mut bins(&[("p1", "A-1", "A", 0)]), None, &order(&[("p1", 2)])));
        assert_eq!(events.len(), 1);
        assert!(events[0]["lines"][0]["requested"] == 2);
    }

    #[test]
    fn a_product_without_bins_is_rejected_and_nothing_is_taken() {
        let mut bins = bins(&[("p1", "A-1", "A", 5)]);
        let outcome = decide(&mut bins, None, &order(&[("p1", 1), ("p9", 1)]));
        assert!(matches!(outcome, Outcome::Reject(r) if r.reason == "unknown_product" && r.message.contains("p9")));
        assert_eq!(bins.held("p1"), 5);
    }

    #[test]
    fn a_replayed_order_repeats_its_answer_and_takes_nothing() {
        let mut bins = bins(&[("p1", "A-1", "A", 5)]);
        let state = Picked { requested: 1, picked: 1 };
        assert!(matches!(decide(&mut bins, Some(&state), &order(&[("p1", 1)])), Outcome::Repeat));
        assert_eq!(bins.held("p1"), 5);
    }

    #[test]
    fn orders_of_one_batch_see_what_the_earlier_ones_took() {
        let mut bins = bins(&[("p1", "A-1", "A", 1)]);
        emitted(decide(&mut bins, None, &order(&[("p1", 1)])));
        let (state, _) = emitted(decide(&mut bins, None, &order(&[("p1", 1)])));
        assert_eq!(state.picked, 0);
    }
}
