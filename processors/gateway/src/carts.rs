//! Carts: what a customer wants, each line with the price it was put in at.

use crate::cart_rows::{self as rows, Put};
use crate::idempotency;
use crate::problem::{Kind, Problem};
use crate::read::{Body, between, check, id, whole};
use crate::shop::{MoneySchema, PathOf, PriceSchema, Shop};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_events::{MAX_LINES, MAX_QUANTITY, MAX_UNITS};
use waybill_money::Money;

/// How fast the customer wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Service {
    /// The cheapest way.
    Standard,
    /// The faster way.
    Express,
}

/// A cart to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"userId": "c-42", "country": "DE", "service": "standard"}))]
pub(crate) struct NewCart {
    /// Whose it is.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    user_id: String,
    /// Where it goes, ISO 3166-1 alpha-2.
    #[schema(pattern = "^[A-Z]{2}$")]
    country: String,
    /// How fast.
    service: Service,
}

/// A cart that was made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"cartId": "0193c5a0-0000-7000-8000-000000000001"}))]
pub(crate) struct CartMade {
    /// Its id.
    cart_id: String,
}

/// A cart.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"cartId": "k-1", "userId": "c-42", "country": "DE", "service": "standard",
    "lines": [{"productId": "p-1", "quantity": 2, "price": {"amount": 1999, "currency": "EUR"}}],
    "total": {"amount": 3998, "currency": "EUR"}}))]
pub(crate) struct Cart {
    /// Its id.
    pub cart_id: String,
    /// Whose it is.
    pub user_id: String,
    /// Where it goes.
    pub country: String,
    /// How fast: `standard` or `express`.
    pub service: String,
    /// What is in it, by product.
    pub lines: Vec<CartLine>,
    /// What all of it costs at these prices; absent while it is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneySchema>)]
    pub total: Option<Money>,
}

/// A line of a cart.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CartLine {
    /// The product.
    pub product_id: String,
    /// How many of it.
    pub quantity: u32,
    /// What one cost when it was put in.
    #[schema(value_type = PriceSchema)]
    pub price: Money,
}

/// How many of a product.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"quantity": 2}))]
pub(crate) struct Quantity {
    /// How many.
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 1000)]
    quantity: u32,
}

/// Makes an empty cart.
///
/// With a key, a repeat of the same user's request gets the same cart, whatever is in it by then.
#[utoipa::path(post, operation_id = "makeCart", path = "/api/carts", request_body = NewCart,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "1 to 255 visible ASCII characters, bare or as a quoted string",
        pattern = r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#)),
    responses(
        (status = 201, description = "It is made", body = CartMade, headers(("location" = String, description = "The cart"))),
        (status = 429, description = "Too many requests of this user"),
    ))]
pub(crate) async fn post(
    State(shop): State<Shop>,
    headers: HeaderMap,
    Body(cart): Body<NewCart>,
) -> Result<Response, Problem> {
    let key = idempotency::optional_key(&headers)?;
    id("userId", &cart.user_id)?;
    let country = cart.country.len() == 2 && cart.country.bytes().all(|b| b.is_ascii_uppercase());
    check("country", country, "must be two capital letters (ISO 3166-1 alpha-2)")?;
    shop.limits.admit(&cart.user_id)?;
    let cart_id = key.map_or_else(Uuid::now_v7, |key| keyed(&cart.user_id, &key)).to_string();
    let made = Cart {
        cart_id: cart_id.clone(),
        user_id: cart.user_id,
        country: cart.country,
        service: match cart.service {
            Service::Standard => "standard",
            Service::Express => "express",
        }
        .to_owned(),
        lines: Vec::new(),
        total: None,
    };
    if !shop.database.run(|mut store| async move { rows::make(&mut store, &made).await }).await? {
        return Err(Kind::KeyReused.into());
    }
    let location = format!("/api/carts/{cart_id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(CartMade { cart_id })).into_response())
}

/// The id of the cart that a user makes with a key; an id holds no line break.
fn keyed(user_id: &str, key: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{user_id}\n{key}").as_bytes())
}

/// A cart.
#[utoipa::path(get, operation_id = "getCart", path = "/api/carts/{id}", params(("id" = String, Path, description = "The cart", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses((status = 200, description = "The cart", body = Cart), (status = 404, description = "There is none")))]
pub(crate) async fn get(State(shop): State<Shop>, PathOf(cart): PathOf<String>) -> Result<Json<Cart>, Problem> {
    id("id", &cart)?;
    let found = shop.database.run(|mut store| async move { rows::find(&mut store, &cart).await }).await?;
    found.map(Json).ok_or_else(no_cart)
}

/// Sets how many of a product are in a cart, at its price of now.
#[utoipa::path(put, operation_id = "putCartLine", path = "/api/carts/{id}/lines/{productId}",
    params(("id" = String, Path, description = "The cart", pattern = "^[A-Za-z0-9_.-]{1,64}$"), ("productId" = String, Path, description = "The product", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    request_body = Quantity,
    responses(
        (status = 200, description = "The cart as it is now", body = Cart),
        (status = 404, description = "There is no such cart, or no such product"),
        (status = 409, description = "The cart does not hold that much (`cart_full`), or has another currency (`mixed_currencies`)"),
    ))]
pub(crate) async fn put_line(
    State(shop): State<Shop>,
    PathOf((cart, product)): PathOf<(String, String)>,
    Body(Quantity { quantity }): Body<Quantity>,
) -> Result<Json<Cart>, Problem> {
    id("id", &cart)?;
    id("productId", &product)?;
    between("quantity", quantity.into(), 1, MAX_QUANTITY.into())?;
    let put = shop
        .database
        .run(|mut store| async move { rows::put_line(&mut store, &cart, &product, quantity).await })
        .await?;
    match put {
        Put::Done(cart) => Ok(Json(cart)),
        Put::NoCart => Err(no_cart()),
        Put::NoProduct => Err(Problem::because(Kind::NotFound, "there is no such product")),
        Put::Full => {
            Err(Problem::because(Kind::CartFull, format!("a cart holds {MAX_LINES} lines and {MAX_UNITS} units")))
        }
        Put::OtherCurrency => Err(Problem::because(Kind::MixedCurrencies, "the other lines have another currency")),
    }
}

/// Takes a product out of a cart; one that is not there is out already.
#[utoipa::path(delete, operation_id = "deleteCartLine", path = "/api/carts/{id}/lines/{productId}",
    params(("id" = String, Path, description = "The cart", pattern = "^[A-Za-z0-9_.-]{1,64}$"), ("productId" = String, Path, description = "The product", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses((status = 204, description = "It is not in the cart"), (status = 404, description = "There is no such cart")))]
pub(crate) async fn delete_line(
    State(shop): State<Shop>,
    PathOf((cart, product)): PathOf<(String, String)>,
) -> Result<StatusCode, Problem> {
    id("id", &cart)?;
    id("productId", &product)?;
    let there =
        shop.database.run(|mut store| async move { rows::delete_line(&mut store, &cart, &product).await }).await?;
    if there { Ok(StatusCode::NO_CONTENT) } else { Err(no_cart()) }
}

fn no_cart() -> Problem {
    Problem::because(Kind::NotFound, "there is no such cart")
}
