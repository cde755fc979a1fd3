//! What a web push request looks like, and how long a signature is used.

use crate::{VAPID, message, refused, subscription, web, web_settings};
use base64ct::{Base64UrlUnpadded, Encoding};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use waybill_push::{Answer, Fault, Message, Push, Urgency, VapidKey};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

async fn accepting() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(201)).mount(&server).await;
    server
}

/// The value of a header of each request.
async fn headers(server: &MockServer, name: &str) -> Vec<Option<String>> {
    let requests = server.received_requests().await.unwrap();
    requests.iter().map(|r| r.headers.get(name).map(|value| value.to_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn a_request_says_how_long_how_urgent_and_about_what() {
    let server = accepting().await;
    let push = web(&server.uri());
    let target = subscription(&format!("{}/push/1", server.uri()));
    let bare = Message { topic: None, ttl: Duration::MAX, urgency: Urgency::VeryLow, ..message() };
    let other =
        Message { topic: Some("p-toaster".to_owned()), ttl: Duration::ZERO, urgency: Urgency::High, ..message() };
    for message in [&message(), &bare, &other] {
        assert_eq!(push.send(&target, message).await.answer, Answer::Sent);
    }
    let some = |values: [&str; 3]| values.map(|value| Some(value.to_owned())).to_vec();
    assert_eq!(headers(&server, "ttl").await, some(["3600", "2419200", "0"]));
    assert_eq!(headers(&server, "urgency").await, some(["normal", "very-low", "high"]));
    assert_eq!(headers(&server, "content-encoding").await, some(["aes128gcm"; 3]));
    let topics = headers(&server, "topic").await;
    let (kettle, toaster) = (topics[0].as_ref().unwrap(), topics[2].as_ref().unwrap());
    assert!(kettle != toaster && topics[1].is_none(), "{topics:?}");
    for topic in [kettle, toaster] {
        assert_eq!(topic.len(), 32, "{topic}");
        assert!(topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{topic}");
    }
}

#[tokio::test]
async fn a_signature_names_us_the_push_service_and_its_end() {
    let server = accepting().await;
    web(&server.uri()).send(&subscription(&format!("{}/push/1?x=1", server.uri())), &message()).await;
    let authorization = headers(&server, "authorization").await[0].clone().unwrap();
    let (token, key) = authorization.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
    assert_eq!(key, VapidKey::parse(VAPID).unwrap().public_key());
    let part = |index| Base64UrlUnpadded::decode_vec(token.split('.').nth(index).unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&part(0)).unwrap();
    assert_eq!((&header["typ"], &header["alg"]), (&"JWT".into(), &"ES256".into()));
    let claims: Value = serde_json::from_slice(&part(1)).unwrap();
    assert_eq!((&claims["aud"], &claims["sub"]), (&server.uri().into(), &"mailto:shop@example.org".into()));
    let left = claims["exp"].as_i64().unwrap() - crate::clock().as_second();
    assert!((1..=24 * 3_600).contains(&left), "{left} s");
    assert_eq!(part(2).len(), 64);
}

#[tokio::test]
async fn a_signature_serves_one_push_service_until_shortly_before_its_end() {
    static NOW: AtomicI64 = AtomicI64::new(1_790_000_000);
    fn clock() -> Timestamp {
        Timestamp::from_second(NOW.load(Ordering::SeqCst)).unwrap()
    }
    let (one, two) = (accepting().await, accepting().await);
    let mut settings = web_settings(&one.uri());
    settings.origins.push(two.uri());
    let push = Push::new(&settings, clock).unwrap();
    let send = async |server: &MockServer| {
        let sent = push.send(&subscription(&format!("{}/push/1", server.uri())), &message()).await;
        assert_eq!(sent.answer, Answer::Sent);
    };
    for _ in 0..3 {
        send(&one).await;
        send(&two).await;
    }
    let of_one: HashSet<_> = headers(&one, "authorization").await.into_iter().collect();
    let of_two: HashSet<_> = headers(&two, "authorization").await.into_iter().collect();
    assert_eq!((of_one.len(), of_two.len()), (1, 1));
    assert!(of_one.is_disjoint(&of_two));

    let forward = |by: SignedDuration| NOW.fetch_add(by.as_secs(), Ordering::SeqCst);
    forward(SignedDuration::from_mins(10 * 60 + 59));
    send(&one).await;
    forward(SignedDuration::from_mins(2));
    send(&one).await;
    let signatures = headers(&one, "authorization").await;
    assert_eq!(signatures[3], signatures[0]);
    assert_ne!(signatures[4], signatures[0]);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_sent() {
    let server = accepting().await;
    let large = Message { body: "x".repeat(4_000), ..message() };
    let attempted = web(&server.uri()).send(&subscription(&format!("{}/push/1", server.uri())), &large).await;
    let why = refused(&attempted, Fault::Message);
    assert!(why.starts_with("the message is 4") && why.ends_with("bytes, more than 3993"), "{why}");
    assert_eq!(attempted.call, None);
    assert_eq!(server.received_requests().await.unwrap().len(), 0);
}
