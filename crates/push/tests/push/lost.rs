//! Answers that never come: what was sent is unknown, what was not sent is for later.

use crate::{message, subscription, web, web_settings};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use waybill_push::{Answer, Attempted, Push, Settings};

/// Short for a test, long for a loopback connection.
const SHORT: Duration = Duration::from_secs(1);

/// Reads a whole request: its head and as much body as that says.
async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request ends early");
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: Option<usize> = length.and_then(|length| length.parse().ok());
        let head = request.windows(4).position(|window| window == b"\r\n\r\n");
        if let (Some(head), Some(length)) = (head, length)
            && request.len() >= head + 4 + length
        {
            return;
        }
    }
}

async fn sent_to(listener: TcpListener, answer: &'static [u8]) -> Attempted {
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(answer).await.unwrap();
        if answer.is_empty() {
            stream.set_zero_linger().unwrap();
        }
    });
    let attempted = web(&origin).send(&subscription(&format!("{origin}/push/1")), &message()).await;
    server.await.unwrap();
    attempted
}

async fn sent_within(origin: &str, timeout: Duration) -> Attempted {
    let push = Push::new(&Settings { timeout, ..web_settings(origin) }, crate::clock).unwrap();
    push.send(&subscription(&format!("{origin}/push/1")), &message()).await
}

#[tokio::test]
async fn a_connection_reset_after_the_request_is_unknown() {
    let attempted = sent_to(TcpListener::bind("127.0.0.1:0").await.unwrap(), b"").await;
    let Answer::Unknown { why } = &attempted.answer else { panic!("{attempted:?}") };
    assert!(why.starts_with("connection lost: "), "{why}");
    assert_eq!(attempted.call.unwrap().status, None);
}

#[tokio::test]
async fn what_is_not_http_is_unknown() {
    let attempted = sent_to(TcpListener::bind("127.0.0.1:0").await.unwrap(), b"220 mail ESMTP\r\n\r\n").await;
    assert!(matches!(attempted.answer, Answer::Unknown { .. }), "{attempted:?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_after_its_status_counts() {
    let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 900\r\n\r\n{";
    let attempted = sent_to(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer).await;
    assert_eq!(attempted.answer, Answer::Sent);
}

#[tokio::test]
async fn an_answer_after_the_timeout_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (done, hold) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        hold.await.unwrap();
    });
    let attempted = sent_within(&origin, SHORT).await;
    assert_eq!(attempted.answer, Answer::Unknown { why: "no answer within 1s".to_owned() });
    done.send(()).unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_is_for_later() {
    // Bound and held, so the port is nobody else's, but it does not listen.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let attempted = sent_within(&format!("http://{}", deaf.local_addr().unwrap()), crate::LONG).await;
    let Answer::Later { why, retry_after: None } = &attempted.answer else { panic!("{attempted:?}") };
    assert!(why.starts_with("not sent: "), "{why}");
}

#[tokio::test]
async fn a_tls_handshake_that_stalls_is_for_later() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Until the client gives up.
        stream.read_to_end(&mut Vec::new()).await.unwrap()
    });
    let attempted = sent_within(&origin, SHORT).await;
    assert!(matches!(attempted.answer, Answer::Later { retry_after: None, .. }), "{attempted:?}");
    assert_ne!(server.await.unwrap(), 0, "the client said hello");
}
