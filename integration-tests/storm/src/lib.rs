//! Runs in which everything that can fail, fails.

pub mod checkouts;
pub mod crowd;
