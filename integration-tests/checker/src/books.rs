//! The books of a shop: what the stock, the provider's own log, the topics and the tables say of every checkout.

use anyhow::Context;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use waybill_harness::read_topic;

use crate::must;

/// A drained shop to check.
#[derive(Clone, Debug)]
pub struct Shop {
    /// Kafka.
    pub bootstrap: String,
    /// Before every topic and group name.
    pub prefix: String,
    /// Postgres.
    pub database: String,
    /// The provider's own log, JSON lines.
    pub provider: PathBuf,
}

/// What was found: counts for people, and everything that must not be.
#[derive(Debug, Default)]
pub struct Books {
    /// Requests that the gateway took.
    pub accepted: usize,
    /// Those that became orders, the cancelled ones among them.
    pub confirmed: usize,
    /// Those that came to nothing, by reason.
    pub rejected: BTreeMap<String, usize>,
    /// Orders that were cancelled.
    pub cancelled: usize,
    /// Charges that took money, and refunds.
    pub charges: usize,
    /// Refunds.
    pub refunds: usize,
    /// What the provider has kept, minor units.
    pub kept: i64,
    /// Pieces that are sold.
    pub sold: i64,
    /// Every sentence that does not hold.
    pub violations: Vec<String>,
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Books { accepted, confirmed, rejected, cancelled, charges, refunds, kept, sold, .. } = self;
        writeln!(
            f,
            "{accepted} requests: {confirmed} confirmed ({cancelled} cancelled later), rejected: {rejected:?}"
        )?;
        writeln!(f, "{charges} charges, {refunds} refunds, {kept} kept; {sold} pieces sold")?;
        crate::tell(&self.violations, f)
    }
}

/// What the provider has done for an order.
#[derive(Default)]
struct Paid {
    charges: usize,
    refunds: usize,
    charged: i64,
    refunded: i64,
}

/// Pieces and price, by product.
type Cart = BTreeMap<String, (i64, i64)>;

/// The first event of each key on the topics of a checkout.
struct Told {
    requested: BTreeMap<String, Value>,
    completed: BTreeMap<String, Value>,
    rejected: BTreeMap<String, Value>,
    orders: BTreeMap<String, Value>,
    short: BTreeMap<String, Value>,
    cancelled: BTreeMap<String, Value>,
    /// Pieces that adjustments took away, by product.
    lost: BTreeMap<String, i64>,
}

impl Shop {
    /// Checks everything; what does not hold is in the books.
    ///
    /// # Errors
    /// Kafka, Postgres or the provider's log cannot be read.
    pub async fn check(&self) -> anyhow::Result<Books> {
        let mut books = Books::default();
        let told = self.told(&mut books)?;
        let paid = self.paid(&mut books)?;
        let mut database = PgConnection::connect(&self.database).await.context("cannot reach the database")?;
        everyone_is_answered(&told, &mut database, &mut books).await?;
        let carts = carts(&told, &mut database).await?;
        for order in told.requested.keys() {
            money_is_right(order, &told, &paid, carts.get(order), &mut books);
        }
        for order in paid.keys() {
            must(&mut books.violations, told.requested.contains_key(order), || {
                format!("{order}: charged, never asked for")
            });
        }
        stock_is_right(&told, &carts, &mut database, &mut books).await?;
        nothing_is_left(&mut database, &mut books).await?;
        Ok(books)
    }

    fn told(&self, books: &mut Books) -> anyhow::Result<Told> {
        for topic in ["dead.checkout", "dead.inventory"] {
            for dead in read_topic(&self.bootstrap, &format!("{}{topic}", self.prefix))? {
                let why = (dead.header("dead_reason"), dead.header("dead_message"));
                must(&mut books.violations, false, || format!("{:?} is on {topic}: {why:?}", dead.key_str()));
            }
        }
        let mut lost: BTreeMap<String, i64> = BTreeMap::new();
        let mut booked = BTreeSet::new();
        for record in read_topic(&self.bootstrap, &format!("{}inventory.adjustments", self.prefix))? {
            let adjustment = record.json()?;
            if booked.insert(adjustment["adjustment_id"].to_string()) {
                let gone = adjustment["delta"].as_i64().unwrap_or(0).min(0);
                *lost.entry(text(&adjustment["product_id"])).or_default() -= gone;
            }
        }
        Ok(Told {
            requested: self.first_of_each("checkout.requested", books)?,
            completed: self.first_of_each("checkout.completed", books)?,
            rejected: self.first_of_each("checkout.rejected", books)?,
            orders: self.first_of_each("orders.new", books)?,
            short: self.first_of_each("orders.short", books)?,
            cancelled: self.first_of_each("orders.cancelled", books)?,
            lost,
        })
    }

