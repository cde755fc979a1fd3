//! Where settings come from: defaults, then a TOML file, then `WAYBILL_*` variables, then flags.

use super::{Config, kafka};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use std::path::Path;

/// What the command line says.
#[derive(Debug, Default)]
pub struct Overrides {
    /// `kafka.bootstrap.servers`.
    pub brokers: Option<String>,
    /// `database.url`.
    pub database: Option<String>,
    /// `topics.prefix`.
    pub prefix: Option<String>,
}

impl Overrides {
    /// The key that each flag sets.
    pub(super) fn flags(&self) -> [(&'static str, &'static str, &Option<String>); 3] {
        [
            ("kafka.bootstrap.servers", "--brokers", &self.brokers),
            ("database.url", "--database", &self.database),
            ("topics.prefix", "--prefix", &self.prefix),
        ]
    }
}

/// All of them, the later over the earlier.
///
/// # Errors
/// The named file does not exist.
pub(super) fn all(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<Figment> {
    if let Some(file) = file {
        anyhow::ensure!(file.exists(), "settings file {} does not exist", file.display());
    }
    // Without an exact path figment would look for the file in the parent folders too.
    let file = file.unwrap_or(Path::new("waybill.toml"));
    let file = if file.exists() { Toml::file_exact(file) } else { Toml::string("") };
    // A key holds no underscore, so each one in a variable's name is a dot.
    let mut sources = Figment::from(Serialized::defaults(Config::default()))
        .merge(file)
        .merge(Env::prefixed("WAYBILL_").filter(|key| !key.starts_with("TEST_")).split("_"));
    sources = kafka::verbatim(sources);
    for (key, _, value) in overrides.flags() {
        if let Some(value) = value {
            sources = sources.merge(Serialized::default(key, value));
        }
    }
    Ok(sources)
}
