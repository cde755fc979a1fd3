//! Schemathesis: fuzzes an HTTP API by its OpenAPI document. From PyPI, kept in cargo's target folder.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context;

use crate::fetched;
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

fn installed() -> anyhow::Result<PathBuf> {
    let packages = [format!("schemathesis=={VERSION}"), format!("hypothesis=={HYPOTHESIS}")];
    let programs = fetched::python(&format!("schemathesis-{VERSION}"), &packages.each_ref().map(String::as_str))?;
    programs.join("schemathesis").canonicalize().context("Schemathesis is not where pip puts it")
}
