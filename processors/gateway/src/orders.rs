//! `/api/orders/{id}`: where an order stands, and asking to cancel it.
//!
//! Whether a cancellation comes in time, ship decides. Here it is taken once an order, in one transaction with its message.

use crate::observe::Came;
use crate::order_rows::{self as rows, Asked, Found};
use crate::outbox::{self, Entry};
use crate::outcome::{Checkout, Failure, Status};
use crate::problem::{Kind, Problem};
use crate::products::money;
use crate::read::id;
use crate::shop::{MoneySchema, PathOf, QueryOf, Shop};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use waybill_events::{CancelRequested, Rejection, Step};
use waybill_money::Money;

/// An order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"orderId": "0193c5a0-0000-7000-8000-000000000002", "status": "confirmed",
    "total": {"amount": 3998, "currency": "EUR"}, "itemCount": 1}))]
pub(crate) struct Order {
    /// Its id.
    order_id: String,
    /// Where it stands.
    status: Status,
    /// What it costs, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneySchema>)]
    total: Option<Money>,
    /// Lines, once they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    item_count: Option<u32>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    failure: Option<FailureView>,
    /// Its customer asked to cancel it, and it is not known yet whether that came in time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    cancel_requested: bool,
}

/// Why a checkout was rejected.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Failure)]
struct FailureView {
    /// The step that failed: `validating_cart`, `processing_payment` or `creating_order`.
    #[schema(value_type = String)]
    step: Step,
    /// Why: the last part of the problem's `type`.
    #[schema(value_type = String)]
    reason: Rejection,
    /// The products it failed on.
    products: Vec<String>,
}

impl From<Failure> for FailureView {
    fn from(Failure { step, reason, products }: Failure) -> Self {
        FailureView { step, reason, products }
    }
}

/// Where an order is found.
pub(crate) fn path(order_id: &str) -> String {
    format!("/api/orders/{order_id}")
}

/// Where an order stands.
#[utoipa::path(get, operation_id = "getOrder", path = "/api/orders/{id}", params(("id" = String, Path, description = "The order", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses((status = 200, description = "The order", body = Order), (status = 404, description = "There is none")))]
pub(crate) async fn get(State(shop): State<Shop>, PathOf(order_id): PathOf<String>) -> Result<Json<Order>, Problem> {
    id("id", &order_id)?;
    let asked = order_id.clone();
    let found = shop.database.run(|mut store| async move { rows::find(&mut store, &asked).await }).await?;
    let Some(Found { checkout, cancel_requested }) = found else { return Err(no_order()) };
    let Checkout { status, total, item_count, failure, .. } = checkout;
    // A checkout that is about to be rejected knows why before it is.
    let failure = failure.filter(|_| status == Status::Rejected).map(FailureView::from);
    let total = total.map(|total| money(total.amount_minor, &total.currency)).transpose()?;
    let cancel_requested = cancel_requested && status.refuses_to_cancel().is_none();
    Ok(Json(Order { order_id, status, total, item_count, failure, cancel_requested }))
}

/// Who asks.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Who {
    /// Whose order it is.
    #[param(pattern = "^[A-Za-z0-9_.-]{1,64}$", required = true, value_type = String)]
    user_id: Option<String>,
}

/// A cancellation that is asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"orderId": "0193c5a0-0000-7000-8000-000000000002",
    "statusUrl": "/api/orders/0193c5a0-0000-7000-8000-000000000002"}))]
pub(crate) struct CancelAnswer {
    /// The order.
    order_id: String,
    /// Where to ask what becomes of it.
    status_url: String,
}

/// Asks to cancel an order.
///
/// Whether that comes in time is decided where it is shipped: its status is then `cancelled` or `shipped`. To ask again
/// until then changes nothing and is answered alike. The order must be the user's; that the user is who it says, as with
/// carts and checkouts, is for whoever stands before this API to make sure of.
#[utoipa::path(delete, operation_id = "cancelOrder", path = "/api/orders/{id}",
    params(("id" = String, Path, description = "The order", pattern = "^[A-Za-z0-9_.-]{1,64}$"), Who,
        ("traceparent" = Option<String>, Header, description = "The caller's span (W3C Trace Context)")),
    responses(
        (status = 202, description = "It is asked for", body = CancelAnswer,
            headers(("location" = String, description = "The order"))),
        (status = 404, description = "This user has no such order"),
        (status = 409, description = "`order_pending` (with Retry-After: its checkout has not ended), `order_shipped`, \
            `order_cancelled` or `order_rejected`"),
        (status = 429, description = "Too many requests of this user"),
    ))]
pub(crate) async fn delete(
    State(shop): State<Shop>,
    Extension(came): Extension<Arc<Came>>,
    PathOf(order_id): PathOf<String>,
    QueryOf(Who { user_id }): QueryOf<Who>,
) -> Result<Response, Problem> {
    id("id", &order_id)?;
    let user_id = user_id.ok_or_else(|| Problem::invalid("userId", "must be there"))?;
    id("userId", &user_id)?;
    shop.limits.admit(&user_id)?;
    let mut event = CancelRequested { order_id: order_id.clone(), customer_id: user_id };
    let (message, kept) = outbox::message(&came, &mut event)?;
    let CancelRequested { order_id: order, customer_id: user } = event;
    let asked = shop
        .database
        .run(|mut store| async move { rows::ask_to_cancel(&mut store, &order, &user, &kept).await })
        .await?;
    match asked {
        Asked::Now(id) => shop.outbox.publish(Entry { id, message }),
        Asked::Before => {}
        Asked::Refused(kind) => return Err(Problem { order_id: Some(order_id), ..kind.into() }),
        Asked::NoOrder => return Err(no_order()),
    }
    let status_url = path(&order_id);
    let location = [(header::LOCATION, status_url.clone())];
    Ok((StatusCode::ACCEPTED, location, Json(CancelAnswer { order_id, status_url })).into_response())
}

fn no_order() -> Problem {
    Problem::because(Kind::NotFound, "there is no such order")
}
