//! What goes wrong, as clients are told: problem documents (RFC 9457). Never the text of an internal error.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use waybill_events::Rejection;
use waybill_store::StoreError;

/// The media type of a problem document.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// What kind of problem; each has a `type` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Malformed,
    IdempotencyKey,
    NotFound,
    MethodNotAllowed,
    Timeout,
    InProgress,
    CartFull,
    MixedCurrencies,
    NoContact,
    OrderPending,
    OrderShipped,
    OrderCancelled,
    OrderRejected,
    TooLarge,
    MediaType,
    Invalid,
    KeyReused,
    TooMany,
    Internal,
    Overloaded,
    Unavailable,
    Rejected(Rejection),
}

impl Kind {
    /// Name in the type's URI, status, title.
    fn words(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Kind::Malformed => ("malformed", S::BAD_REQUEST, "The request cannot be read"),
            Kind::IdempotencyKey => ("idempotency_key", S::BAD_REQUEST, "A valid Idempotency-Key header is required"),
            Kind::NotFound => ("not_found", S::NOT_FOUND, "There is no such thing"),
            Kind::MethodNotAllowed => {
                ("method_not_allowed", S::METHOD_NOT_ALLOWED, "The resource does not have this method")
            }
            Kind::Timeout => ("timeout", S::REQUEST_TIMEOUT, "The body did not come in time"),
            Kind::InProgress => ("in_progress", S::CONFLICT, "The first request with this key is still being answered"),
            Kind::CartFull => ("cart_full", S::CONFLICT, "The cart does not hold that much"),
            Kind::MixedCurrencies => ("mixed_currencies", S::CONFLICT, "A cart has one currency"),
            Kind::NoContact => ("no_contact", S::CONFLICT, "There is no address of the user for this channel"),
            Kind::OrderPending => ("order_pending", S::CONFLICT, "The checkout of the order has not ended yet"),
            Kind::OrderShipped => ("order_shipped", S::CONFLICT, "The order is with its carrier already"),
            Kind::OrderCancelled => ("order_cancelled", S::CONFLICT, "The order is cancelled already"),
            Kind::OrderRejected => ("order_rejected", S::CONFLICT, "The checkout was rejected: there is no order"),
            Kind::TooLarge => ("too_large", S::PAYLOAD_TOO_LARGE, "The body is too large"),
            Kind::MediaType => ("media_type", S::UNSUPPORTED_MEDIA_TYPE, "The body must be application/json"),
            Kind::Invalid => ("invalid", S::UNPROCESSABLE_ENTITY, "Some values are not valid"),
            Kind::KeyReused => {
                ("key_reused", S::UNPROCESSABLE_ENTITY, "The Idempotency-Key was used for another request")
            }
            Kind::TooMany => ("too_many_requests", S::TOO_MANY_REQUESTS, "Too many requests of this user"),
            Kind::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "Something went wrong here"),
            Kind::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, "Too many requests at once"),
            Kind::Unavailable => ("unavailable", S::SERVICE_UNAVAILABLE, "The shop cannot take requests just now"),
            Kind::Rejected(reason) => rejected(reason),
        }
    }
}

fn rejected(reason: Rejection) -> (&'static str, StatusCode, &'static str) {
    use StatusCode as S;
    match reason {
        Rejection::NoSuchCart => {
            ("no_such_cart", S::UNPROCESSABLE_ENTITY, "The cart is not there, is empty, or is another customer's")
        }
        Rejection::StalePrices => {
            ("stale_prices", S::CONFLICT, "Prices have changed since the goods were put in the cart")
        }
        Rejection::InsufficientStock => {
            ("insufficient_stock", S::CONFLICT, "Fewer pieces are available than asked for")
        }
        Rejection::Declined => ("declined", S::PAYMENT_REQUIRED, "The payment was declined"),
        // The key keeps its answer: a new try needs a new key.
        Rejection::PaymentUnavailable => (
            "payment_unavailable",
            S::SERVICE_UNAVAILABLE,
            "The payment provider could not be reached; nothing was charged",
        ),
        Rejection::ReservationLapsed => {
            ("reservation_lapsed", S::CONFLICT, "The goods were gone before the payment came; nothing was charged")
        }
        Rejection::Aborted => ("aborted", S::CONFLICT, "The checkout was ended by the shop; nothing was charged"),
    }
}

/// A value that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Where it stands: a field of the body (`price.amount`), a parameter or a header.
    pub field: String,
    /// What it must be.
    pub detail: String,
}

/// A problem, on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub kind: Kind,
    pub detail: Option<String>,
    pub errors: Vec<FieldError>,
    /// The products it is about.
    pub products: Vec<String>,
    /// The order it is about, or that was to be.
    pub order_id: Option<String>,
    /// Seconds after which another try may help.
    pub retry_after: Option<u64>,
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        let retry_after = match kind {
            Kind::InProgress | Kind::OrderPending | Kind::Overloaded | Kind::TooMany => Some(1),
            Kind::Unavailable => Some(5),
            _ => None,
        };
        Problem { kind, detail: None, errors: Vec::new(), products: Vec::new(), order_id: None, retry_after }
    }
}

impl Problem {
    /// With a sentence about this occurrence.
    pub(crate) fn because(kind: Kind, detail: impl Into<String>) -> Self {
        Problem { detail: Some(detail.into()), ..kind.into() }
    }

    /// One value that is not valid.
    pub(crate) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let error = FieldError { field: field.into(), detail: detail.into() };
        Problem { errors: vec![error], ..Kind::Invalid.into() }
    }

    /// Ours: told to whoever reads the log.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = told(error), "request failed");
        Kind::Internal.into()
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.kind.words().1
    }

    pub(crate) fn body(&self) -> ProblemDocument<'_> {
        let (name, status, title) = self.kind.words();
        ProblemDocument {
            kind: format!("urn:waybill:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: self.detail.as_deref(),
            errors: &self.errors,
            products: &self.products,
            order_id: self.order_id.as_deref(),
        }
    }
}

/// The error and its causes, in `Display` only: the `Debug` of a database error has row values in it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(_) => Problem::internal(&error),
            // Somebody else was first: the same request finds that out.
            StoreError::Conflict => Kind::Overloaded.into(),
            StoreError::Url
            | StoreError::Parameter(_)
            | StoreError::File(..)
            | StoreError::InUse
            | StoreError::Migrate(_)
            | StoreError::Denied(_)
            | StoreError::Away(_) => {
                tracing::warn!(error = told(&error), "database");
                Kind::Unavailable.into()
            }
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        Problem::because(Kind::Malformed, "the path cannot be read")
    }
}

impl From<QueryRejection> for Problem {
    fn from(_: QueryRejection) -> Self {
        Problem::because(Kind::Malformed, "the query cannot be read")
    }
}

/// A problem document, RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProblemDocument<'a> {
    /// `urn:waybill:problem:<name>`.
    #[serde(rename = "type")]
    #[schema(pattern = "^urn:waybill:problem:[a-z_]+$")]
    kind: String,
    /// What is wrong, the same for all problems of this type.
    title: &'a str,
    /// The status of the response.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
    /// Values that are not valid.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// The products it is about.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    products: &'a [String],
    /// The order that was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    order_id: Option<&'a str>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Text and numbers alone: serialising cannot fail.
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let mut response = (self.status(), [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
