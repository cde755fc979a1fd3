//! A real browser: Debian's Chromium, led by npm's `playwright-core`, kept in cargo's target folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::fetched::{fetched, npm};
use crate::unavailable::{say, unavailable};

const VERSION: &str = "1.65.1";
const CHROMIUM: &str = "/usr/bin/chromium";

/// Opens a page, hands it to the script, and says what that returns. Whatever the page logs or fails at is told, too: a
/// policy that the page breaks is such a failure.
const FRAME: &str = r#"
const { chromium } = require('playwright-core');
(async () => {
  const args = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'];
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args, chromiumSandbox: false });
  try {
    const context = await browser.newContext();
    const page = await context.newPage();
    const failures = [];
    page.on('pageerror', (error) => failures.push(String(error)));
    page.on('console', (line) => { if (line.type() === 'error') failures.push(line.text()); });
    page.on('dialog', async (dialog) => { failures.push('dialog: ' + dialog.message()); await dialog.dismiss(); });
    const script = new Function('page', 'given', 'return (async () => {' + process.env.SCRIPT + '})()');
    const result = await script(page, JSON.parse(process.env.GIVEN));
    console.log('saw ' + JSON.stringify({ result, failures }));
  } finally {
    await browser.close();
  }
})().catch((error) => { console.error(error); process.exit(1); });
"#;

/// A browser.
pub struct Browser {
    modules: PathBuf,
}

impl Browser {
    /// The browser; `None`, and a line on standard error, where it cannot be had.
    ///
    /// # Panics
    /// Instead of `None`, under `CI=true`.
    pub fn find() -> Option<&'static Self> {
        static BROWSER: OnceLock<anyhow::Result<Browser>> = OnceLock::new();
        match BROWSER.get_or_init(|| Browser::installed().inspect(|_| say(&format!("test Chromium: {CHROMIUM}")))) {
            Ok(browser) => Some(browser),
            Err(error) => {
                unavailable(
                    &format!("no browser for this test ({error:#}); install chromium, Node.js 20 and npm"),
                    false,
                );
                None
            }
        }
    }

    fn installed() -> anyhow::Result<Self> {
        ensure!(Path::new(CHROMIUM).exists(), "{CHROMIUM} is not there");
        let lib = fetched(&format!("playwright-core-{VERSION}"), |_, lib| npm(lib, "playwright-core", VERSION))?;
        Ok(Browser { modules: lib.join("node_modules").canonicalize().context("the modules are gone")? })
    }

    /// Runs a script, which knows a Playwright `page` and what it is `given`, in a browser of its own; yields what it
    /// returns.
    ///
    /// # Errors
    /// The script throws, or a page logged an error.
    pub fn run(&self, script: &str, given: &Value) -> anyhow::Result<Value> {
        let run = Command::new("node")
            .args(["-e", FRAME])
            .envs([
                ("NODE_PATH", self.modules.as_os_str()),
                ("CHROMIUM", CHROMIUM.as_ref()),
                ("SCRIPT", script.as_ref()),
            ])
            .env("GIVEN", given.to_string())
            .stdin(Stdio::null())
            .output()
            .context("node cannot be run")?;
        let (out, error) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        ensure!(run.status.success(), "the script failed: {out}{error}");
        let saw = out.lines().find_map(|line| line.strip_prefix("saw ")).context("the script said nothing")?;
        let mut saw: Value = serde_json::from_str(saw)?;
        let failures = saw["failures"].as_array().map(Vec::len).unwrap_or_default();
        ensure!(failures == 0, "the pages failed: {}", saw["failures"]);
        Ok(saw["result"].take())
    }
}
