//! Who waits for a product.

use crate::observe::Came;
use crate::problem::{Kind, Problem};
use crate::read::{Body, between, id, whole};
use crate::shop::{PathOf, Shop};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;
use waybill_events::MAX_QUANTITY;
use waybill_notifications::subscriptions::{self as rows, Ask, Asked, Waiting};
use waybill_telemetry::{SpanKind, SpanRecord, Status};

/// Most days that somebody may wait.
const MAX_DAYS: u32 = 730;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How somebody is told.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Channel {
    /// By mail.
    Email,
    /// By push message.
    Push,
}

impl From<Channel> for rows::Channel {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Email => rows::Channel::Email,
            Channel::Push => rows::Channel::Push,
        }
    }
}

/// Somebody wants to be told when there is enough of the product again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"userId": "c-42", "channel": "email", "quantity": 2}))]
pub(crate) struct NewSubscription {
    /// Who.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    user_id: String,
    /// How.
    channel: Channel,
    /// Pieces that are wanted: fewer are of no use.
    #[serde(default = "one", deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 1000, default = 1)]
    quantity: u32,
    /// Days after which the user does not want it any more; the shop has a number of its own where this is left out.
    #[serde(default, deserialize_with = "some_whole")]
    #[schema(minimum = 1, maximum = 730, nullable = false)]
    expires_in_days: Option<u32>,
}

fn one() -> u32 {
    1
}

fn some_whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole(deserializer).map(Some)
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"status": "subscribed"}))]
pub(crate) struct Subscribed {
    /// `subscribed`, or `already_subscribed`: then quantity and expiry are as asked for now.
    status: SubscriptionStatus,
}

/// Whether it is new.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SubscriptionStatus {
    /// It is.
    Subscribed,
    /// The user waited already.
    AlreadySubscribed,
}

/// Notes that a user waits for a product.
///
/// Once a user, product and channel. Who asks again keeps their place.
#[utoipa::path(post, operation_id = "subscribe", path = "/api/products/{id}/subscriptions", request_body = NewSubscription,
    params(("id" = String, Path, description = "The product", pattern = "^[A-Za-z0-9_.-]{1,64}$"),
        ("traceparent" = Option<String>, Header, description = "The caller's span (W3C Trace Context)")),
    responses(
        (status = 201, description = "The user waits", body = Subscribed),
        (status = 200, description = "The user waited already", body = Subscribed),
        (status = 404, description = "There is no such product"),
        (status = 409, description = "`no_contact`: there is no address of the user for this channel"),
        (status = 429, description = "Too many requests of this user"),
    ))]
pub(crate) async fn post(
    State(shop): State<Shop>,
    Extension(came): Extension<Arc<Came>>,
    PathOf(product): PathOf<String>,
    Body(body): Body<NewSubscription>,
) -> Result<Response, Problem> {
    id("id", &product)?;
    id("userId", &body.user_id)?;
    between("quantity", body.quantity.into(), 1, MAX_QUANTITY.into())?;
    if let Some(days) = body.expires_in_days {
        between("expiresInDays", days.into(), 1, MAX_DAYS.into())?;
    }
    let days = body.expires_in_days.unwrap_or(shop.settings.subscription_days);
    shop.limits.admit(&body.user_id)?;
    let channel = rows::Channel::from(body.channel);
    let mut span = came.begin("back_in_stock.subscribe", SpanKind::Internal, None);
    span.attributes.push(KeyValue::new("user.id", body.user_id.clone()));
    span.attributes.push(KeyValue::new("product.id", product.clone()));
    span.attributes.push(KeyValue::new("notification.channel", channel.as_str()));
    let traceparent = span.traceparent();
    let asked = shop.database.run(|mut store| async move {
        let ask = Ask {
            product_id: &product,
            user_id: &body.user_id,
            channel,
            quantity: body.quantity.into(),
            expires_in: DAY * days,
            traceparent: &traceparent,
        };
        let mut tx = store.begin().await?;
        let asked = rows::subscribe(&mut tx, &ask).await?;
        // Committed whatever came of it: a transaction that is dropped costs the connection.
        tx.commit().await?;
        Ok(asked)
    });
    let asked = asked.await;
    end(&came, span, &asked);
    match asked? {
        Asked::Waiting(Waiting { duplicate: true, .. }) => {
            Ok((StatusCode::OK, Json(Subscribed { status: SubscriptionStatus::AlreadySubscribed })).into_response())
        }
        Asked::Waiting(Waiting { category, .. }) => {
            shop.measures.subscribed(category, channel.as_str());
            Ok((StatusCode::CREATED, Json(Subscribed { status: SubscriptionStatus::Subscribed })).into_response())
        }
        Asked::NoProduct => Err(Problem::because(Kind::NotFound, "there is no such product")),
        Asked::NoContact => Err(Kind::NoContact.into()),
    }
}

fn end(came: &Came, mut span: SpanRecord, asked: &Result<Asked, Problem>) {
    match asked {
        Ok(Asked::Waiting(Waiting { duplicate, total, category, price, .. })) => {
            span.attributes.push(KeyValue::new("subscription.duplicate", *duplicate));
            span.attributes.push(KeyValue::new("subscription.total_subscribers", *total));
            span.attributes.push(KeyValue::new("product.category", category.clone()));
            span.attributes.push(KeyValue::new("product.price", *price));
        }
        Ok(Asked::NoProduct | Asked::NoContact) => {}
        Err(_) => span.status = Status::Error("the subscription is not kept".to_owned()),
    }
    came.end(span);
}

/// Ends a subscription; one that is not there has ended already.
#[utoipa::path(delete, operation_id = "unsubscribe", path = "/api/products/{id}/subscriptions/{userId}/{channel}",
    params(("id" = String, Path, description = "The product", pattern = "^[A-Za-z0-9_.-]{1,64}$"),
        ("userId" = String, Path, description = "Who waits", pattern = "^[A-Za-z0-9_.-]{1,64}$"),
        ("channel" = Channel, Path, description = "How they were to be told")),
    responses((status = 204, description = "The user does not wait for it by this channel")))]
pub(crate) async fn delete(
    State(shop): State<Shop>,
    PathOf((product, user, channel)): PathOf<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    id("id", &product)?;
    id("userId", &user)?;
    let channel = match channel.as_str() {
        "email" => rows::Channel::Email,
        "push" => rows::Channel::Push,
        _ => return Err(Problem::invalid("channel", "must be email or push")),
    };
    let ended = shop.database.run(|mut store| async move {
        let mut tx = store.begin().await?;
        rows::end(&mut tx, &product, &user, channel).await?;
        tx.commit().await
    });
    ended.await?;
    Ok(StatusCode::NO_CONTENT)
}
