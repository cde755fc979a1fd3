//! Where the mail server is, how we are let in, and who writes.

use crate::address::Mailbox;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Settings of [`crate::Smtp`], [`crate::Composer`] and [`crate::Templates`]. A settings key is one word, as it stands in a
/// variable's name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `url`: `smtps://host` (TLS from the start, port 465), `smtp+starttls://host` (TLS required, port 587) or
    /// `smtp://host` (no TLS, port 25: to loopback only, unless `plaintext` says otherwise).
    pub url: String,
    /// `user`: whom to log in as; nobody where it is absent.
    pub user: Option<String>,
    /// `password`: of the user. Either this or the file.
    #[serde(skip_serializing)]
    pub password: Option<SecretString>,
    /// `passwordfile`: a file that holds the password and nothing else.
    #[serde(rename = "passwordfile")]
    pub password_file: Option<PathBuf>,
    /// `from`: `Shop <shop@example.org>`. Its domain is also that of message ids and of the greeting to the server.
    pub from: String,
    /// `replyto`: where answers go, if not to `from`.
    #[serde(rename = "replyto")]
    pub reply_to: Option<String>,
    /// `cafile`: certificates (PEM) to trust beside those of the public authorities.
    #[serde(rename = "cafile")]
    pub ca_file: Option<PathBuf>,
    /// `plaintext`: mails, and the password, may go over a network unencrypted.
    pub plaintext: bool,
    /// `timeout`: how long the server may take for one step, for example `60s`. One that is slow to say that it has a mail
    /// leaves it unknown, so it should not be short.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::required")]
    pub timeout: Duration,
    /// `connections`: how many mails are sent at a time, each on a connection of its own.
    pub connections: usize,
    /// `templates`: a folder with a shop's own templates.
    pub templates: Option<PathBuf>,
}

/// A setting that does not work; it names the settings key.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No address of a server.
    #[error("url must be smtps://host, smtp+starttls://host or smtp://host, with or without a port, and nothing else")]
    Url,
    /// Mails would travel in the open.
    #[error("smtp:// has no TLS and is for loopback only: see url, or set plaintext")]
    Plain,
    /// A user without password, or the other way round, or both kinds of password.
    #[error("give user with either password or passwordfile, or none of them")]
    Password,
    /// A file is not there.
    #[error("cannot read {0} {path}", path = .1.display())]
    File(&'static str, PathBuf, #[source] std::io::Error),
    /// Not a mailbox.
    #[error("{0} must be `local@domain` or `Name <local@domain>`")]
    Mailbox(&'static str, #[source] crate::AddressError),
    /// Not certificates.
    #[error("cafile {} holds no certificate (PEM), or one that is wrong", .0.display())]
    Certificates(PathBuf),
    /// No time at all.
    #[error("timeout must be longer than zero")]
    Timeout,
    /// Nothing could be sent.
    #[error("connections must be 1 to 1000")]
    Connections,
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            url: "smtp://127.0.0.1:25".to_owned(),
            user: None,
            password: None,
            password_file: None,
            from: String::new(),
            reply_to: None,
            ca_file: None,
            plaintext: false,
            timeout: Duration::from_secs(60),
            connections: 4,
            templates: None,
        }
    }
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// With the connection.
    Implicit,
    /// After STARTTLS, without which nothing is sent.
    StartTls,
    /// Never.
    None,
}

/// Where the server is.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub host: String,
    pub port: u16,
    pub security: Security,
}

impl Settings {
    /// The server, checked.
    pub(crate) fn server(&self) -> Result<Server, SettingsError> {
        let url = Url::parse(&self.url).map_err(|_| SettingsError::Url)?;
        let (security, port) = match url.scheme() {
            "smtps" => (Security::Implicit, 465),
            "smtp+starttls" => (Security::StartTls, 587),
            "smtp" => (Security::None, 25),
            _ => return Err(SettingsError::Url),
        };
        let bare = url.username().is_empty() && url.password().is_none() && matches!(url.path(), "" | "/");
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(SettingsError::Url)?;
        if !bare || url.query().is_some() || url.fragment().is_some() {
            return Err(SettingsError::Url);
        }
        if security == Security::None && !self.plaintext && !is_loopback(host) {
            return Err(SettingsError::Plain);
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Server { host, port: url.port().unwrap_or(port), security })
    }

    /// User and password, or none.
    pub(crate) fn credentials(&self) -> Result<Option<(String, SecretString)>, SettingsError> {
        let password = match (&self.password, &self.password_file) {
            (Some(password), None) => Some(password.clone()),
            (None, Some(path)) => {
                let text = read("passwordfile", path)?;
                Some(SecretString::from(text.trim_end_matches(['\r', '\n'])))
            }
            (None, None) => None,
            (Some(_), Some(_)) => return Err(SettingsError::Password),
        };
        match (&self.user, password) {
            (Some(user), Some(password)) if !user.is_empty() && !password.expose_secret().is_empty() => {
                Ok(Some((user.clone(), password)))
            }
            (None, None) => Ok(None),
            (Some(_), _) | (None, Some(_)) => Err(SettingsError::Password),
        }
    }

    /// Who writes.
    pub(crate) fn sender(&self) -> Result<Mailbox, SettingsError> {
        self.from.parse().map_err(|error| SettingsError::Mailbox("from", error))
    }

    /// Who gets the answers, if somebody else.
    pub(crate) fn answers(&self) -> Result<Option<Mailbox>, SettingsError> {
        let parsed = self.reply_to.as_deref().map(str::parse).transpose();
        parsed.map_err(|error| SettingsError::Mailbox("replyto", error))
    }
}

pub(crate) fn read(key: &'static str, path: &std::path::Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|error| SettingsError::File(key, path.to_owned(), error))
}

/// Whether what is sent to `host` stays on this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}
