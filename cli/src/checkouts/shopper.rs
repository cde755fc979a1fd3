//! A shop's browser, as the gateway sees it: products, carts, checkouts over HTTP. Whatever the gateway asks to repeat is
//! repeated under its key, so a visit comes to one order or to none.

use crate::catalogue::Goods;
use crate::checkouts::plan::Visit;
use crate::checkouts::tally::{Outcome, Visited};
use anyhow::Context;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Longest answer: the gateway's own wait and some more.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a request is repeated because the gateway asks for it, or does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Wait before a request is repeated where the gateway does not say how long.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a checkout is followed that was answered 202: longer than any saga takes.
const FOLLOW: Duration = Duration::from_secs(15 * 60);
/// Longest page of products.
const PAGE: usize = 200;

/// A client of one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Shopper {
    client: Client,
    url: String,
}

/// An answer of the gateway.
pub struct Answer {
    /// Its status.
    pub status: u16,
    body: Value,
}

impl Answer {
    fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// The last part of a problem's type; empty where it is none.
    fn problem(&self) -> &str {
        self.text("type").rsplit(':').next().unwrap_or_default()
    }

    fn unexpected(&self) -> anyhow::Error {
        anyhow::anyhow!("{} {} {}", self.status, self.problem(), self.text("detail"))
    }

    /// The answer, if it has one of these; else what it says.
    ///
    /// # Errors
    /// It has another status.
    pub fn expect(self, status: &[u16]) -> anyhow::Result<Self> {
        if status.contains(&self.status) { Ok(self) } else { Err(self.unexpected()) }
    }
}

