//! Whether Kafka can be reached, as the two threads that talk to it know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Written by the threads, read by requests. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Reach(Arc<Flags>);

#[derive(Default)]
struct Flags {
    /// Outcomes and levels are read: their positions are known and the brokers answer.
    reading: AtomicBool,
    /// A message has been waiting too long for its acknowledgement.
    unacknowledged: AtomicBool,
    /// The relay could not ask the database.
    no_database: AtomicBool,
    /// Turns of the two loops.
    turns: [AtomicU64; 2],
}

/// One of the two threads.
#[derive(Clone, Copy)]
pub(crate) enum Loop {
    Outbox,
    News,
}

impl Reach {
    /// No checkout is taken on while this holds.
    pub(crate) fn away(&self) -> bool {
        !self.0.reading.load(Relaxed) || self.0.unacknowledged.load(Relaxed)
    }

    pub(crate) fn reading(&self) -> bool {
        self.0.reading.load(Relaxed)
    }

    pub(crate) fn no_database(&self) -> bool {
        self.0.no_database.load(Relaxed)
    }

    pub(crate) fn set_reading(&self, reading: bool) {
        if self.0.reading.swap(reading, Relaxed) != reading {
            tracing::info!(reading, "outcomes of checkouts");
        }
    }

    pub(crate) fn set_unacknowledged(&self, unacknowledged: bool) {
        if self.0.unacknowledged.swap(unacknowledged, Relaxed) != unacknowledged {
            tracing::warn!(unacknowledged, "requests to check out");
        }
    }

    pub(crate) fn set_no_database(&self, no_database: bool) {
        self.0.no_database.store(no_database, Relaxed);
    }

    pub(crate) fn turn(&self, of: Loop) {
        self.0.turns[of as usize].fetch_add(1, Relaxed);
    }

    /// How often both have turned: stands still when either does.
    pub(crate) fn turns(&self) -> u64 {
        self.0.turns.iter().map(|turns| turns.load(Relaxed)).min().unwrap_or(0)
    }
}
