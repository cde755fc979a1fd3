//! The ledger: a batch's products and orders, locked and read, decided upon in memory and written once.

use crate::answers::{Adjusted, Adjustment, Confirmed, Lines, Reservation, Reserved, Shortage};
use crate::rows::{self, instant};
use crate::stock::Stock;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;
use waybill_store::{StoreError, Tx};

/// Namespace of reservation ids (a random UUID, fixed for ever).
const NAMESPACE: Uuid = Uuid::from_u128(0x3f0c_9a52_71de_4c1b_8a36_d5e4_0b97_62af);

/// Where the pieces of a line stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Held,
    Sold,
    Released,
    Cancelled,
}

impl State {
    pub(crate) const ALL: [State; 4] = [State::Held, State::Sold, State::Released, State::Cancelled];

    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Sold => "sold",
            State::Released => "released",
            State::Cancelled => "cancelled",
        }
    }
}

/// A row of `reservations`. Times are microseconds since 1970.
#[derive(Debug)]
pub(crate) struct Line {
    pub quantity: i64,
    pub lost: i64,
    pub state: State,
    pub expires_at: i64,
    pub changed: bool,
}

/// A product as it was locked, and as it is to be.
#[derive(Debug)]
pub(crate) struct Account {
    before: Stock,
    after: Stock,
}

/// The stock and the reservations of one batch. One a transaction: a second one could wait for a row out of order.
///
/// What was not named to [`Ledger::lock`] does not exist for it.
#[derive(Debug)]
pub struct Ledger {
    now: i64,
    products: BTreeMap<String, Account>,
    /// Order, product. Released lines are not read: they hold nothing.
    orders: BTreeMap<String, BTreeMap<String, Line>>,
}

impl Ledger {
    /// Locks these products and those of these orders, in product order, and reads what there is and who has it.
    ///
    /// # Errors
    /// The database is away; [`StoreError::Conflict`] if one of the orders took a further product meanwhile.
    pub async fn lock(tx: &mut Tx<'_>, products: &[&str], orders: &[&str]) -> Result<Self, StoreError> {
        let stock = rows::lock(tx, products, orders).await?;
        let (now, lines) = rows::lines(tx, orders).await?;
        let account = |s: Stock| (s.product_id.clone(), Account { before: s.clone(), after: s });
        let mut ledger = Ledger {
            now,
            products: stock.into_iter().map(account).collect(),
            orders: orders.iter().map(|order| ((*order).to_owned(), BTreeMap::new())).collect(),
        };
        for (order_id, product_id, line) in lines {
            if !ledger.products.contains_key(&product_id) {
                return Err(StoreError::Conflict);
            }
            ledger.orders.entry(order_id).or_default().insert(product_id, line);
        }
        Ok(ledger)
    }

    /// Holds all of an order's lines, or none.
    ///
    /// An order that has its pieces, held, sold or even cancelled since, gets the answer it had; a hold that is over
    /// and was not swept yet is extended. One whose hold was released is served as a new one. The hold is counted from
    /// the beginning of the transaction.
    pub fn reserve(&mut self, request: &Lines<'_>, hold: Duration) -> Reserved {
        let expires_at = self.now.saturating_add(i64::try_from(hold.as_micros()).unwrap_or(i64::MAX));
        let wanted = summed(request);
        let Some(lines) = self.orders.get_mut(request.order_id) else {
            return Reserved::Insufficient(shortages(&BTreeMap::new(), &wanted));
        };
        for line in lines.values_mut().filter(|line| line.state == State::Held && line.expires_at <= self.now) {
            (line.expires_at, line.changed) = (expires_at, true);
        }
        if lines.values().any(|line| line.state != State::Released) {
            return held(request.order_id, lines, expires_at);
        }
        let shortages = shortages(&self.products, &wanted);
        if !shortages.is_empty() {
            return Reserved::Insufficient(shortages);
        }
        for (product_id, quantity) in wanted {
            if let Some(account) = self.products.get_mut(product_id) {
                account.after.available -= quantity;
                account.after.reserved += quantity;
            }
            let line = Line { quantity, lost: 0, state: State::Held, expires_at, changed: true };
            lines.insert(product_id.to_owned(), line);
        }
        held(request.order_id, lines, expires_at)
    }

    /// Sells what an order holds. A hold that is over counts until it is swept: its pieces are still there, and the
    /// customer has paid. Sold stays sold: a repeat says so, also after the order was cancelled.
    pub fn confirm(&mut self, order_id: &str) -> Confirmed {
        self.turn(order_id, State::Held, State::Sold);
        let mut lines = self.orders.get(order_id).into_iter().flat_map(BTreeMap::values);
        if lines.any(|line| line.state != State::Released) { Confirmed::Sold } else { Confirmed::Lapsed }
    }

    /// Makes what an order holds available again; returns how many lines. Sold is not touched.
    pub fn release(&mut self, order_id: &str) -> usize {
        self.turn(order_id, State::Held, State::Released)
    }

    /// Releases an order whose hold is over; returns whether it is.
    pub fn expire(&mut self, order_id: &str) -> bool {
        let mut lines = self.orders.get(order_id).into_iter().flat_map(BTreeMap::values);
        lines.any(|line| line.state == State::Held && line.expires_at <= self.now) && self.release(order_id) > 0
    }

