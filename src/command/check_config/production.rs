//! The checklist of production, point by point: what is met and by what, and what is open and how to meet it.

use std::fmt;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use url::{Host, Url};

use super::{EXPOSED, sticky};
use crate::bus::redis::{self, BusError};
use crate::command::Failure;
use crate::config::{Config, LogFormat, LogUserIds, Secret, Transport};
use crate::store::{Store, StoreError};

/// Redis and PostgreSQL have this long to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// One point of the list.
#[derive(Debug)]
pub(super) struct Point {
    number: usize,
    name: &'static str,
    /// What meets it, or what would.
    found: Result<String, String>,
}

impl Point {
    pub(super) fn is_met(&self) -> bool {
        self.found.is_ok()
    }
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            name,
            found,
        } = self;
        match found {
            Ok(what) => write!(formatter, "✓ {number} {name}: {what}"),
            Err(what) => write!(formatter, "✗ {number} {name}: {what}"),
        }
    }
}

/// All eight.
pub(super) async fn points(config: &Config, nodes: Option<u32>, proxy_timeout: u64) -> Vec<Point> {
    let found = [
        ("WSS", wss(config.listen.websocket_url.as_deref())),
        ("origins", origins(&config.listen.cors_origins)),
        ("sticky sessions", sticky_sessions(config).await),
        ("Redis", redis_answers(config, nodes).await),
        ("metrics", metrics(config)),
        ("connection pool", pool(config, nodes.unwrap_or(1)).await),
        ("heartbeat", heartbeat(config, proxy_timeout)),
        ("logs", logs(config)),
    ];
    let numbered = (1..).zip(found);
    numbered
        .map(|(number, (name, found))| Point {
            number,
            name,
            found,
        })
        .collect()
}

fn wss(url: Option<&str>) -> Result<String, String> {
    match url {
        Some(url) if url.starts_with("wss://") || url.starts_with("https://") => {
            Ok(format!("clients are told to connect to {url}"))
        }
        Some(url) => Err(format!(
            "WEBSOCKET_URL is {url}, which is not encrypted: have the balancer end TLS, and set it to wss://…"
        )),
        None => Err(
            "WEBSOCKET_URL is not set: set it to the address that browsers connect to, wss://…, where the balancer ends TLS"
                .to_owned(),
        ),
    }
}

fn origins(origins: &[String]) -> Result<String, String> {
    if origins.is_empty() {
        return Err(
            "CORS_ORIGINS is not set: list the origins of your pages, as in https://app.example.com"
                .to_owned(),
        );
    }
    let is_wrong = |origin: &&String| {
        let url = Url::parse(origin).ok();
        !url.is_some_and(|url| url.scheme() == "https" && !is_loopback(&url))
    };
    let wrong: Vec<_> = origins
        .iter()
        .filter(is_wrong)
        .map(String::as_str)
        .collect();
    if wrong.is_empty() {
        return Ok(origins.join(", "));
    }
    Err(format!(
        "{} in CORS_ORIGINS: take out what is not https, and what is on one machine only",
        wrong.join(", ")
    ))
}

async fn sticky_sessions(config: &Config) -> Result<String, String> {
    if !config.listen.enable_websocket {
        return Ok("there are no sockets (ENABLE_WEBSOCKET=false)".to_owned());
    }
    if config.listen.socket_io_transports == [Transport::Websocket] {
        return Ok("none are needed: SOCKET_IO_TRANSPORTS=websocket".to_owned());
    }
    let by_hand = "make a balancer with a cookie send each session to one node (README: Sticky sessions), or set SOCKET_IO_TRANSPORTS=websocket";
    let Some(url) = &config.listen.websocket_url else {
        return Err(format!("cannot be tried without WEBSOCKET_URL; {by_hand}"));
    };
    match sticky::attempt(url, &config.listen.socket_io_path).await {
        sticky::Outcome::Held { sessions, requests } => Ok(format!(
            "{sessions} polling sessions by {url}, {requests} requests on new connections: each reached its node"
        )),
        sticky::Outcome::Lost => Err(format!(
            "a polling session by {url} was lost between two requests (400): {by_hand}"
        )),
        sticky::Outcome::NotTried(reason) => Err(format!(
            "{url} cannot be tried from here ({reason}); run this where it can be reached, or {by_hand}"
        )),
    }
}

