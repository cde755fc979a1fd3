//! Money: a whole number of minor units and a currency of ISO 4217, never a floating-point number.
//!
//! As JSON: `{"amount":1999,"currency":"EUR"}`, which reads `19.99 EUR`. How many digits follow the point is the
//! currency's affair: two for EUR, none for JPY, three for BHD.

pub use iso_currency::Currency;

use serde::{Deserialize, Serialize};
use std::fmt;

/// An amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// In the currency's minor units: cents for EUR, yen for JPY.
    pub amount: i64,
    /// What it is an amount of.
    pub currency: Currency,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The two amounts are of different currencies.
    #[error("{} and {} cannot be added", .0.code(), .1.code())]
    Currencies(Currency, Currency),
    /// The result is beyond what an amount can be.
    #[error("the amount is too large")]
    Overflow,
}

impl Money {
    /// `amount` minor units of `currency`.
    #[must_use]
    pub const fn new(amount: i64, currency: Currency) -> Self {
        Money { amount, currency }
    }

    /// The sum of two amounts of one currency.
    ///
    /// # Errors
    /// The currencies differ, or the sum is too large.
    pub fn checked_add(self, other: Money) -> Result<Money, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Currencies(self.currency, other.currency));
        }
        let amount = self.amount.checked_add(other.amount).ok_or(MoneyError::Overflow)?;
        Ok(Money { amount, ..self })
    }

    /// The price of `quantity` pieces, this being the price of one.
    ///
    /// # Errors
    /// The product is too large.
    pub fn checked_mul(self, quantity: u32) -> Result<Money, MoneyError> {
        let amount = self.amount.checked_mul(i64::from(quantity)).ok_or(MoneyError::Overflow)?;
        Ok(Money { amount, ..self })
    }
}

/// `19.99 EUR`, `1999 JPY`, `1.999 BHD`. What has no minor unit (gold, a unit of account) is shown as it is counted.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.currency.exponent().unwrap_or(0));
        let sign = if self.amount < 0 { "-" } else { "" };
        let amount = format!("{:0>width$}", self.amount.unsigned_abs(), width = digits + 1);
        let (whole, minor) = amount.split_at(amount.len() - digits);
        let point = if digits == 0 { "" } else { "." };
        write!(f, "{sign}{whole}{point}{minor} {}", self.currency.code())
    }
}
