//! Campaigns on both databases: fanout runs as it does in production, the tests play the senders.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod ends;
mod waves;
mod world;
