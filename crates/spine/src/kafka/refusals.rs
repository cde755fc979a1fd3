//! Why the brokers turn this process away: what librdkafka says of it, and what to do about it.
//!
//! librdkafka goes on trying, at growing waits (`reconnect.backoff.max.ms`, 10 s), so a right that is given or a password
//! that is put right needs no new start. An error that stays the same it tells again after 30 s at the earliest.

use super::{lock, log};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One line of the log in so long a time about what goes on being wrong: librdkafka reports it many times a second.
const AGAIN: Duration = Duration::from_secs(10);
/// What was not heard again for so long is over: longer than librdkafka's silence and a wait between two tries together.
const OVER: Duration = Duration::from_secs(60);

/// What to do where a right is missing.
const RIGHTS: &str = "give it the rights that `waybill topics acls` prints";

/// What the clients of one role hear from the brokers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// Whom the brokers see.
    who: Arc<str>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    warned: Option<Instant>,
    refused: Option<Refused>,
    /// The last reason for not reaching a broker that is no refusal.
    away: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Refused {
    at: Instant,
    what: What,
    sentence: String,
}

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The connection: the user, or one of the certificates.
    Connection,
    /// What was asked for over it.
    Request,
}

impl Refusals {
    pub(super) fn new(who: String) -> Self {
        Refusals { who: who.into(), heard: Arc::default() }
    }

    /// The same client, of which nothing was heard yet.
    pub(super) fn anew(&self) -> Self {
        Refusals { who: self.who.clone(), heard: Arc::default() }
    }

    /// Why the brokers turn this client away now, with what to do about it; none where they do not.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let heard = lock(&self.heard);
        // A connection is tried again and again, a request that was refused is not told again.
        let holds = |refused: &&Refused| refused.what == What::Request || refused.at.elapsed() < OVER;
        heard.refused.as_ref().filter(holds).map(|refused| refused.sentence.clone())
    }

    /// What librdkafka said last of a broker that it does not reach.
    pub(super) fn away(&self) -> Option<String> {
        lock(&self.heard).away.as_ref().filter(|(at, _)| at.elapsed() < OVER).map(|(_, why)| why.clone())
    }

    /// Something went through.
    pub(super) fn over(&self) {
        let mut heard = lock(&self.heard);
        if heard.refused.take().is_some() {
            tracing::info!("kafka takes this client again");
        }
    }

    /// Takes in what librdkafka says; yields the sentence of a refusal.
    pub(super) fn hear(&self, code: Option<Code>, text: &str) -> Option<String> {
        let refused = self.judge(code, text);
        let mut heard = lock(&self.heard);
        match &refused {
            Some((what, sentence)) => {
                heard.refused = Some(Refused { at: Instant::now(), what: *what, sentence: sentence.clone() });
            }
            // That all are down is no reason.
            None if code == Some(Code::AllBrokersDown) => {}
            None => heard.away = Some((Instant::now(), hung_up(text))),
        }
        refused.map(|(_, sentence)| sentence)
    }

    /// The same, told in the log: each refusal, and now and then that a broker is out of reach.
    pub(super) fn warn(&self, error: &KafkaError, text: &str) {
        let (before, now) = (self.reason(), self.hear(error.rdkafka_error_code(), text));
        let mut heard = lock(&self.heard);
        let again = heard.warned.is_none_or(|warned| warned.elapsed() > AGAIN);
        match now {
            Some(reason) if again || before.as_ref() != Some(&reason) => tracing::warn!(reason, "kafka refuses"),
            None if again => tracing::warn!(reason = text, "kafka"),
            Some(_) | None => {
                tracing::debug!(%error, reason = text, "kafka");
                return;
            }
        }
        heard.warned = Some(Instant::now());
    }

    /// The sentence of a refusal, if it is one.
    pub(super) fn sentence(&self, code: Option<Code>, text: &str) -> Option<String> {
        self.judge(code, text).map(|(_, sentence)| sentence)
    }

    pub(super) fn may_not(&self, what: &str) -> String {
        format!("{} may not {what}: {RIGHTS}", self.who)
    }

    fn judge(&self, code: Option<Code>, text: &str) -> Option<(What, String)> {
        let (what, advice) = advice(code?, text)?;
        let text = text.split(" (after ").next().unwrap_or(text);
        Some((what, format!("{text} ({}): {advice}", self.who)))
    }
}

fn advice(code: Code, text: &str) -> Option<(What, &'static str)> {
    // TLS 1.3: the broker looks at the client's certificate when the handshake is already over for the client.
    if text.contains("SSL alert number") {
        let advice = "the broker does not take this client's certificate: check kafka.ssl.certificate.location and \
                      kafka.ssl.key.location, its dates, and that the brokers know its CA";
        return Some((What::Connection, advice));
    }
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed => Some((
            What::Connection,
            "check kafka.sasl.mechanism, kafka.sasl.username and kafka.sasl.password (or .passwordfile), and that the \
             cluster has this user",
        )),
        Code::SSL => Some((
            What::Connection,
            "check kafka.ssl.ca.location, the dates of the broker's certificate, that it has the name that \
             kafka.bootstrap.servers says, and that the port speaks TLS",
        )),
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            Some((What::Request, RIGHTS))
        }
        _ => None,
    }
}

/// Where the broker's word is lost because it hung up at once, what the hanging up may mean.
fn hung_up(text: &str) -> String {
    let text = text.split(" (after ").next().unwrap_or(text);
    if text.contains("ssl://") && text.contains("requesting ApiVersion") {
        return format!(
            "{text}; or it asks for a certificate and does not take the one of kafka.ssl.certificate.location"
        );
    }
    text.to_owned()
}

impl ClientContext for Refusals {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        log(facility, message);
    }

    /// A reader's: whoever asked it is told by the error.
    fn error(&self, error: KafkaError, text: &str) {
        tracing::debug!(%error, text, "kafka");
        self.hear(error.rdkafka_error_code(), text);
    }
}

impl ConsumerContext for Refusals {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals() -> Refusals {
        Refusals::new("user pick".to_owned())
    }

    #[test]
    fn a_refusal_says_who_is_refused_and_what_to_do_and_ends_when_something_goes_through() {
        let refusals = refusals();
        assert_eq!(refusals.reason(), None);
        let text = "sasl_ssl://b:1/bootstrap: SASL authentication error: no (after 12ms in state AUTH_REQ)";
        refusals.hear(Some(Code::Authentication), text);
        // What follows from it does not hide it.
        refusals.hear(Some(Code::AllBrokersDown), "1/1 brokers are down");
        refusals.hear(Some(Code::BrokerTransportFailure), "b:1: Connection refused");
        let reason = refusals.reason().unwrap_or_default();
        assert!(
            reason.starts_with("sasl_ssl://b:1/bootstrap: SASL authentication error: no (user pick): check "),
            "{reason}"
        );
        refusals.over();
        assert_eq!(refusals.reason(), None);
    }

    #[test]
    fn what_a_broker_says_of_a_certificate_is_told_from_what_the_client_says_of_the_brokers() {
        let refusals = refusals();
        let alert = "ssl://b:1/1: Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required: SSL alert number 116";
        let theirs = refusals.hear(Some(Code::BrokerTransportFailure), alert).unwrap_or_default();
        assert!(theirs.contains("kafka.ssl.certificate.location"), "{theirs}");
        let ours =
            refusals.hear(Some(Code::SSL), "SSL handshake failed: certificate verify failed").unwrap_or_default();
        assert!(ours.contains("kafka.ssl.ca.location"), "{ours}");
    }
}
