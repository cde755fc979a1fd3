//! Pages for those who run the shop: orders and their journeys, who waits for what, campaigns, stages, dead letters.
//!
//! - Nothing here changes anything: only GET and HEAD exist, and the POST of the login form.
//! - A page is made of a few bounded reads of the shop's database, in a transaction that cannot write.
//! - Every text is escaped by the templates, and the browser runs no script but ours.
//! - Kafka is asked beside the requests and only while somebody looks: where no broker answers, a page says so.
//! - An address, a token or a payment method is in none of what is read.

mod axis;
mod campaigns;
mod dead;
mod demand;
mod fault;
mod guard;
mod journey;
mod kept;
mod login;
mod orders;
mod rows;
mod serve;
mod settings;
mod stages;
mod templates;
mod watch;
mod waterfall;

pub use serve::{Pages, PagesError};
pub use settings::{Opened, Settings, SettingsError};
pub use templates::report;
