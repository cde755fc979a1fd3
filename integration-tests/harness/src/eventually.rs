//! Waiting for a fact instead of for a time.

use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks: short beside anything a person waits for, long beside the cost of a look.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks `probe` again and again until it returns `Ok`. `Err` is what was seen instead.
///
/// # Panics
/// After `limit`, with what was waited for, where, and the last thing seen.
#[track_caller]
pub fn eventually<T, P>(what: &str, limit: Duration, mut probe: P) -> impl Future<Output = T>
where
    P: AsyncFnMut() -> Result<T, String>,
{
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        let mut seen = "nothing: the first look did not return".to_owned();
        loop {
            match timeout_at(deadline, probe()).await {
                Ok(Ok(fact)) => return fact,
                Ok(Err(other)) => seen = other,
                Err(_) => {}
            }
            assert!(
                Instant::now() + PAUSE < deadline,
                "not within {limit:?}: {what} (waited for at {caller}); last seen: {seen}"
            );
            sleep(PAUSE).await;
        }
    }
}
