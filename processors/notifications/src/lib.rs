//! Back in stock: who waits for a product, when it is back, who is told, and how fast.

pub mod contacts;
pub mod demand;
pub mod push_targets;
pub mod subscriptions;
