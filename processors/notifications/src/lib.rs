//! Back in stock: who waits for a product, when it is back, who is told, and how fast.

mod campaign;
mod campaign_rows;
pub mod contacts;
pub mod demand;
mod fanout;
pub mod push_targets;
mod restock;
mod restock_rows;
mod results_rows;
mod step;
pub mod subscriptions;
mod time;

pub use fanout::{Factor, Fanout, FanoutSettings, FanoutSettingsError};
pub use restock::{Restock, RestockSettings, RestockSettingsError};
pub use step::Planner;
