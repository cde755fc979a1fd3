//! Where the provider is and how we are let in.

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the [`crate::Stripe`] adapter. A settings key is one word, as it stands in a variable's name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `url`: `https://api.stripe.com`, or a simulator's address.
    #[serde(rename = "url")]
    pub base_url: String,
    /// `key`: the secret key. Either this or the file.
    #[serde(rename = "key")]
    #[serde(skip_serializing)]
    pub secret_key: Option<SecretString>,
    /// `keyfile`: a file that holds the secret key and nothing else.
    #[serde(rename = "keyfile")]
    pub secret_key_file: Option<PathBuf>,
    /// `timeout`: how long a call may take, for example `8s`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::required")]
    pub timeout: Duration,
}

/// A setting that does not work; it names the settings key.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No URL of a server.
    #[error("url must be an http or https address without user, query or fragment")]
    Url,
    /// The key would travel in the open.
    #[error("a live key is sent over https only: see url and key")]
    Plain,
    /// Neither of the two, or both.
    #[error("give either key or keyfile")]
    Key,
    /// The file is not there.
    #[error("cannot read keyfile {}", .0.display())]
    KeyFile(PathBuf, #[source] std::io::Error),
    /// A key is one word of ASCII.
    #[error("the secret key is empty or holds a space or a character beyond ASCII")]
    KeyText,
    /// No time at all.
    #[error("timeout must be longer than zero")]
    Timeout,
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            base_url: "https://api.stripe.com".to_owned(),
            secret_key: None,
            secret_key_file: None,
            timeout: Duration::from_secs(8),
        }
    }
}

impl Settings {
    /// The address and the key, checked.
    pub(crate) fn check(&self) -> Result<(Url, SecretString), SettingsError> {
        let url = Url::parse(&self.base_url).map_err(|_| SettingsError::Url)?;
        let bare = url.username().is_empty() && url.password().is_none();
        let whole = url.has_host() && url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !bare || !whole {
            return Err(SettingsError::Url);
        }
        if self.timeout.is_zero() {
            return Err(SettingsError::Timeout);
        }
        let key = match (&self.secret_key, &self.secret_key_file) {
            (Some(key), None) => key.clone(),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(|e| SettingsError::KeyFile(path.clone(), e))?;
                SecretString::from(text.trim())
            }
            (None, None) | (Some(_), Some(_)) => return Err(SettingsError::Key),
        };
        let text = key.expose_secret();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SettingsError::KeyText);
        }
        if url.scheme() == "http" && text.contains("_live_") {
            return Err(SettingsError::Plain);
        }
        Ok((url, key))
    }
}
