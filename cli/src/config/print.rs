//! `waybill config --print`: the settings in force as TOML, and where each comes from. Secrets keep to themselves.

use super::{Config, Overrides, sources};
use crate::exit::Ended;
use clap::Args as ClapArgs;
use figment::value::{Dict, Value};
use figment::{Figment, Source};
use std::fmt::Write as _;
use std::path::Path;
use url::Url;

/// Settings that nobody is shown.
const SECRETS: [&str; 6] =
    ["database.password", "payment.key", "mail.password", "push.vapidkey", "unsubscribe.keys", "pages.token"];
/// What the name of a secret property of librdkafka has in it.
const KAFKA_SECRETS: [&str; 6] = ["password", "secret", "token", "pem", "jaas", "oauthbearer.config"];
/// What stands where a password was.
const REDACTED: &str = "redacted";

/// How.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// As TOML, which can be a settings file; secrets are left out
    #[arg(long, required = true)]
    print: bool,
}

/// Runs the command. Settings that would end a start end this, too.
pub fn print(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<Ended> {
    let sources = sources::all(file, overrides)?;
    Config::from_sources(&sources)?;
    print!("{}", toml(&sources, overrides)?);
    Ok(Ended::Done)
}

fn toml(sources: &Figment, overrides: &Overrides) -> anyhow::Result<String> {
    let sections: Dict = sources.extract()?;
    let mut text = String::new();
    for (section, values) in &sections {
        let mut lines = Vec::new();
        leaves(section, values, &mut lines);
        // Writing to a string does not fail.
        let _ = writeln!(text, "[{section}]");
        for (key, value) in lines {
            let name = key.strip_prefix(section).and_then(|key| key.strip_prefix('.')).unwrap_or(&key);
            let from = origin(sources, overrides, &key);
            let _ = match value {
                Value::Empty(..) => writeln!(text, "# {name} is not set"),
                _ if is_secret(&key) => writeln!(text, "# {name} = {REDACTED}  # {from}"),
                Value::String(_, said) => {
                    writeln!(text, "{name} = {}  # {from}", serde_json::to_string(&without_password(said))?)
                }
                // What is no text reads alike in JSON and TOML.
                other => writeln!(text, "{name} = {}  # {from}", serde_json::to_string(other)?),
            };
        }
        text.push('\n');
    }
    Ok(text)
}

/// Every value with its whole key.
fn leaves<'a>(key: &str, value: &'a Value, into: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Dict(_, dict) => dict.iter().for_each(|(name, value)| leaves(&format!("{key}.{name}"), value, into)),
        leaf => into.push((key.to_owned(), leaf)),
    }
}

fn origin(sources: &Figment, overrides: &Overrides, key: &str) -> String {
    if let Some((_, flag, _)) = overrides.flags().into_iter().find(|(of, _, value)| *of == key && value.is_some()) {
        return flag.to_owned();
    }
    match sources.find_metadata(key) {
        Some(metadata) => match &metadata.source {
            Some(Source::File(path)) => path.display().to_string(),
            // Defaults are written in code.
            Some(Source::Code(_)) => "default".to_owned(),
            _ => format!("WAYBILL_{}", key.to_uppercase().replace('.', "_")),
        },
        None => "default".to_owned(),
    }
}

fn is_secret(key: &str) -> bool {
    let is_secret = |name: &str| !name.ends_with("file") && KAFKA_SECRETS.iter().any(|part| name.contains(part));
    let of_kafka = key.strip_prefix("kafka.").is_some_and(is_secret);
    of_kafka || SECRETS.contains(&key)
}

