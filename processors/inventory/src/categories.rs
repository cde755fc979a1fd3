//! What is available by category of product, for the gauge.

use std::collections::BTreeMap;
use waybill_store::{Connection, StoreError, Tx};

/// Categories that are told by name, the first of the alphabet; the rest are one.
const MOST: usize = 100;
/// Of products that the shop does not list.
const UNKNOWN: &str = "unknown";
/// Of the categories beyond [`MOST`].
const OTHER: &str = "other";

/// Pieces available by category.
pub(crate) async fn available(tx: &mut Tx<'_>) -> Result<Vec<(String, i64)>, StoreError> {
    let rows: Vec<(Option<String>, i64)> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = r#"select p.category, sum(s.available)::int8 from stock s
                         left join products p on p.id = s.product_id collate "C" group by p.category"#;
            sqlx::query_as(sql).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select p.category, sum(s.available) from stock s
                       left join products p on p.id = s.product_id group by p.category";
            sqlx::query_as(sql).fetch_all(connection).await?
        }
    };
    Ok(bounded(rows))
}

fn bounded(rows: Vec<(Option<String>, i64)>) -> Vec<(String, i64)> {
    let mut sums = BTreeMap::<String, i64>::new();
    let mut add = |category: String, pieces: i64| {
        let sum = sums.entry(category).or_default();
        *sum = sum.saturating_add(pieces);
    };
    let (listed, unlisted): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(category, _)| category.is_some());
    unlisted.into_iter().for_each(|(_, pieces)| add(UNKNOWN.to_owned(), pieces));
    let listed: BTreeMap<String, i64> = listed.into_iter().filter_map(|(c, pieces)| Some((c?, pieces))).collect();
    for (number, (category, pieces)) in listed.into_iter().enumerate() {
        add(if number < MOST { category } else { OTHER.to_owned() }, pieces);
    }
    sums.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_beyond_the_first_hundred_are_told_as_one() {
        let rows = (0..150).rev().map(|n| (Some(format!("c-{n:03}")), 1)).chain([(None, 7), (Some("other".into()), 2)]);
        let told = bounded(rows.collect());
        assert_eq!(told.len(), MOST + 2);
        assert_eq!(told[99], ("c-099".to_owned(), 1));
        assert_eq!(told[100..], [("other".to_owned(), 50 + 2), ("unknown".to_owned(), 7)]);
    }
}
