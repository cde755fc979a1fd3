//! Carts in the database. Lines change under the lock of their cart, so that its limits hold.

use crate::carts::{Cart, CartLine};
use crate::products::money;
use waybill_events::{MAX_LINES, MAX_UNITS};
use waybill_money::Money;
use waybill_store::{Connection, Store, StoreError, Tx};

/// What came of putting a line.
pub(crate) enum Put {
    Done(Cart),
    NoCart,
    NoProduct,
    Full,
    OtherCurrency,
}

/// Makes a cart, unless it is there. Yields whether it is as asked for now: nobody else's, and going to the same place.
pub(crate) async fn make(store: &mut Store, cart: &Cart) -> Result<bool, StoreError> {
    let sql = "insert into carts (id, user_id, country, service) values ($1, $2, $3, $4)
               on conflict (id) do update set id = excluded.id
               where carts.user_id = excluded.user_id and carts.country = excluded.country
                   and carts.service = excluded.service";
    let mut tx = store.begin().await?;
    macro_rules! insert {
        ($connection:ident) => {
            sqlx::query(sql)
                .bind(&cart.cart_id)
                .bind(&cart.user_id)
                .bind(&cart.country)
                .bind(&cart.service)
                .execute($connection)
                .await?
                .rows_affected()
        };
    }
    let made = match tx.connection() {
        Connection::Postgres(connection) => insert!(connection),
        Connection::Sqlite(connection) => insert!(connection),
    };
    tx.commit().await?;
    Ok(made == 1)
}

pub(crate) async fn find(store: &mut Store, id: &str) -> Result<Option<Cart>, StoreError> {
    let mut tx = store.begin().await?;
    let cart = read(&mut tx, id, false).await?;
    tx.commit().await?;
    Ok(cart)
}

/// Id, user, country, service.
type Columns = (String, String, String, String);
/// Product, quantity, price.
type LineColumns = (String, i64, i64, String);

/// The cart; locked for the rest of the transaction if asked for (SQLite has one writer at a time anyway).
async fn read(tx: &mut Tx<'_>, id: &str, lock: bool) -> Result<Option<Cart>, StoreError> {
    let locked = "select id, user_id, country, service from carts where id = $1 for update";
    let plain = "select id, user_id, country, service from carts where id = $1";
    let lines = "select product_id, quantity, price_amount, price_currency from cart_lines
                 where cart_id = $1 order by product_id";
    let (row, lines): (Option<Columns>, Vec<LineColumns>) = match tx.connection() {
        Connection::Postgres(connection) => (
            sqlx::query_as(if lock { locked } else { plain }).bind(id).fetch_optional(&mut *connection).await?,
            sqlx::query_as(lines).bind(id).fetch_all(connection).await?,
        ),
        Connection::Sqlite(connection) => (
            sqlx::query_as(plain).bind(id).fetch_optional(&mut *connection).await?,
            sqlx::query_as(lines).bind(id).fetch_all(connection).await?,
        ),
    };
    let Some((cart_id, user_id, country, service)) = row else { return Ok(None) };
    let lines = lines.into_iter().map(|(product_id, quantity, amount, currency)| {
        let quantity = u32::try_from(quantity).unwrap_or(u32::MAX);
        Ok(CartLine { product_id, quantity, price: money(amount, &currency)? })
    });
    let lines: Vec<CartLine> = lines.collect::<Result<_, StoreError>>()?;
    let total = total(&lines);
    Ok(Some(Cart { cart_id, user_id, country, service, lines, total }))
}

/// Nothing for an empty cart, nor for a sum that is no amount: prices are bounded so that there is none.
fn total(lines: &[CartLine]) -> Option<Money> {
    let mut costs = lines.iter().map(|line| line.price.checked_mul(line.quantity).ok());
    let first = costs.next()??;
    costs.try_fold(first, |sum, cost| sum.checked_add(cost?).ok())
}

pub(crate) async fn put_line(
    store: &mut Store,
    cart_id: &str,
    product_id: &str,
    quantity: u32,
) -> Result<Put, StoreError> {
    let mut tx = store.begin().await?;
    let put = put_in(&mut tx, cart_id, product_id, quantity).await?;
    // Committed whatever came of it: a transaction that is dropped costs the connection.
    tx.commit().await?;
    Ok(put)
}

async fn put_in(tx: &mut Tx<'_>, cart_id: &str, product_id: &str, quantity: u32) -> Result<Put, StoreError> {
    let Some(mut cart) = read(tx, cart_id, true).await? else { return Ok(Put::NoCart) };
    let Some(price) = price(tx, product_id).await? else { return Ok(Put::NoProduct) };
    cart.lines.retain(|line| line.product_id != product_id);
    let units = cart.lines.iter().map(|line| u64::from(line.quantity)).sum::<u64>() + u64::from(quantity);
    if cart.lines.len() >= MAX_LINES || units > u64::from(MAX_UNITS) {
        return Ok(Put::Full);
    }
    if cart.lines.iter().any(|line| line.price.currency != price.currency) {
        return Ok(Put::OtherCurrency);
    }
    let sql = "insert into cart_lines (cart_id, product_id, quantity, price_amount, price_currency)
               values ($1, $2, $3, $4, $5)
               on conflict (cart_id, product_id) do update set quantity = excluded.quantity,
                   price_amount = excluded.price_amount, price_currency = excluded.price_currency";
    macro_rules! upsert {
        ($connection:ident) => {
            sqlx::query(sql)
                .bind(cart_id)
                .bind(product_id)
                .bind(i64::from(quantity))
                .bind(price.amount)
                .bind(price.currency.code())
                .execute($connection)
                .await?
                .rows_affected()
        };
    }
    match tx.connection() {
        Connection::Postgres(connection) => upsert!(connection),
        Connection::Sqlite(connection) => upsert!(connection),
    };
    cart.lines.push(CartLine { product_id: product_id.to_owned(), quantity, price });
    cart.lines.sort_by(|a, b| a.product_id.cmp(&b.product_id));
    cart.total = total(&cart.lines);
    Ok(Put::Done(cart))
}

async fn price(tx: &mut Tx<'_>, product_id: &str) -> Result<Option<Money>, StoreError> {
    let sql = "select price_amount, price_currency from products where id = $1";
    let row: Option<(i64, String)> = match tx.connection() {
        Connection::Postgres(connection) => sqlx::query_as(sql).bind(product_id).fetch_optional(connection).await?,
        Connection::Sqlite(connection) => sqlx::query_as(sql).bind(product_id).fetch_optional(connection).await?,
    };
    row.map(|(amount, currency)| money(amount, &currency)).transpose()
}

/// Whether the cart is there.
pub(crate) async fn delete_line(store: &mut Store, cart_id: &str, product_id: &str) -> Result<bool, StoreError> {
    let sql = "delete from cart_lines where cart_id = $1 and product_id = $2";
    let mut tx = store.begin().await?;
    let there = read(&mut tx, cart_id, true).await?.is_some();
    match tx.connection() {
        Connection::Postgres(connection) => {
            sqlx::query(sql).bind(cart_id).bind(product_id).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            sqlx::query(sql).bind(cart_id).bind(product_id).execute(connection).await?;
        }
    }
    tx.commit().await?;
    Ok(there)
}
