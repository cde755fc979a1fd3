//! How much a product is wanted.

use crate::problem::{Kind, Problem};
use crate::products;
use crate::read::id;
use crate::shop::{PathOf, Shop};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use waybill_notifications::demand::demand;

/// Who waits for a product.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"productId": "p-1", "people": 250, "email": 200, "push": 80, "pieces": 275,
    "oldest": "2026-11-21T10:00:00Z"}))]
pub(crate) struct Demand {
    /// The product.
    product_id: String,
    /// People who wait, each once.
    #[schema(minimum = 0)]
    people: i64,
    /// Those of them who are to be told by mail.
    #[schema(minimum = 0)]
    email: i64,
    /// Those of them who are to be told by push message.
    #[schema(minimum = 0)]
    push: i64,
    /// Pieces they want together.
    #[schema(minimum = 0)]
    pieces: i64,
    /// When the one who waits longest asked; absent where nobody waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    oldest: Option<Timestamp>,
}

/// How much a product is wanted that cannot be had.
#[utoipa::path(get, operation_id = "getDemand", path = "/api/products/{id}/demand",
    params(("id" = String, Path, description = "The product", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses((status = 200, description = "Who waits for it", body = Demand), (status = 404, description = "There is no such product")))]
pub(crate) async fn get(State(shop): State<Shop>, PathOf(product): PathOf<String>) -> Result<Json<Demand>, Problem> {
    id("id", &product)?;
    let product_id = product.clone();
    let found = shop.database.run(|mut store| async move {
        let known = products::find(&mut store, &product).await?.is_some();
        let mut tx = store.begin().await?;
        let found = demand(&mut tx, &[&product], 1).await?;
        tx.commit().await?;
        Ok((known, found.into_iter().next()))
    });
    match found.await? {
        (true, None) => Ok(Json(Demand { product_id, people: 0, email: 0, push: 0, pieces: 0, oldest: None })),
        (true, Some(d)) => Ok(Json(Demand {
            product_id,
            people: d.people,
            email: d.email,
            push: d.push,
            pieces: d.pieces,
            oldest: d.oldest,
        })),
        (false, _) => Err(Problem::because(Kind::NotFound, "there is no such product")),
    }
}
