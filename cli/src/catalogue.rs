//! A shop of 200 products, the same every time, for the demo and for test orders.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use waybill_events::{Line, OrderPlaced, Service};
use waybill_fulfilment::Bin;
use waybill_telemetry::Waybill;

/// How many products there are.
pub const PRODUCTS: u32 = 200;
const ZONES: [&str; 4] = ["A", "B", "C", "D"];
const COUNTRIES: [&str; 8] = ["DE", "DE", "DE", "DE", "AT", "FR", "PL", "US"];
/// Kinds of goods: length, width, height in mm, weight in g.
const KINDS: [([u32; 3], u32); 6] = [
    ([120, 95, 100], 350),
    ([210, 148, 25], 420),
    ([300, 250, 40], 280),
    ([340, 220, 130], 1_100),
    ([180, 70, 50], 160),
    ([600, 80, 80], 900),
];

/// A product as the shop sells it.
pub struct Goods {
    /// Its id.
    pub product_id: String,
    /// Its article number.
    pub sku: String,
    /// Length, width, height of one, mm.
    pub size_mm: [u32; 3],
    /// Weight of one, g.
    pub weight_g: u32,
    /// Price of one, euro cents.
    pub cents: i64,
}

/// All products.
pub fn goods() -> impl Iterator<Item = Goods> {
    (1..=PRODUCTS).map(|number| {
        let (product_id, sku, size_mm, weight_g) = product(number);
        Goods { product_id, sku, size_mm, weight_g, cents: 499 + i64::from(number * 137 % 95) * 100 }
    })
}

fn product(number: u32) -> (String, String, [u32; 3], u32) {
    let (size, weight) = KINDS[number as usize % KINDS.len()];
    (format!("p-{number:04}"), format!("SKU-{number:04}"), size, weight + number)
}

/// The product of test number `number`: all of them in turn.
pub fn product_id(number: u64) -> String {
    product((number % u64::from(PRODUCTS)) as u32 + 1).0
}

/// Two bins a product, in the zone of its aisle, each holding `each` units.
pub fn bins(each: i64) -> Vec<Bin> {
    (1..=PRODUCTS)
        .flat_map(|number| {
            let zone = ZONES[(number as usize - 1) * ZONES.len() / PRODUCTS as usize];
            (1..=2).map(move |level| Bin {
                product_id: product(number).0,
                bin: format!("{zone}-{number:03}-{level}"),
                zone: zone.to_owned(),
                quantity: each,
            })
        })
        .collect()
}

/// Order number `number` of a seed, and a source of randomness for what else belongs to it.
/// `lines` fixes the number of lines; without it an order has one to five.
pub fn order(seed: u64, number: u64, lines: Option<u32>) -> (OrderPlaced, StdRng) {
    let mut rng = StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let count = lines.unwrap_or_else(|| rng.random_range(1..=5));
    let first = rng.random_range(0..PRODUCTS);
    let lines = (0..count).map(|i| {
        // A step that shares no factor with the number of products: no product twice before all have been.
        let (product_id, sku, size_mm, weight_g) = product((first + i * 37) % PRODUCTS + 1);
        Line { line: i + 1, product_id, sku, quantity: rng.random_range(1..=3), weight_g, size_mm }
    });
    let lines = lines.collect();
    let order = OrderPlaced {
        order_id: format!("o-{seed}-{number:07}"),
        customer_id: format!("c-{:05}", rng.random_range(0..50_000)),
        country: COUNTRIES[rng.random_range(0..COUNTRIES.len())].to_owned(),
        service: if rng.random_ratio(1, 5) { Service::Express } else { Service::Standard },
        lines,
        waybill: Waybill::default(),
    };
    (order, rng)
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_spine::Event;

    #[test]
    fn a_seed_gives_the_same_orders() {
        for number in 0..50 {
            let (one, _) = order(7, number, None);
            assert_eq!(one, order(7, number, None).0);
            assert_ne!(one, order(8, number, None).0);
            one.check().unwrap();
        }
    }

    #[test]
    fn every_product_that_is_ordered_lies_in_a_bin() {
        let bins = bins(1);
        for number in 0..200 {
            for line in order(7, number, Some(30)).0.lines {
                assert!(bins.iter().any(|b| b.product_id == line.product_id), "{}", line.product_id);
            }
        }
    }
}
