//! The HTTP front of the shop: products and what is available of them, carts, checkout, the status of orders; who
//! waits for what is sold out, and where they are told.
//!
//! `POST /api/checkout` → `checkout.requested` → (the checkout) → `checkout.completed` or `checkout.rejected` → the
//! answer. `DELETE /api/orders/{id}` → `orders.cancel_requested`. [`serve`] runs it all; the routes and their problems are in [`openapi`].

mod availability;
mod cart_rows;
mod carts;
mod checkout;
mod checkout_rows;
mod connections;
mod contacts;
mod demand;
mod idempotency;
mod levels;
mod limits;
mod measures;
mod news;
mod observe;
mod order_rows;
mod orders;
mod outbox;
mod outbox_rows;
mod outcome;
mod problem;
mod products;
mod reach;
mod read;
mod routes;
mod serve;
mod settings;
mod shop;
mod subscriptions;
mod unsubscribe;
mod waiting;

pub use routes::openapi;
pub use serve::{GatewayError, Means, serve};
pub use settings::Settings;

/// Who publishes, in `ce_source` and in spans.
pub const STAGE: &str = "gateway";
/// Scope of its spans and metrics.
const SCOPE: &str = "waybill.gateway";
