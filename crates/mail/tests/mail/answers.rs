//! What the server says, and what it means.

use crate::{ada, compose, mail, plain, send, settings, smtp, texts};
use mail_parser::MessageParser;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use waybill_harness::MailServer;
use waybill_mail::{Answer, Smtp};

#[tokio::test]
async fn a_mail_arrives_as_it_was_written() {
    let Some(server) = MailServer::start(&[]).await else { return };
    let message = compose(&ada(), texts());
    let answer = send(&smtp(&server), message.clone()).await;
    assert!(matches!(answer, Answer::Sent { reply } if reply.to_string() == "250 2.0.0"), "{answer:?}");

    let [arrived] = &server.arrived().unwrap()[..] else { panic!("not one mail") };
    assert_eq!((&*arrived.from, &*arrived.to), ("shop@example.org", &["ada@example.org".to_owned()][..]));
    assert_eq!((&*arrived.hello, &*arrived.user, arrived.tls), ("example.org", "", false));
    assert!(arrived.bytes.starts_with(message.bytes()), "something was changed on the way");
    let parsed = MessageParser::default().parse(&arrived.bytes).unwrap();
    assert_eq!(parsed.message_id(), Some(message.id()));
    assert_eq!(parsed.body_text(0).unwrap().replace("\r\n", "\n"), texts().text);
    assert_eq!(parsed.body_html(0).unwrap().replace("\r\n", "\n"), texts().html);
}

#[tokio::test]
async fn lines_that_begin_with_a_dot_arrive_whole() {
    let Some(server) = MailServer::start(&[]).await else { return };
    let mut texts = texts();
    texts.text = ".\n..\n.first\nlast\n.".to_owned();
    let answer = send(&smtp(&server), compose(&ada(), texts.clone())).await;
    assert!(matches!(answer, Answer::Sent { .. }), "{answer:?}");
    let arrived = server.arrived().unwrap();
    let parsed = MessageParser::default().parse(&arrived[0].bytes).unwrap();
    assert_eq!(parsed.body_text(0).unwrap().replace("\r\n", "\n"), texts.text);
}

/// With and without PIPELINING the meaning is the same.
async fn each_way(check: impl AsyncFn(&MailServer, Smtp)) {
    for args in [&[][..], &["--no-pipelining"]] {
        let Some(server) = MailServer::start(args).await else { return };
        check(&server, smtp(&server)).await;
    }
}

