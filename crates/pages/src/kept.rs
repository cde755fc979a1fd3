//! What the stages keep of one order: their answers, spans and all, and what waits.

use jiff::Timestamp;
use waybill_spine::Content;
use waybill_store::{Connection, StoreError, Tx};

/// A record of the order that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waits {
    pub stage: String,
    pub why: String,
    pub attempts: i32,
    pub since: Timestamp,
    pub due: Timestamp,
}

/// Stage, why, attempts, microseconds since 1970 since it waits and until it is tried.
type Columns = (String, String, i32, i64, i64);

const ANSWERS: &str = "
    select answer from checkouts where key = $1 union all select answer from picks where key = $1
    union all select answer from packs where key = $1 union all select answer from shipments where key = $1";

/// The answers of the stages, as they are kept.
pub(crate) async fn answers(tx: &mut Tx<'_>, order_id: &str) -> Result<Vec<Vec<u8>>, StoreError> {
    Ok(match tx.connection() {
        Connection::Postgres(c) => sqlx::query_scalar(ANSWERS).bind(order_id).fetch_all(c).await?,
        Connection::Sqlite(c) => sqlx::query_scalar(ANSWERS).bind(order_id).fetch_all(c).await?,
    })
}

/// Topic and content of each message that the answers hold.
pub(crate) fn messages(
    answers: &[Vec<u8>],
) -> Result<Vec<(String, Content)>, Box<dyn std::error::Error + Send + Sync>> {
    let mut messages = Vec::new();
    for answer in answers {
        let kept = waybill_spine::kept_answer(answer)?;
        messages.extend(kept.into_iter().map(|message| (message.topic.into_owned(), message.content)));
    }
    Ok(messages)
}

/// What of the order waits at a stage, the first of each stage: behind it the others wait.
pub(crate) async fn waits(tx: &mut Tx<'_>, order_id: &str) -> Result<Vec<Waits>, StoreError> {
    let rows: Vec<Columns> = match tx.connection() {
        Connection::Postgres(c) => {
            let sql =
                "select distinct on (stage) stage, why, attempts, (extract(epoch from parked_at) * 1000000)::int8,
                           (extract(epoch from due_at) * 1000000)::int8
                       from parked where stage = any('{checkout,pick,pack,ship}') and key = $1 order by stage, id";
            sqlx::query_as(sql).bind(order_id).fetch_all(c).await?
        }
        Connection::Sqlite(c) => {
            let sql = "select stage, why, attempts, cast(parked_at * 1000000 as integer), cast(due_at * 1000000 as integer)
                       from parked p where stage in ('checkout', 'pick', 'pack', 'ship') and key = $1
                           and id = (select min(id) from parked e where e.stage = p.stage and e.key = p.key) order by stage";
            sqlx::query_as(sql).bind(order_id).fetch_all(c).await?
        }
    };
    let time = |micros| Timestamp::from_microsecond(micros).unwrap_or_default();
    let waits = |(stage, why, attempts, since, due)| Waits { stage, why, attempts, since: time(since), due: time(due) };
    Ok(rows.into_iter().map(waits).collect())
}
