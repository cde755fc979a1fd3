//! The HTTP front of the shop: products, carts, checkout, the status of orders.
//!
//! `POST /api/checkout` → `checkout.requested` → (the checkout) → `checkout.completed` or `checkout.rejected` → the
//! answer. `DELETE /api/orders/{id}` → `orders.cancel_requested`. [`serve`] runs it all; the routes and their problems are in [`openapi`].

mod cart_rows;
mod carts;
mod checkout;
mod checkout_rows;
mod connections;
mod idempotency;
mod limits;
mod observe;
mod order_rows;
mod orders;
mod outbox;
mod outbox_rows;
mod outcome;
mod outcomes;
mod problem;
mod products;
mod reach;
mod read;
mod routes;
mod serve;
mod settings;
mod shop;
mod waiting;

pub use routes::openapi;
pub use serve::{GatewayError, serve};
pub use settings::Settings;

/// Who publishes, in `ce_source` and in spans.
pub const STAGE: &str = "gateway";
/// Scope of its spans and metrics.
const SCOPE: &str = "waybill.gateway";
