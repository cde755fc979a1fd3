//! Links that end a subscription, signed: who has the mail can end it, and nobody can make up another's.
//!
//! A token is `key.subscription.signature`: HMAC-SHA256 over purpose, key id and subscription, cut to 128 bits. It does not
//! expire, since mail clients offer the link (RFC 8058) for as long as they keep the mail. To change the secret, put a new key
//! first and leave the old ones in place: the first signs, all verify.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::path::PathBuf;
use url::Url;

/// Says what a signature is for, so that one made for anything else under the same key is worth nothing here.
const PURPOSE: &[u8] = b"waybill unsubscribe 1\0";
/// Half of the hash, as RFC 2104 allows.
const SIGNATURE: usize = 16;
/// Shorter ones are guessed.
const SHORTEST_SECRET: usize = 32;

/// Where the links lead and what signs them. A settings key is one word, as it stands in a variable's name.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `url`: what stands before the token, for example `https://shop.example/unsubscribe`.
    pub url: String,
    /// `keys`: `id:secret`, several with commas between them, the signing one first. Either this or the file.
    #[serde(skip_serializing)]
    pub keys: Option<SecretString>,
    /// `keysfile`: a file that holds the keys, one a line.
    #[serde(rename = "keysfile")]
    pub keys_file: Option<PathBuf>,
}

/// A setting that does not work; it names the settings key.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// RFC 8058 asks for https.
    #[error("url must be an https address without user, query or fragment (http on loopback, to try it)")]
    Url,
    /// Neither of the two, or both.
    #[error("give either keys or keysfile")]
    Keys,
    /// The file is not there.
    #[error("cannot read keysfile {}", .0.display())]
    KeysFile(PathBuf, #[source] std::io::Error),
    /// The key with this number, counted from 1, is not one.
    #[error(
        "key {0} of keys is not `id:secret` with an id of letters and digits, given once, and a secret of {SHORTEST_SECRET} characters or more"
    )]
    Key(usize),
}

/// What a token cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// An id goes into the link as it is.
    #[error("a subscription's id has 1 to 128 letters, digits, - and _")]
    Subscription,
    /// Not a token, or changed, or signed by a key that is no longer here. Which, nobody outside is told.
    #[error("the unsubscribe link is not valid")]
    Invalid,
}

struct Key {
    id: String,
    mac: Hmac<Sha256>,
}

/// Signs and verifies.
pub struct Unsubscribe {
    url: Url,
    signing: Key,
    older: Vec<Key>,
}

impl Unsubscribe {
    /// Reads the keys.
    ///
    /// # Errors
    /// A setting does not work.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let url = check_url(&settings.url)?;
        let text = match (&settings.keys, &settings.keys_file) {
            (Some(keys), None) => keys.clone(),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(|e| SettingsError::KeysFile(path.clone(), e))?;
                SecretString::from(text)
            }
            (None, None) | (Some(_), Some(_)) => return Err(SettingsError::Keys),
        };
        let mut keys: Vec<Key> = Vec::new();
        let words = text.expose_secret().split([',', '\n']).map(str::trim).filter(|word| !word.is_empty());
        for (number, word) in (1..).zip(words) {
            let key = Key::parse(word).filter(|key| keys.iter().all(|other| other.id != key.id));
            keys.push(key.ok_or(SettingsError::Key(number))?);
        }
        let mut keys = keys.into_iter();
        let signing = keys.next().ok_or(SettingsError::Keys)?;
        Ok(Unsubscribe { url, signing, older: keys.collect() })
    }

    /// The link for a subscription, for `List-Unsubscribe` and the text of the mail.
    ///
    /// # Errors
    /// The id cannot stand in a link.
    pub fn link(&self, subscription: &str) -> Result<Url, TokenError> {
        let token = self.sign(subscription)?;
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{token}", self.url.path().trim_end_matches('/')));
        Ok(url)
    }

    /// The token for a subscription; safe in a URL's path.
    ///
    /// # Errors
    /// The id cannot stand in a link.
    pub fn sign(&self, subscription: &str) -> Result<String, TokenError> {
        if !crate::is_id(subscription) {
            return Err(TokenError::Subscription);
        }
        let signature = self.signing.over(subscription).finalize().into_bytes();
        let signature = URL_SAFE_NO_PAD.encode(&signature[..SIGNATURE]);
        Ok(format!("{}.{subscription}.{signature}", self.signing.id))
    }

    /// The subscription that a token ends. Signatures are compared in constant time.
    ///
    /// # Errors
    /// It was not signed here.
    pub fn verify<'a>(&self, token: &'a str) -> Result<&'a str, TokenError> {
        let mut parts = token.splitn(3, '.');
        let (Some(key), Some(subscription), Some(signature)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Invalid);
        };
        let key = std::iter::once(&self.signing).chain(&self.older).find(|known| known.id == key);
        let key = key.filter(|_| crate::is_id(subscription)).ok_or(TokenError::Invalid)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Invalid)?;
        // The crate takes any length from one byte on.
        if signature.len() != SIGNATURE {
            return Err(TokenError::Invalid);
        }
        key.over(subscription).verify_truncated_left(&signature).map_err(|_| TokenError::Invalid)?;
        Ok(subscription)
    }
}