/// An address without the password that may stand in it.
fn without_password(text: &str) -> String {
    if !text.contains("://") {
        return text.to_owned();
    }
    let Ok(mut url) = Url::parse(text) else {
        // Nobody knows where a password begins and ends.
        return if text.contains('@') { REDACTED.to_owned() } else { text.to_owned() };
    };
    if url.password().is_some() && url.set_password(Some(REDACTED)).is_err() {
        return REDACTED.to_owned();
    }
    let is_password = |name: &str| name.to_lowercase().contains("password");
    if url.query_pairs().any(|(name, _)| is_password(&name)) {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let shown = pairs.iter().map(|(name, value)| (name, if is_password(name) { REDACTED } else { value }));
        url.query_pairs_mut().clear().extend_pairs(shown);
        return url.to_string();
    }
    // As it was written, where nothing is to be hidden.
    if url.password().is_some() { url.to_string() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::result_large_err, reason = "figment's test jail asks for its own error")]
    use super::*;

    const FILE: &str = r#"
[kafka]
bootstrap.servers = "file:1"
sasl.password = "canary-1"
sasl.oauthbearer.client.secret = "canary-2"
security.protocol = "sasl_ssl"
ssl.key.pem = "canary-3"
ssl.key.passwordfile = "key.password"
linger.ms = 5
[database]
url = "postgres://waybill:canary-4@db/waybill?sslmode=verify-full&sslpassword=canary-5"
[payment]
key = "canary-6"
[mail]
password = "canary-7"
user = "shop"
from = "Shop \"1\" <shop@example.com>"
[unsubscribe]
keys = "a:canary-8-canary-8-canary-8-canary-8"
[pages]
token = "canary-10-canary-10"
"#;

    #[test]
    fn what_is_printed_has_no_secret_and_says_where_it_comes_from() {
        figment::Jail::expect_with(|jail| {
            jail.create_file("waybill.toml", FILE)?;
            jail.create_file("key.password", "canary-11")?;
            jail.set_env("WAYBILL_PUSH_VAPIDKEY", "canary-9");
            jail.set_env("WAYBILL_DATABASE_PASSWORD", "canary-11");
            jail.set_env("WAYBILL_RATES_EMAIL", "7.5");
            let flags = Overrides { prefix: Some("test.".into()), ..Overrides::default() };
            let shown = toml(&sources::all(None, &flags).unwrap(), &flags).unwrap();
            assert!(!shown.contains("canary"), "{shown}");
            for line in [
                "bootstrap.servers = \"file:1\"",
                "linger.ms = 5",
                "passwordfile = \"key.password\"",
                "prefix = \"test.\"  # --prefix",
                "email = 7.5  # WAYBILL_RATES_EMAIL",
                "environment = \"development\"  # default",
                "timeout = \"PT1M\"  # default",
                "# vapidkey = redacted  # WAYBILL_PUSH_VAPIDKEY",
                "postgres://waybill:redacted@db/waybill?sslmode=verify-full&sslpassword=redacted",
                "# password = redacted  # WAYBILL_DATABASE_PASSWORD",
                "# ledger is not set",
            ] {
                assert!(shown.contains(line), "{line} is missing:\n{shown}");
            }
            assert!(
                shown.lines().any(|line| line.contains("user = \"shop\"") && line.contains("waybill.toml")),
                "{shown}"
            );

            // What is printed is a settings file that says the same.
            jail.create_file("printed.toml", &shown)?;
            jail.set_env("WAYBILL_PUSH_VAPIDKEY", "");
            let printed = Config::load(Some(Path::new("printed.toml")), &Overrides::default()).unwrap();
            assert_eq!(printed.mail.from, "Shop \"1\" <shop@example.com>");
            assert_eq!(printed.kafka().prefix, "test.");
            assert_eq!(printed.kafka().properties["linger.ms"], "5");
            Ok(())
        });
    }

    #[test]
    fn an_address_loses_its_password_and_nothing_else() {
        for (said, shown) in [
            ("postgres://u:p@h/d", "postgres://u:redacted@h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("sqlite:///var/x.db", "sqlite:///var/x.db"),
            ("no address", "no address"),
            ("https://h", "https://h"),
            ("x://u:p@[", "redacted"),
        ] {
            assert_eq!(without_password(said), shown);
        }
    }
}
