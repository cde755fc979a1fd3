//! What customers are going to do: the same of a seed, every time.

use crate::catalogue;
use clap::ValueEnum;
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use rand::Rng;
use rand::rngs::StdRng;
use waybill_events::Service;
use waybill_telemetry::traceparent;

/// What is going to be hard about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Nothing: every checkout should end in an order
    Normal,
    /// Of every fourth cart, a price changes before it is checked out; afterwards it is as it was
    StalePrices,
    /// Everybody wants one piece of one product, p-0200: send more checkouts than there are pieces
    SoldOut,
    /// One card in five declines for good, one for now: it is tried again, and declines again
    Declines,
    /// A charge takes 3 s, one in five 12 s: longer than the gateway waits, and than the checkout waits for its provider
    SlowPayment,
}

/// The product that everybody wants.
const WANTED: u64 = catalogue::PRODUCTS as u64 - 1;
/// The last products are those whose prices change, so that no other cart is struck.
const REPRICED: u64 = 10;

/// A customer's way from an empty cart to its checkout.
#[derive(Clone, Debug, PartialEq)]
pub struct Visit {
    /// Who.
    pub user: String,
    /// Names the cart and its checkout.
    pub key: String,
    /// Where the goods go.
    pub country: String,
    /// How fast.
    pub service: Service,
    /// Products and pieces.
    pub lines: Vec<(String, u32)>,
    /// What it is paid with.
    pub method: &'static str,
    /// A product whose price changes in between, and by how many cents: another number each time, so that no price is ever
    /// again what it was.
    pub reprice: Option<(String, i64)>,
    /// The span of the customer's click.
    pub traceparent: String,
}

/// The products whose prices change.
pub fn repriced() -> impl Iterator<Item = String> {
    (WANTED + 1 - REPRICED..=WANTED).map(catalogue::product_id)
}

/// Visit number `number` of a seed.
pub fn visit(scenario: Scenario, seed: u64, number: u64) -> Visit {
    let (order, mut rng) = catalogue::order(seed, number, None);
    let mut visit = Visit {
        user: format!("c-{seed}-{number}"),
        key: format!(
            "{}-{seed}-{number}",
            scenario.to_possible_value().map_or(String::new(), |v| v.get_name().to_owned())
        ),
        country: order.country,
        service: order.service,
        lines: order.lines.into_iter().map(|line| (line.product_id, line.quantity)).collect(),
        method: "pm_card_visa",
        reprice: None,
        traceparent: click(&mut rng),
    };
    match scenario {
        Scenario::Normal => {}
        Scenario::StalePrices => change_prices(&mut visit, number),
        Scenario::SoldOut => visit.lines = vec![(catalogue::product_id(WANTED), 1)],
        Scenario::Declines => {
            let cards = ["pm_card_chargeDeclined", "pm_card_visa_chargeDeclinedProcessingError"];
            visit.method = cards.get(rng.random_range(0..5)).copied().unwrap_or(visit.method);
        }
        Scenario::SlowPayment => visit.method = if rng.random_ratio(1, 5) { "pm_slow_12" } else { "pm_slow" },
    }
    visit
}

fn change_prices(visit: &mut Visit, number: u64) {
    let repriced: Vec<String> = repriced().collect();
    visit.lines.retain(|(product, _)| !repriced.contains(product));
    if number.is_multiple_of(4) {
        let product = &repriced[(number / 4 % REPRICED) as usize];
        visit.lines.push((product.clone(), 1));
        visit.reprice = Some((product.clone(), i64::try_from(number).unwrap_or(0) + 1));
    } else if visit.lines.is_empty() {
        visit.lines.push((catalogue::product_id(number % (WANTED - REPRICED)), 1));
    }
}

fn click(rng: &mut StdRng) -> String {
    let (trace, span) = (rng.random_range(1..=u128::MAX), rng.random_range(1..=u64::MAX));
    traceparent(TraceId::from_bytes(trace.to_be_bytes()), SpanId::from_bytes(span.to_be_bytes()), TraceFlags::SAMPLED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_gives_the_same_visits_and_another_one_others() {
        for scenario in Scenario::value_variants() {
            let of_seed = |seed| (0..100).map(move |number| visit(*scenario, seed, number)).collect::<Vec<_>>();
            assert_eq!(of_seed(7), of_seed(7));
            let keys: BTreeSet<String> = of_seed(7).into_iter().chain(of_seed(8)).map(|visit| visit.key).collect();
            assert_eq!(keys.len(), 200);
            assert!(of_seed(7).iter().all(|visit| !visit.lines.is_empty()), "{scenario:?}");
        }
    }

    #[test]
    fn a_price_that_changes_strikes_no_other_cart() {
        let changing: BTreeSet<String> = repriced().collect();
        assert_eq!(changing.len() as u64, REPRICED);
        let visits: Vec<Visit> = (0..400).map(|number| visit(Scenario::StalePrices, 7, number)).collect();
        assert_eq!(visits.iter().filter(|visit| visit.reprice.is_some()).count(), 100);
        for visit in &visits {
            let has = visit.lines.iter().any(|(product, _)| changing.contains(product));
            assert_eq!(has, visit.reprice.is_some(), "{visit:?}");
        }
    }

    #[test]
    fn cards_of_every_kind_are_used() {
        let methods = |scenario| (0..100).map(|n| visit(scenario, 7, n).method).collect::<BTreeSet<_>>().len();
        assert_eq!([Scenario::Normal, Scenario::Declines, Scenario::SlowPayment].map(methods), [1, 3, 2]);
    }
}
