//! Everything an operator can set. `bellhop --help` is the reference, and these comments are its text.
//!
//! Flags, then the environment, then a `.env` file; there is no configuration file. A variable that is there
//! and empty is not set.
#![expect(
    clippy::doc_markdown,
    reason = "the comments of fields are help text, in which backticks would show"
)]

mod misspelt;
mod secret_file;

use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable, TypedValueParser};
use clap::{Args, Command, ValueEnum};

pub use self::misspelt::{Misspelt, misspelt};
pub use self::secret_file::SecretError;

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

    /// Where a URL leads, without what in it is secret: `host:port/path`, or `sqlite:file`.
    #[must_use]
    pub fn place(&self) -> String {
        let plain = self.0.split(['?', '#']).next().unwrap_or_default();
        if plain.starts_with("sqlite:") {
            return plain.to_owned();
        }
        let Ok(url) = url::Url::parse(&self.0) else {
            return "?".to_owned();
        };
        let host = host_of(&url).unwrap_or_else(|| "?".to_owned());
        let port = url.port().map(|port| format!(":{port}"));
        format!("{host}{}{}", port.unwrap_or_default(), url.path())
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

    /// Origins whose pages may connect, comma separated: scheme, host and port as a browser sends them; no other may.
    /// Unset: the node's own; with no key configured also every origin on localhost, 127.0.0.1 and ::1.
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',', value_name = "ORIGINS", value_parser = non_empty_list_item())]
    pub cors_origins: Vec<String>,

    /// Path of the Socket.IO endpoint, outside /api: segments of A-Z a-z 0-9 . _ ~ - after slashes.
    #[arg(
        long,
        env = "SOCKET_IO_PATH",
        default_value = "/socket.io/",
        value_name = "PATH"
    )]
    pub socket_io_path: String,

    /// Transports that clients may use, comma separated: websocket, polling.
    #[arg(long, env = "SOCKET_IO_TRANSPORTS", value_delimiter = ',', default_value = "websocket,polling", value_name = "TRANSPORTS", value_parser = transport())]
    pub socket_io_transports: Vec<Transport>,

    /// Whether there are sockets at all. false: handshakes get `disabled`, and clients poll.
    #[arg(long, env = "ENABLE_WEBSOCKET", default_value_t = true, value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub enable_websocket: bool,

    /// Address that /api/client-config tells clients to connect to, as in wss://push.example.com. Unset: the one that they ask.
    #[arg(long, env = "WEBSOCKET_URL", value_name = "URL")]
    pub websocket_url: Option<String>,
}

/// A transport of Engine.IO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Websocket,
    Polling,
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

    /// Redis that joins the nodes: redis://user:password@host:port/db, or rediss:// for TLS. Unset: the node is alone.
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<Secret>,

    /// Prefix of every Redis channel; clusters that share a Redis need different ones. 1 to 64 of A-Z a-z 0-9 . _ : -
    #[arg(
        long,
        env = "BELLHOP_BUS_PREFIX",
        default_value = "bellhop",
        value_name = "PREFIX"
    )]
    pub bus_prefix: String,

    /// Days after which notifications and what is known of deleted ones are forgotten.
    #[arg(long, env = "BELLHOP_RETENTION_DAYS", default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub retention_days: u32,

    /// Notifications of one user that are kept, and as many of the last changes.
    #[arg(
        long,
        env = "BELLHOP_RETENTION_CHANGES",
        default_value_t = 10_000,
        value_name = "N"
    )]
    pub retention_changes: u32,
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

    /// Longest lifetime of a token, exp less iat; tokens without iat are refused then. 0: any.
    #[arg(
        long,
        env = "BELLHOP_TOKEN_MAX_LIFETIME_SECONDS",
        default_value_t = 0,
        value_name = "SECONDS"
    )]
    pub token_max_lifetime_seconds: u64,

    /// API keys of publishers, comma separated, as `name:sha256` with the SHA-256 of the key in hexadecimal; `bellhop key` makes one.
    #[arg(
        long,
        env = "BELLHOP_API_KEYS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "KEYS"
    )]
    pub api_keys: Vec<ApiKey>,
}

/// An API key as it is configured: whose it is, and its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    pub sha256: [u8; 32],
}

impl FromStr for ApiKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "not name:sha256, as `bellhop key` prints it";
        let (name, digest) = text.trim().split_once(':').ok_or(expected)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
            return Err("the name of an API key is 1 to 64 of A-Z a-z 0-9 . _ -".to_owned());
        }
        let sha256 = digest_of(digest).ok_or(expected)?;
        let name = name.to_owned();
        Ok(Self { name, sha256 })
    }
}

