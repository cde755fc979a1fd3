//! Who is to be told: read, and kept as begun, in one transaction right before the first message goes out.

use super::part::{Part, Whom};
use crate::time::from_micros;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use waybill_money::{Currency, Money};
use waybill_store::{Connection, Store, StoreError, Tx};

/// Somebody who waits for a product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub subscription_id: i64,
    pub user_id: String,
    /// Since when.
    pub since: Timestamp,
    /// The span in which it was asked for.
    pub traceparent: Option<String>,
}

/// Where somebody can be reached. Never printed.
#[derive(Clone)]
pub(super) struct Reach {
    /// What names it where it is kept; of a mail, nothing.
    pub id: String,
    /// An address, or a device as JSON.
    pub place: String,
    /// Whom to greet.
    pub name: Option<String>,
}

/// Somebody to be told, by these ways: none if nothing is known of them, or nothing gets through.
pub(super) struct Person {
    pub waiting: Waiting,
    pub reaches: Vec<Reach>,
}

/// What is told of.
pub(super) struct Product {
    pub name: String,
    pub price: Money,
}

/// What a part of a batch comes to before its first message.
pub(super) enum Begin {
    /// There is nothing to tell of any more.
    SoldOut,
    /// Somebody has begun before: these may have been told.
    Begun(Vec<Waiting>),
    /// It is kept that these may be told from now on.
    Now(Product, Vec<Person>),
}

/// Name, price, currency, available.
type ProductRow = (String, i64, String, i64);
/// Subscription, user, since when in microseconds, `traceparent`, name, address, id and text of a device.
type PersonRow = (i64, String, i64, Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);

/// Those of a part, in either statement.
macro_rules! those {
    ($columns:literal, $ways:literal) => {
        concat!(
            "select s.id, s.user_id, (extract(epoch from s.created_at) * 1000000)::int8, s.traceparent, ",
            $columns,
            " from (select id, user_id, created_at, traceparent from subscriptions
                    where product_id = $1 and channel = $2 and id > $3 and id <= $4 and quantity <= $6
                        and expires_at > now() and (cardinality($7::int8[]) = 0 or id = any($7))
                    order by id limit $5) s ",
            $ways
        )
    };
}
const EMAIL: &str = those!(
    "c.name, case when not exists (select from suppressions where email = lower(c.email)) then c.email end,
        null::text, null::text",
    "left join contacts c on c.user_id = s.user_id order by s.id"
);
const PUSH: &str = those!(
    "null::text, null::text, t.id, t.target::text",
    "left join push_targets t on t.user_id = s.user_id order by s.id, t.id"
);

/// Begins a part of a batch.
pub(super) async fn begin(store: &mut Store, channel: &str, part: &Part) -> Result<Begin, StoreError> {
    let mut tx = store.begin().await?;
    if let Some(people) = begun(&mut tx, channel, part).await? {
        let people = serde_json::from_str(&people).map_err(|e| sqlx::Error::Decode(e.into()))?;
        return Ok(Begin::Begun(people));
    }
    let Some((name, amount, currency, available)) = product(&mut tx, &part.product_id).await? else {
        return Ok(Begin::SoldOut);
    };
    let Some(currency) = Currency::from_code(&currency).filter(|_| available > 0) else { return Ok(Begin::SoldOut) };
    let people = grouped(channel, people(&mut tx, channel, part, available).await?)?;
    if !people.is_empty() {
        let waiting: Vec<&Waiting> = people.iter().map(|person| &person.waiting).collect();
        let waiting = serde_json::to_string(&waiting).map_err(|e| sqlx::Error::Encode(e.into()))?;
        if !keep(&mut tx, channel, part, &waiting).await? {
            // Between our look and now.
            return Err(StoreError::Conflict);
        }
    }
    tx.commit().await?;
    Ok(Begin::Now(Product { name, price: Money::new(amount, currency) }, people))
}

async fn begun(tx: &mut Tx<'_>, channel: &str, part: &Part) -> Result<Option<String>, StoreError> {
    let number = i64::from(part.number);
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select people::text from sendings where channel = $1 and batch_id = $2 and part = $3";
            let asked = sqlx::query_scalar(sql).bind(channel).bind(&part.batch_id).bind(number);
            asked.fetch_optional(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select people from sendings where channel = ?1 and batch_id = ?2 and part = ?3";
            let asked = sqlx::query_scalar(sql).bind(channel).bind(&part.batch_id).bind(number);
            asked.fetch_optional(connection).await?
        }
    })
}