impl Shopper {
    /// Calls nothing yet.
    ///
    /// # Errors
    /// The URL is none of a server's.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let parsed = reqwest::Url::parse(url).context("--url")?;
        let server = matches!(parsed.scheme(), "http" | "https") && parsed.has_host();
        anyhow::ensure!(server, "--url: not an http or https address");
        // The provider is named so that no feature of another crate decides which one it is; a second time changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .timeout(ANSWER)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("waybill/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Shopper { client, url: url.trim_end_matches('/').to_owned() })
    }

    /// Waits until the gateway answers, and says at once where it does not.
    ///
    /// # Errors
    /// It does not answer for a minute.
    pub async fn wait_until_open(&self) -> anyhow::Result<()> {
        let path = "/api/products?limit=1";
        if let Err(error) = self.try_once(Method::GET, path, &[], &Value::Null).await {
            eprintln!("waiting for the gateway at {}: {error:#}", self.url);
            self.send(Method::GET, path, &[], &Value::Null).await?.expect(&[200])?;
        }
        Ok(())
    }

    /// All products that the shop sells.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub async fn products(&self) -> anyhow::Result<BTreeMap<String, Value>> {
        let (mut products, mut after) = (BTreeMap::new(), String::new());
        loop {
            let path = format!("/api/products?limit={PAGE}&after={after}");
            let page = self.send(Method::GET, &path, &[], &Value::Null).await?.expect(&[200])?;
            for product in page.body["products"].as_array().into_iter().flatten() {
                products.insert(product["id"].as_str().unwrap_or_default().to_owned(), product.clone());
            }
            match page.text("next") {
                "" => return Ok(products),
                next => after = next.to_owned(),
            }
        }
    }

    /// Puts a product, as the gateway describes one.
    ///
    /// # Errors
    /// The gateway does not take it.
    pub async fn put_product(&self, id: &str, product: &Value) -> anyhow::Result<()> {
        let path = format!("/api/products/{id}");
        self.send(Method::PUT, &path, &[], product).await?.expect(&[200, 201]).with_context(|| id.to_owned())?;
        Ok(())
    }

    /// Makes the products that are missing; yields all of them.
    ///
    /// # Errors
    /// The gateway does not answer, or takes none.
    pub async fn make_products(&self, goods: impl Iterator<Item = Goods>) -> anyhow::Result<BTreeMap<String, Value>> {
        self.wait_until_open().await?;
        let mut products = self.products().await?;
        for goods in goods {
            if products.contains_key(&goods.product_id) {
                continue;
            }
            let product = json!({
                "sku": goods.sku, "name": format!("Test product {}", goods.product_id), "category": "test-goods",
                "price": {"amount": goods.cents, "currency": "EUR"},
                "weightG": goods.weight_g, "sizeMm": goods.size_mm,
            });
            self.put_product(&goods.product_id, &product).await?;
            products.insert(goods.product_id, product);
        }
        Ok(products)
    }

    /// Goes a customer's way to its end. `products`: for what changes its price.
    pub async fn visit(&self, visit: &Visit, products: &BTreeMap<String, Value>) -> Visited {
        let cart = match self.fill_cart(visit, products).await {
            Ok(cart) => cart,
            Err(error) => return Visited::failed(0, Duration::ZERO, format!("{}: cart: {error:#}", visit.key)),
        };
        let began = Instant::now();
        let body = json!({"cartId": cart, "userId": visit.user, "paymentMethodId": visit.method});
        let headers = [("idempotency-key", visit.key.as_str()), ("traceparent", visit.traceparent.as_str())];
        let (status, outcome) = match self.send(Method::POST, "/api/checkout", &headers, &body).await {
            Ok(answer) if answer.status == 202 => (202, self.follow(answer.text("statusUrl")).await),
            Ok(answer) => (answer.status, outcome(&answer)),
            Err(error) => (0, Err(error)),
        };
        match outcome {
            Ok(outcome) => Visited { status, outcome, took: began.elapsed() },
            Err(error) => Visited::failed(status, began.elapsed(), format!("{}: {error:#}", visit.key)),
        }
    }

    /// A cart with all lines, at the prices of then.
    async fn fill_cart(&self, visit: &Visit, products: &BTreeMap<String, Value>) -> anyhow::Result<String> {
        let headers = [("idempotency-key", visit.key.as_str()), ("traceparent", visit.traceparent.as_str())];
        let body = json!({"userId": visit.user, "country": visit.country, "service": visit.service});
        let made = self.send(Method::POST, "/api/carts", &headers, &body).await?.expect(&[201])?;
        let cart = made.text("cartId").to_owned();
        for (product, quantity) in &visit.lines {
            let path = format!("/api/carts/{cart}/lines/{product}");
            self.send(Method::PUT, &path, &headers[1..], &json!({"quantity": quantity})).await?.expect(&[200])?;
        }
        if let Some((product, cents)) = &visit.reprice {
            let mut changed = products.get(product).cloned().unwrap_or_default();
            let amount = changed["price"]["amount"].as_i64().unwrap_or_default() + cents;
            changed["price"]["amount"] = amount.into();
            self.put_product(product, &changed).await?;
        }
        Ok(cart)
    }

    /// What becomes of a checkout that goes on without its request.
    async fn follow(&self, status_url: &str) -> anyhow::Result<Outcome> {
        let began = Instant::now();
        loop {
            let order = self.send(Method::GET, status_url, &[], &Value::Null).await?.expect(&[200])?;
            match order.text("status") {
                "pending" => {}
                "rejected" => {
                    let reason = order.body["failure"]["reason"].as_str().unwrap_or("rejected");
                    return Ok(Outcome::Refused(reason.to_owned()));
                }
                _ => return Ok(Outcome::Order),
            }
            anyhow::ensure!(began.elapsed() < FOLLOW, "{status_url} is still pending after {FOLLOW:.0?}");
            sleep(AGAIN).await;
        }
    }

    /// Asks, and asks again where the gateway wants that or is not there; the request is the same each time.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let began = Instant::now();
        loop {
            let (error, wait) = match self.try_once(method.clone(), path, headers, body).await {
                Ok((answer, None)) => return Ok(answer),
                Ok((answer, Some(wait))) => (answer.unexpected(), wait),
                Err(error) => (error.context(format!("no gateway answers at {}", self.url)), AGAIN),
            };
            if began.elapsed() + wait > PATIENCE {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    /// An answer, and how long to wait where it asks for a repeat.
    async fn try_once(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<(Answer, Option<Duration>)> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_null() {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await?;
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
        // Without the header it is the end: a checkout that came to nothing is a 409 or a 503 as well.
        let wait = after.filter(|_| matches!(status, 409 | 429 | 503)).map(Duration::from_secs);
        Ok((Answer { status, body }, wait))
    }
}

/// What the answer to a checkout means.
fn outcome(answer: &Answer) -> anyhow::Result<Outcome> {
    // A refusal names the order that was not to be.
    let of_order = !answer.text("orderId").is_empty();
    match answer.status {
        201 => Ok(Outcome::Order),
        402 | 409 | 422 | 503 if of_order => Ok(Outcome::Refused(answer.problem().to_owned())),
        _ => Err(answer.unexpected()),
    }
}