    /// Makes what was sold to a cancelled order available again, but for what it lost; returns how many lines.
    pub fn cancelled(&mut self, order_id: &str) -> usize {
        self.turn(order_id, State::Sold, State::Cancelled)
    }

    /// Writes off what was sold to an order and not found, at most what was sold; returns what it lost, in product
    /// order. A line loses once: a repeat gets the same answer.
    pub fn short(&mut self, missing: &Lines<'_>) -> Vec<(String, i64)> {
        let Some(lines) = self.orders.get_mut(missing.order_id) else { return Vec::new() };
        let mut all = Vec::new();
        for (product_id, missing) in summed(missing) {
            let (line, account) = (lines.get_mut(product_id), self.products.get_mut(product_id));
            let (Some(line), Some(account)) = (line, account) else { continue };
            let lost = missing.min(line.quantity);
            if line.state == State::Sold && line.lost == 0 && lost > 0 {
                (line.lost, line.changed) = (lost, true);
                account.after.sold -= lost;
                account.after.shrinkage += lost;
            }
            if line.lost > 0 {
                all.push((product_id.to_owned(), line.lost));
            }
        }
        all
    }

    /// Books pieces in; a negative delta is shrinkage, taken from what is available and never from what is held.
    pub fn adjust(&mut self, adjustment: &Adjustment<'_>) -> Adjusted {
        let Some(account) = self.products.get_mut(adjustment.product_id) else {
            return Adjusted::Refused { available: 0 };
        };
        let (stock, delta) = (&mut account.after, adjustment.delta);
        let refused = Adjusted::Refused { available: stock.available };
        if delta >= 0 {
            let Some(received) = stock.received.checked_add(delta) else { return refused };
            stock.received = received;
        } else if stock.available + delta >= 0 {
            stock.shrinkage -= delta;
        } else {
            return refused;
        }
        stock.available += delta;
        Adjusted::Applied { available: stock.available }
    }

    /// Writes what has changed, and a level for each product of which another quantity is available than before.
    ///
    /// # Errors
    /// The database is away, or refuses the data.
    pub async fn save(mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let mut changed = Vec::new();
        for Account { before, after } in self.products.values_mut().filter(|a| a.before != a.after) {
            let level = before.available != after.available;
            if level {
                after.version += 1;
            }
            if level && after.available == 0 {
                after.last_zero_version = after.version;
            }
            changed.push((&*after, level));
        }
        rows::save_stock(tx, &changed).await?;
        let lines = self.orders.iter().flat_map(|(order, lines)| lines.iter().map(move |(p, l)| (&**order, &**p, l)));
        rows::save_lines(tx, &lines.filter(|(_, _, line)| line.changed).collect::<Vec<_>>()).await
    }

    /// Turns an order's lines from one state to another, and their pieces with them; returns how many lines.
    fn turn(&mut self, order_id: &str, from: State, to: State) -> usize {
        let lines = self.orders.get_mut(order_id).into_iter().flatten();
        let mut turned = 0;
        for (product_id, line) in lines.filter(|(_, line)| line.state == from) {
            if let Some(account) = self.products.get_mut(product_id) {
                let pieces = line.quantity - line.lost;
                *account.after.pieces(from) -= pieces;
                *account.after.pieces(to) += pieces;
            }
            (line.state, line.changed) = (to, true);
            turned += 1;
        }
        turned
    }
}

impl Stock {
    fn pieces(&mut self, state: State) -> &mut i64 {
        match state {
            State::Held => &mut self.reserved,
            State::Sold => &mut self.sold,
            State::Released | State::Cancelled => &mut self.available,
        }
    }
}

fn summed<'a>(order: &Lines<'a>) -> BTreeMap<&'a str, i64> {
    let mut sums = BTreeMap::new();
    for (product_id, quantity) in &order.lines {
        *sums.entry(*product_id).or_default() += i64::from(*quantity);
    }
    sums
}

fn shortages(products: &BTreeMap<String, Account>, wanted: &BTreeMap<&str, i64>) -> Vec<Shortage> {
    let short = |(product_id, requested): (&&str, &i64)| {
        let account = products.get(*product_id);
        let available = account.map_or(0, |a| a.after.available);
        let enough = account.is_some() && available >= *requested;
        (!enough).then(|| Shortage { product_id: (*product_id).to_owned(), available, requested: *requested })
    };
    wanted.iter().filter_map(short).collect()
}

/// The answer of an order that has its pieces. No id holds a NUL, so two lines never have the same id.
fn held(order_id: &str, lines: &BTreeMap<String, Line>, expires_at: i64) -> Reserved {
    let lines = lines.iter().filter(|(_, line)| line.state != State::Released);
    let expires_at = lines.clone().map(|(_, line)| line.expires_at).min().unwrap_or(expires_at);
    let reservation = |(product_id, line): (&String, &Line)| Reservation {
        id: Uuid::new_v5(&NAMESPACE, format!("{order_id}\0{product_id}").as_bytes()),
        product_id: product_id.clone(),
        quantity: line.quantity,
    };
    Reserved::Held { reservations: lines.map(reservation).collect(), expires_at: instant(expires_at) }
}
