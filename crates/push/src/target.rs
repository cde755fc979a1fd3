//! Where a message goes. Whoever knows a target can reach its device, so none is ever printed.

use crate::endpoints::ENDPOINT_LIMIT;
use base64ct::{Base64UrlUnpadded, Encoding};
use p256::PublicKey;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use web_push_native::Auth;

/// A token is 140 to 250 characters today, and its length is not promised.
const TOKEN_LIMIT: usize = 4_096;
/// 65 bytes in base64url are 87 characters; a little more for padding.
const KEY_LIMIT: usize = 96;

/// A device.
#[derive(Clone, Debug)]
pub enum Target {
    /// A browser's subscription.
    Web(Subscription),
    /// An app's registration.
    Fcm(FcmToken),
}

/// What a browser answers to `pushManager.subscribe`.
#[derive(Clone)]
pub struct Subscription {
    pub(crate) endpoint: SecretString,
    pub(crate) p256dh: PublicKey,
    pub(crate) auth: Auth,
}

/// What an app is given by Firebase.
#[derive(Clone)]
pub struct FcmToken(SecretString);

/// No target. The text says what is wrong and repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Too long, or empty.
    #[error("the endpoint is empty or longer than {ENDPOINT_LIMIT} bytes")]
    Endpoint,
    /// No point of the curve.
    #[error("p256dh is not an uncompressed P-256 public key in base64url")]
    P256dh,
    /// Not sixteen bytes.
    #[error("auth is not 16 bytes in base64url")]
    Auth,
    /// Too long, empty, or not of ASCII.
    #[error("the token is empty, longer than {TOKEN_LIMIT} bytes or not printable ASCII")]
    Token,
}

impl Subscription {
    /// Takes a subscription as the browser gave it. Whether the endpoint is one that we call is another question:
    /// [`crate::Endpoints::acceptable`].
    ///
    /// # Errors
    /// No message could be encrypted for it.
    pub fn new(endpoint: &str, p256dh: &str, auth: &str) -> Result<Self, TargetError> {
        if endpoint.is_empty() || endpoint.len() > ENDPOINT_LIMIT {
            return Err(TargetError::Endpoint);
        }
        let point = decode::<65>(p256dh).ok_or(TargetError::P256dh)?;
        let p256dh = PublicKey::from_sec1_bytes(&point).map_err(|_| TargetError::P256dh)?;
        let auth = Auth::from(decode::<16>(auth).ok_or(TargetError::Auth)?);
        Ok(Subscription { endpoint: SecretString::from(endpoint), p256dh, auth })
    }
}

impl FcmToken {
    /// Takes a registration token.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn new(token: &str) -> Result<Self, TargetError> {
        let fits = (1..=TOKEN_LIMIT).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(FcmToken(SecretString::from(token))) } else { Err(TargetError::Token) }
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription(REDACTED)")
    }
}

impl fmt::Debug for FcmToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FcmToken(REDACTED)")
    }
}

/// Exactly `N` bytes; some libraries pad what the browser does not.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() > KEY_LIMIT {
        return None;
    }
    Base64UrlUnpadded::decode_vec(text.trim_end_matches('=')).ok()?.try_into().ok()
}
