//! Mails: how they are written, and what becomes of them on a real server over real sockets.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod answers;
mod compose;
mod lost;
mod security;
mod settings;
mod templates;

use std::time::Duration;
use waybill_harness::MailServer;
use waybill_mail::{Answer, Composer, Content, Draft, Mailbox, Message, Rendered, Settings, Smtp, Templates};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn settings(url: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        from: "Example Shop <shop@example.org>".to_owned(),
        timeout: LONG,
        ..Settings::default()
    }
}

fn plain(server: &MailServer) -> Settings {
    settings(&format!("smtp://{}", server.address()))
}

fn smtp(server: &MailServer) -> Smtp {
    Smtp::new(&plain(server)).unwrap()
}

fn ada() -> Mailbox {
    Mailbox { address: "ada@example.org".parse().unwrap(), name: Some("Ada Lovelace".to_owned()) }
}

fn date() -> jiff::Timestamp {
    "2026-11-21T13:37:00Z".parse().unwrap()
}

fn confirmed() -> Content {
    let [_, confirmed, _] = Content::examples();
    confirmed
}

fn texts() -> Rendered {
    Templates::load(None).unwrap().render(&confirmed()).unwrap()
}

fn compose(to: &Mailbox, texts: Rendered) -> Message {
    let composer = Composer::new(&settings("smtp://127.0.0.1")).unwrap();
    composer.compose(Draft { delivery: "d-1", to, date: date(), unsubscribe: None, texts }).unwrap()
}

async fn send(smtp: &Smtp, message: Message) -> Answer {
    smtp.send(message, tokio::time::Instant::now() + LONG).await
}

/// A mail to `local`@example.org, whose name says what the server is to do.
fn mail(local: &str) -> Message {
    let to = Mailbox { address: format!("{local}@example.org").parse().unwrap(), name: None };
    compose(&to, texts())
}
