//! The inbox in one SQLite file, which one process holds: the default of a node that is alone.
//!
//! One connection does everything, in turn: so each transaction is the only one, each statement is a
//! snapshot, and commit order is the order in which the lock was given.

mod create;
mod expire;
mod gathered;
mod import;
mod inbox;
#[cfg(test)]
mod plans;
mod publisher;
mod read;
mod received;
mod retain;

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite, Transaction};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a request waits for those before it; a disk that keeps it waiting longer is treated as away.
const TURN_DEADLINE: Duration = Duration::from_secs(3);
/// How long opening waits for a process that is just letting go of the file.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READ_ONLY: i32 = 8;
const IO_ERROR: i32 = 10;
const FULL: i32 = 13;

/// The milliseconds since 1970 of SQLite's clock.
const NOW: &str = "SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)";

/// The one connection to the file; `None` once it was closed.
///
/// A cancelled request leaves nothing behind: its transaction's guard queues the ROLLBACK before the
/// connection is handed on.
#[derive(Clone, Debug)]
pub struct Store {
    connection: Arc<Mutex<Option<SqliteConnection>>>,
}

impl Store {
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| {
                StoreError::Refused(format!("the database address cannot be read: {error}"))
            })?
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let file = options.get_filename().to_owned();
        if !url.contains("memory") {
            create_private(&file).map_err(|error| refused(&file, &sqlx::Error::Io(error)))?;
        }

        let connection = take(&options)
            .await
            .map_err(|error| refused(&file, &error))?;
        Ok(Self {
            connection: Arc::new(Mutex::new(Some(connection))),
        })
    }

    pub(super) async fn migrate(&self) -> Result<usize, StoreError> {
        let mut connection = self.turn().await?;
        Ok(super::apply_new(&mut *connection, &MIGRATIONS).await?)
    }

    pub(super) async fn epoch(&self) -> Result<String, StoreError> {
        let mut connection = self.turn().await?;
        let id: String = sqlx::query_scalar("SELECT id FROM installation")
            .fetch_one(&mut *connection)
            .await?;
        Ok(super::short(&id))
    }

    pub(super) async fn close(&self) {
        let connection = self.connection.lock().await.take();
        if let Some(connection) = connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the database file was not closed cleanly; its log is read at the next start");
        }
    }

    /// Waits for the connection, in the order of asking.
    async fn turn(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, sqlx::Error> {
        let Ok(guard) = tokio::time::timeout(TURN_DEADLINE, self.connection.lock()).await else {
            return Err(sqlx::Error::PoolTimedOut);
        };
        match MutexGuard::try_map(guard, Option::as_mut) {
            Ok(connection) => Ok(connection),
            Err(_closed) => Err(sqlx::Error::PoolClosed),
        }
    }
}

/// A transaction that writes: it has the file's write lock from its beginning.
async fn begin(connection: &mut SqliteConnection) -> Result<Transaction<'_, Sqlite>, sqlx::Error> {
    connection.begin_with("BEGIN IMMEDIATE").await
}

async fn now(transaction: &mut Transaction<'_, Sqlite>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(NOW).fetch_one(&mut **transaction).await
}

/// Connects, and takes the lock that exclusive locking then keeps until the end.
async fn take(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    begin(&mut connection).await?.commit().await?;
    Ok(connection)
}

/// Creates the file, if it is not there, for its owner alone: what users are told is nobody else's.
/// SQLite gives its log the same mode.
fn create_private(file: &Path) -> std::io::Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
    {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn refused(file: &Path, error: &sqlx::Error) -> StoreError {
    let file = file.display();
    let code = error
        .as_database_error()
        .and_then(|error| error.code()?.parse().ok());
    StoreError::Refused(match code.map(primary) {
        Some(BUSY | LOCKED) => format!(
            "the database file {file} is in use by another process; one SQLite file serves one node \
             (stop the other, or use PostgreSQL and Redis for a cluster)"
        ),
        _ => format!("the database file {file} cannot be opened: {error}"),
    })
}

/// Whether a result code of SQLite says that the same statement may succeed later.
pub(super) fn is_unavailable(code: i32) -> bool {
    matches!(primary(code), BUSY | LOCKED | READ_ONLY | IO_ERROR | FULL)
}

/// The code without what extends it.
fn primary(code: i32) -> i32 {
    code & 0xff
}