async fn redis_answers(config: &Config, nodes: Option<u32>) -> Result<String, String> {
    let Some(secret) = &config.backends.redis_url else {
        if nodes == Some(1) {
            return Ok("one node needs none (--nodes 1)".to_owned());
        }
        return Err(
            "REDIS_URL is not set, and without it each node is alone: set REDIS_URL=rediss://…, or say --nodes 1 if there is to be one"
                .to_owned(),
        );
    };
    let mut answers = Vec::new();
    for one in secret.each() {
        answers.push(one_redis_answers(&one).await?);
    }
    Ok(answers.join("; "))
}

async fn one_redis_answers(secret: &Secret) -> Result<String, String> {
    let place = secret.place();
    match tokio::time::timeout(DEADLINE, redis::ping(secret.expose())).await {
        Ok(Ok(())) => is_guarded(secret).map(|guard| format!("{place} answers; {guard}")),
        Ok(Err(error)) => {
            let what_to_do = match &error {
                BusError::Untrusted(_) | BusError::Authorities(_) => "",
                BusError::Url(_) | BusError::Twice | BusError::ClusterUrl => ": mend REDIS_URL",
                BusError::Away(_) => ": start it, or mend REDIS_URL",
            };
            let Failure(cause) = error.into();
            Err(format!("{place}: {cause}{what_to_do}"))
        }
        Err(_late) => Err(format!(
            "{place} does not answer: start it, or mend REDIS_URL"
        )),
    }
}

/// Whether nobody else on the network can publish in the nodes' name.
fn is_guarded(secret: &Secret) -> Result<String, String> {
    let Ok(url) = Url::parse(secret.expose()) else {
        return Err("REDIS_URL cannot be read".to_owned());
    };
    let has_password = url.password().is_some_and(|password| !password.is_empty());
    match (url.scheme(), has_password) {
        ("rediss", true) => Ok("TLS and a password".to_owned()),
        ("rediss", false) => Ok("TLS".to_owned()),
        (_, true) => Ok("a password, no TLS".to_owned()),
        (_, false) if is_loopback(&url) => Ok("on this machine".to_owned()),
        (_, false) => Err(format!(
            "{} has neither TLS nor a password: whoever reaches it can send to every user; set REDIS_URL=rediss://user:password@…",
            secret.place()
        )),
    }
}

fn metrics(config: &Config) -> Result<String, String> {
    let (public, admin) = (config.listen.listen, config.listen.admin_listen);
    if admin.ip().is_loopback() {
        return Err(format!(
            "BELLHOP_ADMIN_LISTEN is {admin}, which Prometheus cannot reach: set it to an address of the private network, or 0.0.0.0:{} behind a firewall",
            admin.port()
        ));
    }
    if admin.port() == public.port() {
        return Err(format!(
            "BELLHOP_ADMIN_LISTEN has the public port {}: give it one of its own, which the balancer does not pass on",
            admin.port()
        ));
    }
    Ok(format!(
        "http://{admin}/metrics, apart from the public port {}; {EXPOSED}",
        public.port()
    ))
}

async fn pool(config: &Config, nodes: u32) -> Result<String, String> {
    let backends = &config.backends;
    if backends.is_sqlite() {
        return Err(
            "SQLite serves one node, and its machine is where all is lost: set DATABASE_URL=postgres://…"
                .to_owned(),
        );
    }
    let place = backends.database_url.place();
    let wanted = backends.database_pool.saturating_mul(nodes);
    let sum = format!(
        "{nodes} × {} (BELLHOP_DATABASE_POOL)",
        backends.database_pool
    );
    let asked = tokio::time::timeout(DEADLINE, connections(&backends.database_url)).await;
    match asked {
        Ok(Ok(room)) if wanted <= room => Ok(format!("{sum} of the {room} connections of {place}")),
        Ok(Ok(room)) => Err(format!(
            "{sum} is more than the {room} connections that {place} has for clients: set BELLHOP_DATABASE_POOL={} or less, or raise max_connections",
            (room / nodes).max(1)
        )),
        Ok(Err(error)) => {
            let Failure(cause) = error.into();
            Err(format!(
                "{place} cannot be asked: {cause}: start it, or mend DATABASE_URL"
            ))
        }
        Err(_late) => Err(format!(
            "{place} does not answer: start it, or mend DATABASE_URL"
        )),
    }
}

async fn connections(url: &Secret) -> Result<u32, StoreError> {
    let store = Store::open(url.expose(), 1).await?;
    let connections = store.max_connections().await;
    store.close().await;
    Ok(connections?.unwrap_or(1))
}

