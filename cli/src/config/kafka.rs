//! librdkafka's properties: their values as they are meant, passwords from files, and no setting that would be ignored in silence.

use anyhow::Context;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use std::collections::BTreeMap;

/// Properties whose value may stand in a file: the same name with `file` behind it says which.
const FROM_FILES: [&str; 2] = ["sasl.password", "ssl.key.password"];

/// The variables, with their values as they stand: a password of digits is no number, and one that begins with a bracket no list.
pub(super) fn verbatim(sources: Figment) -> Figment {
    let variables = std::env::vars().filter_map(|(name, value)| {
        let name = name.strip_prefix("WAYBILL_KAFKA_")?;
        Some(Variable { key: format!("kafka.{}", name.to_lowercase().replace('_', ".")), value })
    });
    variables.fold(sources, Figment::merge)
}

struct Variable {
    key: String,
    value: String,
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment variable")
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let nested = figment::util::nest(&self.key, Value::from(self.value.clone()));
        Ok(Profile::default().collect(nested.into_dict().unwrap_or_default()))
    }
}

/// The properties by their own names, with what stands in files.
///
/// # Errors
/// A file cannot be read, or a property would have no effect with this `security.protocol`.
pub(super) fn properties(settings: &Dict) -> anyhow::Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    flatten("", settings, &mut properties);
    for key in FROM_FILES {
        let Some(file) = properties.remove(&format!("{key}file")) else { continue };
        anyhow::ensure!(!properties.contains_key(key), "give either kafka.{key} or kafka.{key}file");
        let text = std::fs::read_to_string(&file).with_context(|| format!("kafka.{key}file: cannot read {file}"))?;
        // What an editor adds is not of the password; a space may be.
        let password = text.trim_end_matches(['\r', '\n']);
        anyhow::ensure!(!password.is_empty(), "kafka.{key}file: {file} is empty");
        properties.insert(key.to_owned(), password.to_owned());
    }
    check(&properties)?;
    Ok(properties)
}

/// librdkafka takes a password without a word where the protocol sends none: everything would go unencrypted, as nobody.
fn check(properties: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let protocol = properties.get("security.protocol").map_or("plaintext", String::as_str);
    let (sasl, tls) = match protocol.to_lowercase().as_str() {
        "plaintext" => (false, false),
        "ssl" => (false, true),
        "sasl_plaintext" => (true, false),
        "sasl_ssl" => (true, true),
        // librdkafka names those that there are.
        _ => return Ok(()),
    };
    for key in properties.keys() {
        let unused = (key.starts_with("sasl.") && !sasl) || (key.starts_with("ssl.") && !tls);
        anyhow::ensure!(
            !unused,
            "kafka.{key} is set, and kafka.security.protocol is {protocol}, which makes no use of it: set sasl_ssl for a user \
             and a password, ssl for a certificate"
        );
    }
    Ok(())
}

pub(super) fn flatten(prefix: &str, dict: &Dict, into: &mut BTreeMap<String, String>) {
    for (key, value) in dict {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Dict(_, dict) => flatten(&key, dict, into),
            Value::String(_, text) => drop(into.insert(key, text.clone())),
            Value::Bool(_, flag) => drop(into.insert(key, flag.to_string())),
            Value::Num(_, number) => {
                // A number of a file is signed, one of the environment is not.
                let whole = number.to_u128().map(|n| n.to_string()).or_else(|| number.to_i128().map(|n| n.to_string()));
                into.insert(key, whole.unwrap_or_else(|| number.to_f64().unwrap_or_default().to_string()));
            }
            Value::Char(_, c) => drop(into.insert(key, c.to_string())),
            Value::Empty(..) | Value::Array(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::result_large_err, reason = "figment's test jail asks for its own error")]
    use crate::config::{Config, Overrides};

    fn load() -> anyhow::Result<Config> {
        Config::load(None, &Overrides::default())
    }

    const USER: &str = "[kafka]\nsecurity.protocol = 'sasl_ssl'\nsasl.username = 'pick'\n";

    #[test]
    fn a_password_may_stand_in_a_file_or_in_the_environment_and_is_taken_as_it_stands() {
        figment::Jail::expect_with(|jail| {
            jail.create_file("password", "0123 \n")?;
            jail.create_file("waybill.toml", &format!("{USER}sasl.passwordfile = 'password'"))?;
            let properties = load().unwrap().kafka().properties;
            assert_eq!(properties["sasl.password"], "0123 ");
            assert!(!properties.contains_key("sasl.passwordfile"), "librdkafka does not know it");

            jail.create_file("waybill.toml", USER)?;
            for password in ["0123", "1e3", "[a", "{b", "'c'", "true"] {
                jail.set_env("WAYBILL_KAFKA_SASL_PASSWORD", password);
                assert_eq!(load().unwrap().kafka().properties["sasl.password"], password);
            }
            let both = format!("{USER}sasl.passwordfile = 'password'");
            jail.create_file("waybill.toml", &both)?;
            let error = format!("{:#}", load().unwrap_err());
            assert!(error.contains("give either kafka.sasl.password or kafka.sasl.passwordfile"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_password_that_would_not_be_used_and_a_file_that_is_not_there_are_named() {
        figment::Jail::expect_with(|jail| {
            jail.create_file("empty", "\n")?;
            for (content, named) in [
                ("sasl.username = 'pick'", "kafka.sasl.username is set, and kafka.security.protocol is plaintext"),
                ("security.protocol = 'SSL'\nsasl.password = 'canary'", "kafka.sasl.password is set"),
                ("security.protocol = 'sasl_plaintext'\nssl.ca.location = 'ca.pem'", "kafka.ssl.ca.location is set"),
                ("sasl.passwordfile = 'nowhere'", "kafka.sasl.passwordfile: cannot read nowhere"),
                ("ssl.key.passwordfile = 'empty'", "kafka.ssl.key.passwordfile: empty is empty"),
            ] {
                jail.create_file("waybill.toml", &format!("[kafka]\n{content}"))?;
                let error = format!("{:#}", load().unwrap_err());
                assert!(error.contains(named) && !error.contains("canary"), "{error}");
            }
            Ok(())
        });
    }
}
