//! Everything an operator can set. `bellhop --help` is the reference, and these comments are its text.
//!
//! Flags, then the environment, then a `.env` file; there is no configuration file.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{BoolishValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

/// A value that must not be printed: its `Debug` and `Display` say `<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Ok(Self(value.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<secret>")
    }
}

/// All settings of a node.
#[derive(Clone, Debug, Args)]
pub struct Config {
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub backends: Backends,
    #[command(flatten)]
    pub auth: Auth,
    #[command(flatten)]
    pub sockets: Sockets,
    #[command(flatten)]
    pub limits: Limits,
    #[command(flatten)]
    pub logs: Logs,
}

/// Where a node listens, and whom it answers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct Listen {
    /// Address for the API and the sockets. Anything but loopback needs a key (JWT_SECRET or JWT_PUBLIC_KEY_FILE).
    #[arg(
        long,
        env = "BELLHOP_LISTEN",
        default_value = "127.0.0.1:3000",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Address for /metrics, /livez, /readyz and /startupz. Never expose it to the internet.
    #[arg(
        long,
        env = "BELLHOP_ADMIN_LISTEN",
        default_value = "127.0.0.1:9090",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,

    /// Origins whose pages may connect, exact, comma separated, as in https://app.example.com. Unset: the node's own
    /// origin; with no key configured also every origin on localhost, 127.0.0.1 and [::1].
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',', value_name = "ORIGINS", value_parser = non_empty_list_item())]
    pub cors_origins: Vec<String>,

    /// Path of the Socket.IO endpoint.
    #[arg(
        long,
        env = "SOCKET_IO_PATH",
        default_value = "/socket.io/",
        value_name = "PATH"
    )]
    pub socket_io_path: String,
}

/// What is behind the node.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Storage and bus")]
pub struct Backends {
    /// Where notifications are kept: postgres://user:password@host/database, or sqlite:FILE for a single node.
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite:bellhop.db",
        value_name = "URL"
    )]
    pub database_url: Secret,

    /// Connections to PostgreSQL that this node opens at most.
    #[arg(long, env = "BELLHOP_DATABASE_POOL", default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_pool: u32,

    /// Redis that joins the nodes: redis://[user:password@]host[:port][/db], or rediss:// for TLS. Unset: the node is alone.
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<Secret>,

    /// Prefix of every Redis channel; clusters that share a Redis need different ones.
    #[arg(
        long,
        env = "BELLHOP_BUS_PREFIX",
        default_value = "bellhop",
        value_name = "PREFIX"
    )]
    pub bus_prefix: String,
}

/// Which tokens are believed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub struct Auth {
    /// Secret of HS256 tokens, at least 32 bytes. Unset, and no public key either: one is generated and kept in ./bellhop.secret.
    #[arg(
        long,
        env = "JWT_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub jwt_secret: Option<Secret>,

    /// PEM file with the public key of RS256, ES256 or EdDSA tokens.
    #[arg(long, env = "JWT_PUBLIC_KEY_FILE", value_name = "FILE")]
    pub jwt_public_key_file: Option<PathBuf>,

    /// Required `iss` claim. Unset: any issuer.
    #[arg(long, env = "JWT_ISSUER", value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,

    /// Required `aud` claim. Unset: any audience.
    #[arg(long, env = "JWT_AUDIENCE", value_name = "AUDIENCE")]
    pub jwt_audience: Option<String>,

    /// Claim that names the user.
    #[arg(
        long,
        env = "JWT_USER_CLAIM",
        default_value = "sub",
        value_name = "CLAIM"
    )]
    pub jwt_user_claim: String,
}

/// How sockets are held.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sockets")]
pub struct Sockets {
    /// Milliseconds between two pings to a client.
    #[arg(long, env = "BELLHOP_PING_INTERVAL_MS", default_value_t = 25_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub ping_interval_ms: u64,

    /// Milliseconds that a client has to answer a ping before its connection is closed.
    #[arg(long, env = "BELLHOP_PING_TIMEOUT_MS", default_value_t = 20_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub ping_timeout_ms: u64,

    /// Milliseconds from the handshake to the Socket.IO CONNECT packet.
    #[arg(long, env = "BELLHOP_CONNECT_TIMEOUT_MS", default_value_t = 5_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub connect_timeout_ms: u64,

