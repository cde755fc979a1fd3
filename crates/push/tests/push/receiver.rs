//! Against web-push-testing, which makes subscriptions, checks VAPID and decrypts with Node's cryptography.

use crate::{message, refused, web, web_settings};
use serde_json::{Value, json};
use waybill_harness::{PushReceiver, PushSubscription};
use waybill_push::{Answer, Fault, Message, Settings, Subscription, Target, Urgency};

fn target(subscription: &PushSubscription) -> Target {
    Target::Web(Subscription::new(&subscription.endpoint, &subscription.p256dh, &subscription.auth).unwrap())
}

fn public_key(settings: &Settings) -> String {
    settings.vapid().unwrap().unwrap().public_key()
}

fn shown(message: &Message) -> [Value; 3] {
    [&message.title, &message.body, &message.url].map(|text| json!(text))
}

#[tokio::test]
async fn a_browser_reads_what_was_sent_until_its_subscription_has_expired() {
    let Some(receiver) = PushReceiver::start().await else { return };
    let subscription = receiver.subscribe(&public_key(&web_settings(receiver.origin()))).await.unwrap();
    let push = web(receiver.origin());
    let first = message();
    // All that there is room for: 3,993 bytes with what JSON adds.
    let room = 3_993 - r#"{"title":"","body":"","url":""}"#.len();
    let largest = Message {
        title: String::new(),
        body: "ж".repeat(room / 2),
        url: "/".repeat(room % 2),
        topic: None,
        urgency: Urgency::High,
        ..message()
    };
    for sent in [&first, &largest] {
        let attempted = push.send(&target(&subscription), sent).await;
        assert_eq!(attempted.answer, Answer::Sent, "{attempted:?}");
        assert_eq!(attempted.call.unwrap().status, Some(201));
    }
    let received = receiver.received(&subscription).await.unwrap();
    let read: Vec<_> = received.iter().map(|got| ["title", "body", "url"].map(|field| got[field].clone())).collect();
    assert_eq!(read, [shown(&first), shown(&largest)]);
    assert!(received[0]["tag"].is_string() && received[1].get("tag").is_none(), "{received:?}");

    receiver.expire(&subscription).await.unwrap();
    let attempted = push.send(&target(&subscription), &first).await;
    assert_eq!(attempted.answer, Answer::Gone);
    assert_eq!(attempted.call.unwrap().status, Some(410));
}

#[tokio::test]
async fn a_browser_takes_nothing_that_another_key_signed_or_that_was_encrypted_for_another() {
    let Some(receiver) = PushReceiver::start().await else { return };
    let ours = public_key(&web_settings(receiver.origin()));
    let push = web(receiver.origin());
    let strangers = receiver.subscribe(&waybill_push::VapidKey::generate().public_key()).await.unwrap();
    let other = receiver.subscribe(&ours).await.unwrap();
    let mut mixed = receiver.subscribe(&ours).await.unwrap();
    mixed.endpoint.clone_from(&other.endpoint);
    for (subscription, inbox) in [(&strangers, &strangers), (&mixed, &other)] {
        let attempted = push.send(&target(subscription), &message()).await;
        assert!(refused(&attempted, Fault::Message).starts_with("400"), "{attempted:?}");
        assert_eq!(receiver.received(inbox).await.unwrap(), Vec::<Value>::new());
    }
}
