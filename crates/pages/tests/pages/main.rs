//! The pages over HTTP on both databases, and the report.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod access;
mod made;
mod reading;
mod report;
mod world;