impl fmt::Debug for Unsubscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsubscribe").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl Key {
    fn parse(text: &str) -> Option<Key> {
        let (id, secret) = text.split_once(':')?;
        let plain = !id.is_empty() && id.len() <= 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !plain || secret.len() < SHORTEST_SECRET {
            return None;
        }
        let mac = Hmac::new_from_slice(secret.as_bytes()).ok()?;
        Some(Key { id: id.to_owned(), mac })
    }

    /// No two pairs of key id and subscription give the same bytes: neither holds a dot.
    fn over(&self, subscription: &str) -> Hmac<Sha256> {
        let mac = self.mac.clone();
        mac.chain_update(PURPOSE).chain_update(&self.id).chain_update(".").chain_update(subscription)
    }
}

fn check_url(text: &str) -> Result<Url, SettingsError> {
    let url = Url::parse(text).map_err(|_| SettingsError::Url)?;
    let bare = url.username().is_empty() && url.password().is_none();
    let whole = url.query().is_none() && url.fragment().is_none();
    let safe =
        url.scheme() == "https" || url.scheme() == "http" && url.host_str().is_some_and(crate::settings::is_loopback);
    if bare && whole && safe { Ok(url) } else { Err(SettingsError::Url) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = "k1:0123456789abcdef0123456789abcdef";
    const NEW: &str = "k2:fedcba9876543210fedcba9876543210";

    fn with(keys: &str) -> Result<Unsubscribe, SettingsError> {
        let url = "https://shop.example/unsubscribe/".to_owned();
        Unsubscribe::new(&Settings { url, keys: Some(keys.into()), keys_file: None })
    }

    #[test]
    fn a_token_names_its_subscription_and_fits_into_a_link() {
        let unsubscribe = with(OLD).unwrap();
        let link = unsubscribe.link("s-42").unwrap();
        let token = link.as_str().strip_prefix("https://shop.example/unsubscribe/").unwrap();
        assert_eq!(unsubscribe.verify(token), Ok("s-42"));
        assert_eq!(token, unsubscribe.sign("s-42").unwrap(), "the same each time");
        assert!(token.len() < 40, "{token}");
        for id in ["", "a.b", "a/b", "a b", "ä", &"a".repeat(129)] {
            assert_eq!(unsubscribe.sign(id), Err(TokenError::Subscription));
        }
    }

    #[test]
    fn the_token_is_what_it_was_in_mails_sent_long_ago() {
        // By `printf 'waybill unsubscribe 1\0k1.s-42' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef`.
        assert_eq!(with(OLD).unwrap().sign("s-42").unwrap(), "k1.s-42.PVuNNpugvj8nYPB5UN6ZsA");
    }

    #[test]
    fn a_changed_token_is_invalid() {
        let unsubscribe = with(&format!("{NEW},{OLD}")).unwrap();
        let token = unsubscribe.sign("s-42").unwrap();
        let (head, signature) = token.rsplit_once('.').unwrap();
        for (place, letter) in token.char_indices() {
            for other in ["A", "b", ".", "-", "=", "é", ""] {
                let mut changed = token.clone();
                changed.replace_range(place..place + letter.len_utf8(), other);
                assert!(changed == token || unsubscribe.verify(&changed) == Err(TokenError::Invalid), "{changed}");
            }
        }
        for cut in 0..signature.len() {
            assert_eq!(unsubscribe.verify(&format!("{head}.{}", &signature[..cut])), Err(TokenError::Invalid));
        }
        for other in
            [format!("k2.s-43.{signature}"), format!("k1.s-42.{signature}"), format!("{token}A"), head.to_owned()]
        {
            assert_eq!(unsubscribe.verify(&other), Err(TokenError::Invalid), "{other}");
        }
    }

    #[test]
    fn keys_rotate() {
        let (old, both, new) = (with(OLD).unwrap(), with(&format!("{NEW}, {OLD}")).unwrap(), with(NEW).unwrap());
        let (before, after) = (old.sign("s-1").unwrap(), both.sign("s-1").unwrap());
        assert_eq!((both.verify(&before), both.verify(&after)), (Ok("s-1"), Ok("s-1")));
        assert_eq!((new.verify(&after), new.verify(&before)), (Ok("s-1"), Err(TokenError::Invalid)));
        assert_eq!(old.verify(&after), Err(TokenError::Invalid));
        // A key's id does not make another secret good.
        let impostor = with("k1:another-secret-of-thirty-two-letters").unwrap();
        assert_eq!(impostor.verify(&before), Err(TokenError::Invalid));
    }

    #[test]
    fn a_wrong_setting_is_named_and_no_secret_is_printed() {
        for (keys, named) in [
            ("", "either keys or keysfile"),
            ("k1:short", "key 1 of keys"),
            ("no-colon-in-this-key-of-many-letters", "key 1"),
            (&format!("{OLD},{OLD}"), "key 2 of keys"),
            ("k.1:0123456789abcdef0123456789abcdef", "key 1"),
        ] {
            let error = with(keys).unwrap_err().to_string();
            assert!(error.contains(named), "{keys}: {error}");
        }
        for url in
            ["", "http://shop.example/u", "https://u:p@shop.example", "https://shop.example/?a=1", "ftp://shop.example"]
        {
            let settings = Settings { url: url.to_owned(), keys: Some(OLD.into()), keys_file: None };
            assert!(matches!(Unsubscribe::new(&settings), Err(SettingsError::Url)), "{url}");
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, format!("{NEW}\n{OLD}\n").as_bytes()).unwrap();
        let url = "http://127.0.0.1:8080/unsubscribe".to_owned();
        let settings = Settings { url, keys: None, keys_file: Some(file.path().to_owned()) };
        let unsubscribe = Unsubscribe::new(&settings).unwrap();
        assert!(unsubscribe.sign("s").unwrap().starts_with("k2."));
        assert!(!format!("{settings:?} {unsubscribe:?} {:?}", with(OLD)).contains("0123"));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            prop_assert_eq!(with(OLD).unwrap().verify(&text), Err(TokenError::Invalid));
        }

        #[test]
        fn every_id_comes_back(id in "[A-Za-z0-9_-]{1,128}") {
            let unsubscribe = with(OLD).unwrap();
            let token = unsubscribe.sign(&id).unwrap();
            prop_assert_eq!(unsubscribe.verify(&token), Ok(id.as_str()));
        }
    }
}
