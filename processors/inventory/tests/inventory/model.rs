//! Random operations beside the simplest shop there can be: after each, the same answers and the same stock.

use crate::shop::{HOUR, Home, Plain, Shop, plain};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof};
use proptest::test_runner::{TestCaseError, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;
use waybill_inventory::{Adjusted, Adjustment, Confirmed, Lines, Stock};
use waybill_store::Connection;

const PRODUCTS: [&str; 3] = ["a", "b", "c"];
const ORDERS: [&str; 6] = ["1", "2", "3", "4", "5", "6"];

type Carts = Vec<(&'static str, Vec<(&'static str, u32)>)>;

#[derive(Clone, Debug)]
enum Operation {
    /// Whose hold is over at once, or not for an hour.
    Reserve(Carts, bool),
    Confirm(Vec<&'static str>),
    Release(Vec<&'static str>),
    Expire,
    Adjust(Vec<(&'static str, i64)>),
    Short(Carts),
    Cancelled(Vec<&'static str>),
}

#[derive(Debug, PartialEq)]
enum Answer {
    Reserved(Vec<Plain>),
    Confirmed(Vec<Confirmed>),
    Lines(Vec<usize>),
    Swept(Vec<String>),
    Adjusted(Vec<Adjusted>),
    Lost(Vec<Vec<(String, i64)>>),
}

fn operation() -> impl Strategy<Value = Operation> {
    let product = || (0..PRODUCTS.len()).prop_map(|n| PRODUCTS[n]);
    let order = || (0..ORDERS.len()).prop_map(|n| ORDERS[n]);
    let carts = move || vec((order(), vec((product(), 0..4_u32), 0..4)), 0..4);
    let orders = move || vec(order(), 0..4);
    prop_oneof![
        4 => (carts(), any::<bool>()).prop_map(|(carts, over)| Operation::Reserve(carts, over)),
        2 => orders().prop_map(Operation::Confirm),
        1 => orders().prop_map(Operation::Release),
        2 => Just(Operation::Expire),
        2 => vec((product(), -3..6_i64), 0..4).prop_map(Operation::Adjust),
        1 => carts().prop_map(Operation::Short),
        1 => orders().prop_map(Operation::Cancelled),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Held { over: bool },
    Sold,
    Cancelled,
}

/// Product, pieces, lost.
type Parts = BTreeMap<&'static str, (i64, i64)>;

#[derive(Default)]
struct Model {
    stock: BTreeMap<&'static str, Stock>,
    orders: BTreeMap<&'static str, (State, Parts)>,
}

fn sum(lines: &[(&'static str, u32)]) -> BTreeMap<&'static str, i64> {
    let mut sums = BTreeMap::new();
    lines.iter().for_each(|(product, n)| *sums.entry(*product).or_default() += i64::from(*n));
    sums
}

impl Model {
    fn perform(&mut self, operation: &Operation) -> Answer {
        let before = self.stock.clone();
        let answer = match operation {
            Operation::Reserve(carts, over) => {
                Answer::Reserved(carts.iter().map(|(order, lines)| self.reserve(order, &sum(lines), *over)).collect())
            }
            Operation::Confirm(orders) => Answer::Confirmed(orders.iter().map(|o| self.confirm(o)).collect()),
            Operation::Release(orders) => Answer::Lines(orders.iter().map(|o| self.release(o)).collect()),
            Operation::Expire => {
                let over = self.orders.iter().filter(|(_, (state, _))| *state == State::Held { over: true });
                let over: Vec<&str> = over.map(|(order, _)| *order).collect();
                let swept = over.into_iter().filter(|order| self.release(order) > 0);
                Answer::Swept(swept.map(str::to_owned).collect())
            }
            Operation::Adjust(deltas) => {
                deltas.iter().filter(|(_, delta)| *delta >= 0).for_each(|(product, _)| {
                    let new = || Stock { product_id: (*product).to_owned(), ..Stock::default() };
                    self.stock.entry(product).or_insert_with(new);
                });
                Answer::Adjusted(deltas.iter().map(|(product, delta)| self.adjust(product, *delta)).collect())
            }
            Operation::Short(carts) => {
                Answer::Lost(carts.iter().map(|(o, lines)| self.short(o, &sum(lines))).collect())
            }
            Operation::Cancelled(orders) => Answer::Lines(orders.iter().map(|o| self.cancelled(o)).collect()),
        };
        for (product, stock) in &mut self.stock {
            if before.get(product).map_or(0, |b| b.available) != stock.available {
                stock.version += 1;
                stock.last_zero_version = if stock.available == 0 { stock.version } else { stock.last_zero_version };
            }
        }
        answer
    }

    fn reserve(&mut self, order: &'static str, wanted: &BTreeMap<&'static str, i64>, over: bool) -> Plain {
        if let Some((state, parts)) = self.orders.get_mut(order) {
            if *state == (State::Held { over: true }) {
                *state = State::Held { over };
            }
            return Ok(parts.iter().map(|(product, (n, _))| ((*product).to_owned(), *n)).collect());
        }
        let available = |product: &&str| self.stock.get(product).map(|s| s.available);
        let short = wanted.iter().filter(|(product, n)| available(product).is_none_or(|a| a < **n));
        let short = short.map(|(product, n)| ((*product).to_owned(), available(product).unwrap_or(0), *n));
        let short: Vec<_> = short.collect();
        if !short.is_empty() {
            return Err(short);
        }
        for (product, n) in wanted {
            let stock = self.stock.get_mut(product).unwrap();
            (stock.available, stock.reserved) = (stock.available - n, stock.reserved + n);
        }
        if !wanted.is_empty() {
            let parts = wanted.iter().map(|(product, n)| (*product, (*n, 0))).collect();
            self.orders.insert(order, (State::Held { over }, parts));
        }
        Ok(wanted.iter().map(|(product, n)| ((*product).to_owned(), *n)).collect())
    }

    fn confirm(&mut self, order: &str) -> Confirmed {
        let Some((state, parts)) = self.orders.get_mut(order) else { return Confirmed::Lapsed };
        if matches!(state, State::Held { .. }) {
            *state = State::Sold;
            for (product, (n, _)) in parts {
                let stock = self.stock.get_mut(product).unwrap();
                (stock.reserved, stock.sold) = (stock.reserved - *n, stock.sold + *n);
            }
        }
        Confirmed::Sold
    }

    fn release(&mut self, order: &str) -> usize {
        if !matches!(self.orders.get(order), Some((State::Held { .. }, _))) {
            return 0;
        }
        let (_, parts) = self.orders.remove(order).unwrap();
        for (product, (n, _)) in &parts {
            let stock = self.stock.get_mut(product).unwrap();
            (stock.reserved, stock.available) = (stock.reserved - n, stock.available + n);
        }
        parts.len()
    }

    fn adjust(&mut self, product: &str, delta: i64) -> Adjusted {
        let Some(stock) = self.stock.get_mut(product) else { return Adjusted::Refused { available: 0 } };
        if stock.available + delta < 0 {
            return Adjusted::Refused { available: stock.available };
        }
        stock.available += delta;
        stock.received += delta.max(0);
        stock.shrinkage += (-delta).max(0);
        Adjusted::Applied { available: stock.available }
    }

    fn short(&mut self, order: &str, missing: &BTreeMap<&'static str, i64>) -> Vec<(String, i64)> {
        let Some((state, parts)) = self.orders.get_mut(order) else { return Vec::new() };
        for (product, missing) in missing {
            if let (State::Sold, Some((n, lost @ 0))) = (&*state, parts.get_mut(product)) {
                *lost = *missing.min(n);
                let stock = self.stock.get_mut(product).unwrap();
                (stock.sold, stock.shrinkage) = (stock.sold - *lost, stock.shrinkage + *lost);
            }
        }
        let lost = parts.iter().filter(|(product, (_, lost))| missing.contains_key(**product) && *lost > 0);
        lost.map(|(product, (_, lost))| ((*product).to_owned(), *lost)).collect()
    }

    fn cancelled(&mut self, order: &str) -> usize {
        let Some((state @ State::Sold, parts)) = self.orders.get_mut(order) else { return 0 };
        *state = State::Cancelled;
        for (product, (n, lost)) in &*parts {
            let stock = self.stock.get_mut(product).unwrap();
            (stock.sold, stock.available) = (stock.sold - (n - lost), stock.available + (n - lost));
        }
        parts.len()
    }
}

fn lines(carts: &Carts) -> Vec<Lines<'static>> {
    carts.iter().map(|(order_id, lines)| Lines { order_id, lines: lines.clone() }).collect()
}

async fn perform(shop: &mut Shop, operation: &Operation) -> Answer {
    match operation {
        Operation::Reserve(carts, over) => {
            let hold = if *over { Duration::ZERO } else { HOUR };
            Answer::Reserved(shop.reserve(&lines(carts), hold).await.iter().map(plain).collect())
        }
        Operation::Confirm(orders) => Answer::Confirmed(shop.confirm(orders).await),
        Operation::Release(orders) => Answer::Lines(shop.release(orders).await),
        Operation::Expire => {
            let mut swept = shop.expire(99).await;
            swept.sort_unstable();
            Answer::Swept(swept)
        }
        Operation::Adjust(deltas) => {
            let all: Vec<_> = deltas.iter().map(|&(product_id, delta)| Adjustment { product_id, delta }).collect();
            Answer::Adjusted(shop.adjust(&all).await)
        }
        Operation::Short(carts) => Answer::Lost(shop.short(&lines(carts)).await),
        Operation::Cancelled(orders) => Answer::Lines(shop.cancelled(orders).await),
    }
}

async fn empty(shop: &mut Shop) {
    let mut tx = shop.0.begin().await.unwrap();
    for sql in ["delete from levels", "delete from reservations", "delete from stock"] {
        match tx.connection() {
            Connection::Postgres(c) => sqlx::query(sql).execute(c).await.map(drop).unwrap(),
            Connection::Sqlite(c) => sqlx::query(sql).execute(c).await.map(drop).unwrap(),
        }
    }
    tx.commit().await.unwrap();
}

async fn play(shop: &mut Shop, operations: &[Operation]) -> Result<(), TestCaseError> {
    empty(shop).await;
    let mut model = Model::default();
    for operation in operations {
        prop_assert_eq!(perform(shop, operation).await, model.perform(operation), "{:?}", operation);
        let stock = shop.stock().await;
        for s in &stock {
            let parts = [s.available, s.reserved, s.sold, s.shrinkage];
            prop_assert!(parts.iter().sum::<i64>() == s.received && parts.iter().all(|n| *n >= 0), "{:?}", s);
        }
        prop_assert_eq!(stock, model.stock.values().cloned().collect::<Vec<_>>(), "after {:?}", operation);
    }
    let levels = shop.levels(9_999).await;
    for s in shop.stock().await {
        let told: Vec<_> = levels.iter().filter(|l| l.product_id == s.product_id).collect();
        prop_assert!(told.iter().map(|l| l.version).eq(1..=s.version), "{:?}", told);
        prop_assert_eq!(told.last().map_or(0, |l| l.available), s.available);
        prop_assert_eq!(told.last().map_or(0, |l| l.last_zero_version), s.last_zero_version);
    }
    Ok(())
}

fn same_as_the_model(home: &Home, cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let shop = RefCell::new(runtime.block_on(home.open()));
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() };
    let play = |operations: Vec<Operation>| runtime.block_on(play(&mut shop.borrow_mut(), &operations));
    TestRunner::new(config).run(&vec(operation(), 1..40), play).unwrap();
}

#[test]
fn any_operations_on_sqlite_do_as_the_model_does() {
    same_as_the_model(&Home::sqlite(), 100);
}

#[test]
fn any_operations_on_postgres_do_as_the_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Some(home) = runtime.block_on(Home::postgres("model")) {
        same_as_the_model(&home, 20);
    }
}
