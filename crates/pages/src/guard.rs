//! Who may look, and what a browser may do with a page.

use crate::serve::Pages;
use crate::templates::policy;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// The cookie of who has logged in: a hash, so that a browser keeps no token.
pub(crate) const COOKIE: &str = "waybill-pages";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Every request comes through here, whatever it asks for.
pub(crate) async fn guard(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut response = match &pages.settings().token {
        // A page elsewhere may have a name of its own lead to this machine, and then read what it finds here.
        None if !names_this_machine(request.headers(), &uri) => {
            (StatusCode::MISDIRECTED_REQUEST, "the pages are on loopback: ask for them by localhost or 127.0.0.1\n")
                .into_response()
        }
        Some(token) if !lets_in(request.headers(), token) && uri.path() != "/login" => {
            refuse(&method, request.headers())
        }
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let policy = format!("{}; form-action 'self'; frame-ancestors 'none'", policy());
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// A browser is led to the form, anybody else is told what is missing.
fn refuse(method: &Method, headers: &HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if method == Method::GET && accepts.contains("text/html") {
        return Redirect::to("/login").into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"waybill\"")];
    (StatusCode::UNAUTHORIZED, challenge, "the pages need their token\n").into_response()
}

fn names_this_machine(headers: &HeaderMap, uri: &Uri) -> bool {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(uri.authority().map(|a| a.as_str()));
    let Some(authority) = named.and_then(|host| host.parse::<axum::http::uri::Authority>().ok()) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// By `Authorization: Bearer`, or by the cookie of the form.
fn lets_in(headers: &HeaderMap, token: &SecretString) -> bool {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    bearer.is_some_and(|presented| is_token(presented, token))
        || cookies(headers).any(|(name, value)| name == COOKIE && same(value, &pass(token)))
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='))
}

/// Whether it is the token; how long the answer takes says nothing about it.
pub(crate) fn is_token(presented: &str, token: &SecretString) -> bool {
    same(&hash(presented), &hash(token.expose_secret()))
}

/// What the cookie holds.
pub(crate) fn pass(token: &SecretString) -> String {
    hash(&format!("waybill pages cookie {}", token.expose_secret()))
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_lead_to_pages_without_a_token() {
        let asked = |host: &str| {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(host).unwrap())]);
            names_this_machine(&headers, &Uri::from_static("/orders"))
        };
        for host in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.1.2.3", "[::1]:8081"] {
            assert!(asked(host), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example:8081", "localhost.evil.example", "10.0.0.7", "", "@", "0.0.0.0"]
        {
            assert!(!asked(host), "{host}");
        }
        assert!(!names_this_machine(&HeaderMap::new(), &Uri::from_static("/orders")));
    }

    #[test]
    fn the_token_or_its_cookie_lets_in_and_nothing_else() {
        let token = SecretString::from("0123456789abcdef");
        let asked = |name: HeaderName, value: String| {
            lets_in(&HeaderMap::from_iter([(name, HeaderValue::from_str(&value).unwrap())]), &token)
        };
        assert!(asked(header::AUTHORIZATION, "Bearer 0123456789abcdef".to_owned()));
        assert!(asked(header::COOKIE, format!("other=1; {COOKIE}={}", pass(&token))));
        for (name, value) in [
            (header::AUTHORIZATION, "Bearer 0123456789abcdeg".to_owned()),
            (header::AUTHORIZATION, "Bearer ".to_owned()),
            (header::AUTHORIZATION, "0123456789abcdef".to_owned()),
            (header::COOKIE, format!("{COOKIE}=0123456789abcdef")),
            (header::COOKIE, format!("{COOKIE}=")),
            (header::COOKIE, format!("other={}", pass(&token))),
        ] {
            assert!(!asked(name, value.clone()), "{value}");
        }
    }
}
