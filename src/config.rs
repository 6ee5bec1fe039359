//! Everything an operator can set. `bellhop --help` is the reference, and these comments are its text.
//!
//! Flags, then the environment, then a `.env` file; there is no configuration file. A variable that is there
//! and empty is not set.
#![expect(
    clippy::doc_markdown,
    reason = "the comments of fields are help text, in which backticks would show"
)]

mod api_key;
mod contradictions;
mod event_limit;
mod misspelt;
mod secret;
mod secret_file;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable, TypedValueParser};
use clap::{Args, Command, ValueEnum};

pub use self::api_key::ApiKey;
pub use self::event_limit::EventLimit;
pub use self::misspelt::{Misspelt, misspelt};
pub use self::secret::Secret;
pub use self::secret_file::SecretError;

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

    /// Redis that joins the nodes: redis://user:password@host:port/db, or rediss:// for TLS; by way of sentinels
    /// redis-sentinel://host:port?node=host:port&sentinelServiceName=main. Several, separated by commas, each have some of
    /// the users, the same on all nodes that have the same list. Unset: the node is alone.
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
        value_name = "KEYS",
        value_parser = api_key::Parser
    )]
    pub api_keys: Vec<ApiKey>,
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

    /// Seconds over which a node that got SIGTERM closes its sockets. 0: all at once, and it does not wait for balancers to notice.
    #[arg(long, env = "BELLHOP_DRAIN_SECONDS", default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub drain_seconds: u32,
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

    /// Handshakes of sockets that this node takes a second. More are told to come back.
    #[arg(
        long,
        env = "BELLHOP_LIMIT_HANDSHAKES_PER_SECOND",
        default_value_t = 1_000,
        value_name = "N"
    )]
    pub limit_handshakes_per_second: u32,

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

    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(u64::from(self.drain_seconds))
    }
}

impl Backends {
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.database_url.expose().starts_with("sqlite:")
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

#[cfg(test)]
mod tests;
