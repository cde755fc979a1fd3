//! One request, and what is known after it.

use crate::address::{NotPublic, PublicOnly};
use crate::endpoints::Reach;
use crate::message::{Message, PAYLOAD_LIMIT};
use crate::{Answer, Attempted, Call, Clock, Fault, SettingsError};
use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, Url};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// An answer is a few hundred bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// Nobody is left alone for longer.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// A message on its way, and when it must have arrived.
pub(crate) struct Sending<'a> {
    pub(crate) message: &'a Message,
    /// As the service worker gets it.
    pub(crate) payload: Vec<u8>,
    pub(crate) deadline: Instant,
    timeout: Duration,
}

impl<'a> Sending<'a> {
    /// # Errors
    /// The message is too large.
    pub(crate) fn new(message: &'a Message, timeout: Duration) -> Result<Self, String> {
        let payload = message.payload().to_string().into_bytes();
        if payload.len() > PAYLOAD_LIMIT {
            return Err(format!("the message is {} bytes, more than {PAYLOAD_LIMIT}", payload.len()));
        }
        Ok(Sending { message, payload, deadline: Instant::now() + timeout, timeout })
    }

    /// For a text: the whole of the time, whatever was left of it.
    pub(crate) fn too_late(&self) -> String {
        format!("no answer within {:?}", self.timeout)
    }
}

/// What is known after a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An answer came.
    Answered(Answered),
    /// The name leads to an address that we do not call.
    NotPublic,
    /// Nothing was sent, most often for want of a connection; why.
    Unsent(String),
    /// Sent, and no answer; why.
    Lost(String),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// Missing where it was cut off, or is longer than we care to read.
    pub(crate) body: Option<Vec<u8>>,
}

impl Reply {
    /// The answer that came.
    ///
    /// # Errors
    /// None came. What that means is the same for every service.
    pub(crate) fn answered(self) -> Result<Answered, Answer> {
        match self {
            Reply::Answered(answered) => Ok(answered),
            Reply::NotPublic => Err(Answer::Refused { fault: Fault::Target, why: NotPublic.to_string() }),
            Reply::Unsent(why) => Err(Answer::Later { why, retry_after: None }),
            Reply::Lost(why) => Err(Answer::Unknown { why }),
        }
    }
}

/// A client that calls what `reach` says. It follows no redirect, repeats nothing and knows no proxy.
pub(crate) fn client(reach: Reach, timeout: Duration) -> Result<Client, SettingsError> {
    // The provider is named so that no feature of another crate decides which one it is.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SettingsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        // Sooner than the end of the sending, so that it is known that nothing was sent.
        .connect_timeout(timeout / 2)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .user_agent(concat!("waybill/", env!("CARGO_PKG_VERSION")));
    let builder = match reach {
        Reach::Public => builder.https_only(true).dns_resolver(PublicOnly),
        Reach::Anywhere => builder,
    };
    builder.build().map_err(SettingsError::Client)
}

/// Sends a request and reads the answer, all before the sending's deadline.
pub(crate) async fn exchange(request: RequestBuilder, url: &Url, sending: &Sending<'_>, clock: Clock) -> (Reply, Call) {
    let began = Instant::now();
    let reply = match request.timeout(sending.deadline.duration_since(began)).send().await {
        Ok(response) => read(response, clock).await,
        Err(error) => unanswered(&error, sending),
    };
    let status = if let Reply::Answered(answered) = &reply { Some(answered.status) } else { None };
    let call = Call {
        server_address: url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
        server_port: url.port_or_known_default().unwrap_or_default(),
        status,
        latency: began.elapsed(),
    };
    (reply, call)
}

/// An answer, and the call that it came by.
pub(crate) fn attempted(answer: Answer, call: Call) -> Attempted {
    Attempted { answer, call: Some(call) }
}

async fn read(mut response: Response, clock: Clock) -> Reply {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), clock());
    let mut bytes = Vec::new();
    let body = loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() <= BODY_LIMIT => bytes.extend_from_slice(&chunk),
            Ok(None) => break Some(bytes),
            Ok(Some(_)) | Err(_) => break None,
        }
    };
    Reply::Answered(Answered { status, retry_after, body })
}

fn unanswered(error: &reqwest::Error, sending: &Sending<'_>) -> Reply {
    let root = root(error);
    if root.is::<NotPublic>() {
        Reply::NotPublic
    } else if error.is_connect() || error.is_builder() {
        Reply::Unsent(format!("not sent: {root}"))
    } else if error.is_timeout() {
        Reply::Lost(sending.too_late())
    } else {
        Reply::Lost(format!("connection lost: {root}"))
    }
}

/// Seconds, or a date: that one is measured against the answer's own date if it has one, so our clock need not be right.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = |text: &str| httpdate::parse_http_date(text).ok();
        let until = date(text)?;
        let theirs = headers.get(DATE).and_then(|value| date(value.to_str().ok()?));
        until.duration_since(theirs.unwrap_or(SystemTime::from(now))).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

/// The innermost cause, which knows no URL and no header.
fn root(error: &reqwest::Error) -> &(dyn Error + 'static) {
    let mut cause: &(dyn Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}