#[tokio::test]
async fn a_dead_address_is_refused_and_suppressed_and_others_are_only_refused() {
    each_way(async |server, smtp| {
        for (local, said, suppressed) in [
            ("rcpt-550-5.1.1", "550 5.1.1", true),
            ("rcpt-550-5.1.10", "550 5.1.10", true),
            ("rcpt-550-5.1.8", "550 5.1.8", false),
            ("rcpt-550-5.7.1", "550 5.7.1", false),
            ("rcpt-550", "550", false),
            ("data-554-5.7.1", "554 5.7.1", false),
            ("dot-554-5.6.0", "554 5.6.0", false),
            ("dot-550-5.1.1", "550 5.1.1", true),
        ] {
            let answer = send(&smtp, mail(local)).await;
            let Answer::Refused { reply, suppress } = answer else { panic!("{local}: {answer:?}") };
            assert_eq!((&*reply.to_string(), suppress), (said, suppressed), "{local}");
        }
        assert_eq!(server.arrived().unwrap().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_for_now_is_later_and_a_server_that_has_enough_is_slowed_down_for() {
    each_way(async |server, smtp| {
        for (local, why) in [
            ("rcpt-450-4.2.0", "RCPT: 450 4.2.0"),
            ("rcpt-451-4.7.1", "RCPT: 451 4.7.1"),
            ("rcpt-452", "RCPT: 452"),
            ("data-451", "DATA: 451"),
            ("dot-452-4.3.1", "the final dot: 452 4.3.1"),
        ] {
            let why = why.to_owned();
            assert_eq!(send(&smtp, mail(local)).await, Answer::Later { why, retry_after: None }, "{local}");
        }
        for (local, why) in [
            ("rcpt-421", "RCPT: 421"),
            ("rcpt-421-4.3.2", "RCPT: 421 4.3.2"),
            ("rcpt-450-4.7.28", "RCPT: 450 4.7.28"),
            ("dot-421-4.7.0", "the final dot: 421 4.7.0"),
            ("dot-451-4.7.500", "the final dot: 451 4.7.500"),
        ] {
            let (why, wait) = (why.to_owned(), Duration::from_secs(60));
            assert_eq!(send(&smtp, mail(local)).await, Answer::SlowDown { why, wait }, "{local}");
        }
        assert_eq!(server.arrived().unwrap().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn no_answer_has_the_address_that_the_server_repeats() {
    let Some(server) = MailServer::start(&[]).await else { return };
    let smtp = smtp(&server);
    for local in ["rcpt-550-5.1.1", "rcpt-450", "rcpt-421", "dot-554-5.7.1", "drop-dot", "drop-rcpt", "ada"] {
        let message = mail(local);
        let printed = format!("{:?} {message:?}", send(&smtp, message.clone()).await);
        assert!(!printed.contains("example.org>") && !printed.contains(&format!("{local}@")), "{printed}");
    }
}

#[tokio::test]
async fn one_connection_carries_many_mails_also_after_refusals() {
    each_way(async |server, smtp| {
        for local in ["a", "rcpt-550-5.1.1", "b", "dot-554", "c", "data-451", "d", "rcpt-450", "e"] {
            send(&smtp, mail(local)).await;
        }
        let arrived = server.arrived().unwrap();
        let numbers: Vec<u64> = arrived.iter().map(|mail| mail.nth).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5], "{arrived:?}");
    })
    .await;
}

#[tokio::test]
async fn as_many_mails_are_sent_at_a_time_as_there_are_connections() {
    let Some(server) = MailServer::start(&[]).await else { return };
    let smtp = Smtp::new(&waybill_mail::Settings { connections: 3, ..plain(&server) }).unwrap();
    let message = mail("ada");
    tokio_scope(30, async || {
        let answer = send(&smtp, message.clone()).await;
        assert!(matches!(answer, Answer::Sent { .. }), "{answer:?}");
    })
    .await;
    let arrived = server.arrived().unwrap();
    let mut connections: Vec<u64> = arrived.iter().map(|mail| mail.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    assert_eq!((arrived.len(), connections.len()), (30, 3));
    smtp.close().await;
}

#[tokio::test]
async fn mails_that_follow_one_another_at_once_have_each_their_own_answer() {
    each_way(async |server, _| {
        let smtp = Smtp::new(&waybill_mail::Settings { connections: 1, ..plain(server) }).unwrap();
        let locals = ["a", "rcpt-550-5.1.1", "b", "dot-554", "c", "data-451", "d", "dot-421", "e", "drop-dot", "f"];
        let answers = send_all(smtp, locals).await;
        for (local, answer) in locals.into_iter().zip(answers) {
            let fits = match local {
                "rcpt-550-5.1.1" | "dot-554" => matches!(answer, Answer::Refused { .. }),
                "data-451" => matches!(answer, Answer::Later { .. }),
                "dot-421" => matches!(answer, Answer::SlowDown { .. }),
                "drop-dot" => matches!(answer, Answer::Unknown { .. }),
                _ => matches!(answer, Answer::Sent { .. }),
            };
            assert!(fits, "{local}: {answer:?}");
        }
        let arrived = server.arrived().unwrap();
        let to: Vec<&str> = arrived.iter().filter_map(|mail| mail.to[0].split('@').next()).collect();
        assert_eq!(to, ["a", "b", "c", "d", "e", "drop-dot", "f"]);
    })
    .await;
}

#[tokio::test]
async fn the_next_mail_is_named_with_the_text_of_the_one_before() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It says nothing to the first text until it has heard of the second mail.
    let server = tokio::spawn(async move {
        let mut stream = tokio::io::BufReader::new(listener.accept().await.unwrap().0);
        let hello = "250-here\r\n250 PIPELINING\r\n";
        let (named, taken) = ("250 ok\r\n250 ok\r\n354 go on\r\n", "250 ok\r\n");
        let first = format!("{taken}{named}");
        stream.write_all(b"220 here\r\n").await.unwrap();
        for (until, answer) in
            [("EHLO", hello), ("EHLO", hello), ("DATA", named), (".", ""), ("DATA", &*first), (".", taken)]
        {
            let mut line = String::new();
            while !line.starts_with(until) || (until == "." && line != ".\r\n") {
                line.clear();
                assert!(stream.read_line(&mut line).await.unwrap() > 0, "gone before {until}");
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let smtp = Smtp::new(&waybill_mail::Settings { connections: 1, ..settings(&format!("smtp://{address}")) }).unwrap();
    let answers = send_all(smtp, ["a", "b"]).await;
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Sent { .. })), "{answers:?}");
    server.await.unwrap();
}

/// All of them wait before the first is sent.
async fn send_all<const N: usize>(smtp: Smtp, locals: [&'static str; N]) -> Vec<Answer> {
    let smtp = Arc::new(smtp);
    let tasks = locals.map(|local| {
        let smtp = smtp.clone();
        tokio::spawn(async move { send(&smtp, mail(local)).await })
    });
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

/// Runs `work` many times at once, on this thread.
async fn tokio_scope(times: usize, work: impl AsyncFn()) {
    let mut running: Vec<_> = (0..times).map(|_| Box::pin(work())).collect();
    std::future::poll_fn(|cx| {
        running.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
