//! The connections to PostgreSQL: a bounded number, made when they are needed, lent to one request at a time.
//!
//! Why not sqlx's pool: it pings each connection that comes back, without a deadline, so that a server
//! that vanished takes its places away for as long as TCP hopes; it takes back a connection whose BEGIN
//! was cancelled under way, and what the next request writes there is acknowledged and lost; and after
//! a restart of the server, each idle connection costs one request.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgSeverity};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::bulkhead::{Bulkhead, Place};

/// How long a request waits for its turn, and then for a new connection if there is no idle one.
const LEASE_DEADLINE: Duration = Duration::from_secs(1);
/// A connection that is not made by then will not be: it was lost on the way, or nobody is there.
const OPENING_LIMIT: Duration = Duration::from_secs(3);
/// Older idle connections are not trusted: firewalls forget them without a word.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Connections {
    options: PgConnectOptions,
    most: u32,
    /// As many as there may be connections, in the order of asking.
    turns: Semaphore,
    /// The last one used is the first one lent: as few as the load needs stay warm.
    idle: Mutex<Vec<Idle>>,
    /// Half made, by requests that ran out of time: the next ones go on with them. Were they dropped, many
    /// requests on a busy machine would start over and over, and none would ever be served.
    opening: Mutex<Vec<Opening>>,
    /// How many were made.
    made: watch::Sender<u64>,
    bulkhead: Bulkhead,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    since: Instant,
}

/// A connection that is being made; it gets on only while a request waits for it.
struct Opening {
    work: Pin<Box<dyn Future<Output = Result<PgConnection, sqlx::Error>> + Send>>,
    since: Instant,
}

/// A connection for one request, which hands it back with [`Lease::end`].
///
/// Dropped without that, as by a caller who went away, it is closed: it may be in the middle of a
/// statement or of a transaction, and the server undoes what is not committed.
pub(super) struct Lease<'store> {
    pub(super) connection: PgConnection,
    home: &'store Connections,
    turn: SemaphorePermit<'store>,
    /// Of the users whom it writes for.
    places: Vec<Place<'store>>,
}

impl Connections {
    /// `made` is told of each new connection.
    pub(super) fn new(options: PgConnectOptions, most: u32, made: watch::Sender<u64>) -> Self {
        let most = most.max(1);
        Self {
            options,
            most,
            turns: Semaphore::new(most as usize),
            idle: Mutex::default(),
            opening: Mutex::default(),
            made,
            bulkhead: Bulkhead::default(),
        }
    }

    /// How many there may be.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// How many were made; changes with each new one.
    pub(super) fn made(&self) -> watch::Receiver<u64> {
        self.made.subscribe()
    }

    /// For a write that takes the locks of these users.
    pub(super) async fn lease_for(&self, users: BTreeSet<&str>) -> Result<Lease<'_>, sqlx::Error> {
        let places = self.bulkhead.enter(users).await;
        let places = places.ok_or(sqlx::Error::PoolTimedOut)?;
        let lease = self.lease().await?;
        Ok(Lease { places, ..lease })
    }

    pub(super) async fn lease(&self) -> Result<Lease<'_>, sqlx::Error> {
        let Ok(turn) = tokio::time::timeout(LEASE_DEADLINE, self.turns.acquire()).await else {
            return Err(sqlx::Error::PoolTimedOut);
        };
        let Ok(turn) = turn else {
            return Err(sqlx::Error::PoolClosed);
        };
        let connection = match self.last_used() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        Ok(Lease {
            connection,
            home: self,
            turn,
            places: Vec::new(),
        })
    }

    /// Goes on with a connection that another request began, or begins one. There are never more, with the idle
    /// ones and those at work, than there are turns: one is begun only where none of either is left.
    async fn open(&self) -> Result<PgConnection, sqlx::Error> {
        let mut opening = self.half_made().unwrap_or_else(|| self.begin());
        let Ok(result) = tokio::time::timeout(LEASE_DEADLINE, &mut opening.work).await else {
            if !self.turns.is_closed() {
                self.opening.lock().push(opening);
            }
            return Err(sqlx::Error::PoolTimedOut);
        };
        let connection = result?;
        self.made.send_modify(|made| *made += 1);
        Ok(connection)
    }

    fn half_made(&self) -> Option<Opening> {
        let mut opening = self.opening.lock();
        opening.retain(|opening| opening.since.elapsed() < OPENING_LIMIT);
        opening.pop()
    }

    fn begin(&self) -> Opening {
        let options = self.options.clone();
        Opening {
            work: Box::pin(async move { options.connect().await }),
            since: Instant::now(),
        }
    }

    fn last_used(&self) -> Option<PgConnection> {
        let mut idle = self.idle.lock();
        let last = idle.pop()?;
        if last.since.elapsed() < IDLE_LIMIT {
            return Some(last.connection);
        }
        // All others have been idle for longer.
        idle.clear();
        None
    }

    /// Nobody gets a connection any more; the idle ones are closed, those at work when it is done.
    pub(super) async fn close(&self) {
        self.turns.close();
        self.opening.lock().clear();
        let idle = std::mem::take(&mut *self.idle.lock());
        for Idle { connection, .. } in idle {
            if let Err(error) = in_time(LEASE_DEADLINE, connection.close()).await {
                tracing::debug!(%error, "a connection to the database was not closed in order");
            }
        }
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Opening")
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

impl Lease<'_> {
    /// Hands the connection back, if `result` shows that it is whole. If it is broken, so are most
    /// likely those that idle beside it: one outage costs no more than the requests that were under way.
    pub(super) fn end<T>(self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let Self {
            connection,
            home,
            turn,
            places,
        } = self;
        let mut idle = home.idle.lock();
        if result.as_ref().err().is_some_and(broke_the_connection) {
            idle.clear();
        } else if !home.turns.is_closed() {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
        drop((idle, turn, places));
        result
    }
}

/// What the server refused leaves the connection as it was, unless it was the server's last word.
pub(super) fn broke_the_connection(error: &sqlx::Error) -> bool {
    let refused = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    refused.is_none_or(|error| error.severity() != PgSeverity::Error)
}

pub(super) async fn in_time<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(elapsed) => Err(sqlx::Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            elapsed,
        ))),
    }
}
