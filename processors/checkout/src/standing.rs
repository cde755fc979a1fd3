//! Checkouts and refunds that are not at their end, for people on call: what they wait for, and the two things a person may
//! do about it. Neither goes around the stage: one makes what waits due at once, the other leaves a mark on the saga's row
//! that the stage honours at its next step. Whoever has the row in hand just then finds it changed and decides again.

use crate::saga::{Saga, Status};
use crate::stage::Checkout;
use serde::{Serialize, Serializer};
use std::time::Duration;
use waybill_spine::Stage as _;
use waybill_store::{Connection, Store, StoreError, Tx};

/// Where a checkout stands, in the eyes of who is on call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// A charge is out, or will be.
    Charging,
    /// Somebody ends it.
    Aborting,
    /// Money goes back, whatever for.
    Refunding,
    /// Its record became a dead letter: nothing goes on by itself.
    Dead,
    /// At its end.
    Ended,
}

impl Standing {
    /// All of them.
    pub const ALL: [Standing; 5] =
        [Standing::Charging, Standing::Aborting, Standing::Refunding, Standing::Dead, Standing::Ended];

    /// Its name, in JSON and elsewhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Standing::Charging => "charging",
            Standing::Aborting => "aborting",
            Standing::Refunding => "refunding",
            Standing::Dead => "dead",
            Standing::Ended => "ended",
        }
    }

    fn named(name: &str) -> Result<Self, StoreError> {
        let unknown = || sqlx::Error::Decode(format!("{name} is no standing").into()).into();
        Standing::ALL.into_iter().find(|standing| standing.name() == name).ok_or_else(unknown)
    }
}

/// What is kept of a checkout.
#[derive(Clone, Debug, Serialize)]
pub struct Open {
    /// The order.
    pub order_id: String,
    /// Where it stands.
    pub standing: Standing,
    /// Since the customer asked, by the database's clock; s in JSON.
    #[serde(rename = "age_s", serialize_with = "seconds")]
    pub age: Duration,
    /// What waits; none where nothing does.
    pub waits: Option<Wait>,
    /// All that the saga knows.
    pub saga: Saga,
}

/// The record of a checkout that waits, by the database's clock.
#[derive(Clone, Debug, Serialize)]
pub struct Wait {
    /// Why.
    pub why: String,
    /// How long already; s in JSON.
    #[serde(rename = "waited_s", serialize_with = "seconds")]
    pub waited: Duration,
    /// How long until the next try, zero where it is due; s in JSON.
    #[serde(rename = "next_try_in_s", serialize_with = "seconds")]
    pub next_try: Duration,
    /// A process has it in hand, for so long at most; s in JSON.
    #[serde(rename = "in_hand_s", serialize_with = "optional_seconds")]
    pub in_hand: Option<Duration>,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn optional_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|d| d.as_secs_f64()).serialize(serializer)
}

/// What came of [`resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It is due, and whichever process looks first takes it.
    Due,
    /// A process has it in hand already.
    InHand,
    /// It became a dead letter: nothing waits.
    Dead,
    /// It is at its end.
    Ended(Status),
    /// Nothing is kept of such an order.
    Unknown,
}

/// What came of [`abort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// The stage ends it at its next step.
    Asked,
    /// Somebody has asked before.
    Again,
    /// It is being rejected already, and the money goes back.
    Rejecting,
    /// It became a dead letter: nothing waits.
    Dead,
    /// It is at its end.
    Ended(Status),
    /// Nothing is kept of such an order.
    Unknown,
}

/// What the two databases say differently: the time in seconds since, and until; and whose lease it is.
struct Dialect {
    age: &'static str,
    waited: &'static str,
    next_try: &'static str,
    in_hand: &'static str,
    json: &'static str,
}

const POSTGRES: Dialect = Dialect {
    age: "extract(epoch from now() - (c.state ->> 'requested_at')::timestamptz)::float8",
    waited: "extract(epoch from now() - p.parked_at)::float8",
    next_try: "extract(epoch from p.due_at - now())::float8",
    in_hand: "case when p.leased_until > now() then extract(epoch from p.leased_until - now())::float8 end",
    json: "c.state::text",
};
const SQLITE: Dialect = Dialect {
    age: "unixepoch('subsec') - unixepoch(c.state ->> 'requested_at', 'subsec')",
    waited: "unixepoch('subsec') - p.parked_at",
    next_try: "p.due_at - unixepoch('subsec')",
    in_hand: "case when p.leased_until > unixepoch('subsec') then p.leased_until - unixepoch('subsec') end",
    json: "c.state",
};

