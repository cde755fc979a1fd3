//! What is available of products: kept for a while, renewed by `inventory.levels`, read from the database where it is not
//! known.
//!
//! - A level never gives way to an older one: all that is learned, from a topic or the database, goes through
//!   [`Levels::raise`], which compares versions under the lock of the product.
//! - However many ask for a product that is not known, the database is asked once.

use crate::connections::{Connections, Lent};
use crate::problem::Problem;
use moka::{future, sync};
use std::collections::BTreeMap;
use std::time::Duration;
use waybill_store::{Connection, StoreError};

/// How long a level is told without being heard of again: as long as Kafka is away, it may be wrong for that long.
const KEEP: Duration = Duration::from_secs(30);
/// Most products that are kept: some 20 MB.
const PRODUCTS: u64 = 100_000;
/// How long the answer to one question is another's, too. No longer: a product that is not there may be put at any time.
const FLIGHT: Duration = Duration::from_secs(1);
const FLIGHTS: u64 = 10_000;

/// What is available of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// Counts the product's levels; 0 of one that was never in stock.
    pub version: i64,
    /// Pieces to be had.
    pub available: i64,
}

/// The levels that are known. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Levels {
    newest: sync::Cache<String, Level>,
    /// Questions that are out; none where the shop has no such product.
    flights: future::Cache<String, Option<Level>>,
    database: Connections,
}

impl Levels {
    pub(crate) fn new(database: Connections) -> Self {
        let newest = sync::Cache::builder().max_capacity(PRODUCTS).time_to_live(KEEP).build();
        let flights = future::Cache::builder().max_capacity(FLIGHTS).time_to_live(FLIGHT).build();
        Levels { newest, flights, database }
    }

    /// The level, if it is known.
    pub(crate) fn known(&self, product: &str) -> Option<Level> {
        self.newest.get(product)
    }

    /// Learns of a level; yields the newest.
    pub(crate) fn raise(&self, product: &str, level: Level) -> Level {
        let newer = |known: Level| if known.version > level.version { known } else { level };
        let entry = self.newest.entry_by_ref(product);
        entry.and_upsert_with(|known| known.map_or(level, |known| newer(known.into_value()))).into_value()
    }

    /// The level by the database; none of a product that the shop does not have. `asked` is run by the one that asks.
    pub(crate) async fn read(&self, product: &str, asked: impl FnOnce()) -> Result<Option<Level>, Problem> {
        let question = async {
            let found = self.ask(vec![product.to_owned()]).await;
            asked();
            found.map(|found| found.into_values().next())
        };
        let found = self.flights.try_get_with_by_ref(product, question).await.map_err(|problem| (*problem).clone())?;
        Ok(found.map(|level| self.raise(product, level)))
    }

    /// The levels of products that the shop has, in one query.
    pub(crate) async fn read_all(&self, products: Vec<String>) -> Result<BTreeMap<String, Level>, Problem> {
        let mut found = self.ask(products).await?;
        found.iter_mut().for_each(|(product, level)| *level = self.raise(product, *level));
        Ok(found)
    }

    /// `postgresql` or `sqlite`.
    pub(crate) fn system(&self) -> &'static str {
        self.database.system()
    }

    async fn ask(&self, products: Vec<String>) -> Result<BTreeMap<String, Level>, Problem> {
        self.database.run(|store| select(store, products)).await
    }
}

async fn select(mut store: Lent, products: Vec<String>) -> Result<BTreeMap<String, Level>, StoreError> {
    let mut tx = store.begin().await?;
    let rows: Vec<(String, i64, i64)> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select asked.id, coalesce(s.version, 0), coalesce(s.available, 0)
                       from unnest($1::text[]) as asked (id) left join stock s on s.product_id = asked.id
                       where s.product_id is not null or exists (select 1 from products p where p.id = asked.id)";
            sqlx::query_as(sql).bind(products).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select asked.value, coalesce(s.version, 0), coalesce(s.available, 0)
                       from json_each(?1) as asked left join stock s on s.product_id = asked.value
                       where s.product_id is not null or exists (select 1 from products p where p.id = asked.value)";
            sqlx::query_as(sql).bind(serde_json::Value::from(products).to_string()).fetch_all(connection).await?
        }
    };
    tx.commit().await?;
    Ok(rows.into_iter().map(|(product, version, available)| (product, Level { version, available })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use tokio::task::JoinSet;
    use waybill_store::Store;

    #[tokio::test]
    async fn an_older_level_never_takes_the_place_of_a_newer_one() {
        let store = Store::open("postgres://nobody@127.0.0.1:9/none").await.unwrap();
        let levels = Levels::new(Connections::new(&store, 1));
        let level = |version| Level { version, available: version * 10 };
        for (said, newest) in [(2, 2), (1, 2), (3, 3), (3, 3), (0, 3)] {
            assert_eq!(levels.raise("p-1", level(said)), level(newest));
            assert_eq!(levels.known("p-1"), Some(level(newest)));
        }
        assert_eq!(levels.known("p-2"), None);
    }

    #[tokio::test]
    async fn many_who_ask_at_once_are_one_question() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&format!("sqlite://{}", folder.path().join("db").display())).await.unwrap();
        store.migrate().await.unwrap();
        let levels = Levels::new(Connections::new(&store, 4));
        let (asked, mut asking) = (Arc::new(AtomicU32::new(0)), JoinSet::new());
        for _ in 0..50 {
            let (levels, asked) = (levels.clone(), asked.clone());
            asking.spawn(async move { levels.read("p-1", move || _ = asked.fetch_add(1, Relaxed)).await });
        }
        assert!(asking.join_all().await.into_iter().all(|answer| answer == Ok(None)));
        assert_eq!(asked.load(Relaxed), 1);
    }
}
