//! Where the pages are served, and who may see them.

use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Shorter ones are guessed.
const SHORTEST_TOKEN: usize = 16;

/// The settings. A key is one word, as it stands in a variable's name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `listen`: address and port; empty is off. Port 0 takes a free one; the log says which.
    pub listen: String,
    /// `token`: what opens the pages. Anywhere but on loopback it must be given, this or the file.
    #[serde(skip_serializing)]
    pub token: Option<SecretString>,
    /// `tokenfile`: a file that holds the token.
    #[serde(rename = "tokenfile")]
    pub token_file: Option<PathBuf>,
    /// `sla`: an order on its way for longer is late.
    pub sla: SignedDuration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: "127.0.0.1:8081".to_owned(),
            token: None,
            token_file: None,
            sla: SignedDuration::from_hours(48),
        }
    }
}

/// A setting that does not work; it names the settings key.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No address.
    #[error("pages.listen must be an address and a port such as 127.0.0.1:8081, or empty for no pages")]
    Listen,
    /// Everybody on the network could look.
    #[error("pages.listen is not on loopback, so pages.token or pages.tokenfile must be given")]
    Open,
    /// Both.
    #[error("give either pages.token or pages.tokenfile")]
    Both,
    /// The file is not there.
    #[error("cannot read pages.tokenfile {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// It could be guessed.
    #[error("pages.token must have {SHORTEST_TOKEN} characters or more")]
    Short,
    /// Nothing would be in time.
    #[error("pages.sla must be longer than nothing, for example 48h")]
    Sla,
}

/// Settings that work.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What opens the pages; none where everybody on this machine may look.
    pub(crate) token: Option<SecretString>,
    /// An order on its way for longer is late.
    pub(crate) sla: SignedDuration,
}

impl Settings {
    /// Reads the token; none where the pages are off.
    ///
    /// # Errors
    /// A setting does not work.
    pub fn open(&self) -> Result<Option<Opened>, SettingsError> {
        if !self.sla.is_positive() {
            return Err(SettingsError::Sla);
        }
        if self.listen.is_empty() {
            return Ok(None);
        }
        let listen: SocketAddr = self.listen.parse().map_err(|_| SettingsError::Listen)?;
        let token = match (&self.token, &self.token_file) {
            (Some(_), Some(_)) => return Err(SettingsError::Both),
            (Some(token), None) => Some(token.clone()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|e| SettingsError::File(file.clone(), e))?;
                Some(SecretString::from(text.trim()))
            }
            (None, None) if listen.ip().is_loopback() => None,
            (None, None) => return Err(SettingsError::Open),
        };
        if token.as_ref().is_some_and(|token| token.expose_secret().len() < SHORTEST_TOKEN) {
            return Err(SettingsError::Short);
        }
        Ok(Some(Opened { listen, token, sla: self.sla }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str, token: Option<&str>) -> Settings {
        Settings { listen: listen.to_owned(), token: token.map(SecretString::from), ..Settings::default() }
    }

    #[test]
    fn pages_beyond_this_machine_need_a_token_that_is_not_guessed() {
        assert!(settings("127.0.0.1:8081", None).open().unwrap().unwrap().token.is_none());
        assert!(settings("[::1]:0", None).open().unwrap().is_some());
        assert!(settings("", None).open().unwrap().is_none());
        for (listen, token, why) in [
            ("0.0.0.0:8081", None, "pages.token"),
            ("[::]:8081", None, "pages.token"),
            ("10.0.0.7:8081", Some("short"), "16 characters"),
            ("127.0.0.1:8081", Some(""), "16 characters"),
            ("nowhere", None, "pages.listen"),
        ] {
            let error = settings(listen, token).open().unwrap_err().to_string();
            assert!(error.contains(why), "{listen}: {error}");
        }
        assert!(settings("0.0.0.0:8081", Some("0123456789abcdef")).open().unwrap().unwrap().token.is_some());
    }

    #[test]
    fn the_token_may_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef\n").unwrap();
        let with_file = Settings { token_file: Some(file.path().to_owned()), ..settings("0.0.0.0:1", None) };
        assert_eq!(with_file.open().unwrap().unwrap().token.unwrap().expose_secret(), "0123456789abcdef");
        let both = Settings { token: Some("0123456789abcdef".into()), ..with_file.clone() };
        assert!(matches!(both.open(), Err(SettingsError::Both)));
        let gone = Settings { token_file: Some("/nowhere/token".into()), ..with_file };
        assert!(gone.open().unwrap_err().to_string().contains("pages.tokenfile"));
    }
}
