//! The gateway over HTTP, with real databases and a real broker. The checkout is played by the tests.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod availability;
mod cancel;
mod checkout;
mod client;
mod crash;
mod document;
mod faults;
mod input;
mod limits;
mod people;
mod played;
mod shop;
mod telemetry;
mod unsubscribe;
mod world;

use std::time::Duration;

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test on both databases, with a gateway of its own on each.
macro_rules! on_both {
    ($($test:ident;)*) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                if let Some(world) = crate::world::World::sqlite(stringify!($test)).await {
                    super::$test(world).await;
                }
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                if let Some(world) = crate::world::World::postgres(stringify!($test)).await {
                    super::$test(world).await;
                }
            }
        }
    )*};
}
use on_both;
