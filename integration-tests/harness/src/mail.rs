//! A real SMTP server: aiosmtpd, from PyPI, kept in cargo's target folder. Each test has its own.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::eventually::eventually;
use crate::fetched::target;
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

/// A Python that has aiosmtpd. One process installs it, the others wait.
fn python() -> anyhow::Result<PathBuf> {
    let home = target().join(format!("aiosmtpd-{VERSION}"));
    // The environment knows its own path, so it cannot be moved into place; this file says that it is whole.
    let (ready, venv) = (home.join("ready"), home.join("venv"));
    let python = venv.join("bin/python");
    if !ready.exists() {
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let lock = File::create(home.join("lock")).context("cannot make the lock file")?;
        lock.lock().context("cannot lock the folder of aiosmtpd")?;
        if !ready.exists() {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", &format!("aiosmtpd=={VERSION}")]))?;
            fs::write(&ready, "").context("cannot write a file")?;
        }
    }
    Ok(python)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let run = command.stdin(Stdio::null()).output().context("Python 3 cannot be run")?;
    ensure!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    Ok(())
}
