//! What a test does when a server it needs is not there.

use std::io::Write;

/// Says on standard error what is missing, past the capture of test output: a skipped test must be seen.
///
/// # Panics
/// Under `CI=true`, where nothing may be skipped, and when the developer named a server (`asked`).
pub(crate) fn unavailable(reason: &str, asked: bool) {
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci && !asked, "{reason}");
    say(&format!("skipped: {reason}"));
}

/// One line on the real standard error, past the capture of test output.
pub(crate) fn say(line: &str) {
    // With standard error closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
