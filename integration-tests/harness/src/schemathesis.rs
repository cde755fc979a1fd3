//! Schemathesis: fuzzes an HTTP API by its OpenAPI document. From PyPI, kept in cargo's target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, ensure};

use crate::fetched::target;
use crate::unavailable::{say, unavailable};

const VERSION: &str = "4.32.5";
/// What it makes its data with: of the same seed another version makes other data.
const HYPOTHESIS: &str = "6.170.15";

/// The program, installed on first use; `None`, and a line on standard error, where it cannot be had.
///
/// # Panics
/// Instead of `None`, under `CI=true`.
pub fn schemathesis() -> Option<&'static Path> {
    static PROGRAM: OnceLock<anyhow::Result<PathBuf>> = OnceLock::new();
    match PROGRAM.get_or_init(|| installed().inspect(|_| say(&format!("test Schemathesis: {VERSION}")))) {
        Ok(program) => Some(program),
        Err(error) => {
            let remedy = "install Python 3 with venv, and let pip reach PyPI";
            unavailable(&format!("no Schemathesis for this test ({error:#}); {remedy}"), false);
            None
        }
    }
}

/// One process installs it, the others wait.
fn installed() -> anyhow::Result<PathBuf> {
    let home = target().join(format!("schemathesis-{VERSION}"));
    // The environment knows its own path, so it cannot be moved into place; this file says that it is whole.
    let (ready, venv) = (home.join("ready"), home.join("venv"));
    if !ready.exists() {
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let lock = File::create(home.join("lock")).context("cannot make the lock file")?;
        lock.lock().context("cannot lock the folder of Schemathesis")?;
        if !ready.exists() {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
            let packages = [format!("schemathesis=={VERSION}"), format!("hypothesis=={HYPOTHESIS}")];
            run(Command::new(venv.join("bin/python")).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
            fs::write(&ready, "").context("cannot write a file")?;
        }
    }
    venv.join("bin/schemathesis").canonicalize().context("Schemathesis is not where pip puts it")
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let run = command.stdin(Stdio::null()).output().context("Python 3 cannot be run")?;
    ensure!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    Ok(())
}
