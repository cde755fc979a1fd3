//! The checkout, played: rows of `checkouts`, events of outcomes, and a look at what the gateway wrote.

use crate::LIMIT;
use crate::world::Ground;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use waybill_harness::{Draft, Rec, eventually, produce, read_topic};
use waybill_store::Connection;

impl Ground {
    /// Runs a statement of the test's own.
    pub async fn execute(&self, sql: &str) {
        let mut store = self.store.another();
        let mut tx = store.begin().await.unwrap();
        let _ = match tx.connection() {
            Connection::Postgres(connection) => {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap().rows_affected()
            }
            Connection::Sqlite(connection) => {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap().rows_affected()
            }
        };
        tx.commit().await.unwrap();
    }

    /// The texts of the first column.
    pub async fn column(&self, sql: &str) -> Vec<String> {
        let mut store = self.store.another();
        let mut tx = store.begin().await.unwrap();
        let found = match tx.connection() {
            Connection::Postgres(connection) => {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap()
            }
            Connection::Sqlite(connection) => {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap()
            }
        };
        tx.commit().await.unwrap();
        found
    }

    /// The order of a key, once its request is published.
    pub async fn order_of(&self, key: &str) -> String {
        let sql = format!(
            "select order_id from checkout_requests where key = '{key}' and not exists (select 1 from gateway_outbox)"
        );
        eventually("the request is published", LIMIT, async || {
            self.column(&sql).await.pop().ok_or_else(|| "it is not".to_owned())
        })
        .await
    }

    /// The checkout writes its row.
    pub async fn decide(&self, order_id: &str, state: &Value) {
        let none = if self.store.system() == "sqlite" { "x''" } else { "''" };
        let state = state.to_string().replace('\'', "''");
        let sql = format!(
            "insert into checkouts (key, version, state, answer) values ('{order_id}', 1, '{state}', {none})
             on conflict (key) do update set version = checkouts.version + 1, state = excluded.state"
        );
        self.execute(&sql).await;
    }

    /// The checkout publishes that it ended.
    pub async fn tell(&self, topic: &str, event: &Value) {
        let draft = Draft::json(event["order_id"].as_str().unwrap(), event).header("ce_type", format!("{topic}.v1"));
        produce(&self.bootstrap, &self.scope.topic(topic), vec![draft]).await.unwrap();
    }

    pub async fn confirm(&self, order_id: &str) {
        self.decide(order_id, &confirmed("confirmed")).await;
        let total = json!({"amount_minor": 3998, "currency": "EUR"});
        let event = json!({"order_id": order_id, "customer_id": "c-1", "total": total, "item_count": 1});
        self.tell("checkout.completed", &event).await;
    }

    pub async fn reject(&self, order_id: &str, step: &str, reason: &str, products: &[&str]) {
        let failure = json!({"step": step, "reason": reason, "products": products});
        let state = json!({"status": "rejected", "customer_id": "c-1", "cart_id": "k-1", "failure": failure});
        self.decide(order_id, &state).await;
        let mut event = json!({"order_id": order_id, "customer_id": "c-1"});
        event.as_object_mut().unwrap().extend(failure.as_object().unwrap().clone());
        self.tell("checkout.rejected", &event).await;
    }

    /// The requests of an order that were published.
    pub async fn requested(&self, order_id: &str) -> Vec<Rec> {
        self.published("checkout.requested", order_id)
    }

    /// What was published of an order.
    pub fn published(&self, topic: &str, order_id: &str) -> Vec<Rec> {
        let records = read_topic(&self.bootstrap, &self.scope.topic(topic)).unwrap();
        records.into_iter().filter(|record| record.key_str() == Some(order_id)).collect()
    }
}

/// A row's state of an order that was paid.
pub fn confirmed(status: &str) -> Value {
    json!({"status": status, "customer_id": "c-1", "cart_id": "k-1", "item_count": 1, "failure": null,
           "total": {"amount_minor": 3998, "currency": "EUR"}})
}

/// A body of a checkout.
pub fn body(cart: &str) -> Value {
    json!({"cartId": cart, "userId": "c-1", "paymentMethodId": "pm_1"})
}
