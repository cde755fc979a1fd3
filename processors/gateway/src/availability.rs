//! What is available: of one product, or of those on a page.

use crate::levels::Level;
use crate::measures::Source;
use crate::observe::Came;
use crate::problem::{Kind, Problem};
use crate::read::{id, number};
use crate::shop::{PathOf, QueryOf, Shop};
use axum::extract::State;
use axum::{Extension, Json};
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;
use waybill_events::MAX_QUANTITY;
use waybill_telemetry::{SpanKind, SpanRecord, Status};

/// Most products of one question.
const MOST: usize = 100;

/// What is available of a product.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"productId": "p-1", "available": 7, "quantity": 2, "isAvailable": true}))]
pub(crate) struct Availability {
    /// The product.
    product_id: String,
    /// Pieces to be had; a change may be a moment old.
    #[schema(minimum = 0)]
    available: i64,
    /// Pieces that were asked for.
    quantity: i64,
    /// Whether there are as many.
    is_available: bool,
}

impl Availability {
    fn new(product_id: String, level: Level, quantity: i64) -> Self {
        let Level { available, .. } = level;
        Availability { product_id, available, quantity, is_available: available >= quantity }
    }
}

/// What is available of several.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"products": [{"productId": "p-1", "available": 0, "quantity": 1, "isAvailable": false}]}))]
pub(crate) struct Availabilities {
    /// By id; products that the shop does not have are left out.
    products: Vec<Availability>,
}

/// How many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HowMany {
    /// Pieces that are wanted; 1 where absent.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    quantity: Option<String>,
}

/// Which, and how many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// 1 to 100 products, with commas between them.
    #[param(pattern = "^[A-Za-z0-9_.-]{1,64}(,[A-Za-z0-9_.-]{1,64}){0,99}$", required = true, value_type = String)]
    ids: Option<String>,
    /// Pieces that are wanted of each; 1 where absent.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    quantity: Option<String>,
}

/// What is available of a product.
#[utoipa::path(get, operation_id = "getAvailability", path = "/api/products/{id}/availability",
    params(("id" = String, Path, description = "The product", pattern = "^[A-Za-z0-9_.-]{1,64}$"), HowMany),
    responses((status = 200, description = "What is available", body = Availability), (status = 404, description = "There is no such product")))]
pub(crate) async fn get(
    State(shop): State<Shop>,
    Extension(came): Extension<Arc<Came>>,
    PathOf(product): PathOf<String>,
    QueryOf(HowMany { quantity }): QueryOf<HowMany>,
) -> Result<Json<Availability>, Problem> {
    id("id", &product)?;
    let quantity = number("quantity", quantity.as_deref(), 1, 1, MAX_QUANTITY.into())?;
    let begun = Instant::now();
    let span = came.begin_recorded("inventory.check_availability", SpanKind::Internal, None);
    let (found, source) = match shop.levels.known(&product) {
        Some(level) => (Ok(Some(level)), Source::Cache),
        // Boxed: what few take shall not make the future large that every request allocates.
        None => (Box::pin(read(&shop, &came, &product, span.as_ref())).await, Source::Database),
    };
    let miss = u64::from(source == Source::Database);
    shop.measures.checked(begun.elapsed(), 1 - miss, miss);
    if let Some(span) = span {
        end(&came, span, &product, quantity, source, &found);
    }
    let level = found?.ok_or_else(|| Problem::because(Kind::NotFound, "there is no such product"))?;
    Ok(Json(Availability::new(product, level, quantity)))
}

/// Asks the database, in a span of its own unless somebody else is just asking.
async fn read(shop: &Shop, came: &Came, product: &str, parent: Option<&SpanRecord>) -> Result<Option<Level>, Problem> {
    let query = query(shop, came, parent);
    shop.levels.read(product, || query.into_iter().for_each(|query| came.end(query))).await
}

fn query(shop: &Shop, came: &Came, parent: Option<&SpanRecord>) -> Option<SpanRecord> {
    let mut span = came.begin_recorded("inventory.db_query", SpanKind::Client, parent)?;
    let system = shop.levels.system();
    span.attributes = vec![
        KeyValue::new("db.system.name", system),
        KeyValue::new("db.system", system),
        KeyValue::new("db.operation.name", "SELECT"),
        KeyValue::new("db.operation", "SELECT"),
        KeyValue::new("db.collection.name", "stock"),
    ];
    Some(span)
}

fn end(
    came: &Came,
    mut span: SpanRecord,
    product: &str,
    quantity: i64,
    source: Source,
    found: &Result<Option<Level>, Problem>,
) {
    span.attributes.reserve_exact(5);
    span.attributes.push(KeyValue::new("product.id", product.to_owned()));
    span.attributes.push(KeyValue::new("inventory.requested_quantity", quantity));
    span.attributes.push(KeyValue::new("inventory.source", source.as_str()));
    match found {
        Ok(Some(level)) => {
            span.attributes.push(KeyValue::new("inventory.stock_level", level.available));
            span.attributes.push(KeyValue::new("inventory.available", level.available >= quantity));
        }
        Ok(None) => span.attributes.push(KeyValue::new("inventory.available", false)),
        Err(_) => span.status = Status::Error("what is available is not known".to_owned()),
    }
    came.end(span);
}

/// What is available of several products, as on a page.
#[utoipa::path(get, operation_id = "listAvailability", path = "/api/availability", params(Which),
    responses((status = 200, description = "What is available", body = Availabilities)))]
pub(crate) async fn list(
    State(shop): State<Shop>,
    Extension(came): Extension<Arc<Came>>,
    QueryOf(Which { ids, quantity }): QueryOf<Which>,
) -> Result<Json<Availabilities>, Problem> {
    let ids = ids.ok_or_else(|| Problem::invalid("ids", "must be there"))?;
    let asked: BTreeSet<&str> = ids.split(',').take(MOST + 1).collect();
    if asked.len() > MOST {
        return Err(Problem::invalid("ids", format!("must be at most {MOST}")));
    }
    asked.iter().try_for_each(|product| id("ids", product))?;
    let quantity = number("quantity", quantity.as_deref(), 1, 1, MAX_QUANTITY.into())?;
    let begun = Instant::now();
    let known = |product: &&str| shop.levels.known(product).map(|level| ((*product).to_owned(), level));
    let mut found: BTreeMap<String, Level> = asked.iter().filter_map(known).collect();
    let hits = found.len();
    if hits < asked.len() {
        let missing =
            asked.iter().filter(|product| !found.contains_key(**product)).map(|product| (*product).to_owned());
        let span = query(&shop, &came, None);
        let read = shop.levels.read_all(missing.collect()).await;
        span.into_iter().for_each(|span| came.end(span));
        found.extend(read?);
    }
    shop.measures.checked(begun.elapsed(), hits as u64, (asked.len() - hits) as u64);
    let products = found.into_iter().map(|(product, level)| Availability::new(product, level, quantity));
    Ok(Json(Availabilities { products: products.collect() }))
}
