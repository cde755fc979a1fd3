//! What the adapter sends.

use crate::{charge, refund, stripe};
use std::collections::BTreeMap;
use waybill_money::{Currency, Money};
use waybill_payment::{Charged, Provider, Refunded};
use wiremock::matchers::{body_string, header, method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

const INTENT: &str = r#"{"id":"pi_1","object":"payment_intent","status":"succeeded","latest_charge":"ch_1"}"#;
const REFUND: &str = r#"{"id":"re_1","object":"refund","status":"succeeded"}"#;

async fn form(server: &MockServer) -> BTreeMap<String, String> {
    let requests: Vec<Request> = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 1, "one call is one request");
    form_urlencoded::parse(&requests[0].body).into_owned().collect()
}

#[tokio::test]
async fn a_charge_is_a_payment_intent_made_and_confirmed_in_one_call() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/payment_intents"))
        .and(header("authorization", "Bearer sk_test_1"))
        .and(header("idempotency-key", "order-7/charge/1"))
        .and(header("stripe-version", "2026-08-26.dahlia"))
        .and(header("content-type", "application/x-www-form-urlencoded"))
        .respond_with(ResponseTemplate::new(200).set_body_string(INTENT))
        .mount(&server)
        .await;
    let attempted = stripe(&server.uri()).charge(&charge("pm_1&confirm=false", "order-7/charge/1")).await;
    assert_eq!(attempted.answer, Charged::Succeeded { charge_id: "pi_1".to_owned() });

    let expected = [
        ("amount", "1999"),
        ("currency", "eur"),
        ("confirm", "true"),
        ("payment_method", "pm_1&confirm=false"),
        ("payment_method_types[]", "card"),
        ("error_on_requires_action", "true"),
        ("metadata[order_id]", "order-7"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(form(&server).await, BTreeMap::from(expected));

    let call = attempted.call.unwrap();
    assert_eq!((call.method, call.url), ("POST", format!("{}/v1/payment_intents", server.uri())));
    assert_eq!((call.server_address.as_str(), call.server_port), ("127.0.0.1", server.address().port()));
    assert_eq!(call.status, Some(200));
}

#[tokio::test]
async fn a_refund_names_the_payment_intent() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/below/v1/refunds"))
        .and(header("idempotency-key", "order-7/refund"))
        .and(body_string("payment_intent=pi_1&amount=500&metadata%5Border_id%5D=order-7"))
        .respond_with(ResponseTemplate::new(200).set_body_string(REFUND))
        .mount(&server)
        .await;
    let provider = stripe(&format!("{}/below/", server.uri()));
    let attempted = provider.refund(&refund("pi_1", 500, "order-7/refund")).await;
    assert_eq!(attempted.answer, Refunded::Succeeded { refund_id: Some("re_1".to_owned()) });
}

#[tokio::test]
async fn amounts_are_sent_as_stripe_counts_them() {
    for (money, sent) in [
        (Money::new(1999, Currency::JPY), "1999"),
        (Money::new(1990, Currency::BHD), "1990"),
        (Money::new(5, Currency::ISK), "500"),
    ] {
        let server = MockServer::start().await;
        Mock::given(path("/v1/payment_intents"))
            .respond_with(ResponseTemplate::new(200).set_body_string(INTENT))
            .mount(&server)
            .await;
        let mut charge = charge("pm_1", "1");
        charge.amount = money;
        stripe(&server.uri()).charge(&charge).await;
        assert_eq!(form(&server).await["amount"], sent, "{money}");
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_without_a_call() {
    let provider = stripe("http://127.0.0.1:1");
    let mut uneven = charge("pm_1", "1");
    uneven.amount = Money::new(1999, Currency::BHD);
    for charge in [uneven, charge("pm_1", "a key\nof two lines")] {
        let attempted = provider.charge(&charge).await;
        assert!(matches!(attempted.answer, Charged::Refused { .. }), "{attempted:?}");
        assert_eq!(attempted.call, None);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let (server, elsewhere) = (MockServer::start().await, MockServer::start().await);
    Mock::given(path("/v1/payment_intents"))
        .respond_with(ResponseTemplate::new(307).insert_header("location", elsewhere.uri()))
        .mount(&server)
        .await;
    let attempted = stripe(&server.uri()).charge(&charge("pm_1", "1")).await;
    assert!(matches!(attempted.answer, Charged::Unknown { .. }), "{attempted:?}");
    assert_eq!(elsewhere.received_requests().await.unwrap().len(), 0);
}
