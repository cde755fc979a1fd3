//! FCM: its requests, and the access tokens that they carry.

use crate::{LONG, message, refused};
use base64ct::{Base64UrlUnpadded, Encoding};
use jiff::Timestamp;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;
use waybill_push::{Answer, Attempted, Fault, FcmToken, Message, Push, Settings, Target, Urgency};
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

/// Made for these tests. It opens nothing.
const KEY: &str = include_str!("service-account.pem");
const SEND: &str = "/v1/projects/shop-1/messages:send";

/// Google, of which there is no server to be had: it grants access tokens and takes messages.
pub struct Google {
    pub server: MockServer,
    file: tempfile::NamedTempFile,
}

impl Google {
    /// Grants the tokens `access-1`, `access-2` and so on, for an hour each.
    pub async fn granting() -> Self {
        let granted = AtomicU32::new(0);
        Self::with_tokens(move |_: &Request| {
            let token = format!("access-{}", granted.fetch_add(1, Ordering::SeqCst) + 1);
            let body = json!({ "access_token": token, "expires_in": 3_599, "token_type": "Bearer" });
            ResponseTemplate::new(200).set_body_json(body)
        })
        .await
    }

    pub async fn with_tokens(answer: impl wiremock::Respond + 'static) -> Self {
        let server = MockServer::start().await;
        Mock::given(path("/token")).respond_with(answer).mount(&server).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        let account = json!({
            "type": "service_account",
            "project_id": "shop-1",
            "private_key_id": "key-7",
            "private_key": KEY,
            "client_email": "push@shop-1.iam.gserviceaccount.com",
            "token_uri": format!("{}/token", server.uri()),
        });
        serde_json::to_writer(&file, &account).unwrap();
        Google { server, file }
    }

    /// Answers every message so.
    pub async fn answering(self, answer: impl wiremock::Respond + 'static) -> Self {
        Mock::given(path(SEND)).respond_with(answer).mount(&self.server).await;
        self
    }

    pub fn settings(&self) -> Settings {
        Settings {
            fcm_key_file: Some(self.file.path().to_owned()),
            fcm_url: self.server.uri(),
            timeout: LONG,
            ..Settings::default()
        }
    }

    pub fn push(&self) -> Push {
        Push::new(&self.settings(), crate::clock).unwrap()
    }

    /// The requests to a path.
    async fn requests(&self, path: &str) -> Vec<Request> {
        let requests = self.server.received_requests().await.unwrap();
        requests.into_iter().filter(|request| request.url.path() == path).collect()
    }

    /// The access tokens that messages came with.
    async fn bearers(&self) -> Vec<String> {
        let requests = self.requests(SEND).await;
        requests.iter().map(|r| r.headers["authorization"].to_str().unwrap().to_owned()).collect()
    }
}

pub fn taken() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({ "name": "projects/shop-1/messages/1" }))
}

pub fn unauthorized(code: &str) -> ResponseTemplate {
    ResponseTemplate::new(401).set_body_json(json!({ "error": { "code": 401, "message": "No", "status": code } }))
}

pub async fn send(push: &Push, message: &Message) -> Attempted {
    push.send(&Target::Fcm(FcmToken::new("device-1").unwrap()), message).await
}

#[tokio::test]
async fn a_message_has_what_each_kind_of_device_needs() {
    let google = Google::granting().await.answering(taken()).await;
    let push = google.push();
    assert_eq!(send(&push, &message()).await.answer, Answer::Sent);
    let urgent = Message { topic: None, url: "http://localhost/x".to_owned(), urgency: Urgency::High, ..message() };
    assert_eq!(send(&push, &urgent).await.answer, Answer::Sent);

    let requests = google.requests(SEND).await;
    let bodies: Vec<Value> = requests.iter().map(|request| request.body_json().unwrap()).collect();
    let (normal, urgent) = (&bodies[0]["message"], &bodies[1]["message"]);
    assert_eq!(normal["token"], "device-1");
    assert_eq!(normal["notification"], json!({ "title": message().title, "body": message().body }));
    assert_eq!(normal["data"], json!({ "url": message().url }));
    assert_eq!(normal["android"]["ttl"], "3600s");
    assert_eq!((&normal["android"]["priority"], &urgent["android"]["priority"]), (&"NORMAL".into(), &"HIGH".into()));
    let topic = normal["android"]["collapse_key"].as_str().unwrap();
    assert_eq!(normal["apns"]["headers"]["apns-collapse-id"], topic);
    assert_eq!(normal["webpush"]["headers"], json!({ "TTL": "3600", "Urgency": "normal", "Topic": topic }));
    assert_eq!(normal["webpush"]["fcm_options"]["link"], message().url);
    let expires: i64 = normal["apns"]["headers"]["apns-expiration"].as_str().unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&(expires - crate::clock().as_second())), "{expires}");
    assert_eq!(urgent["webpush"].get("fcm_options"), None);
    assert_eq!(urgent["android"].get("collapse_key"), None);
}

