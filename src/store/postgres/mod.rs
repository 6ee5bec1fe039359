//! The inbox in PostgreSQL: connections that cannot hang or lie, the schema, and the epoch.
//!
//! Every write takes the lock of the user's row in `user_feed` before it touches a notification, and
//! several users are locked in the order of their ids: so writes wait for each other and do not deadlock.

mod bulkhead;
mod capacity;
mod connections;
mod create;
mod create_each;
mod durability;
mod expire;
mod gathered;
mod gathering;
mod import;
mod inbox;
mod publisher;
mod read;
mod received;
mod retain;

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::{ConnectOptions, Connection, Postgres, Row};
use tokio::sync::watch;

use self::connections::{Connections, Lease, in_time};
use self::gathering::Gathering;
use super::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The server gives up a statement after this.
const STATEMENT_TIMEOUT: &str = "2000";
/// The server gives up waiting for a row that somebody else holds after this. Three in a row may wait for each other as
/// well, so that the last of a user's places waits three times as long.
const LOCK_TIMEOUT: &str = "500";
/// The server undoes a transaction whose node has fallen silent after this: it holds a user's lock.
const IDLE_TIMEOUT: &str = "5000";
/// Without an answer by then there is no server at the other end, or no link to it: it would have given
/// up by itself after [`STATEMENT_TIMEOUT`], and a half-open TCP connection stays silent for many minutes.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// For how long a migration may wait for another node's, or for a table that is in use. Then the node
/// starts over, rather than let every request queue up behind it.
const MIGRATION_LOCK_TIMEOUT: &str = "5000";
/// Any number that no other user of the database takes.
const MIGRATION_LOCK: i64 = 0x62_656c_6c68_6f70;

const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
const READ_ONLY_TRANSACTION: &str = "25006";

/// Everything that changes when the history does: the installation and its table (a dump restored
/// elsewhere, or here), the cluster (another server), its timeline (a failover, a point-in-time recovery).
const HISTORY: &str = "
    SELECT concat_ws('/', installation.id, 'installation'::regclass::oid, control.system_identifier,
                     left(pg_walfile_name(pg_current_wal_lsn()), 8)) AS history
    FROM installation, pg_control_system() AS control";

/// Connections to one PostgreSQL database, or to a pooler in front of it.
#[derive(Clone, Debug)]
pub struct Store {
    connections: Arc<Connections>,
    /// Of publishes; `None`: there are too few connections to set some aside for it.
    gathering: Option<Arc<Gathering>>,
    /// For migrations: the same server without the limits of requests.
    patient: Arc<PgConnectOptions>,
}

impl Store {
    pub(super) fn open(url: &str, pool: u32) -> Result<Self, StoreError> {
        let given = PgConnectOptions::from_str(url)
            .map_err(|error| {
                StoreError::Refused(format!("the database address cannot be read: {error}"))
            })?
            .application_name("bellhop");
        let hasty = given.clone().options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", LOCK_TIMEOUT),
            ("idle_in_transaction_session_timeout", IDLE_TIMEOUT),
            // Compiling a statement takes longer than any of ours runs.
            ("jit", "off"),
        ]);
        let patient = given.options([
            ("statement_timeout", "0"),
            ("lock_timeout", MIGRATION_LOCK_TIMEOUT),
        ]);
        let made = watch::Sender::default();
        let gathers = pool >= 2 * Gathering::WIDTH;
        let others = if gathers {
            pool - Gathering::WIDTH
        } else {
            pool
        };
        Ok(Self {
            gathering: gathers.then(|| Arc::new(Gathering::new(hasty.clone(), made.clone()))),
            connections: Arc::new(Connections::new(hasty, others, made)),
            patient: Arc::new(patient),
        })
    }

    /// All migrations in one transaction, under a lock that ends with it: so it also holds behind a
    /// pooler that shares connections between transactions, and a node that dies leaves nothing half done.
    pub(super) async fn migrate(&self) -> Result<usize, StoreError> {
        let mut connection = in_time(ANSWER_DEADLINE, self.patient.connect()).await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(MIGRATION_LOCK)
            .execute(&mut *transaction)
            .await?;
        let applied = super::apply_new(&mut *transaction, &MIGRATIONS).await?;
        transaction.commit().await?;

        connection.close().await?;
        Ok(applied)
    }

    /// One round trip; two where the server does not show its identity.
    pub(super) async fn epoch(&self) -> Result<String, StoreError> {
        let rows = match self.rows(sqlx::query(HISTORY)).await {
            // No right to ask, or an engine that only speaks PostgreSQL's language: the stored id alone.
            Err(error @ sqlx::Error::Database(_)) if !super::error::is_unavailable(&error) => {
                self.rows(sqlx::query("SELECT id AS history FROM installation"))
                    .await?
            }
            answer => answer?,
        };
        let history: String = rows
            .first()
            .ok_or(sqlx::Error::RowNotFound)?
            .try_get("history")?;
        Ok(super::short(&history))
    }

    pub(super) fn connections_made(&self) -> watch::Receiver<u64> {
        self.connections.made()
    }

    pub(super) fn width(&self) -> u32 {
        self.connections.most()
    }

    pub(super) async fn close(&self) {
        self.connections.close().await;
        if let Some(gathering) = &self.gathering {
            gathering.close().await;
        }
    }

    /// Runs one statement on a connection of its own: one round trip.
    async fn rows(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        rows(self.connections.lease().await?, query).await
    }

    /// The same, for a statement that takes the locks of these users.
    async fn rows_of(
        &self,
        users: BTreeSet<&str>,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        rows(self.connections.lease_for(users).await?, query).await
    }
}

async fn rows(
    mut lease: Lease<'_>,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let answer = in_time(ANSWER_DEADLINE, query.fetch_all(&mut lease.connection)).await;
    lease.end(answer)
}

/// Runs `attempt`, and once more if the server undid it for the sake of another transaction: nothing of
/// it was committed then.
async fn with_second_try<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match attempt().await {
        Err(StoreError::Unavailable(sqlx::Error::Database(error)))
            if matches!(
                error.code().as_deref(),
                Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED)
            ) =>
        {
            attempt().await
        }
        result => result,
    }
}

/// Whether an SQLSTATE says that the same statement may succeed later.
///
/// Its class: connection (08), out of resources (53), not in the right state or locked (55), operator
/// intervention, which is shutdown and timeouts (57), and system (58).
pub(super) fn is_unavailable(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    matches!(class, "08" | "53" | "55" | "57" | "58")
        || matches!(
            code,
            SERIALIZATION_FAILURE | DEADLOCK_DETECTED | READ_ONLY_TRANSACTION
        )
}
