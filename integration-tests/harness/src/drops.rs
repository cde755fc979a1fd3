//! Asynchronous work inside `Drop`.

use std::time::Duration;

/// A server that is stopped or stuck must not hold up the end of a test.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs `work` to its end on a thread of its own: Drop may run inside a runtime, where blocking on another one
/// panics. An error is dropped too: what could not be removed belongs to a server that is gone or unreachable.
pub(crate) fn finish(work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async { tokio::time::timeout(LIMIT, work).await? })
    });
    let _ = thread.join();
}
