//! Where decisions are kept, how long, and what lets us in.

use super::Config;
use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use url::Url;
use waybill_store::Store;

/// Where decisions are kept, how long, and what lets us in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://…` or `sqlite://FILE`.
    pub url: String,
    /// The password, where it does not stand in the URL. Either this or the file.
    #[serde(default, skip_serializing)]
    password: Option<SecretString>,
    /// A file that holds the password and nothing else.
    #[serde(default)]
    passwordfile: Option<PathBuf>,
    /// For example `400d`.
    pub(super) retention: String,
}

impl Database {
    /// The one of `docker-compose.yml`.
    pub(super) fn of_compose() -> Self {
        Database {
            url: "postgres://waybill:waybill@127.0.0.1:5432/waybill".to_owned(),
            password: None,
            passwordfile: None,
            retention: "400d".to_owned(),
        }
    }

    /// The URL with the password in it, wherever that stands.
    fn whole_url(&self) -> anyhow::Result<SecretString> {
        let password = match (&self.password, &self.passwordfile) {
            (Some(_), Some(_)) => anyhow::bail!("give either database.password or database.passwordfile"),
            (Some(password), None) => password.expose_secret().to_owned(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| format!("cannot read database.passwordfile {}", file.display()))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            (None, None) => return Ok(SecretString::from(self.url.as_str())),
        };
        let mut url = Url::parse(&self.url).context("database.url")?;
        anyhow::ensure!(
            url.password().is_none() && !url.query_pairs().any(|(name, _)| name == "password"),
            "database.url has a password in it: leave it out there, or leave out database.password and .passwordfile"
        );
        anyhow::ensure!(!password.is_empty(), "the password of the database is empty");
        // Every byte as a number: a URL has its own way with some of them.
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let set = url.set_password(Some(&encoded));
        anyhow::ensure!(set.is_ok(), "database.url has no host: a password is for postgres://user@host/name");
        Ok(SecretString::from(url.as_str()))
    }
}

/// An address may have a password in it.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("retention", &self.retention).finish_non_exhaustive()
    }
}

impl Config {
    /// The database, which is not reached yet.
    ///
    /// # Errors
    /// A setting does not work.
    pub async fn store(&self) -> anyhow::Result<Store> {
        let url = self.database.whole_url()?;
        Store::open(url.expose_secret()).await.context("database.url")
    }

    /// The database with its tables up to date, for a command that needs it at once.
    ///
    /// # Errors
    /// A setting does not work, or the database does not answer or refuses.
    pub async fn migrated_store(&self) -> anyhow::Result<Store> {
        let mut store = self.store().await?;
        store.migrate().await.context("the database cannot be used: are database.url or --database right?")?;
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(url: &str, password: Option<&str>, file: Option<PathBuf>) -> Database {
        let password = password.map(SecretString::from);
        Database { url: url.to_owned(), password, passwordfile: file, ..Database::of_compose() }
    }

    #[test]
    fn a_password_stands_in_one_place_and_every_character_of_it_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "p%41 /@:\n").unwrap();
        let path = Some(file.path().to_owned());
        let url = "postgres://shop@db:5432/shop?sslmode=verify-full";
        let whole = "postgres://shop:%70%25%34%31%20%2F%40%3A@db:5432/shop?sslmode=verify-full";
        for given in [database(url, Some("p%41 /@:"), None), database(url, None, path.clone())] {
            assert_eq!(given.whole_url().unwrap().expose_secret(), whole);
        }
        let plain = "postgres://shop:secret@db/shop";
        assert_eq!(database(plain, None, None).whole_url().unwrap().expose_secret(), plain);
        for (wrong, named) in [
            (database(url, Some("canary"), path.clone()), "either database.password"),
            (database(url, None, Some("/not/there".into())), "passwordfile /not/there"),
            (database(url, Some(""), None), "empty"),
            (database(plain, None, path.clone()), "has a password in it"),
            (database("postgres://db/shop?password=x", None, path.clone()), "has a password in it"),
            (database("sqlite:///x.db", Some("canary"), None), "no host"),
        ] {
            let error = format!("{:#}", wrong.whole_url().unwrap_err());
            assert!(error.contains(named), "{error}");
            assert!(!format!("{error} {wrong:?}").contains("canary"), "{error}");
        }
    }
}
