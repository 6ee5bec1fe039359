//! One connection to Redis, from its opening to its first failure: fred, with everything bounded and nothing repeated.

use std::fmt;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, Server, TcpConfig, TlsConnector,
};
use fred::types::{Builder, ConnectHandle, RespVersion};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::BusError;
use super::line::{Line, Stream};
use crate::backoff::Backoff;

/// A Redis that does not accept, or does not greet, for this long is away.
const OPENING_DEADLINE: Duration = Duration::from_secs(2);

/// For every command that sets no deadline of its own.
const COMMAND_DEADLINE: Duration = Duration::from_secs(2);

/// Commands between us and fred's own task, at most; the next one would fail at once. Above what the
/// publisher keeps in flight, so that only a bug meets it.
const COMMAND_QUEUE: usize = 1_024;

/// Messages that fred has read and [`super::subscriber`] has not; beyond it fred drops the oldest and says
/// `Lagged`, and the connection is given up. Takes about 100 bytes a place from the start, in each of nine channels.
const RECEIVED_QUEUE: usize = 8_192;

/// The shortest and the longest pause before another attempt.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Knows how to open connections.
#[derive(Clone)]
pub(super) struct Dialer {
    config: Config,
}

impl fmt::Debug for Dialer {
    /// Without the configuration, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Publishing,
    Receiving,
}

/// An open connection; dropping it closes it, and forgets whatever was still to be sent on it.
pub(super) struct Connection {
    pub(super) client: Client,
    /// Whom it leads to: of those that a Sentinel knows, the primary.
    server: Server,
    driver: Driver,
}

/// The task in which fred reads and writes. It must not outlive us: it may hang in a write to a peer
/// that has stopped reading, where no command reaches it any more.
struct Driver(ConnectHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Dialer {
    pub(super) fn new(url: &str) -> Result<Self, BusError> {
        let mut config = Config::from_url(url).map_err(BusError::Url)?;
        if config.server.is_clustered() {
            return Err(BusError::ClusterUrl);
        }
        config.fail_fast = true;
        // Under RESP3 a PING is answered alike with and without subscriptions, and messages are set apart from answers.
        config.version = RespVersion::RESP3;
        Ok(Self { config })
    }

    /// Where it leads: `host:port/database`, whatever the credentials.
    pub(super) fn place(&self) -> String {
        let servers = self.config.server.hosts();
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let database = self.config.database.unwrap_or_default();
        format!("{}/{database}", servers.join(","))
    }

    /// Opens a connection, or fails in time.
    pub(super) async fn open(&self, purpose: Purpose) -> Result<Connection, Error> {
        let connection = ConnectionConfig {
            connection_timeout: OPENING_DEADLINE,
            internal_command_timeout: OPENING_DEADLINE,
            max_command_attempts: 1,
            max_command_buffer_len: COMMAND_QUEUE,
            tcp: TcpConfig {
                nodelay: Some(true),
                ..TcpConfig::default()
            },
            ..ConnectionConfig::default()
        };
        let performance = PerformanceConfig {
            default_command_timeout: COMMAND_DEADLINE,
            broadcast_channel_capacity: match purpose {
                Purpose::Publishing => 16,
                Purpose::Receiving => RECEIVED_QUEUE,
            },
            ..PerformanceConfig::default()
        };
        // No reconnect policy: a connection that fails is over, and its commands fail with it.
        let client = Builder::from_config(self.config.clone())
            .set_connection_config(connection)
            .set_performance_config(performance)
            .build()?;

        let mut opened = client.reconnect_rx();
        let mut driver = Driver(client.connect());
        tokio::select! {
            Ok(server) = opened.recv() => Ok(Connection { client, server, driver }),
            error = driver.ended() => Err(error),
            // fred's own deadlines come first, unless a Sentinel makes it try several hosts.
            () = tokio::time::sleep(OPENING_DEADLINE * 3) => Err(timed_out("Redis does not answer")),
        }
    }
}

impl Dialer {
    /// Opens a connection to publish on, or fails in time.
    pub(super) async fn line(&self) -> Result<Line, Error> {
        // It knows the ways to the primary, and has its credentials taken: nothing is published to anybody else.
        let Connection { server, .. } = self.open(Purpose::Publishing).await?;
        let dialing = tokio::time::timeout(OPENING_DEADLINE, self.dial(&server));
        let Ok(line) = dialing.await else {
            return Err(timed_out("Redis does not answer"));
        };
        line
    }

    async fn dial(&self, server: &Server) -> Result<Line, Error> {
        // As addresses stand in a URL, in brackets if they have colons.
        let host = server.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, server.port)).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.config.tls {
            None => Box::new(stream),
            Some(tls) => {
                let TlsConnector::Rustls(connector) = &tls.connector;
                let name = server.tls_server_name.as_deref().unwrap_or(host);
                let name = ServerName::try_from(name.to_owned())?;
                Box::new(connector.connect(name, stream).await?)
            }
        };
        let mut line = Line::new(stream);
        let credentials = [&self.config.username, &self.config.password];
        if self.config.password.is_some() {
            let credentials: Vec<_> = credentials.into_iter().flatten().collect();
            let credentials: Vec<_> = credentials.iter().map(|text| text.as_str()).collect();
            line.greet(&credentials).await?;
        }
        Ok(line)
    }
}

impl Connection {
    /// Returns when the connection is over. Must not be called again after that.
    pub(super) async fn ended(&mut self) -> Error {
        self.driver.ended().await
    }
}

impl Driver {
    async fn ended(&mut self) -> Error {
        match (&mut self.0).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => Error::new(fred::error::ErrorKind::IO, "the connection was closed"),
            Err(panicked) => Error::new(fred::error::ErrorKind::Unknown, panicked.to_string()),
        }
    }
}

pub(super) fn timed_out(what: &'static str) -> Error {
    Error::new(fred::error::ErrorKind::Timeout, what)
}

/// The pauses between two attempts to connect.
pub(super) fn backoff() -> Backoff {
    Backoff::new(PAUSES.0, PAUSES.1)
}
