//! How old the oldest orders on their way are, for the gauge.

use waybill_store::{Connection, StoreError, Tx};

/// Where an order on its way may stand.
const OPEN: [&str; 3] = ["confirmed", "picked", "packed"];

/// The condition is that of the index `checkouts_open`, so that the oldest is found there.
const POSTGRES: &str = r#"
    select s.status, coalesce(extract(epoch from now() - oldest.at)::int8, 0)
    from unnest($1::text[]) as s (status) left join lateral (
        select (state ->> 'requested_at')::timestamptz as at from checkouts
        where state ->> 'status' = s.status and state ->> 'status' in ('confirmed', 'picked', 'packed')
            and (coalesce(state ->> 'refunded_minor', '0') = '0'
                or state ->> 'refunded_minor' <> state -> 'total' ->> 'amount_minor')
        order by (state ->> 'requested_at') collate "C" limit 1) as oldest on true"#;
const SQLITE: &str = "
    select s.value, coalesce(cast(unixepoch('subsec') - unixepoch((
        select state ->> 'requested_at' from checkouts
        where state ->> 'status' = s.value and state ->> 'status' in ('confirmed', 'picked', 'packed')
            and (coalesce(state ->> 'refunded_minor', 0) = 0
                or state ->> 'refunded_minor' <> state -> 'total' ->> 'amount_minor')
        order by state ->> 'requested_at' limit 1), 'subsec') as integer), 0)
    from json_each(?1) as s";

/// Whole seconds since the oldest order of each status was asked for; 0 where there is none.
pub(crate) async fn ages(tx: &mut Tx<'_>) -> Result<Vec<(String, i64)>, StoreError> {
    let ages: Vec<(String, i64)> = match tx.connection() {
        Connection::Postgres(connection) => sqlx::query_as(POSTGRES).bind(&OPEN[..]).fetch_all(connection).await?,
        Connection::Sqlite(connection) => sqlx::query_as(SQLITE).bind(open()).fetch_all(connection).await?,
    };
    // The database's clock may be behind the gateway's.
    Ok(ages.into_iter().map(|(status, age)| (status, age.max(0))).collect())
}

fn open() -> String {
    serde_json::Value::from(&OPEN[..]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use sqlx::{AssertSqlSafe, Row as _};
    use waybill_harness::postgres;
    use waybill_spine::system_clock;
    use waybill_store::{Decided, Store, Table};

    /// An order as the checkout keeps it, asked for so many hours and a half ago: no rounding is near an hour.
    fn order(key: &str, status: &str, hours: i64, refunded: Value) -> Decided {
        let requested_at = system_clock() - jiff::SignedDuration::from_mins(hours * 60 + 30);
        let state = json!({"status": status, "requested_at": requested_at, "refunded_minor": refunded,
            "total": {"amount_minor": 500, "currency": "EUR"}});
        Decided { key: key.to_owned(), version: 1, state: state.to_string(), answer: vec![0] }
    }

    async fn plan(tx: &mut Tx<'_>) -> String {
        let lines: Vec<String> = match tx.connection() {
            Connection::Postgres(connection) => {
                // A table of seven rows is faster read whole: what counts is that it need not be.
                sqlx::raw_sql("set local enable_seqscan = off").execute(&mut *connection).await.unwrap();
                let sql = AssertSqlSafe(format!("explain {POSTGRES}"));
                sqlx::query_scalar(sql).bind(&OPEN[..]).fetch_all(connection).await.unwrap()
            }
            Connection::Sqlite(connection) => {
                let sql = AssertSqlSafe(format!("explain query plan {SQLITE}"));
                let rows = sqlx::query(sql).bind(open()).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| row.get("detail")).collect()
            }
        };
        lines.join("\n")
    }

    async fn on(url: &str) {
        let mut store = Store::open(url).await.unwrap();
        store.migrate().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let whole = |ages: &[(String, i64)]| {
            ages.iter().map(|(status, age)| (status.clone(), age / 3_600)).collect::<Vec<(String, i64)>>()
        };
        let told = |hours: [i64; 3]| OPEN.map(str::to_owned).into_iter().zip(hours).collect::<Vec<_>>();
        assert_eq!(ages(&mut tx).await.unwrap(), told([0, 0, 0]));
        let orders = [
            order("o1", "confirmed", 2, json!(0)),
            order("o2", "confirmed", 30, json!(499)),
            order("o3", "confirmed", 99, json!(500)),
            order("o4", "packed", 7, Value::Null),
            order("o5", "shipped", 99, json!(0)),
            order("o6", "cancelled", 99, json!(0)),
            order("o7", "running", 99, json!(0)),
        ];
        tx.save(Table("checkouts"), &orders).await.unwrap();
        assert_eq!(whole(&ages(&mut tx).await.unwrap()), told([30, 0, 7]));
        let plan = plan(&mut tx).await;
        assert!(plan.contains("checkouts_open") && !plan.to_lowercase().contains("sort"), "{plan}");
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn the_oldest_order_of_each_status_is_found_in_the_index_and_what_is_over_is_not_in_it() {
        let folder = tempfile::tempdir().unwrap();
        on(&format!("sqlite://{}", folder.path().join("test.db").display())).await;
        if let Some(server) = postgres() {
            on(server.create_database("open_orders").await.unwrap().url()).await;
        }
    }
}
