//! What people wait for, the most wanted first.

use crate::serve::{Pages, ago, moment};
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use std::collections::HashMap;
use waybill_notifications::demand::{Demand, demand};
use waybill_store::{Connection, StoreError, Tx};

/// Most products on the page.
const MOST: i64 = 50;

#[derive(Serialize)]
struct Page {
    section: &'static str,
    rows: Vec<Row>,
    people: i64,
    full: bool,
}

#[derive(Serialize)]
struct Row {
    product: String,
    name: Option<String>,
    available: i64,
    people: i64,
    email: i64,
    push: i64,
    pieces: i64,
    /// Of the most wanted, percent.
    share: f64,
    oldest: Option<String>,
    waited: Option<String>,
}

/// Shows it.
pub(crate) async fn page(State(pages): State<Pages>) -> Response {
    let found = pages.ask(async |tx| {
        let demand = demand(tx, &[], MOST).await?;
        let ids: Vec<&str> = demand.iter().map(|one| one.product_id.as_str()).collect();
        let products = products(tx, &ids).await?;
        Ok((demand, products))
    });
    let page = found.await.map(|(demand, products)| shown(&pages, demand, &products));
    pages.answer("demand.html", page)
}

/// Name and pieces to be had.
type Product = (Option<String>, i64);

async fn products(tx: &mut Tx<'_>, ids: &[&str]) -> Result<HashMap<String, Product>, StoreError> {
    let rows: Vec<(String, Option<String>, i64)> = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "select w.id, p.name, coalesce(s.available, 0) from unnest($1::text[]) as w (id)
                       left join products p on p.id = w.id left join stock s on s.product_id = w.id";
            sqlx::query_as(sql).bind(ids).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "select w.value, p.name, coalesce(s.available, 0) from json_each(?1) as w
                       left join products p on p.id = w.value left join stock s on s.product_id = w.value";
            sqlx::query_as(sql).bind(serde_json::Value::from(ids).to_string()).fetch_all(connection).await?
        }
    };
    Ok(rows.into_iter().map(|(id, name, available)| (id, (name, available))).collect())
}

fn shown(pages: &Pages, demand: Vec<Demand>, products: &HashMap<String, Product>) -> Page {
    let most = demand.first().map_or(1, |first| first.people.max(1)) as f64;
    let row = |one: Demand| {
        let product = products.get(&one.product_id);
        Row {
            name: product.and_then(|(name, _)| name.clone()),
            available: product.map_or(0, |(_, available)| *available),
            product: one.product_id,
            people: one.people,
            email: one.email,
            push: one.push,
            pieces: one.pieces,
            share: one.people as f64 * 100.0 / most,
            oldest: one.oldest.map(moment),
            waited: one.oldest.map(|oldest| ago(pages.now(), oldest)),
        }
    };
    Page {
        section: "demand",
        people: demand.iter().map(|one| one.people).sum(),
        full: i64::try_from(demand.len()).unwrap_or(i64::MAX) >= MOST,
        rows: demand.into_iter().map(row).collect(),
    }
}
