//! Canaries: neither the key nor a payment method is ever seen outside a request.

use crate::{charge, refund};
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;
use waybill_payment::{Provider, Settings, Stripe};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

const KEY: &str = "sk_test_canary_in_the_mine";
const METHOD: &str = "pm_canary_in_the_mine";

/// All that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

fn stripe(url: &str) -> Stripe {
    let settings = Settings { base_url: url.to_owned(), secret_key: Some(KEY.into()), ..Settings::default() };
    tracing::info!(?settings);
    Stripe::new(&settings).unwrap()
}

/// The worst server: it quotes both secrets wherever it can.
async fn gossip(status: u16, body: String) -> MockServer {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(status).set_body_string(body).insert_header("x-key", KEY);
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test]
async fn no_secret_is_printed_logged_or_put_into_an_error() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let quoted = format!("No such PaymentMethod: '{METHOD}', or an invalid API Key: {KEY}");
    let error = format!(
        r#"{{"error":{{"type":"invalid_request_error","code":"{quoted}","param":"{quoted}","message":"{quoted}"}}}}"#
    );
    let decline = format!(r#"{{"error":{{"type":"card_error","decline_code":"{quoted}","message":"{quoted}"}}}}"#);
    let intent = format!(r#"{{"id":"pi_1","status":"{quoted}"}}"#);
    let mut urls = vec!["http://127.0.0.1:1".to_owned()];
    let mut servers = Vec::new();
    for (status, body) in [(400, &error), (401, &error), (402, &decline), (500, &error), (200, &intent), (200, &quoted)]
    {
        servers.push(gossip(status, body.clone()).await);
    }
    urls.extend(servers.iter().map(MockServer::uri));
    for url in urls {
        let (provider, charge) = (stripe(&url), charge(METHOD, "1"));
        let (charged, refunded) = (provider.charge(&charge).await, provider.refund(&refund("pi_1", 1, "1")).await);
        tracing::info!(?provider, ?charge, ?charged, ?refunded);
    }
    let unsendable = stripe("http://127.0.0.1:1").charge(&charge(METHOD, "two\nlines")).await;
    tracing::info!(?unsendable);
    for url in [format!("http://{KEY}@127.0.0.1:1"), format!("nonsense {KEY}"), format!("https://h?{KEY}")] {
        let settings = Settings { base_url: url, secret_key: Some(KEY.into()), ..Settings::default() };
        let error = Stripe::new(&settings).unwrap_err();
        tracing::error!(?error, %error, cause = error.source());
    }
    drop(guard);

    let seen = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(seen.contains("order-7") && seen.contains("check the key"), "nothing was logged: {seen}");
    for secret in [KEY, METHOD, "canary"] {
        let line = seen.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} was seen");
    }
}
