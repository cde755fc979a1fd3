//! What is asked of the stock, and what it answers.

use std::time::SystemTime;
use uuid::Uuid;

/// Products of one order and how many pieces of each. A product named twice counts with the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines<'a> {
    /// The order.
    pub order_id: &'a str,
    /// Products and pieces.
    pub lines: Vec<(&'a str, u32)>,
}

/// Pieces held for one line of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Made of order and product: the same, however often it is asked for.
    pub id: Uuid,
    /// The product.
    pub product_id: String,
    /// Pieces.
    pub quantity: i64,
}

/// A line for which there is not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The product.
    pub product_id: String,
    /// Pieces there are; 0 of a product that is not known.
    pub available: i64,
    /// Pieces asked for.
    pub requested: i64,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// All lines are held.
    Held {
        /// In product order.
        reservations: Vec<Reservation>,
        /// Until when at least, by the database's clock.
        expires_at: SystemTime,
    },
    /// Nothing is held: the lines for which there is not enough, in product order.
    Insufficient(Vec<Shortage>),
}

/// What became of a paid order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// It has its pieces.
    Sold,
    /// It holds nothing any more, or never did; nothing has changed.
    Lapsed,
}

/// Pieces that come in, or with a negative delta are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjustment<'a> {
    /// The product.
    pub product_id: &'a str,
    /// Pieces.
    pub delta: i64,
}

/// What became of an adjustment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjusted {
    /// It is booked.
    Applied {
        /// What is available now.
        available: i64,
    },
    /// It would take more than is available; nothing has changed.
    Refused {
        /// What is available.
        available: i64,
    },
}