/// Order, standing, age; why, waited, next try, in hand; state.
type Columns = (String, String, f64, Option<String>, Option<f64>, Option<f64>, Option<f64>, String);

/// Every checkout with the first of its parked records, behind which the others wait.
fn rows(dialect: &Dialect) -> String {
    let Dialect { age, waited, next_try, in_hand, json } = dialect;
    format!(
        "select c.key, case when c.state ->> 'awaits' is null then 'ended'
                    when p.id is null then 'dead'
                    when cast(c.state ->> 'abort' as text) in ('true', '1') then 'aborting'
                    when c.state ->> 'awaits' = 'refund' then 'refunding'
                    else 'charging' end as standing,
             {age} as age, p.why, {waited} as waited, {next_try} as next_try, {in_hand} as in_hand, {json} as state
         from checkouts c left join parked p on p.stage = '{stage}' and p.key = c.key
             and p.id = (select min(e.id) from parked e where e.stage = '{stage}' and e.key = c.key)",
        stage = Checkout::NAME,
    )
}

impl TryFrom<Columns> for Open {
    type Error = StoreError;

    fn try_from((order_id, standing, age, why, waited, next_try, in_hand, state): Columns) -> Result<Self, StoreError> {
        let positive = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let saga = serde_json::from_str(&state).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let waits = why.map(|why| Wait {
            why,
            waited: positive(waited.unwrap_or_default()),
            next_try: positive(next_try.unwrap_or_default()),
            in_hand: in_hand.map(positive),
        });
        Ok(Open { order_id, standing: Standing::named(&standing)?, age: positive(age), waits, saga })
    }
}

/// Open checkouts that stand so and are so old at least, the oldest first.
///
/// # Errors
/// The database is away.
pub async fn list(
    store: &mut Store,
    standing: Option<Standing>,
    older: Duration,
    limit: i64,
) -> Result<Vec<Open>, StoreError> {
    let sql = |dialect| {
        let rows = rows(dialect);
        let sql = format!(
            "select * from ({rows} where c.state ->> 'awaits' is not null) as o
             where standing = coalesce($1, standing) and age >= $2 order by age desc limit $3"
        );
        sqlx::AssertSqlSafe(sql)
    };
    let mut tx = store.begin().await?;
    let (standing, older) = (standing.map(Standing::name), older.as_secs_f64());
    let rows: Vec<Columns> = match tx.connection() {
        Connection::Postgres(c) => {
            sqlx::query_as(sql(&POSTGRES)).bind(standing).bind(older).bind(limit).fetch_all(c).await?
        }
        Connection::Sqlite(c) => {
            sqlx::query_as(sql(&SQLITE)).bind(standing).bind(older).bind(limit).fetch_all(c).await?
        }
    };
    tx.commit().await?;
    rows.into_iter().map(Open::try_from).collect()
}

/// How many checkouts are open, by where they stand.
///
/// # Errors
/// The database is away.
pub async fn count(store: &mut Store) -> Result<Vec<(Standing, i64)>, StoreError> {
    let sql = |dialect| {
        let rows = rows(dialect);
        let sql = format!(
            "select standing, count(*) from ({rows} where c.state ->> 'awaits' is not null) as o
             group by standing order by standing"
        );
        sqlx::AssertSqlSafe(sql)
    };
    let mut tx = store.begin().await?;
    let counts: Vec<(String, i64)> = match tx.connection() {
        Connection::Postgres(c) => sqlx::query_as(sql(&POSTGRES)).fetch_all(c).await?,
        Connection::Sqlite(c) => sqlx::query_as(sql(&SQLITE)).fetch_all(c).await?,
    };
    tx.commit().await?;
    counts.into_iter().map(|(standing, count)| Ok((Standing::named(&standing)?, count))).collect()
}

/// What is kept of one checkout, open or not.
///
/// # Errors
/// The database is away.
pub async fn find(store: &mut Store, order_id: &str) -> Result<Option<Open>, StoreError> {
    let mut tx = store.begin().await?;
    let found = read(&mut tx, order_id).await?;
    tx.commit().await?;
    Ok(found)
}