fn heartbeat(config: &Config, proxy_timeout: u64) -> Result<String, String> {
    let (interval, timeout) = (
        config.sockets.ping_interval_ms,
        config.sockets.ping_timeout_ms,
    );
    let silence = interval + timeout;
    if silence < proxy_timeout.saturating_mul(1_000) {
        return Ok(format!(
            "a ping each {interval} ms and {timeout} ms for its answer, below the proxy's {proxy_timeout} s"
        ));
    }
    Err(format!(
        "ping interval and timeout are {silence} ms together, and a proxy that gives up after {proxy_timeout} s cuts connections that are well: raise its time-out (and say --proxy-timeout), or lower BELLHOP_PING_INTERVAL_MS"
    ))
}

fn logs(config: &Config) -> Result<String, String> {
    let logs = &config.logs;
    let form = match logs.log_format {
        Some(LogFormat::Text) => {
            return Err(
                "BELLHOP_LOG_FORMAT is text: set it to json, which collectors read".to_owned(),
            );
        }
        Some(LogFormat::Json) => "json",
        None => "json wherever it is no terminal",
    };
    let filter = EnvFilter::try_new(&logs.log);
    let level = filter.ok().and_then(|filter| filter.max_level_hint());
    if level.is_some_and(|level| level < LevelFilter::INFO) {
        return Err(format!(
            "RUST_LOG is {}, which hides who connects and which origins are refused: set it to info",
            logs.log
        ));
    }
    let users = match logs.log_user_ids {
        LogUserIds::Plain => "plain; BELLHOP_LOG_USER_IDS=hash keeps them out of the collector",
        LogUserIds::Hash => "hashed",
        LogUserIds::Off => "left out",
    };
    Ok(format!("{form}, RUST_LOG={}, user ids {users}", logs.log))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        // Not a special scheme, so an address in it is still text.
        Some(Host::Domain(name)) => {
            let address = name.parse::<std::net::IpAddr>();
            name == "localhost"
                || name.ends_with(".localhost")
                || address.is_ok_and(|address| address.is_loopback())
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
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

    fn config(arguments: &[&str]) -> Config {
        Arguments::parse_from(std::iter::once(&"bellhop").chain(arguments)).config
    }

    #[test]
    fn browsers_connect_by_tls() {
        assert!(wss(Some("wss://push.example.com")).is_ok());
        assert!(wss(Some("https://push.example.com")).is_ok());
        assert!(wss(Some("ws://push.example.com")).is_err());
        assert!(wss(None).unwrap_err().contains("WEBSOCKET_URL"));
    }

    #[test]
    fn origins_are_named_and_public() {
        let of =
            |list: &[&str]| origins(&list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        assert!(of(&["https://app.example.com", "https://b.example"]).is_ok());
        assert!(of(&[]).is_err());
        for wrong in [
            "http://app.example.com",
            "https://localhost:4200",
            "https://127.0.0.1",
        ] {
            let told = of(&["https://app.example.com", wrong]).unwrap_err();
            assert!(told.starts_with(wrong), "{told}");
        }
    }

    #[test]
    fn redis_is_guarded_or_at_home() {
        for (url, guarded) in [
            ("rediss://redis", true),
            ("redis://:hunter2@redis", true),
            ("redis://localhost:6379", true),
            ("redis://127.0.0.1", true),
            ("redis://redis:6379", false),
            ("redis://user@redis", false),
        ] {
            let found = is_guarded(&Secret::new(url.to_owned()));
            assert_eq!(found.is_ok(), guarded, "{url}: {found:?}");
            assert!(!format!("{found:?}").contains("hunter2"));
        }
    }

    #[test]
    fn metrics_have_an_address_of_their_own() {
        assert!(metrics(&config(&[])).is_err());
        assert!(metrics(&config(&["--admin-listen=0.0.0.0:9090"])).is_ok());
        let same = config(&["--listen=10.0.0.1:80", "--admin-listen=10.0.0.2:80"]);
        assert!(metrics(&same).unwrap_err().contains("public port"));
    }

    #[test]
    fn the_heartbeat_is_faster_than_the_proxy() {
        assert!(heartbeat(&config(&[]), 60).is_ok());
        assert!(heartbeat(&config(&[]), 45).is_err());
        assert!(heartbeat(&config(&["--ping-interval-ms=10000"]), 45).is_ok());
    }

    #[test]
    fn logs_are_for_machines_and_tell_enough() {
        let found = logs(&config(&["--log-format=json"])).unwrap();
        assert!(found.contains("BELLHOP_LOG_USER_IDS=hash"), "{found}");
        assert!(logs(&config(&["--log-format=text"])).is_err());
        assert!(logs(&config(&["--log=warn"])).is_err());
        assert!(logs(&config(&["--log=warn,bellhop=debug", "--log-user-ids=off"])).is_ok());
    }
}
