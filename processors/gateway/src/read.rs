//! Reading a request: its body, its ids, its values. What is wrong is told by field, never by value.

use crate::problem::{Kind, Problem};
use crate::shop::Shop;
use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Number;
use std::time::Duration;
use waybill_events::is_id;

/// Longest wait for a body.
const LIMIT: Duration = Duration::from_secs(10);

/// A JSON body.
pub(crate) struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Shop> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shop: &Shop) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Kind::MediaType.into());
        }
        let limit = shop.settings.body as usize;
        let too_large = || Problem::because(Kind::TooLarge, format!("a body has at most {limit} bytes"));
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let read = tokio::time::timeout(LIMIT, to_bytes(request.into_body(), limit)).await;
        let bytes = read.map_err(|_| Kind::Timeout)?.map_err(|error| {
            // The limit is an error inside the body's own.
            let mut causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
            let over = causes.any(|e| e.to_string() == "length limit exceeded");
            if over { too_large() } else { Problem::because(Kind::Malformed, "the body is not whole") }
        })?;
        parse(&bytes).map(Body)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// What is not JSON at all is told apart from JSON that does not fit, wherever in it either shows first.
/// serde's own messages repeat values, which may be secret: only the place and names of fields are told.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Problem::because(Kind::Malformed, format!("the body is not JSON: line {line}, column {column}"))
    })?;
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(bytes))
        .map_err(|error| unfit(&error.path().to_string(), &error.inner().to_string()))
}

fn unfit(path: &str, message: &str) -> Problem {
    // `missing field `x` at …`, `unknown field `x`, …`, `duplicate field `x``: the name is ours or the client's own.
    let named = |what: &str| Some(message.strip_prefix(what)?.split('`').nth(1)?.chars().take(64).collect::<String>());
    let below = |name: String| if path == "." { name } else { format!("{path}.{name}") };
    if let Some(name) = named("missing field") {
        Problem::invalid(below(name), "must be there")
    } else if named("unknown field").is_some() {
        // The path ends with the unknown field itself.
        Problem::invalid(path, "is not known here")
    } else if named("duplicate field").is_some() {
        Problem::invalid(path, "stands twice")
    } else {
        Problem::invalid(path, "is not of the right type or not one of the values allowed")
    }
}

/// A whole number. `2.0` is one too: neither JSON nor its schemas tell them apart.
#[derive(Debug)]
pub(crate) struct Whole<T>(pub T);

/// Up to here every whole number is a floating-point number of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl<'de, T: TryFrom<i64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(deserializer)?;
        let exact = |number: &f64| number.fract() == 0.0 && number.abs() < EXACT;
        let whole = number.as_i64().or_else(|| number.as_f64().filter(exact).map(|number| number as i64));
        let fits = whole.and_then(|whole| T::try_from(whole).ok());
        fits.map(Whole).ok_or_else(|| D::Error::custom("not a whole number, or too large"))
    }
}

/// For fields that are whole numbers.
pub(crate) fn whole<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(number)| number)
}

/// An id, as all of Waybill knows them.
pub(crate) fn id(field: &str, text: &str) -> Result<(), Problem> {
    check(field, is_id(text), "must be 1 to 64 characters of A-Z a-z 0-9 _ . -")
}

/// A number within bounds.
pub(crate) fn between(field: &str, value: i64, low: i64, high: i64) -> Result<(), Problem> {
    check(field, (low..=high).contains(&value), format!("must be from {low} to {high}"))
}

/// What people call something or somebody.
pub(crate) fn name(field: &str, text: &str) -> Result<(), Problem> {
    let length = text.chars().count();
    let fine = (1..=200).contains(&length) && !text.chars().any(char::is_control) && !text.trim().is_empty();
    check(field, fine, "must be 1 to 200 characters, none of them a control character")
}

/// A number of the query or the path, within bounds.
pub(crate) fn number(field: &str, text: Option<&str>, default: i64, low: i64, high: i64) -> Result<i64, Problem> {
    let Some(text) = text else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| Problem::invalid(field, format!("must be from {low} to {high}")))
}

/// Whatever else must hold.
pub(crate) fn check(field: &str, holds: bool, detail: impl Into<String>) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem::invalid(field, detail)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Thing {
        #[expect(dead_code, reason = "read by nobody")]
        inner_part: Inner,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "read by nobody")]
        count: u32,
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (text, expected) in [("2", Some(2)), ("2.0", Some(2)), ("20e1", Some(200)), ("-0.0", Some(0))] {
            assert_eq!(serde_json::from_str::<Whole<u32>>(text).ok().map(|w| w.0), expected, "{text}");
        }
        for text in ["1.5", "-1", "-1.0", "4294967296", "4294967296.0", "1e300", "\"1\"", "null"] {
            assert!(serde_json::from_str::<Whole<u32>>(text).is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Whole<i64>>("9007199254740993").unwrap().0, 9_007_199_254_740_993);
        assert!(
            serde_json::from_str::<Whole<i64>>("9007199254740993.0").is_err(),
            "nobody knows which number that was"
        );
    }

    #[test]
    fn what_is_wrong_is_told_by_field_and_never_by_value() {
        for (body, kind, field) in [
            ("{", Kind::Malformed, ""),
            ("", Kind::Malformed, ""),
            ("{} x", Kind::Malformed, ""),
            (r#"{"innerPart":{"count":1}} x"#, Kind::Malformed, ""),
            ("{}", Kind::Invalid, "innerPart"),
            (r#"{"innerPart":{}}"#, Kind::Invalid, "innerPart.count"),
            (r#"{"innerPart":{"count":"pm_secret"}}"#, Kind::Invalid, "innerPart.count"),
            (r#"{"innerPart":{"count":1,"other":2}}"#, Kind::Invalid, "innerPart.other"),
            (r#"{"innerPart":"pm_secret"}"#, Kind::Invalid, "innerPart"),
            ("[]", Kind::Invalid, "."),
        ] {
            let problem = parse::<Thing>(body.as_bytes()).unwrap_err();
            let found = problem.errors.first().map_or("", |error| error.field.as_str());
            assert_eq!((problem.kind, found), (kind, field), "{body}: {problem:?}");
            assert!(!format!("{problem:?}").contains("pm_secret"), "{problem:?}");
        }
    }
}