    /// Largest packet from a client, in bytes.
    #[arg(long, env = "BELLHOP_MAX_PAYLOAD_BYTES", default_value_t = 16_384, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1_024..=1_048_576))]
    pub max_payload_bytes: u32,

    /// Missed changes that a returning client gets as events; more come as one notification:refresh.
    #[arg(long, env = "BELLHOP_REPLAY_LIMIT", default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    pub replay_limit: u32,
}

/// How much one party may use. A limit of 0 is none.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Sockets on this node. Unset: 20000, or the descriptor limit less 512 where that is lower.
    #[arg(long, env = "BELLHOP_LIMIT_CONNECTIONS", value_name = "N")]
    pub limit_connections: Option<usize>,

    /// Sockets of one user on this node.
    #[arg(
        long,
        env = "BELLHOP_LIMIT_CONNECTIONS_PER_USER",
        default_value_t = 100,
        value_name = "N"
    )]
    pub limit_connections_per_user: usize,

    /// Events a second that one socket may send, as a sustained rate and a burst.
    #[arg(
        long,
        env = "BELLHOP_LIMIT_EVENTS_PER_SOCKET",
        default_value = "5/20",
        value_name = "RATE/BURST"
    )]
    pub limit_events_per_socket: EventLimit,

    /// Accept http: URLs in actionUrl, icon and badge.
    #[arg(long, env = "BELLHOP_ALLOW_HTTP_URLS", default_value_t = false, value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub allow_http_urls: bool,
}

/// What is logged, and how. RUST_LOG chooses how much, as in RUST_LOG=bellhop=debug.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logs")]
pub struct Logs {
    /// Form of the log; unset: text on a terminal, else json.
    #[arg(long, env = "BELLHOP_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// How user ids appear in the log.
    #[arg(
        long,
        env = "BELLHOP_LOG_USER_IDS",
        default_value = "plain",
        value_name = "FORM"
    )]
    pub log_user_ids: LogUserIds,

    /// Which messages are logged, by level and module.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogUserIds {
    /// As they are.
    Plain,
    /// As the first 12 hexadecimal digits of their SHA-256.
    Hash,
    /// Not at all.
    Off,
}

/// A token bucket: `rate` events a second in the long run, `burst` at once. A rate of 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimit {
    pub rate: u32,
    pub burst: u32,
}

impl FromStr for EventLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rate, burst) = text.split_once('/').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u32>();
        let (Ok(rate), Ok(burst)) = (number(rate), number(burst)) else {
            return Err(format!("{text:?} is not RATE or RATE/BURST, as in 5/20"));
        };
        Ok(Self {
            rate,
            burst: burst.max(rate),
        })
    }
}

fn non_empty_list_item() -> impl TypedValueParser<Value = String> {
    clap::builder::StringValueParser::new().map(|item| item.trim().trim_end_matches('/').to_owned())
}

impl Sockets {
    #[must_use]
    pub fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    #[must_use]
    pub fn ping_timeout(&self) -> Duration {
        Duration::from_millis(self.ping_timeout_ms)
    }

    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
}

impl Backends {
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.database_url.expose().starts_with("sqlite:")
    }
}

impl Auth {
    /// The file that keeps the generated secret of the embedded default, beside the database file.
    pub const SECRET_FILE: &str = "bellhop.secret";

    /// Whether no key is configured: the embedded default, which generates one for development.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.jwt_secret.is_none() && self.jwt_public_key_file.is_none()
    }

    /// The secret that signs and verifies HS256 tokens: the configured one, or the kept one of the
    /// embedded default, which is generated when `create` says so and it is not there yet.
    ///
    /// `None` when tokens are signed elsewhere, with the private half of JWT_PUBLIC_KEY_FILE.
    pub fn secret(&self, create: bool) -> Result<Option<Secret>, SecretError> {
        if !self.is_embedded() {
            return Ok(self.jwt_secret.clone());
        }
        let path = Path::new(Self::SECRET_FILE);
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().len() >= 32 => Ok(Some(Secret::new(text.trim().to_owned()))),
            Ok(_) => Err(SecretError::TooShort),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
                generate_secret(path).map(Some)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(SecretError::Missing),
            Err(error) => Err(SecretError::File(error)),
        }
    }
}

