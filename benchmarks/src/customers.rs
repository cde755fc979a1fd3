//! Customers over HTTP with keep-alive, each cart another user's: closed loop, or one by one at a pace.

use anyhow::{Context, ensure};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Longest wait for the first checkout of a shop that has just been opened.
const OPENING: Duration = Duration::from_secs(60);

/// Customers of one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Customers {
    client: Client<HttpConnector, String>,
    gateway: SocketAddr,
}

impl Customers {
    pub fn new(gateway: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Customers { client: Client::builder(TokioExecutor::new()).build(connector), gateway }
    }

    /// Checks a cart out until it is paid: a shop that opens answers late at first.
    pub async fn first(&self, cart: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.checkout(cart).await {
            ensure!(begun.elapsed() < OPENING, "the shop does not open: {error:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// So many customers at a time, each with the next cart as soon as the last one is paid; yields checkouts a second.
    pub async fn rush(&self, customers: usize, set: &'static str, carts: u64, time: Duration) -> anyhow::Result<f64> {
        let (next, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let mut tasks = JoinSet::new();
        for _ in 0..customers {
            let (me, next) = (self.clone(), next.clone());
            tasks.spawn(async move {
                let mut done = 0;
                while begun.elapsed() < time {
                    let number = next.fetch_add(1, Relaxed);
                    ensure!(number < carts, "the {carts} carts of set {set} are all checked out");
                    me.checkout(&format!("{set}-{number}")).await?;
                    done += 1;
                }
                Ok(done)
            });
        }
        let mut done = 0;
        while let Some(task) = tasks.join_next().await {
            done += task??;
        }
        Ok(f64::from(done) / begun.elapsed().as_secs_f64())
    }

    /// So many a second, whether or not earlier ones are paid; yields milliseconds from when each was due to its answer.
    pub async fn pace(&self, rate: f64, set: &'static str, carts: Range<u64>) -> anyhow::Result<Vec<f64>> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, cart) in carts.enumerate() {
            let due = begun + Duration::from_secs_f64(number as f64 / rate);
            sleep_until(due).await;
            let me = self.clone();
            tasks.spawn(async move {
                me.checkout(&format!("{set}-{cart}")).await?;
                anyhow::Ok(due.elapsed().as_secs_f64() * 1_000.0)
            });
        }
        let mut latencies = Vec::new();
        while let Some(task) = tasks.join_next().await {
            latencies.push(task??);
        }
        latencies.sort_by(f64::total_cmp);
        Ok(latencies)
    }

    /// One checkout; anything but a paid order is an error. A cart, its user and its key have one name.
    async fn checkout(&self, cart: &str) -> anyhow::Result<()> {
        let request = Request::post(format!("http://{}/api/checkout", self.gateway))
            .header("content-type", "application/json")
            .header("idempotency-key", cart)
            .body(format!(r#"{{"cartId":"{cart}","userId":"{cart}","paymentMethodId":"pm_card_visa"}}"#))?;
        let answer = self.client.request(request).await.context("the gateway is away")?;
        let status = answer.status();
        // Read to its end, so that the connection is used again.
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::CREATED, "{cart}: {status} {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}
