//! `POST /api/checkout`: takes a request once, publishes it, and waits for what becomes of it.
//!
//! - The request, its key and its message are one transaction: a crash after it loses nothing, since the relay finds
//!   the message unpublished.
//! - A repeat of the key finds the row, never makes a second order, and is answered from what is known by then.
//! - The payment method goes from the body into its own table, and nowhere else.

use crate::checkout_rows::{self as rows, Intake, Known, Request};
use crate::observe::Came;
use crate::orders::path;
use crate::outbox::{self, Entry};
use crate::outcome::{Outcome, Status};
use crate::problem::{Kind, Problem};
use crate::read::{Body, check, id};
use crate::shop::Shop;
use crate::{idempotency, order_rows};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_events::CheckoutRequested;

/// How long a request goes on waiting once the gateway is to stop.
const STOPPING: Duration = Duration::from_secs(5);

/// A checkout that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"cartId": "k-1", "userId": "c-42", "paymentMethodId": "pm_1QJ"}))]
pub(crate) struct CheckoutRequest {
    /// The cart to be bought.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    cart_id: String,
    /// Whose it is.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    user_id: String,
    /// What it is paid with, by the payment provider's own name: 1 to 255 visible ASCII characters.
    #[schema(value_type = String, pattern = "^[!-~]{1,255}$")]
    payment_method_id: SecretString,
}

impl CheckoutRequest {
    fn check(&self) -> Result<(), Problem> {
        id("cartId", &self.cart_id)?;
        id("userId", &self.user_id)?;
        let method = self.payment_method_id.expose_secret();
        let fine = (1..=255).contains(&method.len()) && method.bytes().all(|byte| byte.is_ascii_graphic());
        check("paymentMethodId", fine, "must be 1 to 255 visible ASCII characters")
    }

    /// Equal requests have equal hashes, however their JSON is written.
    fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for field in [&self.cart_id, &self.user_id, self.payment_method_id.expose_secret()] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }
}

/// What became of a checkout, or will.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"orderId": "0193c5a0-0000-7000-8000-000000000002", "status": "confirmed"}))]
pub(crate) struct CheckoutAnswer {
    /// The order.
    order_id: String,
    /// `confirmed` or `pending`.
    status: Status,
    /// Where to ask for the status while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    status_url: Option<String>,
}

/// Checks out a cart, once a key.
///
/// The same key with the same body gets the same answer for 24 hours.
#[utoipa::path(post, operation_id = "checkOut", path = "/api/checkout", request_body = CheckoutRequest,
    params(
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters, bare or as a quoted string",
            pattern = r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: 202 at once"),
        ("traceparent" = Option<String>, Header, description = "The caller's span (W3C Trace Context)"),
    ),
    responses(
        (status = 201, description = "The order is paid", body = CheckoutAnswer,
            headers(("location" = String, description = "The order"))),
        (status = 202, description = "The outcome is not known yet", body = CheckoutAnswer,
            headers(("location" = String, description = "The order"),
                ("preference-applied" = Option<String>, description = "`respond-async`, where that was asked for"))),
        (status = 402, description = "`declined`"),
        (status = 409, description = "`in_progress` (with Retry-After), `stale_prices`, `insufficient_stock`, \
            `reservation_lapsed` or `aborted`"),
        (status = 429, description = "Too many requests of this user"),
    ))]
pub(crate) async fn post(
    State(shop): State<Shop>,
    Extension(came): Extension<Arc<Came>>,
    headers: HeaderMap,
    Body(request): Body<CheckoutRequest>,
) -> Result<Response, Problem> {
    let began = Instant::now();
    let key = idempotency::key(&headers)?;
    request.check()?;
    shop.limits.admit(&request.user_id)?;
    if shop.kafka.away() {
        return Err(Kind::Unavailable.into());
    }
    let wait = if idempotency::respond_async(&headers) { Duration::ZERO } else { shop.settings.wait() };
    let order_id = Uuid::now_v7().to_string();
    let mut event = CheckoutRequested {
        order_id: order_id.clone(),
        customer_id: request.user_id.clone(),
        cart_id: request.cart_id.clone(),
    };
    let (message, kept) = outbox::message(&came, &mut event)?;
    // Before anybody can know of the order.
    let mut waiter = shop.waiting.register(&order_id);
    let row = Request {
        body_hash: request.hash(),
        key,
        order_id: order_id.clone(),
        cart_id: request.cart_id,
        user_id: request.user_id,
        payment_method: request.payment_method_id,
        message: kept,
        wait,
        keep: shop.settings.keep(),
    };
    let hash = row.body_hash;
    match shop.database.run(|mut store| async move { rows::take(&mut store, &row).await }).await? {
        Intake::Known(known) => repeated(known, hash),
        Intake::New(id) => {
            shop.outbox.publish(Entry { id, message });
            if wait.is_zero() {
                return Ok(pending(&order_id, true));
            }
            tokio::select! {
                biased;
                Ok(outcome) = &mut waiter.outcome => answer(order_id, outcome),
                () = sleep_until(began + wait) => last_look(&shop, order_id).await,
                () = stopped(&shop) => Ok(pending(&order_id, false)),
            }
        }
    }
}

/// The answer to a key that is known.
fn repeated(known: Known, hash: [u8; 32]) -> Result<Response, Problem> {
    if known.body_hash != hash {
        return Err(Kind::KeyReused.into());
    }
    match known.outcome {
        Some(outcome) => answer(known.order_id, outcome),
        None if known.answered => Ok(pending(&known.order_id, known.asynchronous)),
        None => Err(Problem { order_id: Some(known.order_id), ..Kind::InProgress.into() }),
    }
}

/// The time is up. An event may be late where the row is not.
async fn last_look(shop: &Shop, order_id: String) -> Result<Response, Problem> {
    let asked = order_id.clone();
    let found = shop.database.run(|mut store| async move { order_rows::find(&mut store, &asked).await }).await;
    match found.ok().flatten().and_then(|order| order.checkout.outcome()) {
        Some(outcome) => answer(order_id, outcome),
        None => Ok(pending(&order_id, false)),
    }
}

async fn stopped(shop: &Shop) {
    let mut stopping = shop.stopping.clone();
    // Fails where the gateway is gone, which is a stop too.
    stopping.wait_for(|stopping| *stopping).await.ok();
    sleep(STOPPING).await;
}

fn answer(order_id: String, outcome: Outcome) -> Result<Response, Problem> {
    match outcome {
        Outcome::Confirmed => {
            let location = [(header::LOCATION, path(&order_id))];
            let answer = CheckoutAnswer { order_id, status: Status::Confirmed, status_url: None };
            Ok((StatusCode::CREATED, location, Json(answer)).into_response())
        }
        Outcome::Rejected(failure) => Err(failure.problem(order_id)),
    }
}

fn pending(order_id: &str, asynchronous: bool) -> Response {
    let url = path(order_id);
    let status_url = Some(url.clone());
    let answer = CheckoutAnswer { order_id: order_id.to_owned(), status: Status::Pending, status_url };
    let mut response = (StatusCode::ACCEPTED, [(header::LOCATION, url)], Json(answer)).into_response();
    if asynchronous {
        response.headers_mut().insert("preference-applied", HeaderValue::from_static("respond-async"));
    }
    response
}
