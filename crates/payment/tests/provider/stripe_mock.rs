//! Against stripe-mock, which knows every parameter of Stripe's API and refuses the unknown: the requests are Stripe's.
//! It is stateless, so its payment intents are never paid.

use crate::{LONG, charge, refund, status, stripe};
use std::path::{Path, PathBuf};
use std::process::Command;
use waybill_harness::{Process, eventually};
use waybill_payment::{Charged, Provider, Refunded};

const MODULE: &str = "github.com/stripe/stripe-mock@v0.203.0";

/// `STRIPE_MOCK`, or on the path, or in the target folder, where it is installed if need be.
fn binary() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("STRIPE_MOCK") {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|dir| dir.join("stripe-mock")).find(|file| file.is_file()) {
        return Ok(found);
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?;
    let tools = target.join("tools");
    let installed = tools.join("stripe-mock");
    if !installed.is_file() {
        let go = Command::new("go").args(["install", MODULE]).env("GOBIN", &tools).output();
        let output = go.map_err(|error| format!("go install {MODULE}: {error}"))?;
        if !output.status.success() {
            return Err(format!("go install {MODULE}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(installed)
}

#[tokio::test]
async fn requests_are_stripes() {
    let binary = match binary() {
        Ok(binary) => binary,
        Err(why) => {
            assert!(std::env::var("CI").is_err(), "{why}");
            eprintln!("skipped: {why}");
            return;
        }
    };
    let args = ["-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0", "-strict-version-check"];
    let mock = Process::spawn(&binary, args, [("PORT", "")]).unwrap();
    let address = eventually("stripe-mock listens", LONG, async || {
        let log = mock.log().map_err(|error| error.to_string())?;
        let address = log.lines().find_map(|line| line.strip_prefix("Listening for HTTP at address: "));
        address.map(str::to_owned).ok_or(log)
    })
    .await;
    let provider = stripe(&format!("http://{address}"));

    let charged = provider.charge(&charge("pm_card_visa", "1")).await;
    assert_eq!(status(&charged.call), Some(200), "{charged:?}");
    assert_eq!(charged.answer, Charged::Declined { code: "unknown".to_owned(), soft: false });
    let refunded = provider.refund(&refund("pi_1", 1999, "2")).await;
    assert!(matches!(refunded.answer, Refunded::Succeeded { refund_id: Some(_) }), "{refunded:?}");
}
