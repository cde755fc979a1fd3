//! Web push: encrypted for the browser (RFC 8291), signed for its push service (RFC 8292), sent as RFC 8030 says.

use crate::endpoints::Reach;
use crate::http::{Answered, Sending, attempted, client, exchange};
use crate::target::Subscription;
use crate::vapid::Vapid;
use crate::{Answer, Attempted, Clock, Endpoints, Fault, Settings, SettingsError, refused};
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use secrecy::ExposeSecret;

/// Where the record size stands in an encrypted message (RFC 8188, section 2.1).
const RECORD_SIZE: std::ops::Range<usize> = 16..20;

#[derive(Debug)]
pub(crate) struct WebPush {
    endpoints: Endpoints,
    guarded: Client,
    unguarded: Client,
    vapid: Vapid,
    clock: Clock,
}

impl WebPush {
    /// None where there is no key.
    pub(crate) fn new(settings: &Settings, clock: Clock) -> Result<Option<Self>, SettingsError> {
        let endpoints = Endpoints::new(settings)?;
        let Some(key) = settings.vapid()? else { return Ok(None) };
        let timeout = settings.checked_timeout()?;
        Ok(Some(WebPush {
            endpoints,
            guarded: client(Reach::Public, timeout)?,
            unguarded: client(Reach::Anywhere, timeout)?,
            vapid: Vapid::new(&key, settings.checked_subject()?, clock),
            clock,
        }))
    }

    pub(crate) async fn send(&self, subscription: &Subscription, sending: &Sending<'_>) -> Attempted {
        // Asked again, as the settings may have changed since the subscription was taken.
        let (url, reach) = match self.endpoints.admit(subscription.endpoint.expose_secret()) {
            Ok(admitted) => admitted,
            Err(error) => return refused(Fault::Target, error.to_string()),
        };
        let body = match encrypt(&sending.payload, subscription) {
            Ok(body) => body,
            Err(error) => return refused(Fault::Target, format!("cannot be encrypted: {error}")),
        };
        let authorization = match self.vapid.authorization(&url) {
            Ok(authorization) => authorization,
            Err(why) => return refused(Fault::Setup, format!("cannot be signed: {why}")),
        };
        let client = match reach {
            Reach::Public => &self.guarded,
            Reach::Anywhere => &self.unguarded,
        };
        let mut request = client
            .post(url.clone())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("TTL", sending.message.ttl_seconds())
            .header("Urgency", sending.message.urgency.as_str());
        if let Some(topic) = sending.message.hashed_topic() {
            request = request.header("Topic", topic);
        }
        let (reply, call) = exchange(request.body(body), &url, sending, self.clock).await;
        let answer = reply.answered().map_or_else(|failure| failure, |answered| answer(&answered));
        attempted(answer, call)
    }
}

/// The status is what the RFC defines; a body is each service's own.
fn answer(answered: &Answered) -> Answer {
    let Answered { status, retry_after, .. } = *answered;
    let refused = |fault, why: &str| Answer::Refused { fault, why: format!("{status}: {why}") };
    match status {
        200..=299 => Answer::Sent,
        404 | 410 => Answer::Gone,
        300..=399 => refused(Fault::Target, "a redirect, which is not followed"),
        401 | 403 => refused(Fault::Setup, "check vapidkey and subject"),
        413 => refused(Fault::Message, "the message is too large"),
        // 406 is how Windows says that it is asked too often.
        406 | 408 | 429 | 500.. => Answer::Later { why: status.to_string(), retry_after },
        _ => refused(Fault::Message, "the push service does not take the request"),
    }
}

fn encrypt(payload: &[u8], subscription: &Subscription) -> Result<Vec<u8>, web_push_native::Error> {
    let mut body = web_push_native::encrypt(payload.to_vec(), &subscription.p256dh, &subscription.auth)?;
    // Section 4 of RFC 8291 wants it greater than the only record; the crate makes it equal. No key depends on it.
    if let Some(record_size) = body.get_mut(RECORD_SIZE) {
        record_size.copy_from_slice(&4_096_u32.to_be_bytes());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::PAYLOAD_LIMIT;
    use base64ct::{Base64UrlUnpadded, Encoding};
    use p256::SecretKey;
    use p256::elliptic_curve::rand_core::OsRng;
    use p256::elliptic_curve::sec1::ToEncodedPoint;
    use proptest::prelude::{any, proptest};

    /// A browser's keys.
    fn browser(auth: [u8; 16]) -> (SecretKey, Subscription) {
        let key = SecretKey::random(&mut OsRng);
        let p256dh = Base64UrlUnpadded::encode_string(key.public_key().to_encoded_point(false).as_bytes());
        let auth = Base64UrlUnpadded::encode_string(&auth);
        (key, Subscription::new("https://fcm.googleapis.com/x", &p256dh, &auth).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_encrypted_is_read_by_the_browser_and_fits(text in ".{0,900}", auth in any::<[u8; 16]>()) {
            let (key, subscription) = browser(auth);
            let body = encrypt(text.as_bytes(), &subscription).unwrap();
            assert_eq!(body.len(), text.len() + 4_096 - PAYLOAD_LIMIT);
            assert_eq!(web_push_native::decrypt(body, &key, &subscription.auth).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn the_largest_payload_is_one_record_smaller_than_its_size_and_fills_the_limit() {
        let (key, subscription) = browser([7; 16]);
        let payload = vec![b'x'; PAYLOAD_LIMIT];
        let body = encrypt(&payload, &subscription).unwrap();
        assert_eq!(body.len(), 4_096);
        assert_eq!(body[RECORD_SIZE], [0, 0, 16, 0]);
        assert_eq!(web_push_native::decrypt(body, &key, &subscription.auth).unwrap(), payload);
    }
}
