//! Answers that never come.

use crate::{charge, refund, stripe, stripe_within};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use waybill_payment::{Attempted, Charged, Provider, Refunded};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

/// Short for a test, long for a loopback connection.
const SHORT: Duration = Duration::from_secs(1);

/// Reads a whole request, which ends with its last parameter.
async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"=order-7") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request ends early");
    }
}

async fn charged_by(listener: TcpListener, answer: &'static [u8]) -> Attempted<Charged> {
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(answer).await.unwrap();
        if answer.is_empty() {
            stream.set_zero_linger().unwrap();
        }
    });
    let attempted = stripe(&url).charge(&charge("pm_1", "1")).await;
    server.await.unwrap();
    attempted
}

fn why(attempted: &Attempted<Charged>) -> &str {
    let Charged::Unknown { why, retry_after: None } = &attempted.answer else { panic!("{attempted:?}") };
    why
}

#[tokio::test]
async fn a_connection_reset_after_the_request_is_unknown() {
    let attempted = charged_by(TcpListener::bind("127.0.0.1:0").await.unwrap(), b"").await;
    assert!(why(&attempted).starts_with("connection lost: "), "{attempted:?}");
    assert_eq!(attempted.call.unwrap().status, None);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unknown() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"id\":\"pi_1\",\"status\":\"succeeded\"";
    let attempted = charged_by(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer).await;
    assert!(why(&attempted).starts_with("200: the answer ends early: "), "{attempted:?}");
    assert_eq!(attempted.call.unwrap().status, Some(200));
}

#[tokio::test]
async fn what_is_not_http_is_unknown() {
    let attempted = charged_by(TcpListener::bind("127.0.0.1:0").await.unwrap(), b"220 mail ESMTP\r\n\r\n").await;
    assert!(why(&attempted).starts_with("connection lost: "), "{attempted:?}");
}

#[tokio::test]
async fn a_refused_connection_is_unknown() {
    // Bound and held, so the port is nobody else's, but it does not listen.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let provider = stripe(&format!("http://{}", deaf.local_addr().unwrap()));
    let attempted = provider.charge(&charge("pm_1", "1")).await;
    assert!(why(&attempted).starts_with("not connected: "), "{attempted:?}");
    let attempted = provider.refund(&refund("pi_1", 1, "1")).await;
    assert!(matches!(attempted.answer, Refunded::Unknown { .. }), "{attempted:?}");
}

#[tokio::test]
async fn an_answer_after_the_timeout_is_unknown() {
    let server = MockServer::start().await;
    let late = ResponseTemplate::new(200).set_delay(Duration::from_secs(60));
    Mock::given(method("POST")).respond_with(late).mount(&server).await;
    let attempted = stripe_within(&server.uri(), SHORT).charge(&charge("pm_1", "1")).await;
    assert_eq!(why(&attempted), "no answer within 1s");
    let call = attempted.call.unwrap();
    assert_eq!(call.status, None);
    assert!(call.latency >= SHORT, "{call:?}");
}

#[tokio::test]
async fn a_body_that_stalls_ends_at_the_timeout_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (done, hold) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{").await.unwrap();
        hold.await.unwrap();
    });
    let attempted = stripe_within(&url, SHORT).charge(&charge("pm_1", "1")).await;
    assert_eq!(why(&attempted), "200: the answer ends early: no answer within 1s");
    done.send(()).unwrap();
    server.await.unwrap();
}
