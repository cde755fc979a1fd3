//! Who we are to the push services, and which of them we call.

use crate::{VapidKey, VapidKeyError};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of [`crate::Push`]. A settings key is one word, as it stands in a variable's name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `vapidkey`: the private key that web push is signed with, in PEM or base64url. Either this or the file, or
    /// neither: no web push.
    #[serde(rename = "vapidkey")]
    #[serde(skip_serializing)]
    pub vapid_key: Option<SecretString>,
    /// `vapidkeyfile`: a file that holds it and nothing else.
    #[serde(rename = "vapidkeyfile")]
    pub vapid_key_file: Option<PathBuf>,
    /// `subject`: where a push service finds us, a `mailto:` or `https:` address. Needed with a key.
    pub subject: Option<String>,
    /// `hosts`: the push services, as `example.org` or, for every name below it, `*.example.org`.
    pub hosts: Vec<String>,
    /// `origins`: endpoints here, as `http://127.0.0.1:8090`, are called wherever they lead: a push service of one's own.
    pub origins: Vec<String>,
    /// `fcmkeyfile`: the JSON file of a service account of Firebase. Without it, no FCM.
    #[serde(rename = "fcmkeyfile")]
    pub fcm_key_file: Option<PathBuf>,
    /// `fcmproject`: the Firebase project; without it, the one that the service account's file names.
    #[serde(rename = "fcmproject")]
    pub fcm_project: Option<String>,
    /// `fcmurl`: `https://fcm.googleapis.com`, or a stub's address.
    #[serde(rename = "fcmurl")]
    pub fcm_url: String,
    /// `timeout`: how long a sending may take in all, for example `8s`. Half of it may go into connecting.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::required")]
    pub timeout: Duration,
}

/// A setting that does not work; it names the settings key.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No way at all.
    #[error("give vapidkey or vapidkeyfile for web push, fcmkeyfile for FCM, or both")]
    Nothing,
    /// Both.
    #[error("give either vapidkey or vapidkeyfile")]
    VapidKeyTwice,
    /// Not a key.
    #[error("vapidkey or vapidkeyfile does not work")]
    VapidKey(#[source] VapidKeyError),
    /// The file is not there.
    #[error("cannot read {key} {}", .file.display())]
    File {
        /// The settings key.
        key: &'static str,
        /// The file it names.
        file: PathBuf,
        /// What went wrong.
        #[source]
        error: std::io::Error,
    },
    /// Some services refuse signatures without one, so we do.
    #[error("subject must be a mailto: or https: address")]
    Subject,
    /// Not a name.
    #[error("hosts: {0} is not a host's name in lower case, or *. and one")]
    Host(String),
    /// Not an origin.
    #[error("origins: {0} is not scheme, host and port alone")]
    Origin(String),
    /// Not a service account; nothing of the file is repeated.
    #[error("fcmkeyfile is not a service account's JSON: {0}")]
    ServiceAccount(&'static str),
    /// A project's id is letters, digits and dashes.
    #[error("fcmproject is missing or not a project's id")]
    Project,
    /// No URL of a server, or one that secrets do not travel to.
    #[error("{0} must be https, or http to this machine, without user, query or fragment")]
    Url(&'static str),
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
        let hosts =
            ["fcm.googleapis.com", "updates.push.services.mozilla.com", "*.notify.windows.com", "*.push.apple.com"];
        Settings {
            vapid_key: None,
            vapid_key_file: None,
            subject: None,
            hosts: hosts.map(str::to_owned).to_vec(),
            origins: Vec::new(),
            fcm_key_file: None,
            fcm_project: None,
            fcm_url: "https://fcm.googleapis.com".to_owned(),
            timeout: Duration::from_secs(8),
        }
    }
}

impl Settings {
    /// The key that web push is signed with; its public half is what a browser subscribes with. None without web push.
    ///
    /// # Errors
    /// There is no key where the settings say.
    pub fn vapid(&self) -> Result<Option<VapidKey>, SettingsError> {
        use secrecy::ExposeSecret;
        let text = match (&self.vapid_key, &self.vapid_key_file) {
            (None, None) => return Ok(None),
            (Some(key), None) => key.clone(),
            (None, Some(file)) => read("vapidkeyfile", file)?,
            (Some(_), Some(_)) => return Err(SettingsError::VapidKeyTwice),
        };
        VapidKey::parse(text.expose_secret()).map(Some).map_err(SettingsError::VapidKey)
    }

    pub(crate) fn checked_subject(&self) -> Result<&str, SettingsError> {
        let subject = self.subject.as_deref().ok_or(SettingsError::Subject)?;
        let rest =
            subject.strip_prefix("mailto:").filter(|rest| rest.contains('@')).or(subject.strip_prefix("https://"));
        let plain = rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()));
        if plain { Ok(subject) } else { Err(SettingsError::Subject) }
    }

    pub(crate) fn checked_timeout(&self) -> Result<Duration, SettingsError> {
        if self.timeout.is_zero() { Err(SettingsError::Timeout) } else { Ok(self.timeout) }
    }
}

/// A file that holds a secret.
pub(crate) fn read(key: &'static str, file: &Path) -> Result<SecretString, SettingsError> {
    let text = std::fs::read_to_string(file);
    text.map(SecretString::from).map_err(|error| SettingsError::File { key, file: file.to_owned(), error })
}
