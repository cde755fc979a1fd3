//! One request to stop, seen by every loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by all loops of a process; once requested, it stays so.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<AtomicBool>);

impl Shutdown {
    /// Asks every loop to finish what it has in hand and end.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