#[tokio::test]
async fn an_access_token_is_asked_for_with_the_service_accounts_signature() {
    let google = Google::granting().await.answering(taken()).await;
    send(&google.push(), &message()).await;
    let body = String::from_utf8(google.requests("/token").await[0].body.clone()).unwrap();
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let assertion = body.strip_prefix(grant).unwrap();

    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let der = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    let signature = Base64UrlUnpadded::decode_vec(signature).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
    public.verify(signed.as_bytes(), &signature).unwrap();

    let part = |text| serde_json::from_slice::<Value>(&Base64UrlUnpadded::decode_vec(text).unwrap()).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    assert_eq!(part(header), json!({ "alg": "RS256", "typ": "JWT", "kid": "key-7" }));
    let claims = part(claims);
    assert_eq!(claims["iss"], "push@shop-1.iam.gserviceaccount.com");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/firebase.messaging");
    assert_eq!(claims["aud"], format!("{}/token", google.server.uri()));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3_600);
}

#[tokio::test]
async fn an_access_token_serves_many_messages_until_shortly_before_its_end() {
    static NOW: AtomicI64 = AtomicI64::new(1_790_000_000);
    fn clock() -> Timestamp {
        Timestamp::from_second(NOW.load(Ordering::SeqCst)).unwrap()
    }
    let google = Google::granting().await.answering(taken()).await;
    let push = Push::new(&google.settings(), clock).unwrap();
    // At once: one of them asks, the others wait for it.
    let message = message();
    let (a, b, c) = tokio::join!(send(&push, &message), send(&push, &message), send(&push, &message));
    assert!([a, b, c].iter().all(|sent| sent.answer == Answer::Sent));
    NOW.fetch_add(3_290, Ordering::SeqCst);
    send(&push, &message).await;
    NOW.fetch_add(20, Ordering::SeqCst);
    send(&push, &message).await;
    let [first, second] = ["Bearer access-1", "Bearer access-2"];
    assert_eq!(google.bearers().await, [first, first, first, first, second]);
}

#[tokio::test]
async fn an_access_token_that_is_taken_back_is_renewed_once() {
    let google = Google::granting().await;
    let google = google
        .answering(|request: &Request| match request.headers["authorization"].to_str().unwrap() {
            "Bearer access-1" => unauthorized("UNAUTHENTICATED"),
            _ => taken(),
        })
        .await;
    let push = google.push();
    assert_eq!(send(&push, &message()).await.answer, Answer::Sent);
    assert_eq!(send(&push, &message()).await.answer, Answer::Sent);
    assert_eq!(google.bearers().await, ["Bearer access-1", "Bearer access-2", "Bearer access-2"]);

    let google = Google::granting().await.answering(unauthorized("UNAUTHENTICATED")).await;
    let attempted = send(&google.push(), &message()).await;
    assert_eq!(refused(&attempted, Fault::Setup), "401 UNAUTHENTICATED: check fcmkeyfile");
    assert_eq!(google.bearers().await, ["Bearer access-1", "Bearer access-2"]);
}

#[tokio::test]
async fn without_an_access_token_nothing_is_sent() {
    let later = |why: &str, retry_after| Answer::Later { why: format!("no access token: {why}"), retry_after };
    let setup = |why: &str| Answer::Refused { fault: Fault::Setup, why: format!("no access token: {why}") };
    let wait = Some(Duration::from_secs(9));
    for (answer, expected) in [
        (ResponseTemplate::new(503).insert_header("retry-after", "9"), later("503", wait)),
        (ResponseTemplate::new(429), later("429", None)),
        (ResponseTemplate::new(400).set_body_json(json!({ "error": "invalid_grant" })), setup("400: check fcmkeyfile")),
        (ResponseTemplate::new(401), setup("401: check fcmkeyfile")),
        (
            ResponseTemplate::new(200).set_body_string("<html>"),
            setup("200, no answer of Google's: check token_uri of fcmkeyfile"),
        ),
    ] {
        let google = Google::with_tokens(answer).await.answering(taken()).await;
        let attempted = send(&google.push(), &message()).await;
        assert_eq!(attempted.answer, expected);
        assert!(attempted.call.is_some());
        assert_eq!(google.bearers().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn those_who_wait_for_an_access_token_wait_no_longer_than_a_sending_takes() {
    let silent = ResponseTemplate::new(200).set_delay(LONG);
    let google = Google::with_tokens(silent).await.answering(taken()).await;
    let timeout = Duration::from_millis(500);
    let push = Push::new(&Settings { timeout, ..google.settings() }, crate::clock).unwrap();
    let message = message();
    let (a, b) = tokio::join!(send(&push, &message), send(&push, &message));
    for attempted in [a, b] {
        let Answer::Later { why, retry_after: None } = &attempted.answer else { panic!("{attempted:?}") };
        assert!(why.ends_with("no answer within 500ms"), "{why}");
    }
    assert_eq!(google.bearers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_sent() {
    let google = Google::granting().await.answering(taken()).await;
    let large = Message { body: "x".repeat(4_000), ..message() };
    let attempted = send(&google.push(), &large).await;
    assert!(refused(&attempted, Fault::Message).ends_with("bytes, more than 3993"), "{attempted:?}");
    assert_eq!(google.server.received_requests().await.unwrap().len(), 0);
}