/// Yields whether it was this call that kept it.
async fn keep(tx: &mut Tx<'_>, channel: &str, part: &Part, people: &str) -> Result<bool, StoreError> {
    let number = i64::from(part.number);
    let kept = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql =
                "insert into sendings (channel, batch_id, part, people) values ($1, $2, $3::int8::int4, $4::jsonb)
                       on conflict do nothing";
            let kept = sqlx::query(sql).bind(channel).bind(&part.batch_id).bind(number).bind(people);
            kept.execute(connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            let sql = "insert into sendings (channel, batch_id, part, people) values (?1, ?2, ?3, ?4)
                       on conflict do nothing";
            let kept = sqlx::query(sql).bind(channel).bind(&part.batch_id).bind(number).bind(people);
            kept.execute(connection).await?.rows_affected()
        }
    };
    Ok(kept == 1)
}

async fn product(tx: &mut Tx<'_>, product_id: &str) -> Result<Option<ProductRow>, StoreError> {
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select p.name, p.price_amount, p.price_currency, s.available
                       from products p join stock s on s.product_id = p.id where p.id = $1";
            sqlx::query_as(sql).bind(product_id).fetch_optional(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select p.name, p.price_amount, p.price_currency, s.available
                       from products p join stock s on s.product_id = p.id where p.id = ?1";
            sqlx::query_as(sql).bind(product_id).fetch_optional(connection).await?
        }
    })
}

/// Those of the part who still wait for no more pieces than there are, a row for each way to reach them.
async fn people(tx: &mut Tx<'_>, channel: &str, part: &Part, available: i64) -> Result<Vec<PersonRow>, StoreError> {
    let (after, to, most, those) = match &part.whom {
        Whom::Next { after, to, most } => (*after, *to, i64::from(*most), &[][..]),
        Whom::Those(those) => (0, i64::MAX, i64::MAX, &those[..]),
    };
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            // A statement a channel: planning is most of what a small one costs.
            let sql = if channel == "email" { EMAIL } else { PUSH };
            let asked = sqlx::query_as(sql).bind(&part.product_id).bind(channel).bind(after).bind(to).bind(most);
            asked.bind(available).bind(those).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select s.id, s.user_id, cast(round(s.created_at * 1000000) as integer), s.traceparent,
                           c.name, case when x.email is null then c.email end, t.id, t.target
                       from (select * from subscriptions
                             where product_id = ?1 and channel = ?2 and id > ?3 and id <= ?4 and quantity <= ?6
                                 and expires_at > unixepoch('subsec')
                                 and (?7 = '[]' or id in (select value from json_each(?7)))
                             order by id limit ?5) s
                       left join contacts c on ?2 = 'email' and c.user_id = s.user_id
                       left join suppressions x on x.email = lower(c.email)
                       left join push_targets t on ?2 = 'push' and t.user_id = s.user_id
                       order by s.id, t.id";
            let those = serde_json::Value::from(those).to_string();
            let asked = sqlx::query_as(sql).bind(&part.product_id).bind(channel).bind(after).bind(to).bind(most);
            asked.bind(available).bind(those).fetch_all(connection).await?
        }
    })
}

fn grouped(channel: &str, rows: Vec<PersonRow>) -> Result<Vec<Person>, StoreError> {
    let mut people: Vec<Person> = Vec::new();
    for (subscription_id, user_id, since, traceparent, name, email, id, target) in rows {
        let reach = match channel {
            "email" => email.map(|place| Reach { id: String::new(), place, name }),
            _ => id.zip(target).map(|(id, place)| Reach { id, place, name: None }),
        };
        if let Some(last) = people.last_mut().filter(|last| last.waiting.subscription_id == subscription_id) {
            last.reaches.extend(reach);
        } else {
            let since = from_micros(since)?;
            let waiting = Waiting { subscription_id, user_id, since, traceparent };
            people.push(Person { waiting, reaches: reach.into_iter().collect() });
        }
    }
    Ok(people)
}
