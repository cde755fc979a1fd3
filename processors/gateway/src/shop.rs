//! What every request has at hand.

use crate::connections::Connections;
use crate::levels::Levels;
use crate::limits::Limits;
use crate::measures::Measures;
use crate::observe::Observe;
use crate::outbox::Outbox;
use crate::problem::Problem;
use crate::reach::Reach;
use crate::settings::Settings;
use crate::waiting::Waiting;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use utoipa::ToSchema;
use utoipa::openapi::{Object, ObjectBuilder, Type};
use waybill_mail::unsubscribe::Unsubscribe;
use waybill_money::Currency;
use waybill_push::Endpoints;

/// The state of the routes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shop(pub Arc<Inner>);

/// What [`Shop`] holds.
pub(crate) struct Inner {
    pub settings: Settings,
    pub database: Connections,
    pub limits: Limits,
    pub waiting: Waiting,
    pub outbox: Outbox,
    pub kafka: Reach,
    pub observe: Observe,
    pub measures: Measures,
    pub levels: Levels,
    /// Which push services are called.
    pub endpoints: Endpoints,
    /// None where the links of mails lead elsewhere.
    pub unsubscribe: Option<Unsubscribe>,
    /// A permit for each request in flight.
    pub inflight: Arc<Semaphore>,
    /// Says when the gateway is to stop.
    pub stopping: watch::Receiver<bool>,
}

impl Deref for Shop {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Parameters of the path; what cannot be read is a problem document.
pub(crate) struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Shop> for PathOf<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Problem> {
        let Path(path) = Path::from_request_parts(parts, shop).await?;
        Ok(PathOf(path))
    }
}

/// Parameters of the query; what cannot be read is a problem document.
pub(crate) struct QueryOf<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Shop> for QueryOf<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Problem> {
        let Query(query) = Query::from_request_parts(parts, shop).await?;
        Ok(QueryOf(query))
    }
}

/// An amount of money, in the OpenAPI document; in code it is `waybill_money::Money`.
#[derive(ToSchema)]
#[schema(as = Money)]
#[expect(dead_code, reason = "read by the macro alone")]
pub(crate) struct MoneySchema {
    /// In the currency's minor units: cents for EUR, yen for JPY.
    #[schema(minimum = 0)]
    amount: i64,
    /// ISO 4217.
    #[schema(schema_with = currency)]
    currency: String,
}

/// What one piece costs, in the OpenAPI document.
#[derive(ToSchema)]
#[schema(as = Price)]
#[expect(dead_code, reason = "read by the macro alone")]
pub(crate) struct PriceSchema {
    /// In the currency's minor units: cents for EUR, yen for JPY.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    amount: i64,
    /// ISO 4217.
    #[schema(schema_with = currency)]
    currency: String,
}

/// All codes there are.
fn currency() -> Object {
    let letters = || 'A'..='Z';
    let codes =
        letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| String::from_iter([a, b, c]))));
    let codes = codes.filter(|code| Currency::from_code(code).is_some());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)).build()
}
