//! Browsers and apps of users that take push messages.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use waybill_push::{FcmToken, Subscription, Target, TargetError};
use waybill_store::{Connection, StoreError, Tx};

/// Most targets of a user; of more, the one that was put longest ago goes.
pub const MAX_TARGETS: i64 = 10;

/// A target as it stands in the table. Whoever knows it can reach the device: it is never printed.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum PushTarget {
    /// A browser's subscription.
    Web {
        /// The URL that messages are sent to.
        endpoint: SecretString,
        /// What they are encrypted with.
        keys: Keys,
    },
    /// An app's registration.
    Fcm {
        /// The token that Firebase gave it.
        fcm_token: SecretString,
    },
}

/// Keys of a browser's subscription, base64url.
#[derive(Clone, Debug, Deserialize)]
pub struct Keys {
    /// Its public key.
    pub p256dh: SecretString,
    /// Its secret.
    pub auth: SecretString,
}

/// As it is written, to the table alone.
#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    Web { endpoint: &'a str, keys: WrittenKeys<'a> },
    Fcm { fcm_token: &'a str },
}

#[derive(Serialize)]
struct WrittenKeys<'a> {
    p256dh: &'a str,
    auth: &'a str,
}

impl PushTarget {
    /// The same for the same device, whoever's it is; it tells nothing of the device.
    #[must_use]
    pub fn id(&self) -> Uuid {
        let secret = match self {
            PushTarget::Web { endpoint, .. } => endpoint,
            PushTarget::Fcm { fcm_token } => fcm_token,
        };
        Uuid::new_v5(&Uuid::NAMESPACE_URL, secret.expose_secret().as_bytes())
    }

    /// As it stands in the table; none where that is not what [`put`] writes.
    #[must_use]
    pub fn read(written: &str) -> Option<Self> {
        serde_json::from_str(written).ok()
    }

    /// For sending.
    ///
    /// # Errors
    /// Nothing could be sent there.
    pub fn target(&self) -> Result<Target, TargetError> {
        match self {
            PushTarget::Web { endpoint, keys: Keys { p256dh, auth } } => {
                let [endpoint, p256dh, auth] = [endpoint, p256dh, auth].map(ExposeSecret::expose_secret);
                Subscription::new(endpoint, p256dh, auth).map(Target::Web)
            }
            PushTarget::Fcm { fcm_token } => FcmToken::new(fcm_token.expose_secret()).map(Target::Fcm),
        }
    }

    fn written(&self) -> String {
        let written = match self {
            PushTarget::Web { endpoint, keys: Keys { p256dh, auth } } => {
                let keys = WrittenKeys { p256dh: p256dh.expose_secret(), auth: auth.expose_secret() };
                Written::Web { endpoint: endpoint.expose_secret(), keys }
            }
            PushTarget::Fcm { fcm_token } => Written::Fcm { fcm_token: fcm_token.expose_secret() },
        };
        // Texts alone: serialising cannot fail.
        serde_json::to_string(&written).unwrap_or_default()
    }
}

/// Writes a target of a user; yields whether it is new. The user keeps [`MAX_TARGETS`].
///
/// # Errors
/// The database is away.
pub async fn put(tx: &mut Tx<'_>, user_id: &str, target: &PushTarget) -> Result<bool, StoreError> {
    let (id, target, others) = (target.id().to_string(), target.written(), MAX_TARGETS - 1);
    Ok(match tx.connection() {
        Connection::Postgres(connection) => {
            // A part of a statement does not see what another part writes: the new row is not among the old ones.
            let sql = "with old as (
                           delete from push_targets where user_id = $1 and id in (
                               select id from push_targets where user_id = $1 and id <> $2
                               order by created_at desc, id offset $4))
                       insert into push_targets (user_id, id, target) values ($1, $2, $3::jsonb)
                       on conflict (user_id, id) do update set target = excluded.target, created_at = now()
                       returning xmax = 0";
            sqlx::query_scalar(sql).bind(user_id).bind(id).bind(target).bind(others).fetch_one(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from push_targets where user_id = ?1 and id in (
                           select id from push_targets where user_id = ?1 and id <> ?2
                           order by created_at desc, id limit -1 offset ?3)";
            sqlx::query(sql).bind(user_id).bind(&id).bind(others).execute(&mut *connection).await?;
            let sql = "select not exists (select 1 from push_targets where user_id = ?1 and id = ?2)";
            let new = sqlx::query_scalar(sql).bind(user_id).bind(&id).fetch_one(&mut *connection).await?;
            let sql = "insert into push_targets (user_id, id, target) values (?1, ?2, ?3)
                       on conflict (user_id, id) do update set target = excluded.target,
                           created_at = unixepoch('subsec')";
            sqlx::query(sql).bind(user_id).bind(id).bind(target).execute(connection).await?;
            new
        }
    })
}

/// Forgets a target of a user.
///
/// # Errors
/// The database is away.
pub async fn remove(tx: &mut Tx<'_>, user_id: &str, id: &str) -> Result<(), StoreError> {
    let sql = "delete from push_targets where user_id = $1 and id = $2";
    match tx.connection() {
        Connection::Postgres(connection) => {
            sqlx::query(sql).bind(user_id).bind(id).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            sqlx::query(sql).bind(user_id).bind(id).execute(connection).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written() {
        let (p256dh, auth) = (
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "BTBZMqHH6r4Tts7J_aSIgg",
        );
        let keys = Keys { p256dh: p256dh.into(), auth: auth.into() };
        for device in [
            PushTarget::Web { endpoint: "https://fcm.googleapis.com/fcm/send/1".into(), keys },
            PushTarget::Fcm { fcm_token: "token-1".into() },
        ] {
            let read = PushTarget::read(&device.written()).unwrap();
            assert_eq!(read.id(), device.id());
            assert!(read.target().is_ok());
        }
        assert!(PushTarget::read(r#"{"fcmToken": "token-1"}"#).is_none(), "so it comes over HTTP, not to the table");
    }
}
