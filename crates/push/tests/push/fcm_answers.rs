//! What is made of FCM's answers.

use crate::fcm::{Google, send, unauthorized};
use crate::{message, refused};
use serde_json::{Value, json};
use std::time::Duration;
use waybill_push::{Answer, Attempted, Fault};
use wiremock::ResponseTemplate;

async fn sent(answer: ResponseTemplate) -> Attempted {
    let google = Google::granting().await.answering(answer).await;
    send(&google.push(), &message()).await
}

fn error(code: u16, status: &str, details: Value) -> ResponseTemplate {
    let error = json!({ "code": code, "message": "Token device-1 is bad", "status": status, "details": details });
    ResponseTemplate::new(code).set_body_json(json!({ "error": error }))
}

fn fcm_error(code: u16, status: &str, exact: &str) -> ResponseTemplate {
    let kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    error(code, status, json!([{ "@type": kind, "errorCode": exact }]))
}

fn violation(field: &str) -> ResponseTemplate {
    let kind = "type.googleapis.com/google.rpc.BadRequest";
    error(400, "INVALID_ARGUMENT", json!([{ "@type": kind, "fieldViolations": [{ "field": field }] }]))
}

#[tokio::test]
async fn a_device_that_is_gone_is_gone_and_a_wrong_url_is_not() {
    assert_eq!(sent(fcm_error(404, "NOT_FOUND", "UNREGISTERED")).await.answer, Answer::Gone);
    assert_eq!(sent(error(404, "NOT_FOUND", json!([]))).await.answer, Answer::Gone);
    let elsewhere = sent(ResponseTemplate::new(404).set_body_string("<html>Not Found</html>")).await;
    assert_eq!(refused(&elsewhere, Fault::Setup), "404 no answer of FCM's: is fcmurl right?");
    let elsewhere = sent(ResponseTemplate::new(200).set_body_string("<html>Welcome</html>")).await;
    let why = "200 no answer of FCM's: is fcmurl right?".to_owned();
    assert_eq!(elsewhere.answer, Answer::Unknown { why });
}

#[tokio::test]
async fn a_refusal_says_whose_fault_it_is() {
    for (answer, fault, expected) in [
        (fcm_error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), Fault::Target, "400 INVALID_ARGUMENT"),
        (violation("message.token"), Fault::Target, "400 INVALID_ARGUMENT"),
        (violation("message.data[0].value"), Fault::Message, "400 INVALID_ARGUMENT"),
        (fcm_error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), Fault::Target, "403 SENDER_ID_MISMATCH"),
        (
            error(403, "PERMISSION_DENIED", json!([])),
            Fault::Setup,
            "403 PERMISSION_DENIED: check fcmproject and fcmkeyfile",
        ),
        (fcm_error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), Fault::Setup, "401 THIRD_PARTY_AUTH_ERROR"),
        (unauthorized("UNAUTHENTICATED"), Fault::Setup, "401 UNAUTHENTICATED: check fcmkeyfile"),
        (error(400, "Token device-1 is <b>bad</b>", json!([])), Fault::Message, "400 unknown"),
    ] {
        let attempted = sent(answer).await;
        assert_eq!(refused(&attempted, fault), expected);
    }
}

#[tokio::test]
async fn what_is_for_later_says_when() {
    for (status, name, exact) in [
        (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        (503, "UNAVAILABLE", "UNAVAILABLE"),
        (500, "INTERNAL", "INTERNAL"),
    ] {
        let attempted = sent(fcm_error(status, name, exact).insert_header("retry-after", "60")).await;
        let expected = Answer::Later { why: format!("{status} {exact}"), retry_after: Some(Duration::from_secs(60)) };
        assert_eq!(attempted.answer, expected);
    }
    // A proxy's, without a word of FCM's.
    let attempted = sent(ResponseTemplate::new(502).set_body_string("<html>")).await;
    assert_eq!(attempted.answer, Answer::Later { why: "502 no answer of FCM's".to_owned(), retry_after: None });
}
