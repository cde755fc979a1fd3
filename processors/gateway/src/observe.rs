//! The SERVER span and the duration of every request, the spans within it, and the bound on how many are in flight.

use crate::problem::{Kind, Problem};
use crate::shop::Shop;
use crate::{SCOPE, STAGE};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use opentelemetry::trace::SpanContext;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use waybill_spine::system_clock;
use waybill_telemetry::{Carrier, Incoming, SpanExport, SpanKind, SpanRecord, Status, Telemetry};

/// Bounds that the HTTP conventions advise, in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bytes of a path that a span keeps.
const PATH: usize = 256;
/// What stands after it is a secret: who has the link can end the subscription.
const SECRET: &str = "/unsubscribe/";

/// Where what is seen of requests goes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Observe {
    spans: SpanExport,
    baggage: Vec<String>,
    duration: Histogram<f64>,
}

/// The span of a request as far as it has come, and what came with it: what it publishes continues these.
pub(crate) struct Came {
    pub span: SpanRecord,
    pub incoming: Incoming,
    /// Ended spans within it; exported together with it, since every handing over may wake the exporter.
    within: Mutex<Vec<SpanRecord>>,
}

impl Came {
    /// A span that is a part of this one, or of a part of it, begun now.
    pub(crate) fn begin(&self, name: &'static str, kind: SpanKind, parent: Option<&SpanRecord>) -> SpanRecord {
        let span = SpanRecord::new(&mut rand::rng(), STAGE, SCOPE, name, kind, system_clock());
        span.under(&parent.unwrap_or(&self.span).context())
    }

    /// The same, if it will be exported: for spans that nothing carries on.
    pub(crate) fn begin_recorded(
        &self,
        name: &'static str,
        kind: SpanKind,
        parent: Option<&SpanRecord>,
    ) -> Option<SpanRecord> {
        self.span.is_sampled().then(|| self.begin(name, kind, parent))
    }

    /// Ends such a span.
    pub(crate) fn end(&self, mut span: SpanRecord) {
        if !span.is_sampled() {
            return;
        }
        span.end = system_clock();
        self.within.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }

    fn taken(&self) -> Vec<SpanRecord> {
        std::mem::take(&mut self.within.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a caller says of its trace.
static CONTEXT: [HeaderName; 3] =
    [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate"), HeaderName::from_static("baggage")];

/// Headers of a request; the first value of a name counts.
struct Headers<'a>(&'a HeaderMap);

impl Carrier for Headers<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        // The journey starts here, whatever the caller says of another.
        let known = CONTEXT.iter().find(|known| *known == name)?;
        self.0.get(known)?.to_str().ok()
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
        let route: Option<Arc<str>> = request.extensions().get::<MatchedPath>().map(|path| path.as_str().into());
        let method = known(request.method());
        let mut span = SpanRecord::new(&mut rand::rng(), STAGE, SCOPE, "", SpanKind::Server, system_clock());
        self.place(&mut span, &incoming);
        // What may change something may publish its span, recorded or not.
        let told = span.is_sampled() || !request.method().is_safe();
        if told {
            let verb = if method == "_OTHER" { "HTTP" } else { method };
            span.name = route.as_ref().map_or_else(|| verb.into(), |route| format!("{verb} {route}").into());
        }
        let mut shared = Vec::with_capacity(5);
        shared.push(KeyValue::new("http.request.method", method));
        shared.push(KeyValue::new("url.scheme", "http"));
        shared.extend(route.map(|route| KeyValue::new("http.route", route)));
        if told {
            span.attributes.reserve_exact(6);
            span.attributes.extend_from_slice(&shared);
            span.attributes.push(KeyValue::new("url.path", tellable(request.uri().path()).to_owned()));
        }
        let came = Arc::new(Came { span, incoming, within: Mutex::default() });
        Seen { came: Some(came), shared, begun: Instant::now(), status: None, observe: self.clone() }
    }

    /// The caller's decision holds for what it leads to.
    fn place(&self, span: &mut SpanRecord, incoming: &Incoming) {
        if let Some(caller) = &incoming.producer {
            *span = span.clone().under(caller);
        }
        self.spans.sample(span, incoming.producer.as_ref().map(SpanContext::is_sampled));
    }
}

fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("_OTHER")
}

