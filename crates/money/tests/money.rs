//! Amounts as they are written, added and multiplied.

use proptest::prelude::*;
use waybill_money::{Currency, Money, MoneyError};

const EUR: Currency = Currency::EUR;

fn currencies() -> impl Strategy<Value = Currency> {
    prop::sample::select(vec![EUR, Currency::JPY, Currency::BHD, Currency::CLF, Currency::XAU])
}

#[test]
fn the_currency_decides_where_the_point_stands() {
    for (amount, currency, text) in [
        (1999, EUR, "19.99 EUR"),
        (5, EUR, "0.05 EUR"),
        (0, EUR, "0.00 EUR"),
        (-1, EUR, "-0.01 EUR"),
        (1999, Currency::JPY, "1999 JPY"),
        (1999, Currency::BHD, "1.999 BHD"),
        (12345, Currency::CLF, "1.2345 CLF"),
        (7, Currency::XAU, "7 XAU"),
        (i64::MIN, EUR, "-92233720368547758.08 EUR"),
    ] {
        assert_eq!(Money::new(amount, currency).to_string(), text);
    }
}

#[test]
fn json_is_minor_units_and_a_code() {
    let json = serde_json::to_string(&Money::new(1999, EUR)).unwrap();
    assert_eq!(json, r#"{"amount":1999,"currency":"EUR"}"#);
    for wrong in [
        r#"{"amount":19.99,"currency":"EUR"}"#,
        r#"{"amount":1999.0,"currency":"EUR"}"#,
        r#"{"amount":"1999","currency":"EUR"}"#,
        r#"{"amount":9223372036854775808,"currency":"EUR"}"#,
        r#"{"amount":1999,"currency":"eur"}"#,
        r#"{"amount":1999,"currency":"EURO"}"#,
        r#"{"amount":1999}"#,
        r#"{"currency":"EUR"}"#,
    ] {
        assert!(serde_json::from_str::<Money>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn euros_and_yen_do_not_add_up() {
    let error = Money::new(1, EUR).checked_add(Money::new(1, Currency::JPY)).unwrap_err();
    assert_eq!(error, MoneyError::Currencies(EUR, Currency::JPY));
    assert_eq!(error.to_string(), "EUR and JPY cannot be added");
}

proptest! {
    #[test]
    fn json_gives_back_what_it_was_given(amount: i64, currency in currencies()) {
        let money = Money::new(amount, currency);
        let json = serde_json::to_string(&money).unwrap();
        prop_assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), money);
    }

    #[test]
    fn a_sum_is_exact_or_refused(a: i64, b: i64, currency in currencies()) {
        let exact = i128::from(a) + i128::from(b);
        let expected = i64::try_from(exact).map(|sum| Money::new(sum, currency)).map_err(|_| MoneyError::Overflow);
        prop_assert_eq!(Money::new(a, currency).checked_add(Money::new(b, currency)), expected);
    }

    #[test]
    fn a_product_is_exact_or_refused(price: i64, quantity: u32, currency in currencies()) {
        let exact = i128::from(price) * i128::from(quantity);
        let expected = i64::try_from(exact).map(|sum| Money::new(sum, currency)).map_err(|_| MoneyError::Overflow);
        prop_assert_eq!(Money::new(price, currency).checked_mul(quantity), expected);
    }

    #[test]
    fn a_quantity_is_that_many_additions(price in -1_000_000_i64..1_000_000, quantity in 0_u32..50) {
        let zero = Money::new(0, EUR);
        let sum = (0..quantity).try_fold(zero, |sum, _| sum.checked_add(Money::new(price, EUR))).unwrap();
        prop_assert_eq!(Money::new(price, EUR).checked_mul(quantity).unwrap(), sum);
    }

    #[test]
    fn the_digits_shown_are_the_amount(amount: i64, currency in currencies()) {
        let money = Money::new(amount, currency);
        let shown = money.to_string();
        let (number, code) = shown.split_once(' ').unwrap();
        prop_assert_eq!(code, currency.code());
        prop_assert_eq!(number.replace('.', "").parse::<i64>().unwrap(), amount);
        let decimals = number.split_once('.').map_or(0, |(_, minor)| minor.len());
        prop_assert_eq!(decimals, usize::from(currency.exponent().unwrap_or(0)));
    }
}