/// The bytes of 64 hexadecimal digits.
fn digest_of(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
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

    /// Notifications and emits a second that one publisher may send through this node, as a sustained rate and a burst.
    #[arg(
        long,
        env = "BELLHOP_LIMIT_PUBLISHES_PER_KEY",
        default_value = "0",
        value_name = "RATE/BURST"
    )]
    pub limit_publishes_per_key: EventLimit,

    /// Notifications and emits a second that may be sent to one user through this node, as a sustained rate and a burst.
    #[arg(
        long,
        env = "BELLHOP_LIMIT_PUBLISHES_PER_USER",
        default_value = "0",
        value_name = "RATE/BURST"
    )]
    pub limit_publishes_per_user: EventLimit,

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

    /// Which messages are logged, by level and module. Other crates log warnings and errors at most, whatever this says.
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

fn transport() -> impl TypedValueParser<Value = Transport> {
    clap::builder::EnumValueParser::<Transport>::new()
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

    /// What of [`Config::contradictions`] is about the store and the bus.
    fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |broken: bool, message: &str| {
            if broken {
                found.push(message.to_owned());
            }
        };
        let url = self.database_url.expose();
        let scheme = ["sqlite:", "postgres:", "postgresql:"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        let redis = self.redis_url.as_ref().map(Secret::expose);

        check(
            !scheme,
            "DATABASE_URL must begin with postgres:// or sqlite:",
        );
        check(
            scheme
                && !self.is_sqlite()
                && url::Url::parse(url)
                    .ok()
                    .and_then(|url| host_of(&url))
                    .is_none(),
            "DATABASE_URL must name a host, as in postgres://user:password@host/database (with %40 for an @ in the password, %2F for a /, and so on)",
        );
        check(
            redis.is_some() && self.is_sqlite(),
            "REDIS_URL needs a store that the nodes share: set DATABASE_URL=postgres://…, or unset REDIS_URL for a single node",
        );
        check(
            redis.is_some_and(|url| !url.starts_with("redis://") && !url.starts_with("rediss://")),
            "REDIS_URL must begin with redis:// or rediss://",
        );
        check(
            !is_bus_prefix(&self.bus_prefix),
            "BELLHOP_BUS_PREFIX must have 1 to 64 characters of A-Z a-z 0-9 . _ : -",
        );
        found
    }
}

impl Auth {
    /// The file that keeps the generated secret of the embedded default, in the working directory.
    pub const SECRET_FILE: &str = "bellhop.secret";

    /// Whether no key is configured: the embedded default, which generates one for development.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.jwt_secret.is_none() && self.jwt_public_key_file.is_none()
    }

    /// Whether whoever sits at this machine may have a token for any user: until any key is configured, one of
    /// an application as well as one of tokens.
    #[must_use]
    pub fn allows_dev_sign_in(&self) -> bool {
        self.is_embedded() && self.api_keys.is_empty()
    }

    /// What of [`Config::contradictions`] is about API keys: each names one publisher, and each publisher one key.
    fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (index, key) in self.api_keys.iter().enumerate() {
            let (name, before) = (&key.name, &self.api_keys[..index]);
            if before.iter().any(|other| other.name == *name) {
                found.push(format!(
                    "BELLHOP_API_KEYS names {name:?} twice: give each key a name of its own"
                ));
            }
            if let Some(other) = before.iter().find(|other| other.sha256 == key.sha256) {
                found.push(format!(
                    "BELLHOP_API_KEYS has the same key as {:?} and as {name:?}: make one for each with `bellhop key`",
                    other.name
                ));
            }
        }
        found
    }

    /// The secret that signs and verifies HS256 tokens: the configured one, or the kept one of the
    /// embedded default, which is generated when `create` says so and it is not there yet.
    ///
    /// `None` when tokens are signed elsewhere, with the private half of JWT_PUBLIC_KEY_FILE.
    pub fn secret(&self, create: bool) -> Result<Option<Secret>, SecretError> {
        if !self.is_embedded() {
            return Ok(self.jwt_secret.clone());
        }
        secret_file::kept(Path::new(Self::SECRET_FILE), create).map(Some)
    }
}

/// The same command, for which environment variables that are empty are not set: `JWT_ISSUER=` in a `.env` file
/// means that there is none, not that it is the empty text.
#[must_use]
pub fn ignoring_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| match argument.get_env() {
            Some(name) if is_empty(name) => argument.env(Resettable::Reset),
            Some(_) | None => argument,
        })
        .mut_subcommands(ignoring_empty_variables)
}

