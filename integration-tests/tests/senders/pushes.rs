//! Push messages: to browsers that decrypt them, and to FCM, of which there is no server to be had.

use super::world::{PRODUCT, World};
use crate::shop::LIMIT;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use waybill_harness::{PushReceiver, eventually};
use waybill_push::VapidKey;
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

/// Made for tests. It opens nothing.
const KEY: &str = include_str!("../../../crates/push/tests/push/service-account.pem");
/// Of openssl.
const VAPID: &str = "6N3-fxVWKn4Qb316hJpMheN-u9Ph2Fx8VIiZH7tnJ40";

/// Takes the tokens of which nothing is said; the first message to `canarytoken-429` is too many.
async fn google(taken: Arc<AtomicUsize>) -> MockServer {
    let server = MockServer::start().await;
    let grant = json!({ "access_token": "access", "expires_in": 3_599, "token_type": "Bearer" });
    Mock::given(path("/token")).respond_with(ResponseTemplate::new(200).set_body_json(grant)).mount(&server).await;
    let tries = AtomicUsize::new(0);
    let answer = move |request: &Request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let token = body["message"]["token"].as_str().unwrap();
        let error = |status: u16, code: &str| {
            let details = json!([{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]);
            ResponseTemplate::new(status).set_body_json(json!({"error": {"code": status, "details": details}}))
        };
        match token {
            "canarytoken-gone" => error(404, "UNREGISTERED"),
            "canarytoken-429" if tries.fetch_add(1, Ordering::SeqCst) == 0 => {
                error(429, "QUOTA_EXCEEDED").insert_header("retry-after", "1")
            }
            "canarytoken-503" if tries.fetch_add(1, Ordering::SeqCst) < 2 => error(503, "UNAVAILABLE"),
            _ => {
                taken.fetch_add(1, Ordering::SeqCst);
                ResponseTemplate::new(200).set_body_json(json!({ "name": "projects/shop-1/messages/1" }))
            }
        }
    };
    Mock::given(path("/v1/projects/shop-1/messages:send")).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_of_everybody_is_told_and_those_that_are_gone_are_forgotten() {
    let Some(mut world) = World::open("push", "50").await else { return };
    let Some(receiver) = PushReceiver::start().await else { return };
    let taken = Arc::new(AtomicUsize::new(0));
    let google = google(taken.clone()).await;
    let account = tempfile::NamedTempFile::new().unwrap();
    let content = json!({"type": "service_account", "project_id": "shop-1", "private_key_id": "key-7",
        "private_key": KEY, "client_email": "push@shop-1.iam.gserviceaccount.com",
        "token_uri": format!("{}/token", google.uri())});
    serde_json::to_writer(&account, &content).unwrap();
    for (key, value) in [
        ("WAYBILL_PUSH_VAPIDKEY", VAPID),
        ("WAYBILL_PUSH_SUBJECT", "mailto:shop@shop.example"),
        ("WAYBILL_PUSH_ORIGINS", &format!("[\"{}\"]", receiver.origin())),
        ("WAYBILL_PUSH_FCMKEYFILE", account.path().to_str().unwrap()),
        ("WAYBILL_PUSH_FCMURL", &google.uri()),
    ] {
        world.shop.set(key, value);
    }
    let public = VapidKey::parse(VAPID).unwrap().public_key();
    let (here, gone) = (receiver.subscribe(&public).await.unwrap(), receiver.subscribe(&public).await.unwrap());
    receiver.expire(&gone).await.unwrap();
    let browser = |of: &waybill_harness::PushSubscription| json!({"endpoint": of.endpoint, "keys": {"p256dh": of.p256dh, "auth": of.auth}});
    let app = |token: &str| json!({"fcm_token": format!("canarytoken-{token}")});
    // User, devices, what becomes of it.
    let people = [
        ("u-browser", vec![browser(&here)], "sent"),
        ("u-expired", vec![browser(&gone)], "unreachable"),
        ("u-both", vec![app("gone"), app("good")], "sent"),
        ("u-gone", vec![app("gone")], "unreachable"),
        ("u-busy", vec![app("429")], "sent"),
        ("u-away", vec![app("503")], "sent"),
        ("u-none", vec![], "unreachable"),
    ];
    for (user, devices, _) in &people {
        for (device, index) in devices.iter().zip(0..) {
            let sql =
                format!("insert into push_targets (user_id, id, target) values ('{user}', 't{index}', '{device}')");
            world.shop.execute(&sql).await;
        }
        let sql = format!(
            "insert into subscriptions (product_id, user_id, channel, expires_at)
             values ('{PRODUCT}', '{user}', 'push', now() + interval '1 day')"
        );
        world.shop.execute(&sql).await;
    }
    let mut process = world.shop.run(&["push"]);
    world.send("push", 0, 7).await;
    let told = world.results("push", 1).await;
    for ((user, _, expected), id) in people.iter().zip(1..) {
        assert_eq!(told[&id], *expected, "{user}: {told:?}");
    }
    let received = receiver.received(&here).await.unwrap();
    assert_eq!(received.len(), 1, "{received:?}");
    assert_eq!(received[0]["title"], "Reading lamp");
    assert_eq!(received[0]["url"], "https://shop.example/products/p-lamp");
    assert_eq!(taken.load(Ordering::SeqCst), 3, "good, and the two that were tried again");
    let left = world.shop.number("select count(*) from push_targets").await;
    assert_eq!(left, 4, "the browser that is here, the good one, the busy one and the one that was away");
    world.until_counted("back_in_stock.notifications.sent", 4.0).await;
    eventually("a span for each", LIMIT, async || {
        let spans = world.collector.spans();
        let singles = spans.iter().filter(|span| span.name() == "back_in_stock.send_single").count();
        if singles == 7 { Ok(()) } else { Err(singles.to_string()) }
    })
    .await;
    process.terminate().unwrap();
    process.wait(LIMIT).await.unwrap();
    world.check_canaries(&process.log().unwrap());
}
