//! Addresses of users: one each. The table alone holds them; whoever sends looks them up.

use waybill_store::{Connection, StoreError, Tx};

/// Writes where a user gets mail, and by which name; what was there before is gone. The address is one that can be
/// written to: see `waybill_mail::Address`.
///
/// # Errors
/// The database is away.
pub async fn put(tx: &mut Tx<'_>, user_id: &str, email: &str, name: Option<&str>) -> Result<(), StoreError> {
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "insert into contacts (user_id, email, name) values ($1, $2, $3)
                       on conflict (user_id) do update set email = excluded.email, name = excluded.name,
                           updated_at = now()";
            sqlx::query(sql).bind(user_id).bind(email).bind(name).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "insert into contacts (user_id, email, name) values (?1, ?2, ?3)
                       on conflict (user_id) do update set email = excluded.email, name = excluded.name,
                           updated_at = unixepoch('subsec')";
            sqlx::query(sql).bind(user_id).bind(email).bind(name).execute(connection).await?;
        }
    }
    Ok(())
}

/// Forgets a user's address and name.
///
/// # Errors
/// The database is away.
pub async fn remove(tx: &mut Tx<'_>, user_id: &str) -> Result<(), StoreError> {
    let sql = "delete from contacts where user_id = $1";
    match tx.connection() {
        Connection::Postgres(connection) => {
            sqlx::query(sql).bind(user_id).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            sqlx::query(sql).bind(user_id).execute(connection).await?;
        }
    }
    Ok(())
}
