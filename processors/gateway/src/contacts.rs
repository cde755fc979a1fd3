//! Where users are told: an address of each, browsers and apps. Neither is ever repeated in an answer or a log.

use crate::problem::Problem;
use crate::read::{Body, check, id, name};
use crate::shop::{PathOf, Shop};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waybill_mail::Address;
use waybill_notifications::push_targets::{Keys, PushTarget};
use waybill_notifications::{contacts, push_targets};
use waybill_push::TargetError;

/// An address.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.org", "name": "Ada Lovelace"}))]
pub(crate) struct Email {
    /// One address, `local@domain`.
    #[schema(value_type = String, max_length = 254)]
    email: SecretString,
    /// What the user is called in mails, if that is known.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    name: Option<SecretString>,
}

/// A browser or an app: either an endpoint with its keys, as a browser's `PushSubscription.toJSON()` has them, or a token.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"fcmToken": "dGhpcyBpcyBub3QgYSB0b2tlbg"}))]
pub(crate) struct NewPushTarget {
    /// The browser's endpoint: an https URL of a known push service.
    #[schema(value_type = Option<String>, max_length = 2048)]
    endpoint: Option<SecretString>,
    /// Browsers give it; it is not needed.
    #[serde(rename = "expirationTime")]
    _expiration_time: Option<f64>,
    /// The keys that go with the endpoint.
    keys: Option<PushKeys>,
    /// What Firebase gave the app.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 4096)]
    fcm_token: Option<SecretString>,
}

/// What messages to a browser are encrypted with, base64url.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PushKeys {
    /// Its public key.
    #[schema(value_type = String, max_length = 96)]
    p256dh: SecretString,
    /// Its secret.
    #[schema(value_type = String, max_length = 96)]
    auth: SecretString,
}

/// A target that is kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"pushTargetId": "6e5a2f3c-0000-5000-8000-000000000001"}))]
pub(crate) struct PushTargetAnswer {
    /// Its id: the same each time it is put.
    push_target_id: String,
}

/// Sets where a user gets mail.
#[utoipa::path(put, operation_id = "putEmail", path = "/api/users/{userId}/email", request_body = Email,
    params(("userId" = String, Path, description = "The user", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses(
        (status = 204, description = "Mails go there"),
        (status = 429, description = "Too many requests of this user"),
    ))]
pub(crate) async fn put_email(
    State(shop): State<Shop>,
    PathOf(user): PathOf<String>,
    Body(body): Body<Email>,
) -> Result<StatusCode, Problem> {
    id("userId", &user)?;
    let address: Address = body.email.expose_secret().parse().map_err(|error| invalid("email", error))?;
    if let Some(called) = &body.name {
        name("name", called.expose_secret())?;
    }
    shop.limits.admit(&user)?;
    let put = shop.database.run(|mut store| async move {
        let mut tx = store.begin().await?;
        let called = body.name.as_ref().map(ExposeSecret::expose_secret);
        contacts::put(&mut tx, &user, address.expose(), called).await?;
        tx.commit().await
    });
    put.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets where a user gets mail.
#[utoipa::path(delete, operation_id = "deleteEmail", path = "/api/users/{userId}/email",
    params(("userId" = String, Path, description = "The user", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses((status = 204, description = "No address of the user is kept")))]
pub(crate) async fn delete_email(
    State(shop): State<Shop>,
    PathOf(user): PathOf<String>,
) -> Result<StatusCode, Problem> {
    id("userId", &user)?;
    let removed = shop.database.run(|mut store| async move {
        let mut tx = store.begin().await?;
        contacts::remove(&mut tx, &user).await?;
        tx.commit().await
    });
    removed.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keeps a browser or an app of a user.
///
/// A user has 10 at most: of more, the one that was put longest ago goes.
#[utoipa::path(post, operation_id = "putPushTarget", path = "/api/users/{userId}/push-targets", request_body = NewPushTarget,
    params(("userId" = String, Path, description = "The user", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses(
        (status = 201, description = "It is kept", body = PushTargetAnswer),
        (status = 200, description = "It was kept already", body = PushTargetAnswer),
        (status = 429, description = "Too many requests of this user"),
    ))]
pub(crate) async fn post_target(
    State(shop): State<Shop>,
    PathOf(user): PathOf<String>,
    Body(body): Body<NewPushTarget>,
) -> Result<Response, Problem> {
    id("userId", &user)?;
    let target = target(&shop, body)?;
    shop.limits.admit(&user)?;
    let push_target_id = target.id().to_string();
    let put = shop.database.run(|mut store| async move {
        let mut tx = store.begin().await?;
        let new = push_targets::put(&mut tx, &user, &target).await?;
        tx.commit().await?;
        Ok(new)
    });
    let status = if put.await? { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(PushTargetAnswer { push_target_id })).into_response())
}

/// A target that could be sent to.
fn target(shop: &Shop, body: NewPushTarget) -> Result<PushTarget, Problem> {
    let NewPushTarget { endpoint, keys, fcm_token, .. } = body;
    let target = match (endpoint, keys, fcm_token) {
        (Some(endpoint), Some(PushKeys { p256dh, auth }), None) => {
            let acceptable = shop.endpoints.acceptable(endpoint.expose_secret()).is_ok();
            // The reason is not told: it would say which hosts there are behind this one.
            check("endpoint", acceptable, "must be an https URL of a known push service")?;
            PushTarget::Web { endpoint, keys: Keys { p256dh, auth } }
        }
        (None, None, Some(fcm_token)) => PushTarget::Fcm { fcm_token },
        (Some(_), None, None) => return Err(Problem::invalid("keys", "must be there")),
        (None, Some(_), None) => return Err(Problem::invalid("endpoint", "must be there")),
        (None, None, None) => return Err(Problem::invalid("endpoint", "must be there, or fcmToken")),
        (_, _, Some(_)) => return Err(Problem::invalid("fcmToken", "must not be there with endpoint or keys")),
    };
    match target.target() {
        Ok(_) => Ok(target),
        Err(error) => {
            let field = match error {
                TargetError::Endpoint => "endpoint",
                TargetError::P256dh => "keys.p256dh",
                TargetError::Auth => "keys.auth",
                TargetError::Token => "fcmToken",
            };
            Err(invalid(field, error))
        }
    }
}

/// The errors of addresses and targets repeat nothing of them.
fn invalid(field: &str, error: impl std::error::Error) -> Problem {
    Problem::invalid(field, error.to_string())
}

/// Forgets a browser or an app of a user.
#[utoipa::path(delete, operation_id = "deletePushTarget", path = "/api/users/{userId}/push-targets/{pushTargetId}",
    params(("userId" = String, Path, description = "The user", pattern = "^[A-Za-z0-9_.-]{1,64}$"),
        ("pushTargetId" = String, Path, description = "The target", pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses((status = 204, description = "It is not kept")))]
pub(crate) async fn delete_target(
    State(shop): State<Shop>,
    PathOf((user, target)): PathOf<(String, String)>,
) -> Result<StatusCode, Problem> {
    id("userId", &user)?;
    id("pushTargetId", &target)?;
    let removed = shop.database.run(|mut store| async move {
        let mut tx = store.begin().await?;
        push_targets::remove(&mut tx, &user, &target).await?;
        tx.commit().await
    });
    removed.await?;
    Ok(StatusCode::NO_CONTENT)
}
