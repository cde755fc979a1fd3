//! The links of mails that end a subscription (RFC 8058): POST acts, be it a mail program's one click or the button of the
//! page that GET shows. GET changes nothing, since whatever looks into mails follows links.
//!
//! The token is a secret: it is in no span and no log.

use crate::problem::Problem;
use crate::shop::{PathOf, Shop};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use waybill_notifications::subscriptions;

/// Nothing is loaded, nothing kept, and where the page was is not told on.
const HEADERS: [(header::HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
];

/// Asks whether a subscription is to end.
#[utoipa::path(get, operation_id = "showUnsubscribe", path = "/unsubscribe/{token}",
    params(("token" = String, Path, description = "From the link of a mail")),
    responses(
        (status = 200, description = "A page with a button, or without one where nobody waits any more", body = String, content_type = "text/html"),
        (status = 404, description = "The link is none of this shop's", body = String, content_type = "text/html"),
    ))]
pub(crate) async fn get(State(shop): State<Shop>, PathOf(token): PathOf<String>) -> Result<Response, Problem> {
    let Some(subscription) = subscription(&shop, &token) else { return Ok(unknown()) };
    let found = shop.database.run(|mut store| async move {
        let mut tx = store.begin().await?;
        let product = subscriptions::product_of(&mut tx, subscription).await?;
        tx.commit().await?;
        Ok(product)
    });
    Ok(match found.await? {
        Some(product) => {
            let asked = format!(
                "<p>We were to tell you when <strong>{}</strong> is back in stock.</p>\
                 <form method=\"post\"><button>Do not tell me</button></form>",
                escaped(&product)
            );
            page(StatusCode::OK, "Unsubscribe", &asked)
        }
        None => ended(),
    })
}

/// Ends a subscription; again, it has ended already.
///
/// A mail program sends `List-Unsubscribe=One-Click`; the body is not looked at.
#[utoipa::path(post, operation_id = "unsubscribeByLink", path = "/unsubscribe/{token}",
    params(("token" = String, Path, description = "From the link of a mail")),
    responses(
        (status = 200, description = "The subscription has ended", body = String, content_type = "text/html"),
        (status = 404, description = "The link is none of this shop's", body = String, content_type = "text/html"),
    ))]
pub(crate) async fn post(State(shop): State<Shop>, PathOf(token): PathOf<String>) -> Result<Response, Problem> {
    let Some(subscription) = subscription(&shop, &token) else { return Ok(unknown()) };
    let done = shop.database.run(|mut store| async move {
        let mut tx = store.begin().await?;
        subscriptions::end_by_id(&mut tx, subscription).await?;
        tx.commit().await
    });
    done.await?;
    Ok(ended())
}

/// The subscription that a token was signed for.
fn subscription(shop: &Shop, token: &str) -> Option<i64> {
    shop.unsubscribe.as_ref()?.verify(token).ok()?.parse().ok()
}

fn ended() -> Response {
    page(StatusCode::OK, "You are unsubscribed", "<p>We will not write to you about this product.</p>")
}

fn unknown() -> Response {
    page(
        StatusCode::NOT_FOUND,
        "This link does not work",
        "<p>Please use the link of the latest mail as it stands there.</p>",
    )
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:32em;margin:4em auto;padding:0 1em}}\
         button{{font:inherit;padding:.5em 1em}}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    );
    (status, HEADERS, Html(html)).into_response()
}

/// As text of a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
