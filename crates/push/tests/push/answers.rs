//! What web push makes of a push service's answers.

use crate::{message, subscription, web};
use std::time::Duration;
use waybill_push::{Answer, Attempted, Fault};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

async fn sent(answer: ResponseTemplate) -> Attempted {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    web(&server.uri()).send(&subscription(&format!("{}/push/1", server.uri())), &message()).await
}

#[tokio::test]
async fn each_status_has_its_answer() {
    let refused = |fault, why: &str| Answer::Refused { fault, why: why.to_owned() };
    let later = |why: &str| Answer::Later { why: why.to_owned(), retry_after: None };
    for (status, expected) in [
        (200, Answer::Sent),
        (201, Answer::Sent),
        (202, Answer::Sent),
        (404, Answer::Gone),
        (410, Answer::Gone),
        (400, refused(Fault::Message, "400: the push service does not take the request")),
        (405, refused(Fault::Message, "405: the push service does not take the request")),
        (401, refused(Fault::Setup, "401: check vapidkey and subject")),
        (403, refused(Fault::Setup, "403: check vapidkey and subject")),
        (413, refused(Fault::Message, "413: the message is too large")),
        (406, later("406")),
        (429, later("429")),
        (500, later("500")),
        (502, later("502")),
        (503, later("503")),
    ] {
        let attempted = sent(ResponseTemplate::new(status)).await;
        assert_eq!(attempted.answer, expected, "{status}");
        let call = attempted.call.unwrap();
        assert_eq!((call.server_address.as_str(), call.status), ("127.0.0.1", Some(status)));
    }
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
        for status in [429, 503] {
            // A date is measured against the answer's own, which need not be this machine's.
            let answer = ResponseTemplate::new(status)
                .insert_header("date", "Wed, 21 Oct 2026 07:28:00 GMT")
                .insert_header("retry-after", value);
            let expected = Answer::Later { why: status.to_string(), retry_after: expected };
            assert_eq!(sent(answer).await.answer, expected, "{value}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = MockServer::start().await;
    let elsewhere = ResponseTemplate::new(307).insert_header("location", format!("{}/inside", server.uri()));
    Mock::given(path("/push/1")).respond_with(elsewhere).expect(1).mount(&server).await;
    Mock::given(path("/inside")).respond_with(ResponseTemplate::new(200)).expect(0).mount(&server).await;
    let attempted = web(&server.uri()).send(&subscription(&format!("{}/push/1", server.uri())), &message()).await;
    assert_eq!(crate::refused(&attempted, Fault::Target), "307: a redirect, which is not followed");
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end_and_changes_nothing() {
    let answer = ResponseTemplate::new(410).set_body_string("x".repeat(300 * 1_024));
    assert_eq!(sent(answer).await.answer, Answer::Gone);
}
