//! Settings that work, and what is said of those that do not.

use crate::fcm::{Google, send, taken};
use crate::{VAPID, clock, message, refused, subscription, web};
use std::io::Write;
use std::time::Duration;
use waybill_push::{Fault, FcmToken, Push, Settings, Target, VapidKey};

/// The key of [`VAPID`] as openssl writes it, in both its forms, and its public half.
const SEC1: &str = "-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIOjd/n8VVip+EG99eoSaTIXjfrvT4dhcfFSImR+7ZyeNoAoGCCqGSM49
AwEHoUQDQgAE+AwhhP+fTMR1nf9C6YOsJydDHS0TFjs9R6DCblRkAh9CdNfVjTwl
CAbManUIZEusuLC8ET0hKtzrnrO7wuGsSg==
-----END EC PRIVATE KEY-----
";
const PKCS8: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg6N3+fxVWKn4Qb316
hJpMheN+u9Ph2Fx8VIiZH7tnJ42hRANCAAT4DCGE/59MxHWd/0Lpg6wnJ0MdLRMW
Oz1HoMJuVGQCH0J019WNPCUIBsxqdQhkS6y4sLwRPSEq3Oues7vC4axK
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "BPgMIYT_n0zEdZ3_QumDrCcnQx0tExY7PUegwm5UZAIfQnTX1Y08JQgGzGp1CGRLrLiwvBE9ISrc656zu8LhrEo";

#[test]
fn a_vapid_key_is_read_in_all_its_forms() {
    use secrecy::ExposeSecret;
    for text in [VAPID, &format!("{VAPID}=\n"), SEC1, PKCS8] {
        assert_eq!(VapidKey::parse(text).unwrap().public_key(), PUBLIC, "{text}");
    }
    let new = VapidKey::generate();
    let read = VapidKey::parse(new.to_pem().unwrap().expose_secret()).unwrap();
    assert_eq!(read.public_key(), new.public_key());
    assert_ne!(new.public_key(), VapidKey::generate().public_key());
    for text in ["", "secret", PUBLIC, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
        assert!(VapidKey::parse(text).is_err(), "{text}");
    }
}

#[test]
fn settings_have_defaults_and_unknown_keys_are_refused() {
    let settings: Settings = serde_json::from_str("{}").unwrap();
    assert_eq!(settings.timeout, Duration::from_secs(8));
    assert_eq!(settings.fcm_url, "https://fcm.googleapis.com");
    assert_eq!(settings.origins, Vec::<String>::new());
    assert!(serde_json::from_str::<Settings>(r#"{"vapid":"x"}"#).is_err());
}

#[test]
fn the_key_may_stand_in_a_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(PKCS8.as_bytes()).unwrap();
    let subject = Some("https://shop.example.org/contact".to_owned());
    let settings = Settings { vapid_key_file: Some(file.path().to_owned()), subject, ..Settings::default() };
    assert_eq!(settings.vapid().unwrap().unwrap().public_key(), PUBLIC);
    assert!(Push::new(&settings, clock).is_ok());
}

#[test]
fn a_wrong_setting_is_named() {
    let web = |more: &str| format!(r#"{{"vapidkey":"{VAPID}","subject":"mailto:a@example.org"{more}}}"#);
    for (json, key) in [
        ("{}".to_owned(), "give vapidkey"),
        (r#"{"vapidkey":"nonsense"}"#.to_owned(), "vapidkey or"),
        (r#"{"vapidkeyfile":"/not/there"}"#.to_owned(), "vapidkeyfile /not/there"),
        (format!(r#"{{"vapidkey":"{VAPID}"}}"#), "subject must be"),
        (format!(r#"{{"vapidkey":"{VAPID}","subject":"shop"}}"#), "subject must be"),
        (format!(r#"{{"vapidkey":"{VAPID}","subject":"mailto:a\nb@c"}}"#), "subject must be"),
        (web(r#","vapidkeyfile":"/x""#), "either vapidkey"),
        (web(r#","hosts":["*"]"#), "hosts: *"),
        (web(r#","hosts":["*.*.org"]"#), "hosts: *.*.org"),
        (web(r#","hosts":["Example.org"]"#), "hosts: Example.org"),
        (web(r#","hosts":["https://example.org"]"#), "hosts: https"),
        (web(r#","hosts":["example.org:443"]"#), "hosts: example.org:443"),
        (web(r#","hosts":["10.0.0.1"]"#), "hosts: 10.0.0.1"),
        (web(r#","hosts":[""]"#), "hosts: "),
        (web(r#","origins":["127.0.0.1:8090"]"#), "origins: 127"),
        (web(r#","origins":["ftp://example.org"]"#), "origins: ftp"),
        (web(r#","origins":["https://example.org/path"]"#), "origins: https"),
        (web(r#","origins":["https://user@example.org"]"#), "origins: https"),
        (web(r#","timeout":"0s""#), "timeout must be"),
        (r#"{"fcmkeyfile":"/not/there"}"#.to_owned(), "fcmkeyfile /not/there"),
        (r#"{"fcmkeyfile":"/dev/null"}"#.to_owned(), "fcmkeyfile is not"),
    ] {
        let settings: Settings = serde_json::from_str(&json).unwrap();
        let error = Push::new(&settings, clock).unwrap_err().to_string();
        assert!(error.contains(key), "{json}: {error}");
    }
}

#[tokio::test]
async fn a_wrong_setting_of_fcm_is_named() {
    let google = Google::granting().await;
    for (settings, key) in [
        (Settings { fcm_url: "fcm".to_owned(), ..google.settings() }, "fcmurl must be"),
        (Settings { fcm_url: "http://fcm.googleapis.com".to_owned(), ..google.settings() }, "fcmurl must be"),
        (Settings { fcm_url: "https://fcm.googleapis.com?x".to_owned(), ..google.settings() }, "fcmurl must be"),
        (Settings { fcm_project: Some("a/b".to_owned()), ..google.settings() }, "fcmproject is"),
        (Settings { timeout: Duration::ZERO, ..google.settings() }, "timeout must be"),
    ] {
        let error = Push::new(&settings, clock).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[tokio::test]
async fn a_way_that_is_not_set_up_is_said_to_be_so() {
    let google = Google::granting().await.answering(taken()).await;
    let without_web = google.push().send(&subscription("https://fcm.googleapis.com/x"), &message()).await;
    assert_eq!(refused(&without_web, Fault::Setup), "web push is not set up: see push.vapidkey");
    let token = Target::Fcm(FcmToken::new("device-1").unwrap());
    let without_fcm = web("https://push.example.org").send(&token, &message()).await;
    assert_eq!(refused(&without_fcm, Fault::Setup), "FCM is not set up: see push.fcmkeyfile");
    // The project of the settings stands before that of the file.
    let other = Settings { fcm_project: Some("shop-2".to_owned()), ..google.settings() };
    let attempted = send(&Push::new(&other, clock).unwrap(), &message()).await;
    assert!(refused(&attempted, Fault::Setup).starts_with("404"), "{attempted:?}");
}
