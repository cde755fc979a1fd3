//! TLS and passwords.

use crate::{LONG, mail, send, settings};
use waybill_harness::{Authority, Credentials, MailServer};
use waybill_mail::{Answer, Settings, Smtp};

/// An authority whose certificates the mail servers have.
struct Certificates(Authority);

impl Certificates {
    fn new() -> Self {
        Certificates(Authority::new().unwrap())
    }

    async fn server(&self, tls: &str, name: &str, year: i32, more: &[&str]) -> Option<MailServer> {
        let Credentials { certificate, key } = self.0.sign(name, year).unwrap();
        let [certificate, key] = [&certificate, &key].map(|path| path.to_str().unwrap());
        let args = ["--tls", tls, "--certificate", certificate, "--key", key];
        MailServer::start(&[&args[..], more].concat()).await
    }

    fn settings(&self, scheme: &str, server: &MailServer) -> Settings {
        Settings { ca_file: Some(self.0.certificate()), ..settings(&format!("{scheme}://{}", server.address())) }
    }
}

const WAYS: [(&str, &str); 2] = [("starttls", "smtp+starttls"), ("implicit", "smtps")];

async fn send_by(settings: &Settings) -> Answer {
    send(&Smtp::new(settings).unwrap(), mail("ada")).await
}

/// No other mail would be sent either.
fn away(answer: Answer) -> String {
    let Answer::SlowDown { why, .. } = answer else { panic!("{answer:?}") };
    why
}

#[tokio::test]
async fn a_mail_goes_over_tls_in_both_ways_with_a_password() {
    let certificates = Certificates::new();
    for (tls, scheme) in WAYS {
        let more = ["--user", "shop", "--password", "correct horse"];
        let Some(server) = certificates.server(tls, "127.0.0.1", 2090, &more).await else { return };
        let settings = Settings {
            user: Some("shop".to_owned()),
            password: Some("correct horse".into()),
            ..certificates.settings(scheme, &server)
        };
        let smtp = Smtp::new(&settings).unwrap();
        for _ in 0..2 {
            let answer = send(&smtp, mail("ada")).await;
            assert!(matches!(answer, Answer::Sent { .. }), "{scheme}: {answer:?}");
        }
        let arrived = server.arrived().unwrap();
        assert!(arrived.iter().all(|mail| mail.tls && mail.user == "shop"), "{arrived:?}");
        assert_eq!(arrived[1].nth, 2, "one connection");
    }
}

#[tokio::test]
async fn a_wrong_or_missing_password_holds_up_all_mails_and_is_never_printed() {
    let certificates = Certificates::new();
    let more = ["--user", "shop", "--password", "correct horse"];
    let Some(server) = certificates.server("starttls", "127.0.0.1", 2090, &more).await else { return };
    let missing = certificates.settings("smtp+starttls", &server);
    let wrong = Settings { user: Some("shop".to_owned()), password: Some("canary".into()), ..missing.clone() };
    let answer = send_by(&wrong).await;
    assert!(!format!("{answer:?} {wrong:?}").contains("canary"));
    assert_eq!(away(answer), "AUTH: 535 5.7.8");
    assert_eq!(away(send_by(&missing).await), "MAIL: 530 5.7.0");
    assert_eq!(server.arrived().unwrap().len(), 0);
}

#[tokio::test]
async fn a_certificate_that_is_expired_unknown_or_of_another_name_is_not_trusted() {
    let certificates = Certificates::new();
    for (tls, scheme) in WAYS {
        let step = if tls == "implicit" { "the TLS handshake: " } else { "STARTTLS: " };
        for (name, year, word) in [("127.0.0.1", 2020, "expired"), ("mail.example.org", 2090, "not valid for name")] {
            let Some(server) = certificates.server(tls, name, year, &[]).await else { return };
            let why = away(send_by(&certificates.settings(scheme, &server)).await);
            assert!(why.starts_with(step) && why.contains(word), "{why}");
        }
        let Some(server) = certificates.server(tls, "127.0.0.1", 2090, &[]).await else { return };
        let why = away(send_by(&Settings { ca_file: None, ..certificates.settings(scheme, &server) }).await);
        assert!(why.starts_with(step) && why.contains("UnknownIssuer"), "{why}");
        assert_eq!(server.arrived().unwrap().len(), 0);
    }
}

#[tokio::test]
async fn without_the_tls_that_was_asked_for_nothing_is_sent() {
    let certificates = Certificates::new();
    let Some(server) = MailServer::start(&[]).await else { return };
    let user = Settings { user: Some("shop".to_owned()), password: Some("canary".into()), ..settings("") };
    for (_, scheme) in WAYS {
        let settings = Settings { timeout: LONG, ..certificates.settings(scheme, &server) };
        let settings = Settings { user: user.user.clone(), password: user.password.clone(), ..settings };
        let why = away(send_by(&settings).await);
        assert!(why.starts_with("STARTTLS: ") || why.starts_with("the TLS handshake: "), "{why}");
    }
    assert_eq!(server.arrived().unwrap().len(), 0);
}
