//! What is taken for a target.

use waybill_push::{FcmToken, Subscription, TargetError, VapidKey};

const AUTH: &str = "c2l4dGVlbiBieXRlcyE_IQ";

#[test]
fn a_subscription_has_a_bounded_endpoint_a_point_and_sixteen_bytes() {
    let key = VapidKey::generate().public_key();
    let endpoint = "https://fcm.googleapis.com/x";
    let error = |endpoint: &str, p256dh: &str, auth: &str| Subscription::new(endpoint, p256dh, auth).err();
    assert_eq!(error(endpoint, &key, AUTH), None);
    assert_eq!(error(endpoint, &format!("{key}="), &format!("{AUTH}==")), None);
    for endpoint in [String::new(), "x".repeat(2_049)] {
        assert_eq!(error(&endpoint, &key, AUTH), Some(TargetError::Endpoint));
    }
    // The last: of the right length and form, and not on the curve.
    let off_the_curve = format!("{}AAAA", &key[..key.len() - 4]);
    for p256dh in ["", "no key", &key[..80], &key.repeat(100), &format!("A{}", &key[1..]), &off_the_curve] {
        assert_eq!(error(endpoint, p256dh, AUTH), Some(TargetError::P256dh), "{p256dh}");
    }
    for auth in ["", "c2hvcnQ", "c2l4dGVlbiBieXRlcyE_IQAA", &"A".repeat(10_240)] {
        assert_eq!(error(endpoint, &key, auth), Some(TargetError::Auth), "{auth}");
    }
}

#[test]
fn a_token_is_bounded_and_printable() {
    assert!(FcmToken::new("dGVzdA:APA91b-x_y").is_ok());
    for token in ["", "two words", "line\nbreak", "töken", &"x".repeat(10_240)] {
        let error = FcmToken::new(token).unwrap_err();
        assert_eq!(error, TargetError::Token);
        assert_eq!(error.to_string(), "the token is empty, longer than 4096 bytes or not printable ASCII");
    }
}
