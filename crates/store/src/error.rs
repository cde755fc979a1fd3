//! What can go wrong with the database, by what the caller does about it.

use sqlx::error::ErrorKind;
use sqlx::migrate::MigrateError;
use std::path::PathBuf;

/// An error of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no database that is built in.
    #[error("the database URL must begin with postgres:// or sqlite://")]
    Url,
    /// The URL says something that nobody understands, for example `sslmod=verify-full`.
    #[error("the database URL has a parameter {0}, which means nothing here")]
    Parameter(String),
    /// The URL names a file that cannot be read.
    #[error("{0} of the database URL: cannot read {path}", path = .1.display())]
    File(String, PathBuf, #[source] std::io::Error),
    /// The database refuses this process, or the process the database.
    #[error(
        "the database does not let this process in, or is not to be trusted (look at user, password and its VALID UNTIL, \
         sslmode, sslrootcert, sslcert, and the server's pg_hba.conf)"
    )]
    Denied(#[source] sqlx::Error),
    /// The SQLite file belongs to another process.
    #[error("the SQLite database is in use by another process: end that one, or use Postgres for several processes")]
    InUse,
    /// The tables could not be brought up to date.
    #[error("cannot bring the database's tables up to date")]
    Migrate(#[source] MigrateError),
    /// Somebody else was first: read again and decide again.
    #[error("another process has written the same key")]
    Conflict,
    /// The database refuses the data: the record's fault, not the platform's.
    #[error("the database refuses the data")]
    Refused(#[source] sqlx::Error),
    /// The database is away or out of order: wait and try again.
    #[error("the database does not answer")]
    Away(#[source] sqlx::Error),
}

/// A server that goes away in the middle of a migration is a server that is away: migrations are transactions.
impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = &error else {
            return StoreError::Migrate(error);
        };
        // Class 57: the operator intervened, by a shutdown or by ending the connection.
        let code = cause.as_database_error().and_then(|e| e.code());
        let away = matches!(cause, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_))
            || code.is_some_and(|code| code.len() == 5 && code.starts_with("57"));
        match error {
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) if away => StoreError::Away(cause),
            error => StoreError::Migrate(error),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return match error {
                sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                    StoreError::Refused(error)
                }
                _ => StoreError::Away(error),
            };
        };
        // Postgres: class 22 data exception, 23 integrity constraint, 40 transaction rollback.
        match database.code().as_deref() {
            Some(code) if code.len() == 5 && code.starts_with("40") => return StoreError::Conflict,
            Some(code) if code.len() == 5 && code.starts_with("22") => return StoreError::Refused(error),
            // SQLite: 5 busy (and its extended forms), held by another process.
            Some("5" | "261" | "517" | "773") => return StoreError::InUse,
            _ => {}
        }
        match database.kind() {
            ErrorKind::UniqueViolation
            | ErrorKind::ForeignKeyViolation
            | ErrorKind::NotNullViolation
            | ErrorKind::CheckViolation => StoreError::Refused(error),
            _ => StoreError::Away(error),
        }
    }
}
