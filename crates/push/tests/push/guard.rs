//! Endpoints are strangers' URLs: which are called, and which never.

use crate::{message, refused, subscription, web, web_settings};
use std::process::Command;
use waybill_push::{Answer, EndpointError, Endpoints, Fault, Push, Settings};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

#[test]
fn the_push_services_of_the_browsers_are_acceptable_and_nobody_else() {
    let endpoints = Endpoints::new(&Settings::default()).unwrap();
    for endpoint in [
        "https://fcm.googleapis.com/fcm/send/abc:def",
        "https://FCM.googleapis.com:443/wp/abc",
        "https://updates.push.services.mozilla.com/wpush/v2/abc",
        "https://wns2-par02p.notify.windows.com/w/?token=abc",
        "https://web.push.apple.com/abc",
    ] {
        assert_eq!(endpoints.acceptable(endpoint), Ok(()), "{endpoint}");
    }
    let host = |name: &str| EndpointError::Host(name.to_owned());
    for (endpoint, error) in [
        ("", EndpointError::NotUrl),
        ("fcm.googleapis.com/x", EndpointError::NotUrl),
        ("data:text/plain,x", EndpointError::NotUrl),
        ("http://fcm.googleapis.com/x", EndpointError::Scheme),
        ("ftp://fcm.googleapis.com/x", EndpointError::Scheme),
        ("https://fcm.googleapis.com:8443/x", EndpointError::Port),
        ("https://user@fcm.googleapis.com/x", EndpointError::Credentials),
        ("https://:word@fcm.googleapis.com/x", EndpointError::Credentials),
        ("https://fcm.googleapis.com@evil.example/x", EndpointError::Credentials),
        ("https://evil.example/fcm.googleapis.com", host("evil.example")),
        ("https://evil.example#@fcm.googleapis.com/", host("evil.example")),
        ("https://evil.example\\@fcm.googleapis.com/", host("evil.example")),
        ("https://fcm.googleapis.com.evil.example/x", host("fcm.googleapis.com.evil.example")),
        ("https://evilfcm.googleapis.com/x", host("evilfcm.googleapis.com")),
        ("https://a.fcm.googleapis.com/x", host("a.fcm.googleapis.com")),
        ("https://fcm.googleapis.com./x", host("fcm.googleapis.com.")),
        ("https://evilnotify.windows.com/x", host("evilnotify.windows.com")),
        ("https://notify.windows.com/x", host("notify.windows.com")),
        ("https://localhost/x", host("localhost")),
        ("http://169.254.169.254/latest/meta-data/", EndpointError::Address),
        ("https://169.254.169.254/x", EndpointError::Address),
        ("https://127.0.0.1/x", EndpointError::Address),
        ("https://127.1/x", EndpointError::Address),
        ("https://0x7f.1/x", EndpointError::Address),
        ("https://2130706433/x", EndpointError::Address),
        ("https://017700000001/x", EndpointError::Address),
        ("https://8.8.8.8/x", EndpointError::Address),
        ("https://[::1]/x", EndpointError::Address),
        ("https://[::ffff:127.0.0.1]/x", EndpointError::Address),
    ] {
        assert_eq!(endpoints.acceptable(endpoint), Err(error), "{endpoint}");
    }
    let long = format!("https://fcm.googleapis.com/{}", "x".repeat(2_048));
    assert_eq!(endpoints.acceptable(&long), Err(EndpointError::TooLong));
}

#[test]
fn an_origin_is_exempt_to_the_letter() {
    let origins = vec!["http://127.0.0.1:8090".to_owned(), "https://push.example.org".to_owned()];
    let endpoints = Endpoints::new(&Settings { origins, ..Settings::default() }).unwrap();
    for (endpoint, acceptable) in [
        ("http://127.0.0.1:8090/notify/1", true),
        ("https://push.example.org/1", true),
        ("http://127.0.0.1:8091/notify/1", false),
        ("http://127.0.0.1/notify/1", false),
        ("https://127.0.0.1:8090/notify/1", false),
        ("http://localhost:8090/notify/1", false),
        ("http://push.example.org/1", false),
        ("http://user@127.0.0.1:8090/notify/1", false),
    ] {
        assert_eq!(endpoints.acceptable(endpoint).is_ok(), acceptable, "{endpoint}");
    }
}

#[tokio::test]
async fn what_is_not_acceptable_is_not_called() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(201)).expect(0).mount(&server).await;
    let push = web("https://push.example.org");
    let attempted = push.send(&subscription(&format!("{}/push/1", server.uri())), &message()).await;
    assert_eq!(refused(&attempted, Fault::Target), EndpointError::Address.to_string());
    assert_eq!(attempted.call, None);
}

#[tokio::test]
async fn a_name_on_the_list_that_leads_to_a_private_address_is_not_called() {
    let mut settings = web_settings("https://push.example.org");
    settings.hosts.push("localhost".to_owned());
    let push = Push::new(&settings, crate::clock).unwrap();
    // Acceptable by its name; only the resolver sees where it leads.
    assert_eq!(Endpoints::new(&settings).unwrap().acceptable("https://localhost/push/1"), Ok(()));
    let attempted = push.send(&subscription("https://localhost/push/1"), &message()).await;
    assert_eq!(refused(&attempted, Fault::Target), "the endpoint's host has no public address");
}

#[tokio::test]
async fn a_message_is_sent_past_any_proxy() {
    const CHILD: &str = "WAYBILL_TEST_PUSH_PROXIED";
    if let Ok(origin) = std::env::var(CHILD) {
        let attempted = web(&origin).send(&subscription(&format!("{origin}/push/1")), &message()).await;
        assert_eq!(attempted.answer, Answer::Sent, "{attempted:?}");
        return;
    }
    let (server, proxy) = (MockServer::start().await, MockServer::start().await);
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(201)).expect(1).mount(&server).await;
    // The variables are a process's, so it is one of its own: this test again.
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "guard::a_message_is_sent_past_any_proxy"]).env(CHILD, server.uri());
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(variable, proxy.uri());
    }
    child.env_remove("no_proxy").env_remove("NO_PROXY");
    let run = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    assert_eq!(proxy.received_requests().await.unwrap().len(), 0);
}