    /// The first event of each key; whatever comes later under the key must be the same, byte for byte.
    fn first_of_each(&self, topic: &str, books: &mut Books) -> anyhow::Result<BTreeMap<String, Value>> {
        let records = read_topic(&self.bootstrap, &format!("{}{topic}", self.prefix))?;
        let mut first = BTreeMap::new();
        for record in &records {
            let key = record.key_str().unwrap_or_default();
            let earlier = *first.entry(key.to_owned()).or_insert(record);
            let same = earlier.payload == record.payload && earlier.headers == record.headers;
            must(&mut books.violations, same, || format!("{key} stands on {topic} as two events"));
        }
        first.into_iter().map(|(key, record)| Ok((key, record.json()?))).collect()
    }

    /// The provider's log, line by line.
    fn paid(&self, books: &mut Books) -> anyhow::Result<BTreeMap<String, Paid>> {
        let log = std::fs::read_to_string(&self.provider).context("the provider has no log")?;
        let (mut orders, mut paid) = (BTreeMap::new(), BTreeMap::<String, Paid>::new());
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).context("a line of the provider's log")?;
            let (charge, refund) = (&line["effect"]["charged"], &line["effect"]["refunded"]);
            if charge.is_object() {
                orders.insert(charge["charge_id"].to_string(), text(&charge["order_id"]));
                let order = paid.entry(text(&charge["order_id"])).or_default();
                order.charges += 1;
                order.charged += charge["amount"].as_i64().context("a charge without an amount")?;
            }
            if refund.is_object() {
                let of = orders.get(&refund["charge_id"].to_string()).context("a refund of no charge")?;
                let order = paid.entry(of.clone()).or_default();
                order.refunds += 1;
                order.refunded += refund["amount"].as_i64().context("a refund without an amount")?;
            }
        }
        books.charges = paid.values().map(|order| order.charges).sum();
        books.refunds = paid.values().map(|order| order.refunds).sum();
        books.kept = paid.values().map(|order| order.charged - order.refunded).sum();
        Ok(paid)
    }
}

/// Every request that was taken was published and ended once, and the tables say the same.
async fn everyone_is_answered(told: &Told, database: &mut PgConnection, books: &mut Books) -> anyhow::Result<()> {
    let accepted: Vec<String> =
        sqlx::query_scalar("select order_id from checkout_requests").fetch_all(&mut *database).await?;
    let states: Vec<(String, String)> =
        sqlx::query_as("select key, state->>'status' from checkouts").fetch_all(database).await?;
    let states: BTreeMap<String, String> = states.into_iter().collect();
    (books.accepted, books.confirmed, books.cancelled) = (accepted.len(), told.completed.len(), told.cancelled.len());
    for rejected in told.rejected.values() {
        *books.rejected.entry(text(&rejected["reason"])).or_default() += 1;
    }
    let accepted: BTreeSet<&String> = accepted.iter().collect();
    let asked: BTreeSet<&String> = told.requested.keys().collect();
    for order in accepted.symmetric_difference(&asked) {
        must(&mut books.violations, false, || format!("{order}: taken or published, not both"));
    }
    for order in accepted {
        let (confirmed, rejected) = (told.completed.contains_key(order), told.rejected.contains_key(order));
        let placed = told.orders.contains_key(order);
        let state = states.get(order).map_or("nothing", String::as_str);
        let agree = match state {
            "confirmed" | "picked" | "packed" | "shipped" => confirmed && !told.cancelled.contains_key(order),
            "cancelled" => confirmed && told.cancelled.contains_key(order),
            "rejected" => rejected,
            _ => false,
        };
        must(&mut books.violations, agree && confirmed != rejected && placed == confirmed, || {
            format!("{order} is {state}; told as confirmed: {confirmed}, rejected: {rejected}, placed: {placed}")
        });
    }
    Ok(())
}

/// What each request wanted to buy, as the customer's cart has it.
async fn carts(told: &Told, database: &mut PgConnection) -> anyhow::Result<BTreeMap<String, Cart>> {
    let rows: Vec<(String, String, i64, i64)> =
        sqlx::query_as("select cart_id, product_id, quantity, price_amount from cart_lines")
            .fetch_all(database)
            .await?;
    let mut carts: BTreeMap<String, Cart> = BTreeMap::new();
    for (cart, product, quantity, price) in rows {
        carts.entry(cart).or_default().insert(product, (quantity, price));
    }
    let of =
        |(order, request): (&String, &Value)| Some((order.clone(), carts.get(&text(&request["cart_id"]))?.clone()));
    Ok(told.requested.iter().filter_map(of).collect())
}

/// Pieces of an order that the warehouse did not find, by product.
fn missing(told: &Told, order: &str) -> BTreeMap<String, i64> {
    let mut missing = BTreeMap::new();
    for line in told.short.get(order).and_then(|short| short["lines"].as_array()).into_iter().flatten() {
        let pieces = line["requested"].as_i64().unwrap_or(0) - line["picked"].as_i64().unwrap_or(0);
        *missing.entry(text(&line["product_id"])).or_default() += pieces;
    }
    missing
}

