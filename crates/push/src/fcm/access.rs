//! Access tokens of a service account: <https://developers.google.com/identity/protocols/oauth2/service-account>.

use crate::http::{Answered, Reply, Sending, attempted, exchange};
use crate::{Answer, Attempted, Clock, Fault, SettingsError, jwt, refused};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use std::fmt;
use tokio::sync::Mutex;
use tokio::time::timeout_at;

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// As long as Google allows.
const ASSERTION_SECONDS: i64 = 3_600;
/// A token is renewed this long before its end, or at half its time if that is sooner.
const RESERVE_SECONDS: i64 = 300;
/// Google's are good for an hour; whatever is said, nobody's for more than a day.
const LONGEST_SECONDS: i64 = 86_400;

/// What of a service account's file is needed.
#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    client_email: String,
    private_key: SecretString,
    private_key_id: Option<String>,
    token_uri: String,
    pub(super) project_id: Option<String>,
}

impl ServiceAccount {
    pub(super) fn parse(text: &str) -> Result<Self, SettingsError> {
        // What serde says may quote the file.
        serde_json::from_str(text)
            .map_err(|_| SettingsError::ServiceAccount("client_email, private_key and token_uri are needed"))
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    expires_in: i64,
}

struct Bearer {
    header: HeaderValue,
    good_until: Timestamp,
}

/// The token at hand. One task fetches a new one, the others wait for it.
pub(super) struct Access {
    account: ServiceAccount,
    key: RsaKeyPair,
    url: Url,
    client: Client,
    clock: Clock,
    bearer: Mutex<Option<Bearer>>,
}

impl Access {
    pub(super) fn new(account: ServiceAccount, client: Client, clock: Clock) -> Result<Self, SettingsError> {
        let wrong = || SettingsError::ServiceAccount("private_key is not an RSA key in PEM (PKCS#8)");
        let der = PrivatePkcs8KeyDer::from_pem_slice(account.private_key.expose_secret().as_bytes());
        let key = RsaKeyPair::from_pkcs8(der.map_err(|_| wrong())?.secret_pkcs8_der()).map_err(|_| wrong())?;
        let url = secret_url("token_uri of fcmkeyfile", &account.token_uri)?;
        Ok(Access { account, key, url, client, clock, bearer: Mutex::new(None) })
    }

    /// The `Authorization` header.
    ///
    /// # Errors
    /// What the sending comes to without it. Nothing was sent then.
    pub(super) async fn bearer(&self, sending: &Sending<'_>) -> Result<HeaderValue, Attempted> {
        let late = || Attempted { answer: Answer::Later { why: sending.too_late(), retry_after: None }, call: None };
        let mut bearer = timeout_at(sending.deadline, self.bearer.lock()).await.map_err(|_| late())?;
        if let Some(bearer) = bearer.as_ref().filter(|bearer| (self.clock)() < bearer.good_until) {
            return Ok(bearer.header.clone());
        }
        let fresh = self.fetch(sending).await?;
        let header = fresh.header.clone();
        *bearer = Some(fresh);
        Ok(header)
    }

    /// Forgets a token, but not one that has taken its place.
    pub(super) async fn forget(&self, header: &HeaderValue) {
        let mut bearer = self.bearer.lock().await;
        if bearer.as_ref().is_some_and(|bearer| bearer.header == *header) {
            *bearer = None;
        }
    }

    async fn fetch(&self, sending: &Sending<'_>) -> Result<Bearer, Attempted> {
        let now = (self.clock)();
        let assertion = self.assertion(now).map_err(|_| refused(Fault::Setup, "cannot be signed: check fcmkeyfile"))?;
        // Its alphabet needs no encoding.
        let form = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
        let request =
            self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let (reply, call) = exchange(request, &self.url, sending, self.clock).await;
        granted(reply, now).map_err(|answer| attempted(answer, call))
    }

    fn assertion(&self, now: Timestamp) -> Result<String, ring::error::Unspecified> {
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.account.private_key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = json!({
            "iss": self.account.client_email,
            "scope": SCOPE,
            "aud": self.account.token_uri,
            "iat": now.as_second(),
            "exp": now.as_second() + ASSERTION_SECONDS,
        });
        jwt::compact(&header, &claims, |text| {
            let mut signature = vec![0; self.key.public().modulus_len()];
            self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature)?;
            Ok(signature)
        })
    }
}

/// Without a token the message was not sent, so whatever is not for good is for later.
fn granted(reply: Reply, now: Timestamp) -> Result<Bearer, Answer> {
    let later = |why, retry_after| Answer::Later { why: format!("no access token: {why}"), retry_after };
    let Answered { status, retry_after, body } = match reply.answered() {
        Ok(answered) => answered,
        Err(Answer::Later { why, .. } | Answer::Unknown { why }) => return Err(later(why, None)),
        Err(answer) => return Err(answer),
    };
    if matches!(status, 408 | 429 | 500..) {
        return Err(later(status.to_string(), retry_after));
    }
    let refused = |why: &str| Answer::Refused { fault: Fault::Setup, why: format!("no access token: {status}{why}") };
    if !(200..300).contains(&status) {
        return Err(refused(": check fcmkeyfile"));
    }
    let granted = body.and_then(|body| serde_json::from_slice::<Granted>(&body).ok());
    let granted = granted.ok_or_else(|| refused(", no answer of Google's: check token_uri of fcmkeyfile"))?;
    let mut header = HeaderValue::try_from(format!("Bearer {}", granted.access_token.expose_secret()))
        .map_err(|_| refused(", a token that is not text"))?;
    header.set_sensitive(true);
    let seconds = granted.expires_in.clamp(0, LONGEST_SECONDS);
    let good = SignedDuration::from_secs(seconds - RESERVE_SECONDS.min(seconds / 2));
    Ok(Bearer { header, good_until: now.saturating_add(good).unwrap_or(now) })
}

/// An address that secrets are sent to: over TLS, or never beyond this machine.
pub(super) fn secret_url(key: &'static str, text: &str) -> Result<Url, SettingsError> {
    let url = Url::parse(text).map_err(|_| SettingsError::Url(key))?;
    let host = url.host_str().unwrap_or_default();
    let here =
        host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let safe = url.scheme() == "https" || url.scheme() == "http" && here;
    let bare = url.username().is_empty() && url.password().is_none();
    let whole = url.has_host() && url.query().is_none() && url.fragment().is_none();
    if safe && bare && whole { Ok(url) } else { Err(SettingsError::Url(key)) }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("account", &self.account.client_email).finish_non_exhaustive()
    }
}
