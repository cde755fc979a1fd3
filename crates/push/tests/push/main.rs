//! Both ways of a message, over real sockets: to a real receiver of web push, and to servers that answer what is wanted.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod answers;
mod fcm;
mod fcm_answers;
mod guard;
mod lost;
mod receiver;
mod requests;
mod secrets;
mod settings;
mod targets;

use jiff::Timestamp;
use std::time::Duration;
use waybill_push::{Answer, Attempted, Fault, Message, Push, Settings, Subscription, Target, Urgency, VapidKey};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Of openssl; the same key in three forms is in `settings.rs`.
const VAPID: &str = "6N3-fxVWKn4Qb316hJpMheN-u9Ph2Fx8VIiZH7tnJ40";

/// Signatures are checked against the real time.
#[expect(clippy::disallowed_methods, reason = "the clock that the caller hands in")]
fn clock() -> Timestamp {
    Timestamp::now()
}

/// Web push to one origin, wherever it is.
fn web_settings(origin: &str) -> Settings {
    Settings {
        vapid_key: Some(VAPID.into()),
        subject: Some("mailto:shop@example.org".to_owned()),
        origins: vec![origin.to_owned()],
        timeout: LONG,
        ..Settings::default()
    }
}

fn web(origin: &str) -> Push {
    Push::new(&web_settings(origin), clock).unwrap()
}

/// A browser whose key is of no matter.
fn subscription(endpoint: &str) -> Target {
    let p256dh = VapidKey::generate().public_key();
    Target::Web(Subscription::new(endpoint, &p256dh, "c2l4dGVlbiBieXRlcyE_IQ").unwrap())
}

fn message() -> Message {
    Message {
        title: "Back in stock".to_owned(),
        body: "The blue kettle is here again — 12 left 🫖".to_owned(),
        url: "https://shop.example.org/p/kettle".to_owned(),
        topic: Some("p-kettle".to_owned()),
        ttl: Duration::from_secs(3_600),
        urgency: Urgency::Normal,
    }
}

/// The reason of a refusal, which is of one fault.
fn refused(attempted: &Attempted, expected: Fault) -> &str {
    let Answer::Refused { fault, why } = &attempted.answer else { panic!("{attempted:?}") };
    assert_eq!(*fault, expected, "{attempted:?}");
    why
}
