//! The Stripe adapter, the simulator, and one against the other, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod answers;
mod ledger;
mod lost;
mod requests;
mod secrets;
mod settings;
mod simulator;
mod stripe_mock;

use std::time::Duration;
use waybill_money::{Currency, Money};
use waybill_payment::{Call, Charge, PaymentMethod, Refund, Settings, Stripe};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn stripe(url: &str) -> Stripe {
    stripe_within(url, LONG)
}

fn stripe_within(url: &str, timeout: Duration) -> Stripe {
    Stripe::new(&Settings {
        base_url: url.to_owned(),
        secret_key: Some("sk_test_1".into()),
        timeout,
        ..Settings::default()
    })
    .unwrap()
}

/// A client for what the adapter does not do.
fn http() -> reqwest::Client {
    // A client without a configuration of its own needs it; an error means that it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

fn charge(method: &str, key: &str) -> Charge {
    Charge {
        order_id: "order-7".to_owned(),
        amount: Money::new(1999, Currency::EUR),
        method: PaymentMethod::new(method),
        idempotency_key: key.to_owned(),
    }
}

fn refund(charge_id: &str, amount: i64, key: &str) -> Refund {
    Refund {
        order_id: "order-7".to_owned(),
        charge_id: charge_id.to_owned(),
        amount: Money::new(amount, Currency::EUR),
        idempotency_key: key.to_owned(),
    }
}

/// The status of a call that was made.
fn status(call: &Option<Call>) -> Option<u16> {
    call.as_ref().unwrap().status
}
