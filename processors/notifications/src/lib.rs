//! Back in stock: who waits for a product, when it is back, who is told, and how fast; and the mails about orders.

mod campaign;
mod campaign_rows;
pub mod contacts;
pub mod demand;
mod fanout;
pub mod progress;
pub mod push_targets;
mod restock;
mod restock_rows;
mod results_rows;
mod send;
mod step;
pub mod subscriptions;
mod time;

pub use fanout::{Factor, Fanout, FanoutSettings, FanoutSettingsError};
pub use restock::{Restock, RestockSettings, RestockSettingsError};
pub use send::{
    Email, Mailer, MailerError, OrderEvent, OrderLetter, OrderMail, OrderMailed, Outlet, Part, Push, Rates,
    SettingsError, Shop, Tell, Telling,
};
pub use step::Planner;
