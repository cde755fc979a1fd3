//! The checkout: a saga from a cart to an order that is reserved, paid and published, or to none of it.
//!
//! | step | does | is undone by |
//! | --- | --- | --- |
//! | `validating_cart` | reads the cart, compares its prices, reserves its lines: all or none | releasing them |
//! | `processing_payment` | charges the customer | refunding the charge |
//! | `creating_order` | makes the reservation a sale and publishes the order | nothing: it is the last one |
//!
//! What each step comes to is one transaction of the stage; the charge and the refund are calls between two of them, kept
//! before they are made. So a process may die anywhere, and any other goes on from what is kept. See [`Checkout`].

mod after;
mod carts;
#[cfg(test)]
mod decisions;
mod input;
mod measures;
mod open_orders;
mod payment;
mod saga;
mod settings;
mod spans;
mod stage;
mod standing;
mod till;

pub use input::CheckoutInput;
pub use payment::{Payment, PaymentAnswer, Payments, RefundReason};
pub use saga::{Awaits, Bought, Failure, Saga, Status};
pub use settings::{Settings, SettingsError};
pub use stage::Checkout;
pub use standing::{Abort, Open, Resume, Standing, Wait, abort, count, find, list, resume};
pub use till::Till;
