//! Carts as the gateway keeps them, with the prices that their products have now.

use crate::saga::Bought;
use std::collections::BTreeMap;
use waybill_events::{Line, Service};
use waybill_money::{Currency, Money};
use waybill_store::{Connection, StoreError, Tx};

/// A cart.
#[derive(Clone, Debug)]
pub(crate) struct Cart {
    pub customer_id: String,
    pub country: String,
    pub service: Service,
    pub lines: Vec<CartLine>,
}

/// A line of a cart.
#[derive(Clone, Debug)]
pub(crate) struct CartLine {
    /// As it would be bought, at the price the customer saw.
    pub bought: Bought,
    /// The product's price now; none where the shop no longer sells it.
    pub price: Option<Money>,
}

/// Cart, user, country, service; product, quantity, price and currency in the cart; and of the product now: stock keeping
/// unit, price, currency, weight, three dimensions.
type Row = (
    String,
    String,
    String,
    String,
    String,
    i64,
    i64,
    String,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

const COLUMNS: &str =
    "c.id, c.user_id, c.country, c.service, l.product_id, l.quantity, l.price_amount, l.price_currency,
     p.sku, p.price_amount, p.price_currency, p.weight_g, p.length_mm, p.width_mm, p.height_mm
     from carts c join cart_lines l on l.cart_id = c.id left join products p on p.id = l.product_id";

/// Reads carts, in one query; one that is empty or not there is not among them.
pub(crate) async fn read(tx: &mut Tx<'_>, carts: &[&str]) -> Result<BTreeMap<String, Cart>, StoreError> {
    let rows: Vec<Row> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = format!("select {COLUMNS} where c.id = any($1) order by c.id, l.product_id");
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(carts).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql =
                format!("select {COLUMNS} where c.id in (select value from json_each(?1)) order by c.id, l.product_id");
            let carts = serde_json::Value::from(carts).to_string();
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(carts).fetch_all(connection).await?
        }
    };
    let mut read: BTreeMap<String, Cart> = BTreeMap::new();
    for row in rows {
        let (id, customer_id, country, service) = (row.0.clone(), row.1.clone(), row.2.clone(), row.3.clone());
        let cart = read.entry(id).or_insert_with(|| Cart {
            customer_id,
            country,
            service: if service == "express" { Service::Express } else { Service::Standard },
            lines: Vec::new(),
        });
        let number = u32::try_from(cart.lines.len() + 1).unwrap_or(u32::MAX);
        cart.lines.push(line(number, row));
    }
    Ok(read)
}

fn line(number: u32, row: Row) -> CartLine {
    let (_, _, _, _, product_id, quantity, amount, currency, sku, now, now_in, weight, length, width, height) = row;
    let money = |amount, code: &str| Currency::from_code(code).map(|currency| Money::new(amount, currency));
    let whole = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
    // A price in no known currency is no price: the line is stale.
    let seen = money(amount, &currency);
    let price = now.zip(now_in).and_then(|(amount, code)| money(amount, &code)).filter(|_| seen.is_some());
    CartLine {
        bought: Bought {
            line: Line {
                line: number,
                product_id,
                sku: sku.unwrap_or_default(),
                quantity: u32::try_from(quantity).unwrap_or(0),
                weight_g: whole(weight),
                size_mm: [whole(length), whole(width), whole(height)],
            },
            price: seen.unwrap_or(Money::new(amount, Currency::XXX)),
        },
        price,
    }
}
