//! `GET /api/orders/{id}`: where an order stands.

use crate::checkout_rows as rows;
use crate::outcome::{Checkout, Failure, Status};
use crate::problem::{Kind, Problem};
use crate::products::money;
use crate::read::id;
use crate::shop::{MoneySchema, PathOf, Shop};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use waybill_events::{Rejection, Step};
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
#[utoipa::path(get, operation_id = "getOrder", path = "/api/orders/{id}", params(("id" = String, Path, description = "The order")),
    responses((status = 200, description = "The order", body = Order), (status = 404, description = "There is none")))]
pub(crate) async fn get(State(shop): State<Shop>, PathOf(order_id): PathOf<String>) -> Result<Json<Order>, Problem> {
    id("id", &order_id)?;
    let asked = order_id.clone();
    let found = shop.database.run(|mut store| async move { rows::order(&mut store, &asked).await }).await?;
    let Some(Checkout { status, total, item_count, failure }) = found else {
        return Err(Problem::because(Kind::NotFound, "there is no such order"));
    };
    // A checkout that is about to be rejected knows why before it is.
    let failure = failure.filter(|_| status == Status::Rejected).map(FailureView::from);
    let total = total.map(|total| money(total.amount_minor, &total.currency)).transpose()?;
    Ok(Json(Order { order_id, status, total, item_count, failure }))
}
