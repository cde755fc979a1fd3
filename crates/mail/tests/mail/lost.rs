//! Answers that never come: whether the server may have the mail is what matters.

use crate::{ada, compose, mail, plain, send, settings, smtp, texts};
use std::time::Duration;
use waybill_harness::{BlackHole, MailServer, Refusing};
use waybill_mail::{Answer, Settings, Smtp};

/// Short for a test, long for a loopback connection.
const SHORT: Duration = Duration::from_secs(2);

fn impatient(server: &MailServer) -> Smtp {
    Smtp::new(&Settings { timeout: SHORT, ..plain(server) }).unwrap()
}

fn later(answer: Answer) -> String {
    let Answer::Later { why, retry_after: None } = answer else { panic!("{answer:?}") };
    why
}

fn away(answer: Answer) -> String {
    let Answer::SlowDown { why, .. } = answer else { panic!("{answer:?}") };
    why
}

fn unknown(answer: Answer) -> String {
    let Answer::Unknown { why } = answer else { panic!("{answer:?}") };
    why
}

#[tokio::test]
async fn a_connection_lost_before_the_final_dot_is_later_and_the_server_has_nothing() {
    for args in [&[][..], &["--no-pipelining"]] {
        let Some(server) = MailServer::start(args).await else { return };
        let smtp = smtp(&server);
        let why = later(send(&smtp, mail("drop-rcpt")).await);
        assert!(why.starts_with("RCPT: ") || why.starts_with("MAIL: "), "{why}");
        let why = later(send(&smtp, mail("drop-data")).await);
        assert!(why.starts_with("DATA: "), "{why}");
        // More than the buffers between us hold, so that the text is not all written when the connection breaks.
        let (mut to, mut texts) = (ada(), texts());
        to.address = "drop-text@example.org".parse().unwrap();
        texts.text = "All work and no play makes a dull mail. ".repeat(400_000);
        let why = later(send(&smtp, compose(&to, texts)).await);
        assert!(why.starts_with("the text: "), "{why}");
        assert_eq!(server.arrived().unwrap().len(), 0);
    }
}

#[tokio::test]
async fn a_connection_lost_after_the_final_dot_is_unknown_and_the_server_may_have_the_mail() {
    for args in [&[][..], &["--no-pipelining"]] {
        let Some(server) = MailServer::start(args).await else { return };
        let why = unknown(send(&smtp(&server), mail("drop-dot")).await);
        assert!(why.starts_with("the final dot: "), "{why}");
        assert_eq!(server.arrived().unwrap().len(), 1, "it has");
    }
}

#[tokio::test]
async fn a_slow_server_is_later_before_the_final_dot_and_unknown_after_it() {
    let Some(server) = MailServer::start(&[]).await else { return };
    let smtp = impatient(&server);
    assert_eq!(later(send(&smtp, mail("slow-rcpt")).await), "RCPT: no answer within 2s");
    assert_eq!(later(send(&smtp, mail("slow-data")).await), "DATA: no answer within 2s");
    assert_eq!(unknown(send(&smtp, mail("slow-dot")).await), "the final dot: no answer within 2s");
    assert_eq!(server.arrived().unwrap().len(), 1, "the last one");
    // A session that was left waiting is not used again.
    let answer = send(&smtp, mail("ada")).await;
    assert!(matches!(answer, Answer::Sent { .. }), "{answer:?}");
    assert_eq!(server.arrived().unwrap()[1].nth, 1);
}

#[tokio::test]
async fn a_mail_that_no_connection_was_free_for_in_time_is_later_and_never_sent() {
    let Some(server) = MailServer::start(&["--no-pipelining"]).await else { return };
    let smtp = Smtp::new(&Settings { connections: 1, ..plain(&server) }).unwrap();
    let now = tokio::time::Instant::now();
    let (slow, waiting) = tokio::join!(
        smtp.send(mail("slow-dot"), now + SHORT),
        smtp.send(mail("ada"), now + Duration::from_millis(100))
    );
    assert_eq!(later(waiting), "no connection was free in time");
    assert_eq!(unknown(slow), "no answer in time");
    assert_eq!(server.arrived().unwrap().len(), 1, "the first one");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_nothing_is_away_for_all_mails() {
    let refusing = Refusing::start().unwrap();
    let smtp = Smtp::new(&settings(&format!("smtp://{}", refusing.address()))).unwrap();
    assert!(away(send(&smtp, mail("ada")).await).starts_with("connecting: "));

    let hole = BlackHole::start().unwrap();
    for scheme in ["smtp", "smtps", "smtp+starttls"] {
        let url = format!("{scheme}://{}", hole.address());
        let smtp = Smtp::new(&Settings { timeout: Duration::from_millis(300), ..settings(&url) }).unwrap();
        let why = away(send(&smtp, mail("ada")).await);
        assert!(why.ends_with("no answer within 300ms"), "{why}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_server_has_closed_costs_no_mail() {
    // It closes each after two mails: the third is answered with 421 where it was named.
    for args in [&["--limit", "2"][..], &["--limit", "2", "--no-pipelining"]] {
        let Some(server) = MailServer::start(args).await else { return };
        let smtp = smtp(&server);
        for _ in 0..5 {
            let answer = send(&smtp, mail("ada")).await;
            assert!(matches!(answer, Answer::Sent { .. }), "{answer:?}");
        }
        let numbers: Vec<u64> = server.arrived().unwrap().iter().map(|mail| mail.nth).collect();
        assert_eq!(numbers, [1, 2, 1, 2, 1]);
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_dead_costs_no_mail() {
    let Some(server) = MailServer::start(&["--idle", "0.2"]).await else { return };
    let smtp = smtp(&server);
    assert!(matches!(send(&smtp, mail("ada")).await, Answer::Sent { .. }));
    waybill_harness::eventually("the server has closed the connection", crate::LONG, async || match server.open() {
        Ok(0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(matches!(send(&smtp, mail("ada")).await, Answer::Sent { .. }));
    let numbers: Vec<u64> = server.arrived().unwrap().iter().map(|mail| mail.nth).collect();
    assert_eq!(numbers, [1, 1]);
}
