//! Products: what the shop sells.

use crate::problem::{Kind, Problem};
use crate::read::{Body, Whole, between, check, id, name, number, whole};
use crate::shop::{PathOf, PriceSchema, QueryOf, Shop};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{Array, ArrayBuilder, ObjectBuilder, Type};
use waybill_money::{Currency, Money};
use waybill_store::{Connection, Store, StoreError};

/// Most minor units of a price: a full cart of it is still an amount.
const MAX_PRICE: i64 = 1_000_000_000_000;
/// Products of a page, and most of them.
const PAGE: (i64, i64) = (50, 200);

/// A product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"id": "p-1", "sku": "TEE-BLUE-M", "name": "T-shirt, blue, M", "category": "clothing",
    "price": {"amount": 1999, "currency": "EUR"}, "weightG": 180, "sizeMm": [300, 250, 20]}))]
pub(crate) struct Product {
    /// Its id: 1 to 64 characters of `A-Z a-z 0-9 _ . -`. In a request it may be empty or left out; else it is the
    /// path's.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9_.-]{0,64}$")]
    pub id: String,
    /// The shop's article number, an id too.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    pub sku: String,
    /// What customers call it: no control characters, and more than white space.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub name: String,
    /// What kind of thing it is, an id too.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    pub category: String,
    /// What one costs.
    #[serde(deserialize_with = "price")]
    #[schema(value_type = PriceSchema)]
    pub price: Money,
    /// Weight of one, g.
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub weight_g: u32,
    /// Length, width, height of one, mm.
    #[serde(deserialize_with = "sides")]
    #[schema(schema_with = three_sides)]
    pub size_mm: [u32; 3],
}

impl Product {
    fn check(&self) -> Result<(), Problem> {
        id("id", &self.id)?;
        id("sku", &self.sku)?;
        id("category", &self.category)?;
        name("name", &self.name)?;
        between("price.amount", self.price.amount, 0, MAX_PRICE)?;
        between("weightG", self.weight_g.into(), 0, 1_000_000)?;
        self.size_mm.iter().try_for_each(|side| between("sizeMm", (*side).into(), 1, 10_000))
    }
}

fn price<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    #[derive(Deserialize)]
    struct Price {
        amount: Whole<i64>,
        currency: Currency,
    }
    Price::deserialize(deserializer).map(|price| Money::new(price.amount.0, price.currency))
}

fn sides<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u32; 3], D::Error> {
    <[Whole<u32>; 3]>::deserialize(deserializer).map(|sides| sides.map(|Whole(side)| side))
}

fn three_sides() -> Array {
    let side = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(10_000));
    ArrayBuilder::new().items(side).min_items(Some(3)).max_items(Some(3)).build()
}

/// One page of products.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Products {
    /// By id.
    products: Vec<Product>,
    /// For `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// The id before the first one wanted: `next` of the page before.
    #[param(pattern = "^[A-Za-z0-9_.-]{0,64}$")]
    after: Option<String>,
    /// Most products of the page; 50 where absent.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Option<String>,
}

/// Puts a product, new or not.
#[utoipa::path(put, operation_id = "putProduct", path = "/api/products/{id}", params(("id" = String, Path, description = "The product", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    request_body = Product,
    responses(
        (status = 200, description = "It is as the request says", body = Product),
        (status = 201, description = "It is new", body = Product),
    ))]
pub(crate) async fn put(
    State(shop): State<Shop>,
    PathOf(key): PathOf<String>,
    Body(mut product): Body<Product>,
) -> Result<Response, Problem> {
    id("id", &key)?;
    check("id", product.id.is_empty() || product.id == key, "must be the id in the path, or absent")?;
    product.id = key;
    product.check()?;
    let (new, product) = shop
        .database
        .run(|mut store| async move { save(&mut store, &product).await.map(|new| (new, product)) })
        .await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(product)).into_response())
}

/// A product.
#[utoipa::path(get, operation_id = "getProduct", path = "/api/products/{id}", params(("id" = String, Path, description = "The product", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses((status = 200, description = "The product", body = Product), (status = 404, description = "There is none")))]
pub(crate) async fn get(State(shop): State<Shop>, PathOf(key): PathOf<String>) -> Result<Json<Product>, Problem> {
    id("id", &key)?;
    let product = shop.database.run(|mut store| async move { find(&mut store, &key).await }).await?;
    product.map(Json).ok_or_else(|| Problem::because(Kind::NotFound, "there is no such product"))
}

