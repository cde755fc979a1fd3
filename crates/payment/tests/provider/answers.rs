//! What the adapter makes of answers.

use crate::{charge, refund, status, stripe};
use serde_json::json;
use std::time::Duration;
use waybill_payment::{Attempted, Charged, Provider, Refunded};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

async fn server(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

async fn charged(answer: ResponseTemplate) -> Attempted<Charged> {
    stripe(&server(answer).await.uri()).charge(&charge("pm_1", "1")).await
}

async fn refunded(answer: ResponseTemplate) -> Attempted<Refunded> {
    stripe(&server(answer).await.uri()).refund(&refund("pi_1", 1999, "1")).await
}

fn error(status: u16, kind: &str, code: Option<&str>, decline_code: Option<&str>) -> ResponseTemplate {
    let error = json!({ "type": kind, "code": code, "decline_code": decline_code, "message": "No such thing" });
    ResponseTemplate::new(status).set_body_json(json!({ "error": error }))
}

fn declined(code: &str, soft: bool) -> Charged {
    Charged::Declined { code: code.to_owned(), soft }
}

#[tokio::test]
async fn a_decline_has_its_code_and_says_whether_to_try_again() {
    for (code, soft) in [
        ("insufficient_funds", false),
        ("generic_decline", false),
        ("stolen_card", false),
        ("try_again_later", true),
        ("processing_error", true),
        ("issuer_not_available", true),
        ("reenter_transaction", true),
        ("approve_with_id", true),
    ] {
        let attempted = charged(error(402, "card_error", Some("card_declined"), Some(code))).await;
        assert_eq!(attempted.answer, declined(code, soft));
        assert_eq!(status(&attempted.call), Some(402));
    }
    let without_decline_code = charged(error(402, "card_error", Some("expired_card"), None)).await;
    assert_eq!(without_decline_code.answer, declined("expired_card", false));
    let without_any = charged(error(402, "card_error", None, None)).await;
    assert_eq!(without_any.answer, declined("unknown", false));
    let not_a_code = charged(error(402, "card_error", None, Some("Ask <b>your bank</b>"))).await;
    assert_eq!(not_a_code.answer, declined("unknown", false));
}

#[tokio::test]
async fn a_payment_intent_that_did_not_succeed_is_not_a_success() {
    for (intent, expected) in [
        ("requires_action", declined("authentication_required", false)),
        ("requires_confirmation", declined("authentication_required", false)),
        ("requires_payment_method", declined("insufficient_funds", false)),
        ("canceled", declined("insufficient_funds", false)),
    ] {
        let last = json!({ "type": "card_error", "decline_code": "insufficient_funds" });
        let body = json!({ "id": "pi_1", "status": intent, "last_payment_error": last });
        let attempted = charged(ResponseTemplate::new(200).set_body_json(body)).await;
        assert_eq!(attempted.answer, expected, "{intent}");
    }
    for intent in ["processing", "requires_capture", "a new one"] {
        let body = json!({ "id": "pi_1", "status": intent });
        let attempted = charged(ResponseTemplate::new(200).set_body_json(body)).await;
        assert!(matches!(attempted.answer, Charged::Unknown { .. }), "{intent}: {attempted:?}");
    }
}

#[tokio::test]
async fn our_own_faults_are_refused() {
    for (code, kind) in [(400, "idempotency_error"), (400, "invalid_request_error"), (404, "invalid_request_error")] {
        let attempted = charged(error(code, kind, Some("resource_missing"), None)).await;
        assert_eq!(attempted.answer, Charged::Refused { why: format!("{code} {kind}, resource_missing") });
    }
    for code in [401, 403] {
        let attempted = charged(error(code, "invalid_request_error", None, None)).await;
        let why = format!("{code} invalid_request_error: check the key");
        assert_eq!(attempted.answer, Charged::Refused { why });
    }
}

#[tokio::test]
async fn what_may_have_moved_money_is_unknown() {
    let in_use = error(409, "idempotency_error", Some("idempotency_key_in_use"), None);
    assert!(matches!(charged(in_use).await.answer, Charged::Unknown { retry_after: None, .. }));
    for code in [500, 502, 503, 504, 424, 408] {
        let attempted = charged(error(code, "api_error", None, None)).await;
        assert!(matches!(attempted.answer, Charged::Unknown { .. }), "{code}: {attempted:?}");
        assert_eq!(status(&attempted.call), Some(code));
    }
}

#[tokio::test]
async fn what_is_not_stripes_answer_decides_nothing() {
    let html = "<html>502 Bad Gateway</html>";
    for code in [200, 302, 400, 401, 402, 403, 404, 500, 502] {
        for body in [html, "", "{}", r#"{"error":"no"}"#, r#"{"id":7,"status":"succeeded"}"#] {
            let attempted = charged(ResponseTemplate::new(code).set_body_string(body)).await;
            assert!(matches!(attempted.answer, Charged::Unknown { .. }), "{code} {body}: {attempted:?}");
        }
    }
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let mut intent = json!({ "id": "pi_1", "status": "succeeded" });
    intent["padding"] = "x".repeat(300 * 1024).into();
    let attempted = charged(ResponseTemplate::new(200).set_body_json(intent)).await;
    let why = "200: the answer is too long".to_owned();
    assert_eq!(attempted.answer, Charged::Unknown { why, retry_after: None });
}

#[tokio::test]
async fn retry_after_is_passed_on_in_both_its_forms() {
    for (value, expected) in [
        ("7", Some(Duration::from_secs(7))),
        ("Wed, 21 Oct 2026 07:28:30 GMT", Some(Duration::from_secs(30))),
        ("Wed, 21 Oct 2026 07:27:00 GMT", Some(Duration::ZERO)),
        ("99999999999", Some(Duration::from_secs(86_400))),
        ("soon", None),
        ("-1", None),
    ] {
        // A date is measured against the answer's own, years away from this machine's.
        let limited = error(429, "invalid_request_error", Some("rate_limit"), None)
            .insert_header("date", "Wed, 21 Oct 2026 07:28:00 GMT")
            .insert_header("retry-after", value);
        let why = "429 invalid_request_error, rate_limit".to_owned();
        assert_eq!(charged(limited).await.answer, Charged::Unknown { why, retry_after: expected }, "{value}");
    }
    let unavailable = error(503, "api_error", None, None).insert_header("retry-after", "3");
    let Refunded::Unknown { retry_after, .. } = refunded(unavailable).await.answer else { panic!("a 503 is unknown") };
    assert_eq!(retry_after, Some(Duration::from_secs(3)));
}

#[tokio::test]
async fn a_refund_succeeds_once_stripe_has_taken_it_on() {
    for (refund, expected) in [
        (json!({ "id": "re_1", "status": "succeeded" }), true),
        (json!({ "id": "re_1", "status": "pending" }), true),
        (json!({ "id": "re_1", "status": null }), true),
        (json!({ "id": "re_1", "status": "failed" }), false),
        (json!({ "id": "re_1", "status": "canceled" }), false),
    ] {
        let attempted = refunded(ResponseTemplate::new(200).set_body_json(&refund)).await;
        let succeeded = attempted.answer == Refunded::Succeeded { refund_id: Some("re_1".to_owned()) };
        assert_eq!(succeeded, expected, "{refund}: {attempted:?}");
        assert!(succeeded || matches!(attempted.answer, Refunded::Refused { .. }), "{attempted:?}");
    }
    let before = refunded(error(400, "invalid_request_error", Some("charge_already_refunded"), None)).await;
    assert_eq!(before.answer, Refunded::Succeeded { refund_id: None });
    let missing = refunded(error(404, "invalid_request_error", Some("resource_missing"), None)).await;
    assert!(matches!(missing.answer, Refunded::Refused { .. }), "{missing:?}");
}
