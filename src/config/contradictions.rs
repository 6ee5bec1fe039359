//! What no single setting can check: each contradiction says what to set.

use super::{Backends, Config, Secret};

/// What `REDIS_URL` may begin with.
const REDIS_SCHEMES: [&str; 4] = [
    "redis://",
    "rediss://",
    "redis-sentinel://",
    "rediss-sentinel://",
];

fn is_redis(url: &str) -> bool {
    REDIS_SCHEMES.iter().any(|scheme| url.starts_with(scheme))
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
            "BELLHOP_LISTEN is not loopback, and no key for tokens is configured: set JWT_SECRET (32 bytes or more) or JWT_PUBLIC_KEY_FILE",
        );
        check(
            secret.is_some_and(|secret| secret.len() < 32),
            "JWT_SECRET needs 32 bytes or more: openssl rand -hex 32 makes one",
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
pub(super) fn host_of(url: &url::Url) -> Option<String> {
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
            && url.password().is_none()
    })
}

/// Whether the text is a path with segments that clients and proxies leave as they are, and none of the API's.
pub(super) fn is_socket_path(text: &str) -> bool {
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
pub(super) fn is_bus_prefix(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

impl Backends {
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
        let redis = self.redis_url.as_ref();

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
            redis.is_some_and(|urls| !urls.each().all(|url| is_redis(url.expose()))),
            "REDIS_URL must begin with redis:// or rediss://, or to ask sentinels with redis-sentinel:// or rediss-sentinel://",
        );
        check(
            !is_bus_prefix(&self.bus_prefix),
            "BELLHOP_BUS_PREFIX must have 1 to 64 characters of A-Z a-z 0-9 . _ : -",
        );
        found
    }
}
