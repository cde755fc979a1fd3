//! The stock on both databases: each rule, random operations beside a model, and many at once on a real Postgres.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod levels;
mod many_at_once;
mod model;
mod orders;
mod products;
mod shop;
mod stage;
