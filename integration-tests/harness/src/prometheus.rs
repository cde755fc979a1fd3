//! A real Prometheus: Debian's, or the one on the `PATH`. Each test has its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::eventually::eventually;
use crate::port::free_port;
use crate::process::Process;
use crate::unavailable::{say, unavailable};

/// It takes a second; this is for a machine that is busy with everything else.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A server of one test; it ends, and what it has stored goes, when this is dropped.
pub struct Prometheus {
    address: SocketAddr,
    // Ended before its folder goes.
    process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one with this settings file. `None`, and a line on standard error, where none can be had.
    ///
    /// # Panics
    /// Instead of `None`, under `CI=true`; and where the server is there but does not start.
    pub async fn start(settings: &Path) -> Option<Self> {
        match version() {
            Ok(version) => say(&format!("test Prometheus: {version}")),
            Err(error) => {
                let remedy = "install prometheus (the package has promtool, too)";
                unavailable(&format!("no Prometheus for this test ({error:#}); {remedy}"), false);
                return None;
            }
        }
        let started = Self::spawn(settings);
        let server = started.unwrap_or_else(|error| panic!("{error:#}"));
        eventually("Prometheus listens", START_LIMIT, async || match TcpStream::connect(server.address) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}: {}", server.process.log().unwrap_or_default())),
        })
        .await;
        Some(server)
    }

    fn spawn(settings: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let args = [
            format!("--config.file={}", settings.display()),
            format!("--storage.tsdb.path={}", folder.path().display()),
            format!("--web.listen-address={address}"),
        ];
        let process = Process::spawn(Path::new("prometheus"), args, [("LC_ALL", "C")])?;
        Ok(Self { address, process, _folder: folder })
    }

    /// Asks a question about now: each series of the answer with its value.
    ///
    /// # Errors
    /// The server does not take the question.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<(Value, f64)>> {
        let run = Command::new("promtool")
            .args(["query", "instant", "--format=json"])
            .arg(format!("http://{}", self.address))
            .arg(expression)
            .stdin(Stdio::null())
            .output()
            .context("promtool cannot be run")?;
        let (out, error) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        ensure!(run.status.success(), "{expression}: {out}{error}");
        let series: Vec<Value> = serde_json::from_str(&out).with_context(|| format!("{expression}: {out}"))?;
        let told = series.into_iter().map(|mut series| {
            let value = series["value"][1].as_str().and_then(|value| value.parse().ok());
            Ok((series["metric"].take(), value.with_context(|| format!("no number: {series}"))?))
        });
        told.collect()
    }
}

/// The first words that both programs say of themselves.
fn version() -> anyhow::Result<String> {
    let said = ["promtool", "prometheus"].map(|program| -> anyhow::Result<String> {
        let run = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        let run = run.with_context(|| format!("{program} cannot be run"))?;
        // Older ones say it on standard error.
        let text = [run.stdout, run.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(text.split_whitespace().nth(2).context("it does not say its version")?.to_owned())
    });
    let [promtool, server] = said;
    promtool.and(server)
}
