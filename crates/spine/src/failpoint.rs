//! Named points at which a test makes the process abort, as a crash would.
//!
//! `WAYBILL_TEST_FAILPOINT=after_commit:3` aborts at the third pass of `after_commit`, `key:o-7` whenever a record of `o-7` is
//! decided. Unset, a pass costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const VARIABLE: &str = "WAYBILL_TEST_FAILPOINT";

/// Every point there is, in the order of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failpoint {
    /// A batch is decoded; nothing is done yet.
    AfterDecode,
    /// The effects are durable; nothing is published.
    AfterCommit,
    /// The answers are handed to the producer; no report has come.
    AfterProduce,
    /// The answers are acknowledged; the offsets have not moved.
    AfterReports,
    /// The offsets are stored, perhaps committed.
    AfterOffsets,
    /// A call is kept; it is not made yet.
    BeforeCall,
    /// A call is answered; the loop does not know.
    AfterCall,
    /// The loop has the answer of a call; nothing is kept of it.
    BeforeSettle,
    /// What the answer of a call comes to is durable; nothing is published.
    AfterSettle,
    /// Rows of the outbox are acknowledged; they are not forgotten.
    AfterRelay,
    /// The group hands out partitions anew.
    DuringRebalance,
    /// The loop has ended; the group is not left yet.
    DuringShutdown,
}

impl Failpoint {
    fn name(self) -> &'static str {
        match self {
            Failpoint::AfterDecode => "after_decode",
            Failpoint::AfterCommit => "after_commit",
            Failpoint::AfterProduce => "after_produce",
            Failpoint::AfterReports => "after_reports",
            Failpoint::AfterOffsets => "after_offsets",
            Failpoint::BeforeCall => "before_call",
            Failpoint::AfterCall => "after_call",
            Failpoint::BeforeSettle => "before_settle",
            Failpoint::AfterSettle => "after_settle",
            Failpoint::AfterRelay => "after_relay",
            Failpoint::DuringRebalance => "during_rebalance",
            Failpoint::DuringShutdown => "during_shutdown",
        }
    }

    /// Passes the point, or ends here.
    pub(crate) fn pass(self) {
        static SET: OnceLock<Option<(String, u64)>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let Some((name, nth)) = SET.get_or_init(read) else { return };
        if name == self.name() && PASSED.fetch_add(1, Relaxed) + 1 == *nth {
            tracing::error!(failpoint = name, nth, "aborting, as a test asked for");
            std::process::abort();
        }
    }
}

/// A record of this key is decided now, or never: some ends the process each time it comes.
pub(crate) fn at_key(key: &str) {
    static SET: OnceLock<Option<String>> = OnceLock::new();
    let set = SET.get_or_init(|| std::env::var(VARIABLE).ok()?.strip_prefix("key:").map(str::to_owned));
    if set.as_deref() == Some(key) {
        std::process::abort();
    }
}

fn read() -> Option<(String, u64)> {
    let value = std::env::var(VARIABLE).ok()?;
    let (name, nth) = value.split_once(':').unwrap_or((&value, "1"));
    Some((name.to_owned(), nth.parse().ok()?))
}
