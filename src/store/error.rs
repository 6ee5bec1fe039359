//! Why the store could not do something, by what the caller can do about it, in the words of both databases.

use sqlx::migrate::MigrateError;
use sqlx::sqlite::SqliteError;

use super::{postgres, sqlite};

/// What the store could not do, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is overloaded, read-only or full, or gave up waiting. Whether a
    /// write happened is unknown; repeating it with its idempotency key is safe.
    #[error("the store is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The key was used within 24 hours for another body.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// A defect: a statement or a stored value that should not exist.
    #[error("the store failed")]
    Failed(#[source] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the migration failed")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// The configuration names a database that cannot be used; the text says which rule it breaks.
    #[error("{0}")]
    Refused(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) {
            Self::Unavailable(error)
        } else {
            Self::Failed(error)
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        if let MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) = &error
            && is_unavailable(cause)
        {
            return Self::Unavailable(sqlx::Error::Migrate(Box::new(error)));
        }
        Self::Migration(error)
    }
}

/// Whether trying again later may help: the link, the server's state or the load is to blame, not the statement.
pub(super) fn is_unavailable(error: &sqlx::Error) -> bool {
    use sqlx::Error::{
        BeginFailed, Database, Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed,
    };
    if let Database(error) = error {
        let code = error.code().unwrap_or_default();
        return match code.parse::<i32>() {
            Ok(code) if error.try_downcast_ref::<SqliteError>().is_some() => {
                sqlite::is_unavailable(code)
            }
            _ => postgres::is_unavailable(&code),
        };
    }
    matches!(
        error,
        Io(_) | Tls(_) | Protocol(_) | PoolTimedOut | PoolClosed | WorkerCrashed | BeginFailed
    )
}
