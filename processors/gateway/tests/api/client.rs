//! An HTTP client that holds every answer against the OpenAPI document.

use crate::document::{Documented, documented};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::SocketAddr;

/// A client of one gateway.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    hyper: Hyper<HttpConnector, Full<axum::body::Bytes>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: axum::http::HeaderMap,
    pub body: Value,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The last part of a problem's type.
    pub fn problem(&self) -> &str {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.body["status"], self.status, "{self:?}");
        self.body["type"].as_str().unwrap().strip_prefix("urn:waybill:problem:").unwrap()
    }

    /// The field of the first value that is not valid.
    pub fn field(&self) -> &str {
        self.body["errors"][0]["field"].as_str().unwrap_or_default()
    }

    pub fn text<'a>(&'a self, field: &str) -> &'a str {
        self.body[field].as_str().unwrap_or_else(|| panic!("no {field} in {self:?}"))
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Client { address, hyper: Hyper::builder(TokioExecutor::new()).build_http() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, &[], &body.to_string()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[], &body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], "").await
    }

    /// A checkout with this key.
    pub async fn check_out(&self, key: &str, body: &Value, headers: &[(&str, &str)]) -> Reply {
        let headers: Vec<_> = [("idempotency-key", key)].into_iter().chain(headers.iter().copied()).collect();
        self.send("POST", "/api/checkout", &headers, &body.to_string()).await
    }

    /// JSON is what it says it sends, unless `headers` say otherwise.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = axum::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if !body.is_empty() && headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let answer = self.hyper.request(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let page = parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        let body = match body.is_empty() {
            true => Value::Null,
            false if page => String::from_utf8(body.to_vec()).unwrap().into(),
            false => serde_json::from_slice(&body).unwrap(),
        };
        let reply = Reply { status: parts.status.as_u16(), headers: parts.headers, body };
        let Documented { response, schema } = documented(method, path, reply.status);
        if let Some(schema) = schema {
            let errors: Vec<String> = schema.iter_errors(&reply.body).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{method} {path}: {errors:?} in {reply:?}");
        }
        if let Some(kinds) = response["content"].as_object() {
            let kind = reply.header("content-type").unwrap().split(';').next().unwrap();
            assert!(kinds.contains_key(kind), "{method} {path}: {reply:?}");
        }
        for name in ["location", "retry-after", "preference-applied"] {
            let known = response["headers"].get(name).is_some() || response.is_null();
            assert!(reply.header(name).is_none() || known, "{method} {path}: {name} is not documented in {reply:?}");
        }
        reply
    }
}
