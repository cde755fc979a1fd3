//! The `Idempotency-Key` header of a checkout and of a new cart, the `Prefer` header of a checkout.

use crate::problem::{FieldError, Kind, Problem};
use axum::http::HeaderMap;

const HEADER: &str = "Idempotency-Key";

/// The key: 1 to 255 visible ASCII characters, bare or as a string of structured fields (RFC 9651).
pub(crate) fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(refused("must stand once"));
    };
    let value = value.to_str().unwrap_or_default();
    let key = match value.strip_prefix('"') {
        Some(quoted) => unquoted(quoted),
        None => Some(value.to_owned()),
    };
    let fine = |key: &String| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    key.filter(fine).ok_or_else(|| refused("must be 1 to 255 visible ASCII characters, bare or between quotes"))
}

/// The same where it may be left out.
pub(crate) fn optional_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    if headers.contains_key(HEADER) { key(headers).map(Some) } else { Ok(None) }
}

fn refused(detail: &str) -> Problem {
    let error = FieldError { field: HEADER.to_owned(), detail: detail.to_owned() };
    Problem { errors: vec![error], ..Kind::IdempotencyKey.into() }
}

/// What stands between the opening quote, which is gone, and the closing one, which ends the value.
fn unquoted(quoted: &str) -> Option<String> {
    let mut key = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(key),
            '\\' => key.push(characters.next().filter(|c| matches!(c, '"' | '\\'))?),
            other => key.push(other),
        }
    }
}

/// Whether the client asks not to be kept waiting: `Prefer: respond-async` (RFC 7240).
pub(crate) fn respond_async(headers: &HeaderMap) -> bool {
    let values = headers.get_all("Prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    preferences.any(|preference| {
        let name = preference.split([';', '=']).next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("respond-async")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_bare_or_quoted() {
        let long = "k".repeat(255);
        for (value, expected) in
            [("abc", "abc"), ("\"abc\"", "abc"), (r#""a\"b\\c""#, r#"a"b\c"#), (&long, &long), ("a;b", "a;b")]
        {
            assert_eq!(key(&headers(HEADER, &[value])).unwrap(), expected, "{value}");
        }
        let longer = "k".repeat(256);
        for value in ["", "a b", "\"", "\"abc", "\"abc\";p=1", "\"\"", "\"a b\"", "\"a\\c\"", "ä", &longer] {
            assert!(key(&headers(HEADER, &[value])).is_err(), "{value}");
        }
        assert!(key(&HeaderMap::new()).is_err());
        assert_eq!(optional_key(&HeaderMap::new()), Ok(None));
        assert!(optional_key(&headers(HEADER, &[""])).is_err());
        assert!(key(&headers(HEADER, &["a", "a"])).is_err());
    }

    #[test]
    fn respond_async_is_one_of_many_preferences() {
        for value in ["respond-async", "handling=lenient, Respond-Async", "respond-async; foo=bar, wait=10"] {
            assert!(respond_async(&headers("Prefer", &[value])), "{value}");
        }
        assert!(respond_async(&headers("Prefer", &["wait=10", "respond-async"])));
        assert!(!respond_async(&headers("Prefer", &["wait=10, respond-asynchronously"])));
    }
}
