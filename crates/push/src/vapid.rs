//! Who we are to a push service (RFC 8292): a key pair of P-256, and what is signed with it.

use crate::{Clock, jwt};
use base64ct::{Base64UrlUnpadded, Encoding};
use jiff::{SignedDuration, Timestamp};
use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::rand_core::OsRng;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use reqwest::Url;
use reqwest::header::HeaderValue;
use secrecy::SecretString;
use serde_json::json;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Half of what RFC 8292 allows: a push service's clock need not be ours.
const VALID: SignedDuration = SignedDuration::from_hours(12);
/// A signature is renewed when less of it is left.
const RESERVE: SignedDuration = SignedDuration::from_hours(1);
/// Some services give every subscriber one of many hosts. Those who subscribe choose them, so there is an end to it.
const CACHED: usize = 256;

/// The key pair. The private half is never printed.
#[derive(Clone)]
pub struct VapidKey(SecretKey);

/// No private key; nothing of the text is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 private key: PEM (PKCS#8 or SEC 1) or 32 bytes in base64url")]
pub struct VapidKeyError;

impl VapidKey {
    /// Makes a new pair.
    #[must_use]
    pub fn generate() -> Self {
        VapidKey(SecretKey::random(&mut OsRng))
    }

    /// Reads a private key in PEM, as `waybill vapid` and `openssl` write it, or in base64url, as `web-push` for Node.js
    /// does.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, VapidKeyError> {
        let text = text.trim();
        // openssl writes the curve before such a key.
        let key = if let Some(begin) = text.find("-----BEGIN EC PRIVATE KEY-----") {
            SecretKey::from_sec1_pem(&text[begin..]).ok()
        } else if text.starts_with("-----BEGIN") {
            SecretKey::from_pkcs8_pem(text).ok()
        } else {
            let bytes = Base64UrlUnpadded::decode_vec(text.trim_end_matches('=')).ok();
            bytes.and_then(|bytes| SecretKey::from_slice(&bytes).ok())
        };
        key.map(VapidKey).ok_or(VapidKeyError)
    }

    /// The private key in PEM (PKCS#8), for a file that nobody else reads.
    ///
    /// # Errors
    /// None that is known of.
    pub fn to_pem(&self) -> Result<SecretString, VapidKeyError> {
        let pem = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|_| VapidKeyError)?;
        Ok(SecretString::from(pem.as_str()))
    }

    /// The public key as `pushManager.subscribe` takes it for `applicationServerKey`.
    #[must_use]
    pub fn public_key(&self) -> String {
        Base64UrlUnpadded::encode_string(self.0.public_key().to_encoded_point(false).as_bytes())
    }
}

impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VapidKey(REDACTED)")
    }
}

/// Signs, once for many messages to one push service: a signature costs more than a message's encryption is worth.
pub(crate) struct Vapid {
    key: SigningKey,
    public_key: String,
    subject: String,
    clock: Clock,
    signed: Mutex<HashMap<String, (HeaderValue, Timestamp)>>,
}

impl Vapid {
    pub(crate) fn new(key: &VapidKey, subject: &str, clock: Clock) -> Self {
        Vapid {
            key: SigningKey::from(&key.0),
            public_key: key.public_key(),
            subject: subject.to_owned(),
            clock,
            signed: Mutex::new(HashMap::new()),
        }
    }

    /// The `Authorization` header for a push service, valid for an hour at least.
    ///
    /// # Errors
    /// None that is known of; a text without a secret.
    pub(crate) fn authorization(&self, endpoint: &Url) -> Result<HeaderValue, String> {
        let audience = endpoint.origin().ascii_serialization();
        let now = (self.clock)();
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((header, expires)) = signed.get(&audience)
            && now.saturating_add(RESERVE).is_ok_and(|needed| needed < *expires)
        {
            return Ok(header.clone());
        }
        let expires = now.saturating_add(VALID).map_err(|error| error.to_string())?;
        let claims = json!({ "aud": audience, "exp": expires.as_second(), "sub": self.subject });
        let token = jwt::compact(&json!({ "typ": "JWT", "alg": "ES256" }), &claims, |text| {
            self.key.try_sign(text).map(|signature: Signature| signature.to_bytes().to_vec())
        });
        let token = token.map_err(|error| error.to_string())?;
        let mut header = HeaderValue::try_from(format!("vapid t={token}, k={}", self.public_key))
            .map_err(|error| error.to_string())?;
        header.set_sensitive(true);
        if signed.len() >= CACHED {
            signed.clear();
        }
        signed.insert(audience, (header.clone(), expires));
        Ok(header)
    }
}

impl fmt::Debug for Vapid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vapid").field("subject", &self.subject).finish_non_exhaustive()
    }
}