impl Config {
    /// Checks what no single setting can. Every contradiction is reported, not only the first; each
    /// says what to set.
    #[must_use]
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = self.backends.contradictions();
        found.extend(self.auth.contradictions());
        let mut check = |broken: bool, message: &str| {
            if broken {
                found.push(message.to_owned());
            }
        };
        let secret = self.auth.jwt_secret.as_ref().map(Secret::expose);
        let embedded = self.auth.is_embedded();

        check(
            self.listen.listen == self.listen.admin_listen && self.listen.listen.port() != 0,
            "BELLHOP_ADMIN_LISTEN and BELLHOP_LISTEN are the same: give metrics and health a port of their own",
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
            !is_socket_path(&self.listen.socket_io_path),
            "SOCKET_IO_PATH must be a path of A-Z a-z 0-9 . _ ~ -, as in /socket.io/, and not /api nor below it",
        );
        check(
            self.listen
                .websocket_url
                .as_deref()
                .is_some_and(|url| !is_socket_url(url)),
            "WEBSOCKET_URL must be an address with ws, wss, http or https and without a path, as in wss://push.example.com",
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

/// The host of a database's URL: before its path, or in its query, where a socket's folder can be.
fn host_of(url: &url::Url) -> Option<String> {
    let asked = || url.query_pairs().find(|(name, _)| name == "host");
    let host = url.host_str().map(ToOwned::to_owned);
    host.filter(|host| !host.is_empty())
        .or_else(|| Some(asked()?.1.into_owned()))
        .filter(|host| !host.is_empty())
}

/// Whether the text is a serialised origin (RFC 6454 section 6.2): scheme, host, and port unless it is the default.
fn is_origin(text: &str) -> bool {
    url::Url::parse(text)
        .is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == text)
}

/// Whether clients can be told to connect there: to an origin, beside which the path is told.
fn is_socket_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "ws" | "wss" | "http" | "https")
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
    })
}

/// Whether the text is a path with segments that clients and proxies leave as they are, and none of the API's.
fn is_socket_path(text: &str) -> bool {
    let Some(path) = text.strip_prefix('/') else {
        return false;
    };
    let is_segment = |segment: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
    };
    let mut segments = path.strip_suffix('/').unwrap_or(path).split('/');
    segments.clone().all(is_segment) && segments.next() != Some("api")
}