async fn read(tx: &mut Tx<'_>, order_id: &str) -> Result<Option<Open>, StoreError> {
    let sql = |dialect| sqlx::AssertSqlSafe(format!("{} where c.key = $1", rows(dialect)));
    let row: Option<Columns> = match tx.connection() {
        Connection::Postgres(c) => sqlx::query_as(sql(&POSTGRES)).bind(order_id).fetch_optional(c).await?,
        Connection::Sqlite(c) => sqlx::query_as(sql(&SQLITE)).bind(order_id).fetch_optional(c).await?,
    };
    row.map(Open::try_from).transpose()
}

/// Makes what waits due at once, unless a process has it in hand.
///
/// # Errors
/// The database is away.
pub async fn resume(store: &mut Store, order_id: &str) -> Result<Resume, StoreError> {
    let mut tx = store.begin().await?;
    let due = make_due(&mut tx, order_id).await?;
    let kept = read(&mut tx, order_id).await?;
    tx.commit().await?;
    Ok(match kept {
        None => Resume::Unknown,
        Some(_) if due => Resume::Due,
        Some(Open { standing: Standing::Ended, waits: None, saga, .. }) => Resume::Ended(saga.status),
        Some(Open { waits: None, .. }) => Resume::Dead,
        Some(Open { waits: Some(_), .. }) => Resume::InHand,
    })
}

/// Asks the stage to end a checkout and to undo what was done. A charge that may be out is settled before.
///
/// # Errors
/// The database is away.
pub async fn abort(store: &mut Store, order_id: &str) -> Result<Abort, StoreError> {
    let mut tx = store.begin().await?;
    let asked = mark(&mut tx, order_id).await?;
    if asked {
        make_due(&mut tx, order_id).await?;
    }
    let kept = read(&mut tx, order_id).await?;
    tx.commit().await?;
    Ok(match kept {
        None => Abort::Unknown,
        Some(_) if asked => Abort::Asked,
        Some(Open { saga, .. }) if saga.status != Status::Running => Abort::Ended(saga.status),
        Some(Open { standing: Standing::Dead, .. }) => Abort::Dead,
        Some(Open { saga, .. }) if saga.abort => Abort::Again,
        Some(_) => Abort::Rejecting,
    })
}

/// Yields whether it is marked now and was not before.
async fn mark(tx: &mut Tx<'_>, order_id: &str) -> Result<bool, StoreError> {
    let marked = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "update checkouts c set state = jsonb_set(state, '{abort}', 'true'), version = version + 1
                       where key = $1 and state ->> 'status' = 'running' and state ->> 'awaits' = 'charge'
                           and state ->> 'abort' is distinct from 'true'
                           and exists (select 1 from parked p where p.stage = $2 and p.key = c.key)";
            sqlx::query(sql).bind(order_id).bind(Checkout::NAME).execute(connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            let sql =
                "update checkouts as c set state = json_set(state, '$.abort', json('true')), version = version + 1
                       where key = $1 and state ->> 'status' = 'running' and state ->> 'awaits' = 'charge'
                           and not coalesce(state ->> 'abort', false)
                           and exists (select 1 from parked p where p.stage = $2 and p.key = c.key)";
            sqlx::query(sql).bind(order_id).bind(Checkout::NAME).execute(connection).await?.rows_affected()
        }
    };
    Ok(marked == 1)
}

/// Yields whether there is a record that waits and that no process has in hand.
async fn make_due(tx: &mut Tx<'_>, order_id: &str) -> Result<bool, StoreError> {
    let due = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "update parked p set due_at = now() where stage = $1 and key = $2 and leased_until <= now()
                       and id = (select min(id) from parked e where e.stage = p.stage and e.key = p.key)";
            sqlx::query(sql).bind(Checkout::NAME).bind(order_id).execute(connection).await?.rows_affected()
        }
        Connection::Sqlite(connection) => {
            let sql = "update parked as p set due_at = unixepoch('subsec')
                       where stage = $1 and key = $2 and leased_until <= unixepoch('subsec')
                           and id = (select min(id) from parked e where e.stage = p.stage and e.key = p.key)";
            sqlx::query(sql).bind(Checkout::NAME).bind(order_id).execute(connection).await?.rows_affected()
        }
    };
    Ok(due == 1)
}
