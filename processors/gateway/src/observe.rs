//! The SERVER span and the duration of every request, and the bound on how many are in flight.

use crate::problem::{Kind, Problem};
use crate::shop::Shop;
use crate::{SCOPE, STAGE};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use std::time::Instant;
use waybill_spine::system_clock;
use waybill_telemetry::{Carrier, Incoming, SpanExport, SpanKind, SpanRecord, Status, Telemetry};

/// Bounds that the HTTP conventions advise, in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Characters of a path that a span keeps.
const PATH: usize = 256;

/// Where what is seen of requests goes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Observe {
    spans: SpanExport,
    baggage: Vec<String>,
    duration: Histogram<f64>,
}

/// The span of a request as far as it has come, and what came with it: what it publishes continues these.
#[derive(Clone)]
pub(crate) struct Came {
    pub span: SpanRecord,
    pub incoming: Incoming,
}

/// Headers of a request; the first value of a name counts.
struct Headers<'a>(&'a HeaderMap);

impl Carrier for Headers<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        // The journey starts here, whatever the caller says of another.
        let known = matches!(name, "traceparent" | "tracestate" | "baggage");
        self.0.get(name).filter(|_| known).and_then(|value| value.to_str().ok())
    }
}

impl Observe {
    pub(crate) fn new(telemetry: &Telemetry) -> Self {
        let duration = telemetry
            .meter(SCOPE)
            .f64_histogram("http.server.request.duration")
            .with_unit("s")
            .with_description("From the request's head to the response's")
            .with_boundaries(SECONDS.to_vec())
            .build();
        Observe { spans: telemetry.spans().clone(), baggage: telemetry.baggage().to_vec(), duration }
    }

    fn begin(&self, request: &Request) -> Seen {
        let incoming = Incoming::read(&Headers(request.headers()), &self.baggage);
        let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let method = known(request.method());
        let verb = if method == "_OTHER" { "HTTP" } else { method };
        let name = route.as_ref().map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}"));
        let scope = SCOPE.trim_start_matches("waybill.");
        let mut span = SpanRecord::new(&mut rand::rng(), STAGE, scope, "", SpanKind::Server, system_clock());
        span.name = name.into();
        let mut shared = vec![KeyValue::new("http.request.method", method), KeyValue::new("url.scheme", "http")];
        shared.extend(route.map(|route| KeyValue::new("http.route", route)));
        span.attributes = shared.clone();
        let path: String = request.uri().path().chars().take(PATH).collect();
        span.attributes.push(KeyValue::new("url.path", path));
        self.place(&mut span, &incoming);
        Seen { came: Came { span, incoming }, shared, begun: Instant::now(), status: None, observe: self.clone() }
    }

    /// The caller decides that a trace is not sampled, our own sampler whether one that is stays so.
    fn place(&self, span: &mut SpanRecord, incoming: &Incoming) {
        match &incoming.producer {
            None => self.spans.sample(span, None),
            Some(caller) => {
                *span = span.clone().under(caller);
                if caller.is_sampled() {
                    self.spans.sample(span, Some(caller));
                }
            }
        }
    }
}

fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("_OTHER")
}

/// A request in hand; ended when this is dropped, by a panic too.
struct Seen {
    came: Came,
    /// Attributes of span and metric.
    shared: Vec<KeyValue>,
    begun: Instant,
    /// None where there is no answer: the handler panicked.
    status: Option<StatusCode>,
    observe: Observe,
}

impl Drop for Seen {
    fn drop(&mut self) {
        let status = self.status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut outcome = vec![KeyValue::new("http.response.status_code", i64::from(status.as_u16()))];
        let mut span = self.came.span.clone();
        if status.is_server_error() {
            outcome.push(KeyValue::new("error.type", status.as_str().to_owned()));
            span.status = Status::Error(String::new());
        }
        span.attributes.extend(outcome.iter().cloned());
        span.end = system_clock();
        self.observe.spans.finish(vec![span]);
        let mut attributes = std::mem::take(&mut self.shared);
        attributes.extend(outcome);
        self.observe.duration.record(self.begun.elapsed().as_secs_f64(), &attributes);
    }
}

/// Around every route: a client that goes away stops nothing, since a request runs as a task of its own.
pub(crate) async fn every(State(shop): State<Shop>, mut request: Request, next: Next) -> Response {
    let mut seen = shop.observe.begin(&request);
    let Ok(permit) = shop.inflight.clone().try_acquire_owned() else {
        let response = Problem::from(Kind::Overloaded).into_response();
        seen.status = Some(response.status());
        return response;
    };
    request.extensions_mut().insert(seen.came.clone());
    let task = tokio::spawn(async move {
        let response = next.run(request).await;
        seen.status = Some(response.status());
        drop((seen, permit));
        response
    });
    task.await.unwrap_or_else(|_| Problem::from(Kind::Internal).into_response())
}
