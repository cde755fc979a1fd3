//! Stripe: a payment intent is made and confirmed in one call, refunds name the payment intent.
//!
//! A charge's id is the payment intent's (`pi_…`): it is there even when no charge (`ch_…`) came of it, and refunds
//! take it. Cards only: every other method may settle days later or send the customer elsewhere.
//!
//! - Repeats are the caller's, so that each is a span of its own: the HTTP client repeats and redirects nothing.
//! - Stripe keeps the answer to a key for at least 24 hours, a 500 included: that one stays unknown however often it
//!   is asked for, and what became of it is in Stripe's dashboard, under `metadata[order_id]`.

mod amount;
mod answer;

use crate::{Attempted, Call, Charge, Charged, Provider, Refund, Refunded, Settings, SettingsError};
use answer::{Body, Reply, charged, refunded};
use form_urlencoded::Serializer;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The version of the API, whose requests and answers these are.
const VERSION: &str = "2026-08-26.dahlia";
/// An answer is 2 to 5 kB.
const BODY_LIMIT: usize = 256 * 1024;
/// Nobody is left alone for longer: the key would be forgotten.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// Stripe's API, over HTTP/1.1.
#[derive(Clone, Debug)]
pub struct Stripe {
    client: Client,
    url: Url,
    key: SecretString,
    timeout: Duration,
}

impl Stripe {
    /// Makes a client; nothing is called yet.
    ///
    /// # Errors
    /// A setting does not work.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let (url, key) = settings.check()?;
        // The provider is named so that no feature of another crate decides which one it is.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(SettingsError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(settings.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("waybill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(SettingsError::Client)?;
        Ok(Stripe { client, url, key, timeout: settings.timeout })
    }

    async fn post(&self, path: &str, idempotency_key: &str, form: &[(&str, &str)]) -> (Reply, Option<Call>) {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        let request = self
            .client
            .post(url.clone())
            .bearer_auth(self.key.expose_secret())
            .header("Stripe-Version", VERSION)
            .header("Idempotency-Key", idempotency_key)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body(Serializer::new(String::new()).extend_pairs(form).finish())
            .build();
        let request = match request {
            Ok(request) => request,
            Err(error) => return (Reply::Unsendable(format!("cannot be sent: {}", root(&error))), None),
        };
        let began = Instant::now();
        let reply = match self.client.execute(request).await {
            Ok(response) => self.read(response).await,
            Err(error) => Reply::Lost(self.lost(&error)),
        };
        let status = if let Reply::Answer { status, .. } = &reply { Some(*status) } else { None };
        let call = Call {
            method: "POST",
            server_address: url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            server_port: url.port_or_known_default().unwrap_or_default(),
            url: url.into(),
            status,
            latency: began.elapsed(),
        };
        (reply, Some(call))
    }

    async fn read(&self, mut response: Response) -> Reply {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut bytes = Vec::new();
        let body = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > BODY_LIMIT => break Body::TooLong,
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break Body::Whole(bytes),
                Err(error) => break Body::Cut(self.lost(&error)),
            }
        };
        Reply::Answer { status, retry_after, body }
    }

    fn lost(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() {
            format!("no answer within {:?}", self.timeout)
        } else if error.is_connect() {
            format!("not connected: {}", root(error))
        } else {
            format!("connection lost: {}", root(error))
        }
    }
}

impl Provider for Stripe {
    async fn charge(&self, charge: &Charge) -> Attempted<Charged> {
        let amount = match amount::units(charge.amount) {
            Ok(amount) => amount.to_string(),
            Err(why) => return Attempted { answer: Charged::Refused { why: why.to_owned() }, call: None },
        };
        let form = [
            ("amount", amount.as_str()),
            ("currency", &charge.amount.currency.code().to_ascii_lowercase()),
            ("confirm", "true"),
            ("payment_method", charge.method.expose()),
            ("payment_method_types[]", "card"),
            // Declined instead of left waiting for a customer who is not here.
            ("error_on_requires_action", "true"),
            ("metadata[order_id]", &charge.order_id),
        ];
        let (reply, call) = self.post("/v1/payment_intents", &charge.idempotency_key, &form).await;
        Attempted { answer: charged(reply), call }
    }

    async fn refund(&self, refund: &Refund) -> Attempted<Refunded> {
        let amount = match amount::units(refund.amount) {
            Ok(amount) => amount.to_string(),
            Err(why) => return Attempted { answer: Refunded::Refused { why: why.to_owned() }, call: None },
        };
        let form = [
            ("payment_intent", refund.charge_id.as_str()),
            ("amount", &amount),
            ("metadata[order_id]", &refund.order_id),
        ];
        let (reply, call) = self.post("/v1/refunds", &refund.idempotency_key, &form).await;
        Attempted { answer: refunded(reply), call }
    }
}

/// Seconds, or a date: that one is measured against the answer's own date, so our clock need not be right.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
        until.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

/// The innermost cause, which knows no URL and no header.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