/// Why there is no secret to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "./bellhop.secret holds less than 32 bytes; delete it to have a new one made (tokens signed with it end)"
    )]
    TooShort,
    #[error(
        "no key: set JWT_SECRET to the node's, or run this in the folder where `bellhop serve` keeps its bellhop.secret"
    )]
    Missing,
    #[error("./bellhop.secret cannot be used")]
    File(#[source] std::io::Error),
}

fn generate_secret(path: &Path) -> Result<Secret, SecretError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let bytes: [u8; 32] = rand::random();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // create_new: of two nodes that start at once in one folder, the second reads what the first wrote.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = file.map_err(SecretError::File)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(SecretError::File)?;
    Ok(Secret::new(text))
}

impl Config {
    /// Checks what no single setting can. Every contradiction is reported, not only the first; each
    /// says what to set.
    #[must_use]
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |broken: bool, message: &str| {
            if broken {
                found.push(message.to_owned());
            }
        };
        let url = self.backends.database_url.expose();
        let scheme = ["sqlite:", "postgres:", "postgresql:"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        let redis = self.backends.redis_url.as_ref().map(Secret::expose);
        let secret = self.auth.jwt_secret.as_ref().map(Secret::expose);
        let embedded = self.auth.is_embedded();

        check(
            !scheme,
            "DATABASE_URL must begin with postgres:// or sqlite:",
        );
        check(
            redis.is_some() && self.backends.is_sqlite(),
            "REDIS_URL needs a store that the nodes share: set DATABASE_URL=postgres://…, or unset REDIS_URL for a single node",
        );
        check(
            redis.is_some_and(|url| !url.starts_with("redis://") && !url.starts_with("rediss://")),
            "REDIS_URL must begin with redis:// or rediss://",
        );
        check(
            embedded && !self.listen.listen.ip().is_loopback(),
            "BELLHOP_LISTEN is not loopback, and no key is configured: set JWT_SECRET (32 bytes or more) or JWT_PUBLIC_KEY_FILE",
        );
        check(
            secret.is_some_and(|secret| secret.len() < 32),
            "JWT_SECRET needs 32 bytes or more",
        );
        check(
            secret.is_some() && self.auth.jwt_public_key_file.is_some(),
            "JWT_SECRET and JWT_PUBLIC_KEY_FILE are both set: a key belongs to one algorithm, so unset one",
        );
        check(
            !self.listen.socket_io_path.starts_with('/'),
            "SOCKET_IO_PATH must begin with /",
        );
        for origin in &self.listen.cors_origins {
            check(
                !is_origin(origin),
                &format!(
                    "CORS_ORIGINS: {origin:?} is not an origin, as in https://app.example.com"
                ),
            );
        }
        found
    }
}

/// Whether the text is a serialised origin (RFC 6454 section 6.2): scheme, host, and port unless it is the default.
fn is_origin(text: &str) -> bool {
    url::Url::parse(text)
        .is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        config: Config,
    }

    fn parse(arguments: &[&str]) -> Config {
        Arguments::parse_from(std::iter::once(&"bellhop").chain(arguments)).config
    }

    #[test]
    fn the_defaults_contradict_nothing() {
        assert_eq!(parse(&[]).contradictions(), Vec::<String>::new());
    }

    #[test]
    fn every_contradiction_is_reported() {
        let found = parse(&[
            "--listen=0.0.0.0:3000",
            "--redis-url=http://localhost",
            "--cors-origins=https://a.example/,localhost:3000,https://b.example/path,https://c.example:443",
            "--socket-io-path=socket.io",
        ])
        .contradictions();
        assert_eq!(found.len(), 7, "{found:#?}");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let config = parse(&[
            "--jwt-secret=correct-horse-battery-staple-0123456789",
            "--database-url=postgres://u:hunter2@db/x",
        ]);
        let text = format!("{config:?}");
        assert!(
            !text.contains("correct-horse") && !text.contains("hunter2"),
            "{text}"
        );
    }

    #[test]
    fn an_event_limit_is_a_rate_and_a_burst() {
        assert_eq!("5/20".parse(), Ok(EventLimit { rate: 5, burst: 20 }));
        assert_eq!("7".parse(), Ok(EventLimit { rate: 7, burst: 7 }));
        assert_eq!("0".parse(), Ok(EventLimit { rate: 0, burst: 0 }));
        assert!("a/b".parse::<EventLimit>().is_err());
    }
}
