//! A shop with a gateway before it and a payment provider behind it.

use crate::shop::{LIMIT, Shop};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use waybill_checker::Books;
use waybill_harness::{Collector, Process, ask, eventually, free_port};

/// One piece of anything, cents.
pub const PRICE: i64 = 1_999;

pub struct Front {
    pub shop: Shop,
    pub gateway: SocketAddr,
    pub simulator: Process,
    provider: SocketAddr,
    provider_log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Front {
    /// The provider runs; whatever else is to run is the test's to start.
    pub async fn open(name: &str, collector: Option<&Collector>) -> Option<Self> {
        Front::open_with(name, collector, &[]).await
    }

    /// With settings of its own.
    pub async fn open_with(name: &str, collector: Option<&Collector>, settings: &[(&str, &str)]) -> Option<Self> {
        let mut shop = Shop::open(name, 1_000_000).await?;
        if let Some(collector) = collector {
            shop.export_to(&collector.endpoint());
        }
        let [gateway, provider] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())));
        let folder = tempfile::tempdir().unwrap();
        let provider_log = folder.path().join("ledger");
        shop.set("WAYBILL_HTTP_LISTEN", &gateway.to_string());
        shop.set("WAYBILL_SIMULATOR_LISTEN", &provider.to_string());
        shop.set("WAYBILL_SIMULATOR_LEDGER", provider_log.to_str().unwrap());
        shop.set("WAYBILL_PAYMENT_URL", &format!("http://{provider}"));
        shop.set("WAYBILL_PAYMENT_KEY", "sk_test_canary");
        settings.iter().for_each(|(key, value)| shop.set(key, value));
        let simulator = shop.run(&["payment-simulator"]);
        Some(Front { shop, gateway, simulator, provider, provider_log, _folder: folder })
    }

    /// A product of which there are so many pieces.
    pub async fn sell(&self, product: &str, pieces: i64) {
        let sql = format!(
            "insert into products values ('{product}', 'SKU-{product}', 'A thing', 'things', {PRICE}, 'EUR', 500, 100, 80, 60);
             insert into stock (product_id, received, available) values ('{product}', {pieces}, {pieces})"
        );
        self.shop.execute(&sql).await;
    }

    /// A cart with so many pieces of each product, seen at this price.
    pub async fn cart(&self, id: &str, user: &str, lines: &[(&str, i64)], price: i64) {
        let lines: Vec<String> =
            lines.iter().map(|(product, pieces)| format!("('{id}', '{product}', {pieces}, {price}, 'EUR')")).collect();
        let sql = format!(
            "insert into carts (id, user_id, country, service) values ('{id}', '{user}', 'DE', 'standard');
             insert into cart_lines values {}",
            lines.join(", ")
        );
        self.shop.execute(&sql).await;
    }

    pub async fn until_open(&self) {
        eventually("the gateway answers", LIMIT, async || {
            match ask(self.gateway, "GET", "/api/products/p-none", &[], &Value::Null).await {
                Ok(answer) if answer.status == 404 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Asks until somebody takes the request: a retry under the same key is the same request.
    pub async fn checkout(&self, cart: &str, user: &str, method: &str, headers: &[(&str, &str)]) -> Value {
        let key = format!("key-{cart}");
        let headers: Vec<(&str, &str)> = [("idempotency-key", key.as_str())].iter().chain(headers).copied().collect();
        let body = json!({"cartId": cart, "userId": user, "paymentMethodId": method});
        eventually("the request is taken", LIMIT, async || {
            match ask(self.gateway, "POST", "/api/checkout", &headers, &body).await {
                // Whatever becomes of it, it has an order id once it is taken.
                Ok(answer) if answer.body["orderId"].is_string() => Ok(answer.body),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// What the gateway says of an order.
    pub async fn order(&self, order: &str) -> Value {
        ask(self.gateway, "GET", &format!("/api/orders/{order}"), &[], &Value::Null).await.unwrap().body
    }

    /// The provider's books: how many charges each order took, and what it has paid in the end.
    pub async fn paid(&self) -> BTreeMap<String, (usize, i64)> {
        let ledger = ask(self.provider, "GET", "/ledger", &[], &Value::Null).await.unwrap().body;
        let mut paid = BTreeMap::<String, (usize, i64)>::new();
        for charge in ledger["charges"].as_array().unwrap() {
            let order = paid.entry(charge["order_id"].as_str().unwrap().to_owned()).or_default();
            *order = (order.0 + 1, order.1 + charge["amount"].as_i64().unwrap() - charge["refunded"].as_i64().unwrap());
        }
        paid
    }

    /// For the checker.
    pub fn books(&self) -> waybill_checker::Shop {
        waybill_checker::Shop {
            bootstrap: self.shop.bootstrap.clone(),
            prefix: self.shop.scope.prefix().to_owned(),
            database: self.shop.database.clone(),
            provider: self.provider_log.clone(),
        }
    }

    /// Stock, money and orders agree, and nothing is left over.
    pub async fn check(&self) -> Books {
        let books = self.books().check().await.unwrap();
        assert!(books.violations.is_empty(), "{books}");
        books
    }
}
