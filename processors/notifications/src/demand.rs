//! How much a product that cannot be had is wanted.

use jiff::Timestamp;
use serde::Serialize;
use waybill_store::{Connection, StoreError, Tx};

/// Who waits for a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Demand {
    /// The product.
    pub product_id: String,
    /// People who wait, each once.
    pub people: i64,
    /// Those of them who are to be told by mail.
    pub email: i64,
    /// Those of them who are to be told by push message.
    pub push: i64,
    /// Pieces they want together.
    pub pieces: i64,
    /// When the one who waits longest asked; none where nobody waits.
    pub oldest: Option<Timestamp>,
}

/// Product, people, by mail, by push, pieces, microseconds since 1970.
type Columns = (String, i64, i64, i64, i64, i64);

/// The demand for these products, or for all where none is named, the most wanted first, at most `most` of them. A product
/// that nobody waits for is not there.
///
/// # Errors
/// The database is away.
pub async fn demand(tx: &mut Tx<'_>, products: &[&str], most: i64) -> Result<Vec<Demand>, StoreError> {
    let rows: Vec<Columns> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select product_id, count(*), count(*) filter (where email), count(*) filter (where push),
                           sum(quantity)::int8, (extract(epoch from min(asked_at)) * 1000000)::int8
                       from (select product_id, bool_or(channel = 'email') as email, bool_or(channel = 'push') as push,
                                 max(quantity) as quantity, min(created_at) as asked_at
                             from subscriptions
                             where expires_at > now() and ($1 = '{}' or product_id = any($1))
                             group by product_id, user_id) as person
                       group by product_id order by 2 desc, 1 limit $2";
            sqlx::query_as(sql).bind(products).bind(most).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select product_id, count(*), count(*) filter (where email), count(*) filter (where push),
                           sum(quantity), cast(round(min(asked_at) * 1000000) as integer)
                       from (select product_id, max(channel = 'email') as email, max(channel = 'push') as push,
                                 max(quantity) as quantity, min(created_at) as asked_at
                             from subscriptions
                             where expires_at > unixepoch('subsec')
                                 and (?1 = '[]' or product_id in (select value from json_each(?1)))
                             group by product_id, user_id) as person
                       group by product_id order by 2 desc, 1 limit ?2";
            let products = serde_json::Value::from(products).to_string();
            sqlx::query_as(sql).bind(products).bind(most).fetch_all(connection).await?
        }
    };
    let demand = |(product_id, people, email, push, pieces, oldest)| Demand {
        product_id,
        people,
        email,
        push,
        pieces,
        oldest: Timestamp::from_microsecond(oldest).ok(),
    };
    Ok(rows.into_iter().map(demand).collect())
}