/// Whether the text means nothing but itself in a Redis key or pattern.
fn is_bus_prefix(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
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
            "--bus-prefix=*",
        ])
        .contradictions();
        assert_eq!(found.len(), 8, "{found:#?}");
    }

    #[test]
    fn a_server_of_postgres_has_a_host() {
        for (url, usable) in [
            ("postgres://", false),
            ("postgres:///bellhop", false),
            ("postgres:bellhop", false),
            ("postgres://u:p@/bellhop", false),
            ("postgres://db", true),
            ("postgresql://u:p@[::1]:5432/bellhop", true),
            ("postgres:///bellhop?host=/run/postgresql", true),
        ] {
            let found = parse(&["--database-url", url]).contradictions();
            assert_eq!(found.is_empty(), usable, "{url}: {found:?}");
        }
    }

    #[test]
    fn two_listeners_have_two_addresses() {
        let found = |listen: &str, admin: &str| {
            parse(&["--listen", listen, "--admin-listen", admin])
                .contradictions()
                .len()
        };
        assert_eq!(found("127.0.0.1:9090", "127.0.0.1:9090"), 1);
        assert_eq!(found("127.0.0.1:9090", "127.0.0.2:9090"), 0);
        assert_eq!(found("127.0.0.1:0", "127.0.0.1:0"), 0);
    }

    #[test]
    fn a_place_has_no_secret() {
        for (url, place) in [
            (
                "postgres://u:hunter2@db:5432/x?sslmode=require",
                "db:5432/x",
            ),
            ("postgres:///x?host=/run&password=hunter2", "/run/x"),
            ("rediss://:hunter2@redis", "redis"),
            ("sqlite:bellhop.db?mode=rwc", "sqlite:bellhop.db"),
            ("postgres://u:hunter2", "?"),
        ] {
            assert_eq!(Secret::new(url.to_owned()).place(), place, "{url}");
        }
    }

    #[test]
    fn the_socket_path_is_a_plain_path_beside_the_api() {
        for path in [
            "/socket.io/",
            "/socket.io",
            "/a/b_c~d-e",
            "/apis",
            "/v1/api/",
            "/API",
        ] {
            assert!(is_socket_path(path), "{path}");
        }
        for path in [
            "",
            "/",
            "//",
            "socket.io",
            "/a//b",
            "/a//",
            "/./",
            "/a/../b",
            "/a?b",
            "/a#b",
            "/a%20b",
            "/a b",
            "/é",
            "/{id}",
            "/*",
            "/api",
            "/api/",
            "/api/socket.io",
        ] {
            assert!(!is_socket_path(path), "{path}");
        }
        let found = parse(&["--socket-io-path=/api/x"]).contradictions();
        assert!(
            found.iter().any(|text| text.starts_with("SOCKET_IO_PATH ")),
            "{found:?}"
        );
    }

    #[test]
    fn the_bus_prefix_has_no_character_of_a_pattern() {
        for prefix in ["bellhop", "a", "Shop_1:test-2.x:", &"x".repeat(64)] {
            assert!(is_bus_prefix(prefix), "{prefix}");
        }
        for prefix in [
            "",
            "a*",
            "a?",
            "[a]",
            "a\\b",
            "a b",
            "{a}",
            "é",
            &"x".repeat(65),
        ] {
            assert!(!is_bus_prefix(prefix), "{prefix}");
        }
        let found = parse(&["--bus-prefix=a*"]).contradictions();
        assert!(
            found
                .iter()
                .any(|text| text.starts_with("BELLHOP_BUS_PREFIX ")),
            "{found:?}"
        );
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
    fn clients_are_told_an_origin() {
        for (url, usable) in [
            ("wss://push.example.com", true),
            ("http://localhost:3000/", true),
            ("push.example.com", false),
            ("wss://push.example.com/socket.io/", false),
            ("wss://user@push.example.com", false),
            ("ftp://push.example.com", false),
        ] {
            let found = parse(&["--websocket-url", url]).contradictions();
            assert_eq!(found.is_empty(), usable, "{url}: {found:?}");
        }
    }

    #[test]
    fn switches_and_lists_are_read_as_they_are_spelled() {
        let config = parse(&[]);
        assert!(config.listen.enable_websocket);
        assert_eq!(
            config.listen.socket_io_transports,
            [Transport::Websocket, Transport::Polling]
        );
        let config = parse(&["--enable-websocket=false", "--socket-io-transports=polling"]);
        assert!(!config.listen.enable_websocket);
        assert_eq!(config.listen.socket_io_transports, [Transport::Polling]);
    }

    #[test]
    fn an_api_key_is_configured_by_name_and_digest() {
        let digest = "ab".repeat(32);
        let key: ApiKey = format!("shop:{digest}").parse().unwrap();
        assert_eq!((key.name.as_str(), key.sha256), ("shop", [0xab; 32]));
        for text in [
            String::new(),
            digest.clone(),
            format!(":{digest}"),
            format!("a b:{digest}"),
            format!("shop:{}", &digest[1..]),
            format!("shop:+{}", &digest[1..]),
            format!("{}:{digest}", "x".repeat(65)),
        ] {
            assert!(text.parse::<ApiKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_api_key_has_one_name_and_a_name_one_key() {
        let (first, second) = ("0a".repeat(32), "0B".repeat(32));
        let found = |keys: &[String]| {
            let keys = format!("--api-keys={}", keys.join(","));
            parse(&[&keys]).contradictions().len()
        };
        assert_eq!(
            found(&[format!("shop:{first}"), format!("crm:{second}")]),
            0
        );
        assert_eq!(
            found(&[format!("shop:{first}"), format!("shop:{second}")]),
            1
        );
        assert_eq!(found(&[format!("shop:{first}"), format!("crm:{first}")]), 1);
        assert_eq!(
            found(&[format!("shop:{first}"), format!("shop:{first}")]),
            2
        );
    }

    #[test]
    fn an_api_key_ends_the_development_sign_in() {
        let key = format!("--api-keys=shop:{}", "0a".repeat(32));
        assert!(parse(&[]).auth.allows_dev_sign_in());
        let with_key = parse(&[&key]).auth;
        assert!(with_key.is_embedded() && !with_key.allows_dev_sign_in());
    }

    #[test]
    fn an_event_limit_is_a_rate_and_a_burst() {
        assert_eq!("5/20".parse(), Ok(EventLimit { rate: 5, burst: 20 }));
        assert_eq!("7".parse(), Ok(EventLimit { rate: 7, burst: 7 }));
        assert_eq!("0".parse(), Ok(EventLimit { rate: 0, burst: 0 }));
        assert!("a/b".parse::<EventLimit>().is_err());
    }
}
