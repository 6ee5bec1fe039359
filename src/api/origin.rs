//! Which pages may talk to this node, by the origin that their browser states.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::uri::Authority;
use parking_lot::Mutex;
use url::Url;

/// The log hears of refused origins at most this often: who sends them decides how many there are.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The origins whose pages are served, for REST and for the Socket.IO handshake alike.
///
/// Cloning shares it, so that both log a refusal once.
#[derive(Clone, Debug)]
pub struct Origins(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    exact: Vec<String>,
    loopback: bool,
    logged: Mutex<Option<Instant>>,
}

impl Origins {
    /// Serves the `exact` origins. Without any it serves the node's own, and with `loopback` every one on
    /// `localhost`, `127.0.0.1` and `[::1]`.
    #[must_use]
    pub fn new(exact: &[String], loopback: bool) -> Self {
        Self(Arc::new(Rules {
            exact: exact.to_vec(),
            loopback,
            logged: Mutex::new(None),
        }))
    }

    /// Whether a page of `origin` is served by the node that it knows as `host`, the request's `Host`.
    ///
    /// An origin matches as a whole, as browsers serialise it (RFC 6454 section 6.2); `null` never does.
    /// Where none is listed, the node's own pages are served under whatever name they were loaded by; their
    /// scheme cannot be compared, for it ends at the TLS proxy. That would let in a page that an attacker in the
    /// network put at `http://` of the same host: an operator who lists origins keeps it out.
    #[must_use]
    pub fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        let Some(url) = parse(origin) else {
            return false;
        };
        if !self.0.exact.is_empty() {
            return self.0.exact.iter().any(|exact| exact == origin);
        }
        let loopback = self.0.loopback && url.host_str().is_some_and(is_loopback);
        loopback || host.is_some_and(|host| is_same(&url, host))
    }

    /// As [`Origins::allows`], and tells the log which origin was refused, at most once a minute.
    #[must_use]
    pub fn admits(&self, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
        let host = host.and_then(|host| host.to_str().ok());
        let allowed = origin
            .to_str()
            .is_ok_and(|origin| self.allows(origin, host));
        if !allowed {
            self.log_refusal(origin);
        }
        allowed
    }

    fn log_refusal(&self, origin: &HeaderValue) {
        let now = Instant::now();
        let mut logged = self.0.logged.lock();
        if logged.is_some_and(|at| now.duration_since(at) < LOG_EVERY) {
            return;
        }
        *logged = Some(now);
        drop(logged);
        // Only what is an origin is repeated: its form leaves no room for anything else.
        match origin
            .to_str()
            .ok()
            .filter(|origin| origin.len() <= 100 && parse(origin).is_some())
        {
            Some(origin) => tracing::warn!("origin {origin} refused; add it to CORS_ORIGINS"),
            None => tracing::warn!(
                "an origin that no setting can allow was refused (null, or malformed)"
            ),
        }
    }
}

/// A name of this machine that only this machine resolves to itself.
pub(super) fn is_loopback(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|name| host.eq_ignore_ascii_case(name))
}

/// An origin in its one spelling, with a scheme that pages have.
fn parse(origin: &str) -> Option<Url> {
    let url = Url::parse(origin).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https");
    (is_web && url.origin().ascii_serialization() == origin).then_some(url)
}

/// Whether `host` names what the origin names; without a port it means the default one of its scheme.
fn is_same(origin: &Url, host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let default = if origin.scheme() == "https" { 443 } else { 80 };
    let same_host = origin
        .host_str()
        .is_some_and(|name| name.eq_ignore_ascii_case(authority.host()));
    let same_port = origin.port_or_known_default() == Some(authority.port_u16().unwrap_or(default));
    same_host && same_port && !host.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Origins {
        Origins::new(
            &[
                "https://app.example.com".to_owned(),
                "http://localhost:5173".to_owned(),
            ],
            false,
        )
    }

    #[test]
    fn only_the_whole_origin_matches() {
        assert!(listed().allows("https://app.example.com", None));
        assert!(listed().allows("http://localhost:5173", None));
        for origin in [
            "null",
            "",
            "*",
            "https://evil",
            "https://app.example.com.evil",
            "https://app.example.com@evil",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com:443",
            "HTTPS://APP.EXAMPLE.COM",
            "https://app.example.com/",
            "https://sub.app.example.com",
            "http://localhost:5174",
            "http://localhost",
            "https://xapp.example.com",
        ] {
            assert!(!listed().allows(origin, None), "{origin}");
        }
    }

    #[test]
    fn loopback_is_three_names_with_any_port() {
        let origins = Origins::new(&[], true);
        for origin in [
            "http://localhost:5173",
            "https://localhost",
            "http://127.0.0.1:1",
            "http://[::1]:3000",
        ] {
            assert!(origins.allows(origin, None), "{origin}");
            assert!(!Origins::new(&[], false).allows(origin, None), "{origin}");
        }
        for origin in [
            "null",
            "http://localhost.evil",
            "http://127.0.0.1.evil",
            "http://127.0.0.2",
            "http://[::2]",
            "file://localhost",
            "http://user@localhost",
            "http://localhost:3000/path",
        ] {
            assert!(!origins.allows(origin, None), "{origin}");
        }
    }

    #[test]
    fn where_origins_are_listed_no_other_rule_lets_one_in() {
        let exact = ["https://push.example.com".to_owned()];
        let origins = Origins::new(&exact, true);
        assert!(origins.allows("https://push.example.com", Some("push.example.com")));
        for (origin, host) in [
            ("http://push.example.com", "push.example.com"),
            ("https://push.example.com:8443", "push.example.com:8443"),
            ("http://node-1:3000", "node-1:3000"),
            ("http://localhost:3000", "localhost:3000"),
        ] {
            assert!(!origins.allows(origin, Some(host)), "{origin} {host}");
        }
    }

    #[test]
    fn the_nodes_own_pages_are_served() {
        let origins = Origins::new(&[], false);
        for (origin, host) in [
            ("http://localhost:3000", "localhost:3000"),
            ("http://push.example.com", "push.example.com"),
            ("https://push.example.com", "Push.Example.com"),
            ("https://push.example.com", "push.example.com:443"),
            ("http://[::1]:3000", "[::1]:3000"),
        ] {
            assert!(origins.allows(origin, Some(host)), "{origin} {host}");
        }
        for (origin, host) in [
            ("null", "null"),
            ("http://localhost:3000", "localhost:3001"),
            ("http://push.example.com", "push.example.com:8080"),
            ("https://push.example.com", "push.example.com:80"),
            ("http://evil", "push.example.com"),
            ("http://evil", "x@evil"),
            ("http://evil", ""),
        ] {
            assert!(!origins.allows(origin, Some(host)), "{origin} {host}");
        }
    }
}