/// The path as far as it is of ids: where a stranger writes anything else, it may be anything, an address for example.
fn tellable(path: &str) -> &str {
    let of_ids = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    let known = match path.find(|c| !of_ids(c)) {
        Some(end) => &path[..path[..end].rfind('/').map_or(0, |slash| slash + 1)],
        None => path,
    };
    let end = if known.starts_with(SECRET) { SECRET.len() } else { known.len() };
    &known[..end.min(PATH)]
}

/// A request in hand; ended when this is dropped, by a panic too.
struct Seen {
    /// There until this is dropped.
    came: Option<Arc<Came>>,
    /// Attributes of span and metric.
    shared: Vec<KeyValue>,
    begun: Instant,
    /// None where there is no answer: the handler panicked, or the client went away.
    status: Option<StatusCode>,
    observe: Observe,
}

impl Drop for Seen {
    fn drop(&mut self) {
        let Some(came) = self.came.take() else { return };
        let within = came.taken();
        // What goes on when the request is over still has it.
        let mut span = Arc::try_unwrap(came).map_or_else(|came| came.span.clone(), |came| came.span);
        let status = self.status.or_else(|| std::thread::panicking().then_some(StatusCode::INTERNAL_SERVER_ERROR));
        let mut attributes = std::mem::take(&mut self.shared);
        let known = attributes.len();
        match status {
            Some(status) => {
                attributes.push(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
                if status.is_server_error() {
                    attributes.push(KeyValue::new("error.type", status.as_str().to_owned()));
                    span.status = Status::Error(String::new());
                }
            }
            // The client went away.
            None => attributes.push(KeyValue::new("error.type", "canceled")),
        }
        if span.is_sampled() {
            span.attributes.extend_from_slice(&attributes[known..]);
            span.end = system_clock();
            self.observe.spans.finish(within.into_iter().chain([span]).collect());
        }
        self.observe.duration.record(self.begun.elapsed().as_secs_f64(), &attributes);
    }
}

/// Around every route. What may change something runs as a task of its own: a client that goes away stops nothing.
pub(crate) async fn every(State(shop): State<Shop>, mut request: Request, next: Next) -> Response {
    let mut seen = shop.observe.begin(&request);
    let Ok(permit) = shop.inflight.clone().try_acquire_owned() else {
        let response = Problem::from(Kind::Overloaded).into_response();
        seen.status = Some(response.status());
        return response;
    };
    let safe = request.method().is_safe();
    if let Some(came) = &seen.came {
        request.extensions_mut().insert(came.clone());
    }
    let answered = async move {
        let response = next.run(request).await;
        seen.status = Some(response.status());
        drop((seen, permit));
        response
    };
    if safe {
        return answered.await;
    }
    tokio::spawn(answered).await.unwrap_or_else(|_| Problem::from(Kind::Internal).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_path_only_ids_are_told_and_of_a_link_nothing() {
        for (path, expected) in [
            ("/api/products/p-1/availability", "/api/products/p-1/availability"),
            ("/unsubscribe/k1.42.PVuNNpugvj8nYPB5UN6ZsA", "/unsubscribe/"),
            ("/unsubscribe/k1/42", "/unsubscribe/"),
            ("/api/users/ada@example.org/email", "/api/users/"),
            ("/api/users/ada%40example.org/email", "/api/users/"),
            ("/", "/"),
            ("*", ""),
        ] {
            assert_eq!(tellable(path), expected);
        }
        assert_eq!(tellable(&format!("/{}", "x".repeat(999))).len(), PATH);
    }
}
