//! The routes, and the OpenAPI document that is made from them.

use crate::problem::{Kind, PROBLEM_JSON, Problem, ProblemDocument};
use crate::shop::{MoneySchema, PriceSchema, Shop};
use crate::{availability, carts, checkout, contacts, demand, observe, orders, products, subscriptions, unsubscribe};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use std::sync::LazyLock;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    Response as Documented, ResponseBuilder, Type,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The document, as it is served. It is of text, numbers and lists: serialising cannot fail.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| serde_json::to_string(&openapi()).unwrap_or_default());

/// All routes with what stands around them.
pub(crate) fn router(shop: Shop) -> Router {
    described()
        .0
        .fallback(async || Problem::from(Kind::NotFound))
        .method_not_allowed_fallback(async || Problem::from(Kind::MethodNotAllowed))
        .layer(middleware::from_fn_with_state(shop.clone(), observe::every))
        .with_state(shop)
}

/// The OpenAPI 3.1 document of the HTTP API, also served at `/api/openapi.json`.
#[must_use]
pub fn openapi() -> OpenApi {
    described().1
}

fn described() -> (Router<Shop>, OpenApi) {
    let info = InfoBuilder::new()
        .title("Waybill gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("The HTTP front of the shop: products and what is available of them, carts, checkout, orders, and who waits for what is sold out."));
    let (router, mut document) = OpenApiRouter::with_openapi(OpenApiBuilder::new().info(info).build())
        .routes(routes!(products::list))
        .routes(routes!(products::get, products::put))
        .routes(routes!(carts::post))
        .routes(routes!(carts::get))
        .routes(routes!(carts::put_line, carts::delete_line))
        .routes(routes!(checkout::post))
        .routes(routes!(orders::get, orders::delete))
        .routes(routes!(availability::get))
        .routes(routes!(availability::list))
        .routes(routes!(contacts::put_email, contacts::delete_email))
        .routes(routes!(contacts::post_target))
        .routes(routes!(contacts::delete_target))
        .routes(routes!(subscriptions::post))
        .routes(routes!(subscriptions::delete))
        .routes(routes!(demand::get))
        .routes(routes!(unsubscribe::get, unsubscribe::post))
        .routes(routes!(document))
        .split_for_parts();
    let components = document.components.get_or_insert_default();
    let mut schemas = vec![(MoneySchema::name().into_owned(), MoneySchema::schema())];
    schemas.push((PriceSchema::name().into_owned(), PriceSchema::schema()));
    schemas.push((ProblemDocument::name().into_owned(), ProblemDocument::schema()));
    ProblemDocument::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for item in document.paths.paths.values_mut() {
        operations(item).for_each(complete);
    }
    (router, document)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, .. } = item;
    [get, put, post, delete].into_iter().flatten()
}

/// Adds the problems that the operation shares with others, and says what a problem looks like.
fn complete(operation: &mut Operation) {
    let mut shared = vec![
        ("500", "Something went wrong here"),
        ("503", "Not just now: `overloaded`, `unavailable`, or, of a checkout, `payment_unavailable`"),
    ];
    if operation.parameters.is_some() {
        shared.push(("400", "The request cannot be read"));
        shared.push(("422", "Some values are not valid"));
    }
    if operation.request_body.is_some() {
        shared.extend([
            ("400", "`malformed` JSON, or an `idempotency_key` that is not valid, or missing from a checkout"),
            ("408", "The body did not come in time"),
            ("413", "The body is too large"),
            ("415", "The body is not application/json"),
            ("422", "Values that are `invalid`, `key_reused`, or, of a checkout, `no_such_cart`"),
        ]);
    }
    let responses = &mut operation.responses.responses;
    for (status, description) in shared {
        let response = ResponseBuilder::new().description(description).build();
        responses.insert(status.to_owned(), RefOr::T(response));
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response
            && status.as_str() >= "400"
            // A page for people stays one.
            && response.content.is_empty()
        {
            problem(status, response);
        }
    }
}

fn problem(status: &str, response: &mut Documented) {
    let schema = Ref::from_schema_name(ProblemDocument::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(content));
    if matches!(status, "429" | "503" | "409") {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).build();
        let header = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds after which to try again"));
        response.headers.insert("retry-after".to_owned(), RefOr::T(header.build()));
    }
}

/// This document.
#[utoipa::path(get, operation_id = "getOpenapi", path = "/api/openapi.json",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object)))]
async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}
