//! A real OpenTelemetry collector, built by Go of the parts in `otelcol/builder.yaml`, kept in cargo's target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::fetched::{fetched, run};
use crate::unavailable::{say, unavailable};

/// Of the collector and its parts.
pub const OTELCOL_VERSION: &str = "0.155.0";

/// The program, built on first use; `None`, and a line on standard error, where it cannot be had.
///
/// # Panics
/// Instead of `None`, under `CI=true`.
pub fn otelcol() -> Option<&'static Path> {
    static PROGRAM: OnceLock<anyhow::Result<PathBuf>> = OnceLock::new();
    match PROGRAM.get_or_init(|| built().inspect(|_| say(&format!("test OpenTelemetry collector: {OTELCOL_VERSION}"))))
    {
        Ok(program) => Some(program),
        Err(error) => {
            let remedy = "install Go 1.25 or newer, and let it reach its module proxy";
            unavailable(&format!("no OpenTelemetry collector for this test ({error:#}); {remedy}"), false);
            None
        }
    }
}

fn built() -> anyhow::Result<PathBuf> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("otelcol/build");
    let lib = fetched(&format!("otelcol-{OTELCOL_VERSION}"), |_, lib| {
        say("building an OpenTelemetry collector: the first time it takes minutes");
        run(Command::new(build).arg(lib))
    })?;
    Ok(lib.join("otelcol"))
}