/// One charge at most, of what the cart cost; kept is what was bought and is there, or nothing.
fn money_is_right(order: &str, told: &Told, paid: &BTreeMap<String, Paid>, cart: Option<&Cart>, books: &mut Books) {
    let nothing = Paid::default();
    let paid = paid.get(order).unwrap_or(&nothing);
    let cart = cart.cloned().unwrap_or_default();
    let total: i64 = cart.values().map(|(pieces, price)| pieces * price).sum();
    let missing = missing(told, order);
    let short: i64 = missing.iter().map(|(product, pieces)| pieces * cart.get(product).map_or(0, |(_, p)| *p)).sum();
    let bought = told.completed.contains_key(order);
    let due = if !bought || told.cancelled.contains_key(order) { 0 } else { total - short };
    let kept = paid.charged - paid.refunded;
    let violations = &mut books.violations;
    must(violations, paid.charges <= 1, || format!("{order}: charged {} times", paid.charges));
    must(violations, paid.charges == 0 || paid.charged == total, || {
        format!("{order}: charged {}, the cart cost {total}", paid.charged)
    });
    must(violations, kept == due, || format!("{order}: {kept} is kept, {due} is due"));
    if bought {
        let said = told.completed[order]["total"]["amount_minor"].as_i64();
        must(violations, said == Some(total), || format!("{order}: told as {said:?}, the cart cost {total}"));
    }
}

/// Every piece stands somewhere, and as many are sold as customers have bought.
async fn stock_is_right(
    told: &Told,
    carts: &BTreeMap<String, Cart>,
    database: &mut PgConnection,
    books: &mut Books,
) -> anyhow::Result<()> {
    let (mut sold, mut lost) = (BTreeMap::<String, i64>::new(), told.lost.clone());
    for (order, event) in &told.orders {
        let ordered: BTreeMap<String, i64> = event["lines"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|line| (text(&line["product_id"]), line["quantity"].as_i64().unwrap_or(0)))
            .collect();
        let cart = carts.get(order).cloned().unwrap_or_default();
        let wanted: BTreeMap<String, i64> = cart.into_iter().map(|(product, (pieces, _))| (product, pieces)).collect();
        must(&mut books.violations, ordered == wanted, || {
            format!("{order}: {ordered:?} ordered, {wanted:?} in the cart")
        });
        let missing = missing(told, order);
        for (product, pieces) in ordered {
            let gone = missing.get(&product).copied().unwrap_or(0);
            *lost.entry(product.clone()).or_default() += gone;
            if !told.cancelled.contains_key(order) {
                *sold.entry(product).or_default() += pieces - gone;
            }
        }
    }
    let stock: Vec<(String, i64, i64, i64, i64, i64)> =
        sqlx::query_as("select product_id, received, available, reserved, sold, shrinkage from stock")
            .fetch_all(&mut *database)
            .await?;
    let booked: Vec<(String, i64)> = sqlx::query_as(
        "select product_id, sum(quantity - lost)::int8 from reservations where state = 'sold' group by product_id",
    )
    .fetch_all(database)
    .await?;
    let booked: BTreeMap<String, i64> = booked.into_iter().collect();
    let of = |map: &BTreeMap<String, i64>, product: &str| map.get(product).copied().unwrap_or(0);
    for (product, received, available, reserved, out, shrinkage) in stock {
        let (bought, booked, gone) = (of(&sold, &product), of(&booked, &product), of(&lost, &product));
        books.sold += out;
        let fine = available + reserved + out + shrinkage == received
            && available.min(out).min(shrinkage) >= 0
            && (reserved, out, out, shrinkage) == (0, bought, booked, gone);
        must(&mut books.violations, fine, || {
            format!(
                "{product}: {received} received, {available} available, {reserved} reserved, {out} sold, {shrinkage} gone; \
                 customers bought {bought}, reservations say {booked}, {gone} were missed"
            )
        });
    }
    Ok(())
}

/// Nothing waits, nothing is held, nothing is known of anybody's card.
async fn nothing_is_left(database: &mut PgConnection, books: &mut Books) -> anyhow::Result<()> {
    let left = [
        ("parked", "select stage || ' ' || key || ': ' || why from parked"),
        ("payment_methods", "select order_id from payment_methods"),
        ("reservations", "select order_id || ' holds ' || product_id from reservations where state = 'held'"),
        ("gateway_outbox", "select id::text from gateway_outbox"),
    ];
    for (table, sql) in left {
        let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *database).await?;
        must(&mut books.violations, rows.is_empty(), || {
            format!("{} rows left in {table}: {:?}", rows.len(), rows.first())
        });
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
