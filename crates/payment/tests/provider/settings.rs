//! Settings that work, and what is said of those that do not.

use std::io::Write;
use std::time::Duration;
use waybill_payment::{Settings, Stripe};

fn settings(json: &str) -> Settings {
    serde_json::from_str(json).unwrap()
}

#[test]
fn settings_have_defaults_and_unknown_keys_are_refused() {
    let settings = settings(r#"{"key":"sk_test_1"}"#);
    assert_eq!(settings.base_url, "https://api.stripe.com");
    assert_eq!(settings.timeout, Duration::from_secs(8));
    assert!(Stripe::new(&settings).is_ok());
    let short: Settings = serde_json::from_str(r#"{"key":"sk_test_1","timeout":"1s 500ms"}"#).unwrap();
    assert_eq!(short.timeout, Duration::from_millis(1500));
    assert!(serde_json::from_str::<Settings>(r#"{"secret":"sk_test_1"}"#).is_err());
}

#[test]
fn the_key_may_stand_in_a_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"sk_test_1\n").unwrap();
    let from_file = Settings { secret_key_file: Some(file.path().to_owned()), ..Settings::default() };
    assert!(Stripe::new(&from_file).is_ok());
}

#[test]
fn a_wrong_setting_is_named() {
    for (json, key) in [
        (r#"{}"#, "either key or keyfile"),
        (r#"{"key":"sk_test_1","keyfile":"/x"}"#, "either key or keyfile"),
        (r#"{"keyfile":"/not/there"}"#, "keyfile /not/there"),
        (r#"{"key":""}"#, "key is empty"),
        (r#"{"key":"sk test"}"#, "key is empty"),
        (r#"{"key":"sk_test_1","url":"api.stripe.com"}"#, "url must be"),
        (r#"{"key":"sk_test_1","url":"ftp://api.stripe.com"}"#, "url must be"),
        (r#"{"key":"sk_test_1","url":"https://me:secret@api.stripe.com"}"#, "url must be"),
        (r#"{"key":"sk_test_1","url":"https://api.stripe.com?key=1"}"#, "url must be"),
        (r#"{"key":"sk_live_1","url":"http://127.0.0.1:1"}"#, "https only"),
        (r#"{"key":"sk_test_1","timeout":"0s"}"#, "timeout must be"),
    ] {
        let error = Stripe::new(&settings(json)).unwrap_err().to_string();
        assert!(error.contains(key), "{json}: {error}");
    }
}
