//! Canaries: no key, token, endpoint or word of a message is ever seen outside a request.

use crate::fcm::{Google, send};
use crate::{clock, message, web_settings};
use serde_json::json;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;
use waybill_push::{Push, Settings, Subscription, Target, VapidKey};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

const CANARY: &str = "canary-in-the-mine";
const AUTH: &str = "c2l4dGVlbiBieXRlcyE_IQ";

/// All that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// The worst server: it quotes whatever it got.
fn gossip(status: u16) -> ResponseTemplate {
    let error = json!({ "error": { "status": CANARY, "message": CANARY, "details": [{ "errorCode": CANARY }] } });
    ResponseTemplate::new(status).set_body_json(error).insert_header("location", format!("/{CANARY}"))
}

#[tokio::test]
async fn no_secret_is_printed_logged_or_put_into_an_answer() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let p256dh = VapidKey::generate().public_key();
    for status in [201, 302, 400, 401, 404, 410, 413, 429, 500] {
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(gossip(status)).mount(&server).await;
        let settings = web_settings(&server.uri());
        let push = Push::new(&settings, clock).unwrap();
        let endpoint = format!("{}/push/{CANARY}?{CANARY}", server.uri());
        let target = Target::Web(Subscription::new(&endpoint, &p256dh, AUTH).unwrap());
        let attempted = push.send(&target, &message()).await;
        tracing::info!(?settings, ?push, ?target, ?attempted);

        let google = Google::granting().await.answering(gossip(status)).await;
        let (settings, push) = (google.settings(), google.push());
        let attempted = send(&push, &message()).await;
        tracing::info!(?settings, ?push, ?attempted);
    }
    for endpoint in [
        format!("https://evil.example/{CANARY}"),
        format!("https://{CANARY}@evil.example/"),
        format!("https://1.1.1.1/{CANARY}"),
        format!("{CANARY} is no URL"),
        format!("http://127.0.0.1:1/{CANARY}"),
    ] {
        let push = Push::new(&web_settings("http://127.0.0.1:1"), clock).unwrap();
        let target = Target::Web(Subscription::new(&endpoint, &p256dh, AUTH).unwrap());
        tracing::info!(attempted = ?push.send(&target, &message()).await);
    }
    let settings = Settings { vapid_key: Some(CANARY.into()), ..Settings::default() };
    let error = Push::new(&settings, clock).unwrap_err();
    tracing::error!(?error, %error, cause = error.source());
    drop(guard);

    let seen = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(seen.contains("Setup") && seen.contains("evil.example"), "nothing was logged: {seen}");
    let private_key = include_str!("service-account.pem").lines().nth(1).unwrap();
    for secret in [CANARY, crate::VAPID, AUTH, &p256dh, private_key, "access-1", "device-1", "kettle"] {
        let line = seen.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} was seen");
    }
}
