//! Settings that work, and what is said of those that do not.

use std::io::Write;
use std::time::Duration;
use waybill_mail::{Composer, Settings, SettingsError, Smtp};

fn settings(json: &str) -> Settings {
    serde_json::from_str(json).unwrap()
}

fn check(settings: &Settings) -> Result<(), SettingsError> {
    Composer::new(settings)?;
    Smtp::new(settings).map(drop)
}

#[test]
fn settings_have_defaults_and_unknown_keys_are_refused() {
    let settings = settings(r#"{"from":"shop@example.org"}"#);
    assert_eq!((&*settings.url, settings.connections), ("smtp://127.0.0.1:25", 4));
    assert_eq!(settings.timeout, Duration::from_secs(60));
    check(&settings).unwrap();
    assert!(serde_json::from_str::<Settings>(r#"{"secret":"x"}"#).is_err());
}

#[test]
fn the_password_may_stand_in_a_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"correct horse\n").unwrap();
    let settings = Settings {
        user: Some("shop".to_owned()),
        password_file: Some(file.path().to_owned()),
        ..settings(r#"{"from":"shop@example.org"}"#)
    };
    check(&settings).unwrap();
}

#[test]
fn without_tls_only_loopback_is_spoken_to_unless_asked_for() {
    for (url, plaintext, good) in [
        ("smtp://127.0.0.1:2525", false, true),
        ("smtp://127.9.9.9", false, true),
        ("smtp://[::1]:25", false, true),
        ("smtp://localhost", false, true),
        ("smtp://mail.example.org", false, false),
        ("smtp://127.0.0.1.example.org", false, false),
        ("smtp://10.0.0.1", false, false),
        ("smtp://mail.example.org", true, true),
        ("smtps://mail.example.org", false, true),
        ("smtp+starttls://mail.example.org:2587", false, true),
    ] {
        let settings = Settings { url: url.to_owned(), plaintext, ..settings(r#"{"from":"shop@example.org"}"#) };
        let answer = check(&settings);
        assert!(if good { answer.is_ok() } else { matches!(answer, Err(SettingsError::Plain)) }, "{url}: {answer:?}");
    }
}

#[test]
fn a_wrong_setting_is_named_and_no_secret_is_printed() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n").unwrap();
    let path = file.path().to_str().unwrap();
    let cafile = format!(r#"{{"url":"smtps://h","cafile":"{path}"}}"#);
    for (json, key) in [
        (r#"{"url":"mail.example.org"}"#, "url must be"),
        (r#"{"url":"http://mail.example.org"}"#, "url must be"),
        (r#"{"url":"smtps://"}"#, "url must be"),
        (r#"{"url":"smtps://canary@mail.example.org"}"#, "url must be"),
        (r#"{"url":"smtps://u:canary@mail.example.org"}"#, "url must be"),
        (r#"{"url":"smtps://mail.example.org?canary"}"#, "url must be"),
        (r#"{"user":"shop"}"#, "give user with"),
        (r#"{"password":"canary"}"#, "give user with"),
        (r#"{"user":"shop","password":""}"#, "give user with"),
        (r#"{"user":"shop","password":"canary","passwordfile":"/x"}"#, "give user with"),
        (r#"{"user":"shop","passwordfile":"/not/there"}"#, "passwordfile /not/there"),
        (r#"{"url":"smtps://h","cafile":"/not/there"}"#, "cafile /not/there"),
        (&cafile, "cafile"),
        (r#"{"from":"canary"}"#, "from must be"),
        (r#"{"from":""}"#, "from must be"),
        (r#"{"replyto":"canary@"}"#, "replyto must be"),
        (r#"{"timeout":"0s"}"#, "timeout must be"),
        (r#"{"connections":0}"#, "connections must be"),
    ] {
        let mut settings = settings(json);
        if !json.contains("from") {
            settings.from = "shop@example.org".to_owned();
        }
        let error = check(&settings).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(key), "{json}: {text}");
        assert!(!format!("{error:?} {text}").contains("canary"), "{json}: {error:?}");
    }
}
