//! Orders as the checkout keeps them: one question, bounded, in the words of both databases.

use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use waybill_store::{Connection, StoreError, Tx};

/// Orders of a page.
pub(crate) const PAGE: i64 = 50;
/// Most rows that are looked at for those of one state, or with one beginning.
const SCAN: i64 = 2_000;
/// Where an order on its way may stand.
pub(crate) const OPEN: [&str; 3] = ["confirmed", "picked", "packed"];

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Order {
    pub id: String,
    pub status: String,
    /// RFC 3339, UTC.
    pub requested_at: String,
    pub items: i64,
    pub amount_minor: Option<i64>,
    pub currency: Option<String>,
    pub refunded_minor: Option<i64>,
    /// The call that its checkout waits for.
    pub awaits: Option<String>,
}

/// Orders, and where to go on.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub orders: Vec<Order>,
    /// The last order that was looked at, where there may be more.
    pub more: Option<String>,
}

impl Found {
    /// Of one order more than a page has, if there is one.
    fn page(mut orders: Vec<Order>) -> Self {
        let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
        let more = orders.len() > page;
        orders.truncate(page);
        Found { more: orders.last().filter(|_| more).map(|order| order.id.clone()), orders }
    }
}

/// What the two databases say differently.
struct Dialect {
    items: &'static str,
    amount: &'static str,
    refunded: &'static str,
    /// Time of asking, so that byte order is its order; and nothing paid back, as the index `checkouts_open` has them.
    at: &'static str,
    unpaid: &'static str,
}

const POSTGRES: Dialect = Dialect {
    items: "coalesce((state ->> 'item_count')::int8, 0)",
    amount: "(state #>> '{total,amount_minor}')::int8",
    refunded: "(state ->> 'refunded_minor')::int8",
    at: "(state ->> 'requested_at') collate \"C\"",
    unpaid: "'0'",
};
const SQLITE: Dialect = Dialect {
    items: "coalesce(state ->> 'item_count', 0)",
    amount: "state ->> '$.total.amount_minor'",
    refunded: "state ->> 'refunded_minor'",
    at: "state ->> 'requested_at'",
    unpaid: "0",
};

impl Dialect {
    fn columns(&self) -> String {
        let Dialect { items, amount, refunded, .. } = self;
        format!(
            "key as id, state ->> 'status' as status, state ->> 'requested_at' as requested_at, {items} as items,
             {amount} as amount_minor, state -> 'total' ->> 'currency' as currency, {refunded} as refunded_minor,
             state ->> 'awaits' as awaits"
        )
    }

    /// The newest first: an order's id begins with its time.
    fn newest(&self) -> String {
        format!(
            "select {} from (select key, state from checkouts where $1 = '' or key < $1 order by key desc limit $2) as o
             where $3 = '' or state ->> 'status' = $3 order by key desc limit $4",
            self.columns()
        )
    }

    fn beginning(&self) -> String {
        format!(
            "select {} from (select key, state from checkouts where key >= $1 order by key limit $2) as o
             where substr(key, 1, length($1)) = $1 order by key limit $3",
            self.columns()
        )
    }

    /// Those on their way, the oldest first. The condition is that of the index `checkouts_open`.
    fn open(&self) -> String {
        let (columns, Dialect { at, unpaid, .. }) = (self.columns(), self);
        format!(
            "select {columns} from checkouts
             where state ->> 'status' = $1 and state ->> 'status' in ('confirmed', 'picked', 'packed')
                 and (coalesce(state ->> 'refunded_minor', {unpaid}) = {unpaid}
                     or state ->> 'refunded_minor' <> state -> 'total' ->> 'amount_minor')
                 and {at} < $2 and {at} >= $3 and ({at} > $3 or key > $4)
             order by {at}, key limit $5"
        )
    }

    fn one(&self) -> String {
        format!("select {} from checkouts where key = $1", self.columns())
    }
}

/// Runs one statement on whichever database it is.
macro_rules! fetch {
    ($tx:expr, $fetch:ident, $sql:ident, $($value:expr),+) => {
        match $tx.connection() {
            Connection::Postgres(c) => {
                sqlx::query_as(AssertSqlSafe(POSTGRES.$sql()))$(.bind($value))+.$fetch(c).await
            }
            Connection::Sqlite(c) => {
                sqlx::query_as(AssertSqlSafe(SQLITE.$sql()))$(.bind($value))+.$fetch(c).await
            }
        }
    };
}

/// The newest orders, of one state where one is named, older than the order `after`.
pub(crate) async fn newest(tx: &mut Tx<'_>, status: &str, after: &str) -> Result<Found, StoreError> {
    let scan = if status.is_empty() { PAGE + 1 } else { SCAN };
    let orders: Vec<Order> = fetch!(tx, fetch_all, newest, after, scan, status, PAGE + 1)?;
    let found = Found::page(orders);
    if found.more.is_some() || status.is_empty() {
        return Ok(found);
    }
    Ok(Found { more: last_looked_at(tx, after).await?, ..found })
}

/// Where a look for orders of one state came to its bound; none where it came to the end.
async fn last_looked_at(tx: &mut Tx<'_>, after: &str) -> Result<Option<String>, StoreError> {
    let sql = "select key from checkouts where $1 = '' or key < $1 order by key desc limit 1 offset $2";
    Ok(match tx.connection() {
        Connection::Postgres(c) => sqlx::query_scalar(sql).bind(after).bind(SCAN - 1).fetch_optional(c).await?,
        Connection::Sqlite(c) => sqlx::query_scalar(sql).bind(after).bind(SCAN - 1).fetch_optional(c).await?,
    })
}

/// Orders whose ids begin so.
pub(crate) async fn beginning(tx: &mut Tx<'_>, text: &str) -> Result<Vec<Order>, StoreError> {
    Ok(fetch!(tx, fetch_all, beginning, text, SCAN, PAGE)?)
}

/// Orders on their way that were asked for before `before`, the oldest first, from behind (time, order) on.
pub(crate) async fn open(
    tx: &mut Tx<'_>,
    statuses: &[&str],
    before: Timestamp,
    (at, after): (&str, &str),
) -> Result<Found, StoreError> {
    let before = before.to_string();
    let mut orders: Vec<Order> = Vec::new();
    for status in statuses {
        orders.extend(fetch!(tx, fetch_all, open, *status, &before, at, after, PAGE + 1)?);
    }
    orders.sort_by(|a: &Order, b: &Order| (&a.requested_at, &a.id).cmp(&(&b.requested_at, &b.id)));
    Ok(Found::page(orders))
}

/// One order.
pub(crate) async fn one(tx: &mut Tx<'_>, id: &str) -> Result<Option<Order>, StoreError> {
    Ok(fetch!(tx, fetch_optional, one, id)?)
}
