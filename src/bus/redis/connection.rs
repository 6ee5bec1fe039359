//! The way to Redis: fred finds it, with everything bounded and nothing repeated; what is sent and heard there goes by a [`Wire`].

use std::fmt;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig, Server, TlsConnector};
use fred::types::{Builder, ConnectHandle};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::BusError;
use super::wire::{Stream, Wire};
use crate::backoff::Backoff;

/// A Redis that does not accept, or does not greet, for this long is away.
const OPENING_DEADLINE: Duration = Duration::from_secs(2);

/// For every command that sets no deadline of its own.
const COMMAND_DEADLINE: Duration = Duration::from_secs(2);

/// The shortest and the longest pause before another attempt.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// For a Redis that an authority of one's own vouches for.
pub(super) const TRUST: &str =
    "set SSL_CERT_FILE to a file of the authorities to trust, in place of the system's";

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

/// The way that was found, while somebody stands on it; dropping it closes it.
pub(super) struct Connection {
    pub(super) client: Client,
    /// Whom it leads to: of those that a Sentinel knows, the primary.
    server: Server,
    _driver: Driver,
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
        let mut config = Config::from_url(url).map_err(|error| {
            // fred reads the authorities as soon as an address asks for TLS.
            match error.kind() == &ErrorKind::Tls {
                true => BusError::Authorities(error),
                false => BusError::Url(error),
            }
        })?;
        if config.server.is_clustered() {
            return Err(BusError::ClusterUrl);
        }
        config.fail_fast = true;
        Ok(Self { config })
    }

    /// Where it leads: `host:port/database`, whatever the credentials.
    pub(super) fn place(&self) -> String {
        let servers = self.config.server.hosts();
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let database = self.config.database.unwrap_or_default();
        format!("{}/{database}", servers.join(","))
    }

    /// Finds the way, and has our credentials taken there, or fails in time.
    pub(super) async fn open(&self) -> Result<Connection, Error> {
        let connection = ConnectionConfig {
            connection_timeout: OPENING_DEADLINE,
            internal_command_timeout: OPENING_DEADLINE,
            max_command_attempts: 1,
            ..ConnectionConfig::default()
        };
        let performance = PerformanceConfig {
            default_command_timeout: COMMAND_DEADLINE,
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
            Ok(server) = opened.recv() => Ok(Connection { client, server, _driver: driver }),
            error = driver.ended() => Err(error),
            // fred's own deadlines come first, unless a Sentinel makes it try several hosts.
            () = tokio::time::sleep(OPENING_DEADLINE * 3) => Err(timed_out("Redis does not answer")),
        }
    }

    /// Opens a connection of our own, or fails in time.
    pub(super) async fn wire(&self) -> Result<Wire, Error> {
        // It knows the ways to the primary, and has its credentials taken: nothing is said to anybody else.
        let Connection { server, .. } = self.open().await?;
        let dialing = tokio::time::timeout(OPENING_DEADLINE, self.dial(&server));
        let Ok(wire) = dialing.await else {
            return Err(timed_out("Redis does not answer"));
        };
        wire
    }

    async fn dial(&self, server: &Server) -> Result<Wire, Error> {
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
        let mut wire = Wire::new(stream);
        let credentials = [&self.config.username, &self.config.password];
        if self.config.password.is_some() {
            let credentials: Vec<_> = credentials.into_iter().flatten().collect();
            let credentials: Vec<_> = credentials.iter().map(|text| text.as_str()).collect();
            wire.greet(&credentials).await?;
        }
        Ok(wire)
    }
}

impl Driver {
    async fn ended(&mut self) -> Error {
        match (&mut self.0).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => Error::new(ErrorKind::IO, "the connection was closed"),
            Err(panicked) => Error::new(ErrorKind::Unknown, panicked.to_string()),
        }
    }
}

/// What to do about an error that says only that a certificate's issuer is unknown.
pub(super) fn advice(error: &str) -> Option<&'static str> {
    // rustls says so inside an error of input and output, and fred passes on its text.
    error.contains("UnknownIssuer").then_some(TRUST)
}

pub(super) fn timed_out(what: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, what)
}

/// The pauses between two attempts to connect.
pub(super) fn backoff() -> Backoff {
    Backoff::new(PAUSES.0, PAUSES.1)
}
