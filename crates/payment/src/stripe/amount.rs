//! Amounts as Stripe counts them, which is ISO 4217 with exceptions: <https://docs.stripe.com/currencies#minor-units>.

use waybill_money::{Currency, Money};

/// The number to send, or why there is none.
pub(crate) fn units(money: Money) -> Result<i64, &'static str> {
    match money.currency {
        // Without a minor unit in ISO 4217, with two digits that are always 00 at Stripe.
        Currency::ISK | Currency::UGX => money.amount.checked_mul(100).ok_or("the amount is too large"),
        // The other way round: two digits in ISO 4217 (an iraimbilanja is a fifth of an ariary), none at Stripe.
        Currency::MGA if money.amount % 100 == 0 => Ok(money.amount / 100),
        Currency::MGA => Err("an amount of MGA must be whole ariary"),
        // Of three digits the last must be 0; Stripe would refuse it too, but only when it is asked.
        currency if currency.exponent() == Some(3) && money.amount % 10 != 0 => {
            Err("the last of three decimal digits must be 0")
        }
        _ => Ok(money.amount),
    }
}

#[cfg(test)]
mod tests {
    use super::units;
    use waybill_money::{Currency, Money};

    #[test]
    fn amounts_are_counted_as_stripe_counts_them() {
        for (amount, currency, expected) in [
            (1999, Currency::EUR, Ok(1999)),
            (1999, Currency::JPY, Ok(1999)),
            (5, Currency::ISK, Ok(500)),
            (5, Currency::UGX, Ok(500)),
            (i64::MAX, Currency::ISK, Err("the amount is too large")),
            (500, Currency::MGA, Ok(5)),
            (520, Currency::MGA, Err("an amount of MGA must be whole ariary")),
            (1990, Currency::BHD, Ok(1990)),
            (1999, Currency::BHD, Err("the last of three decimal digits must be 0")),
        ] {
            assert_eq!(units(Money::new(amount, currency)), expected, "{amount} {currency:?}");
        }
    }
}
