//! A real SMTP server: aiosmtpd, from PyPI, kept in cargo's target folder. Each test has its own.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::eventually::eventually;
use crate::fetched;
use crate::process::Process;
use crate::unavailable::{say, unavailable};

const VERSION: &str = "1.4.6";
const PROGRAM: &str = include_str!("mail_server.py");

/// Python takes a second; this is for a machine that is busy with everything else.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A mail server of one test; it ends when this is dropped.
///
/// What it does with a mail stands in the recipient's address: see `mail_server.py`.
pub struct MailServer {
    process: Process,
    port: u16,
}

/// A mail that was accepted.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The name in `EHLO`.
    pub hello: String,
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// Who had logged in; empty where nobody had.
    pub user: String,
    /// Whether the connection was encrypted.
    pub tls: bool,
    /// Which connection it came on.
    pub connection: u64,
    /// Its number among the mails on that connection, from 1.
    pub nth: u64,
    /// When it came, in seconds since 1970.
    pub at: f64,
    /// As it came.
    pub bytes: Vec<u8>,
}

impl MailServer {
    /// Starts one with these arguments of `mail_server.py`. `None`, and a line on standard error, where none can be had.
    ///
    /// # Panics
    /// Instead of `None`, under `CI=true`; and where the server is there but does not start.
    pub async fn start(args: &[&str]) -> Option<Self> {
        static PYTHON: OnceLock<anyhow::Result<PathBuf>> = OnceLock::new();
        let python = match PYTHON.get_or_init(|| python().inspect(|_| say("test mail server: aiosmtpd"))) {
            Ok(python) => python,
            Err(error) => {
                let remedy = "install Python 3 with venv, and let pip reach PyPI";
                unavailable(&format!("no mail server for this test ({error:#}); {remedy}"), false);
                return None;
            }
        };
        let all = ["-c", PROGRAM].iter().chain(args);
        let process = Process::spawn(python, all, [("PYTHONUNBUFFERED", "1")]);
        let process = process.unwrap_or_else(|error| panic!("{error:#}"));
        let port = eventually("the mail server listens", START_LIMIT, async || {
            let log = process.log().map_err(|error| error.to_string())?;
            let port = log.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()?.get("port")?.as_u64());
            port.and_then(|port| u16::try_from(port).ok()).ok_or(log)
        })
        .await;
        Some(Self { process, port })
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// All mails that were accepted, in the order of arrival.
    pub fn arrived(&self) -> anyhow::Result<Vec<Arrived>> {
        self.facts()?.iter().filter(|fact| fact.get("data").is_some()).map(arrived).collect()
    }

    /// How many connections are open.
    pub fn open(&self) -> anyhow::Result<usize> {
        let facts = self.facts()?;
        let count = |key| facts.iter().filter(|fact| fact.get(key).is_some()).count();
        Ok(count("opened") - count("closed"))
    }

    fn facts(&self) -> anyhow::Result<Vec<Value>> {
        Ok(self.process.log()?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

fn arrived(fact: &Value) -> anyhow::Result<Arrived> {
    let text = |key: &str| fact[key].as_str().map(str::to_owned).with_context(|| format!("no {key}"));
    let recipients = fact["rcpt_to"].as_array().context("no rcpt_to")?;
    Ok(Arrived {
        hello: text("hello")?,
        from: text("mail_from")?,
        to: recipients.iter().filter_map(|to| to.as_str().map(str::to_owned)).collect(),
        user: text("user")?,
        tls: fact["tls"].as_bool().context("no tls")?,
        connection: fact["connection"].as_u64().context("no connection")?,
        nth: fact["nth"].as_u64().context("no nth")?,
        at: fact["at"].as_f64().context("no at")?,
        bytes: STANDARD.decode(text("data")?).context("not base64")?,
    })
}

/// A Python that has aiosmtpd.
fn python() -> anyhow::Result<PathBuf> {
    let programs = fetched::python(&format!("aiosmtpd-{VERSION}"), &[&format!("aiosmtpd=={VERSION}")])?;
    Ok(programs.join("python"))
}
