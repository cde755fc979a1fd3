//! Whom to write to about an order, and what was ordered.

use serde::Deserialize;
use waybill_mail::Line;
use waybill_money::Money;
use waybill_store::{Connection, Store, StoreError};

/// A customer, and the order's lines.
pub(super) struct Customer {
    pub email: String,
    pub name: Option<String>,
    /// Nobody has this address.
    pub suppressed: bool,
    /// Empty where nobody asked for them.
    pub lines: Vec<Line>,
}

/// What is read of a checkout: see its `Saga`.
#[derive(Deserialize)]
struct Bought {
    product_id: String,
    quantity: u32,
    price: Money,
}

/// Address, name, whether it is suppressed, the order's lines, and the names of products by id.
type Row = (String, Option<String>, bool, Option<String>, Option<String>);

/// None where nothing is known of the customer.
pub(super) async fn customer(
    store: &mut Store,
    customer_id: &str,
    order_id: &str,
    lines: bool,
) -> Result<Option<Customer>, StoreError> {
    let mut tx = store.begin().await?;
    let row: Option<Row> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select c.email, c.name, x.email is not null, (o.state -> 'lines')::text,
                           (select json_object_agg(p.id, p.name)::text from products p
                            where p.id in (select l ->> 'product_id' from jsonb_array_elements(o.state -> 'lines') l))
                       from contacts c
                       left join suppressions x on x.email = lower(c.email)
                       left join checkouts o on $3 and o.key = $2
                       where c.user_id = $1";
            sqlx::query_as(sql).bind(customer_id).bind(order_id).bind(lines).fetch_optional(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select c.email, c.name, x.email is not null, o.state ->> 'lines',
                           (select json_group_object(p.id, p.name) from products p
                            where p.id in (select value ->> 'product_id' from json_each(o.state, '$.lines')))
                       from contacts c
                       left join suppressions x on x.email = lower(c.email)
                       left join checkouts o on ?3 and o.key = ?2
                       where c.user_id = ?1";
            sqlx::query_as(sql).bind(customer_id).bind(order_id).bind(lines).fetch_optional(connection).await?
        }
    };
    tx.commit().await?;
    let Some((email, name, suppressed, lines, names)) = row else { return Ok(None) };
    let unreadable = |error: serde_json::Error| sqlx::Error::Decode(error.into());
    let bought: Vec<Bought> = lines.map_or(Ok(Vec::new()), |lines| serde_json::from_str(&lines)).map_err(unreadable)?;
    let names: serde_json::Value =
        names.map_or(Ok(serde_json::Value::Null), |names| serde_json::from_str(&names)).map_err(unreadable)?;
    let line = |bought: Bought| Line {
        // A product that is sold no more has no name left.
        name: names[&bought.product_id].as_str().unwrap_or(&bought.product_id).to_owned(),
        quantity: bought.quantity,
        amount: bought.price.checked_mul(bought.quantity).unwrap_or(bought.price),
    };
    Ok(Some(Customer { email, name, suppressed, lines: bought.into_iter().map(line).collect() }))
}
