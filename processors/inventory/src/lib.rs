//! Inventory: how much of each product there is, for whom it is held and what was sold.
//!
//! The stage books adjustments, short and cancelled orders, and tells what is available. The statements beneath it are
//! run in the caller's transaction, a batch at a time, also by the checkout on the shared database:
//!
//! - Of every product, available + reserved + sold + shrinkage = received, and none is negative, at every moment.
//!   The tables refuse anything else.
//! - Everything that is done for an order is done once; a repeat changes nothing and gets the same answer.
//! - A row of an order is read and written under the locks of its products' rows, and those are taken in product
//!   order by one statement: two transactions never wait for each other in a circle. So that this holds for more
//!   than one operation in a transaction, take one [`Ledger`] for all of them.
//! - A call is the same handful of statements for one order or for hundreds, and writes a product's row once.
//! - Every committed change of what is available leaves one [`Level`], to be told to others.

mod answers;
mod categories;
mod ledger;
mod levels;
mod rows;
mod stage;
mod stock;

pub use answers::{Adjusted, Adjustment, Confirmed, Lines, Reservation, Reserved, Shortage};
pub use ledger::Ledger;
pub use levels::{Level, levels, relayed};
pub use stage::{Booked, Change, Inventory};
pub use stock::{Stock, adjust, cancelled, confirm, expire, register, release, reserve, short, stock};