/// Products by id, a page at a time.
#[utoipa::path(get, operation_id = "listProducts", path = "/api/products", params(Page),
    responses((status = 200, description = "A page", body = Products)))]
pub(crate) async fn list(State(shop): State<Shop>, QueryOf(page): QueryOf<Page>) -> Result<Json<Products>, Problem> {
    let after = page.after.unwrap_or_default();
    if !after.is_empty() {
        id("after", &after)?;
    }
    let limit = number("limit", page.limit.as_deref(), PAGE.0, 1, PAGE.1)?;
    // One more than asked for tells whether there is a next page.
    let found = shop.database.run(|mut store| async move { page_of(&mut store, &after, limit + 1).await }).await?;
    let mut products = found;
    let more = products.len() as i64 > limit;
    products.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = products.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Json(Products { products, next }))
}

type Columns = (String, String, String, String, i64, String, i64, i64, i64, i64);

fn product(row: Columns) -> Result<Product, StoreError> {
    let (id, sku, name, category, amount, currency, weight, length, width, height) = row;
    let small = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let price = money(amount, &currency)?;
    let size_mm = [small(length), small(width), small(height)];
    Ok(Product { id, sku, name, category, price, weight_g: small(weight), size_mm })
}

/// An amount as it stands in the database.
pub(crate) fn money(amount: i64, currency: &str) -> Result<Money, StoreError> {
    let known = Currency::from_code(currency);
    let unknown = || sqlx::Error::Decode(format!("{currency} is not a currency of ISO 4217").into());
    known.map(|currency| Money::new(amount, currency)).ok_or_else(|| unknown().into())
}

const FIND: &str =
    "select id, sku, name, category, price_amount, price_currency, weight_g, length_mm, width_mm, height_mm
                    from products where id = $1";

pub(crate) async fn find(store: &mut Store, id: &str) -> Result<Option<Product>, StoreError> {
    let mut tx = store.begin().await?;
    let row: Option<Columns> = match tx.connection() {
        Connection::Postgres(connection) => sqlx::query_as(FIND).bind(id).fetch_optional(connection).await?,
        Connection::Sqlite(connection) => sqlx::query_as(FIND).bind(id).fetch_optional(connection).await?,
    };
    tx.commit().await?;
    row.map(product).transpose()
}

async fn page_of(store: &mut Store, after: &str, limit: i64) -> Result<Vec<Product>, StoreError> {
    let sql = "select id, sku, name, category, price_amount, price_currency, weight_g, length_mm, width_mm, height_mm
               from products where id > $1 order by id limit $2";
    let mut tx = store.begin().await?;
    let rows: Vec<Columns> = match tx.connection() {
        Connection::Postgres(connection) => sqlx::query_as(sql).bind(after).bind(limit).fetch_all(connection).await?,
        Connection::Sqlite(connection) => sqlx::query_as(sql).bind(after).bind(limit).fetch_all(connection).await?,
    };
    tx.commit().await?;
    rows.into_iter().map(product).collect()
}

/// Whether it is new.
async fn save(store: &mut Store, product: &Product) -> Result<bool, StoreError> {
    let sql = "insert into products
                   (id, sku, name, category, price_amount, price_currency, weight_g, length_mm, width_mm, height_mm)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
               on conflict (id) do update set sku = excluded.sku, name = excluded.name, category = excluded.category,
                   price_amount = excluded.price_amount, price_currency = excluded.price_currency,
                   weight_g = excluded.weight_g, length_mm = excluded.length_mm, width_mm = excluded.width_mm,
                   height_mm = excluded.height_mm";
    macro_rules! bound {
        ($connection:ident) => {
            sqlx::query(sql)
                .bind(&product.id)
                .bind(&product.sku)
                .bind(&product.name)
                .bind(&product.category)
                .bind(product.price.amount)
                .bind(product.price.currency.code())
                .bind(i64::from(product.weight_g))
                .bind(i64::from(product.size_mm[0]))
                .bind(i64::from(product.size_mm[1]))
                .bind(i64::from(product.size_mm[2]))
                .execute($connection)
                .await?
        };
    }
    let mut tx = store.begin().await?;
    let known: Option<Columns> = match tx.connection() {
        Connection::Postgres(connection) => {
            let known = sqlx::query_as(FIND).bind(&product.id).fetch_optional(&mut *connection).await?;
            bound!(connection);
            known
        }
        Connection::Sqlite(connection) => {
            let known = sqlx::query_as(FIND).bind(&product.id).fetch_optional(&mut *connection).await?;
            bound!(connection);
            known
        }
    };
    tx.commit().await?;
    Ok(known.is_none())
}
