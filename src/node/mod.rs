//! One node: starts its pieces, and stops them. The only folder that knows all others.

mod pieces;
mod repairs;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::AuthSetupError;
use crate::bus::{BusError, Exchange};
use crate::config::{Config, SecretError};
use crate::hub::Hub;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;
use pieces::Pieces;

/// How long the sockets have to close, then the requests in flight to be answered, then the tasks to
/// end, when the node stops.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long all of that may take together, from the end of the drain.
const LIMIT: Duration = Duration::from_secs(10);

/// How long balancers may take to notice that a node is leaving, and are served meanwhile.
const NOTICE: Duration = Duration::from_secs(5);

/// A running node.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    admin_address: SocketAddr,
    pieces: Pieces,
    /// The public port's; they end before the other tasks, so that requests in flight find those running.
    connections: Tasks,
    drain: Duration,
}

/// Where a node listens: bound already, so that a taken port is known before anything else happens.
#[derive(Debug)]
pub struct Listeners {
    pub public: TcpListener,
    pub admin: TcpListener,
}

/// What nodes of one process share, in place of what the configuration names: for tests.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    pub store: Option<Store>,
    pub exchange: Option<Exchange>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the settings cannot be used:\n  {}", .0.join("\n  "))]
    Contradictions(Vec<String>),
    #[error("cannot listen on {address} ({setting})")]
    Listen {
        address: SocketAddr,
        setting: &'static str,
        source: std::io::Error,
    },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Auth(#[from] AuthSetupError),
    #[error("DATABASE_URL")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("stopped before it had started")]
    Stopped,
}

impl Listeners {
    /// Binds both ports.
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = async |address, setting| {
            TcpListener::bind(address)
                .await
                .map_err(|source| StartError::Listen {
                    address,
                    setting,
                    source,
                })
        };
        Ok(Self {
            public: bind(config.listen.listen, "BELLHOP_LISTEN").await?,
            admin: bind(config.listen.admin_listen, "BELLHOP_ADMIN_LISTEN").await?,
        })
    }
}

impl Node {
    /// Starts a node, and answers when it serves.
    ///
    /// Waits for a store that is away, with `/startupz` at 503, for as long as `stop` does not fire;
    /// does not wait for Redis: it serves without, and joins when Redis comes.
    pub async fn start(
        config: &Config,
        listeners: Listeners,
        shared: Shared,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let contradictions = config.contradictions();
        if !contradictions.is_empty() {
            return Err(StartError::Contradictions(contradictions));
        }
        let address = local_address(&listeners.public, "BELLHOP_LISTEN")?;
        let admin_address = local_address(&listeners.admin, "BELLHOP_ADMIN_LISTEN")?;
        let pieces = Pieces::build(config, listeners.admin, shared, stop).await?;
        let connections = pieces.serve(config, listeners.public);
        pieces.health.set_started();
        Ok(Self {
            address,
            admin_address,
            pieces,
            connections,
            drain: config.sockets.drain(),
        })
    }

    /// The public address, with the port that it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The sockets of this node.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.pieces.hub
    }

    /// Returns when the node cannot go on: an essential task has ended.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.pieces.tasks.stopping().cancelled_owned() => {}
            () = self.connections.stopping().cancelled_owned() => {}
        }
    }

    /// Leaves as on SIGTERM: in the time that is set.
    pub async fn stop(self) -> bool {
        let drain = self.drain;
        self.leave(drain).await
    }

    /// Leaves: is not ready any more and refuses handshakes, closes the sockets' transports over the time of
    /// `drain`, answers the requests in flight, lets go out what is queued, ends the tasks. REST is served until
    /// the sockets are gone, and as long as balancers may take to notice.
    ///
    /// Returns at the latest [`LIMIT`] after the drain. Answers whether all was done in time.
    pub async fn leave(self, drain: Duration) -> bool {
        let Pieces {
            health,
            metrics,
            hub,
            tasks,
            work,
            store,
            shares_store,
            ..
        } = self.pieces;
        health.set_draining();
        metrics.draining.of(()).set(1.0);
        let noticed = if drain.is_zero() { drain } else { NOTICE };
        let deadline = Instant::now() + drain.max(noticed) + LIMIT;
        let patience = || PATIENCE.min(deadline.saturating_duration_since(Instant::now()));

        tokio::join!(hub.drain(drain), tokio::time::sleep(noticed));
        let closed = tokio::time::timeout(patience(), hub.emptied())
            .await
            .is_ok();
        if !closed {
            tracing::warn!(sockets = hub.len(), "some sockets did not close in time");
        }
        let answered = self.connections.finish(patience()).await;
        let done = work.finish(patience()).await;
        let ended = tasks.finish(patience()).await;
        if shares_store {
            return closed && answered && done && ended;
        }
        let left = tokio::time::timeout(patience(), store.close()).await;
        closed && answered && done && ended && left.is_ok()
    }
}

fn local_address(listener: &TcpListener, setting: &'static str) -> Result<SocketAddr, StartError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|source| StartError::Listen {
        address: unknown,
        setting,
        source,
    })
}
