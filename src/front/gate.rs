//! The way to the Socket.IO endpoint: who may shake hands, how long a body may take, and what a poll carried away.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;

use crate::api::{Health, Origins};
use crate::hub::Hub;
use crate::hub::line::Line;
use crate::hub::porch::{Guest, Porch};
use crate::hub::transport::{self, Body, Endpoint, Transports, query};
use crate::metrics::{Metrics, Rejected};
use crate::rate::{Bucket, Taken};

/// How long the body of a polling client's request may take.
const BODY: Duration = Duration::from_secs(10);

/// What stands before the socket library.
#[derive(Clone)]
pub struct Gate {
    pub library: Endpoint,
    pub transports: Arc<Transports>,
    pub hub: Hub,
    pub origins: Origins,
    pub health: Arc<Health>,
    pub porch: Porch,
    /// Handshakes.
    pub rate: Arc<Bucket>,
    pub metrics: Arc<Metrics>,
    /// Bytes of a packet.
    pub limit_body: usize,
    /// Whether polling sessions may go over to a WebSocket.
    pub upgrades: bool,
}

impl Gate {
    /// Answers a request below the socket path. The request's [`Line`] is among its extensions.
    pub async fn answer(self, mut request: Request<Body>) -> Result<Response<Body>, Infallible> {
        match self.admit(&request) {
            Ok(Some(guest)) => drop(request.extensions_mut().insert(guest)),
            Ok(None) => {}
            Err(refused) => return Ok(self.refuse(refused)),
        }
        let request = match self.read_body(request).await {
            Ok(request) => request,
            Err(status) => return Ok(refusal(status, "body_refused")),
        };
        Ok(self.pass(request).await)
    }

    /// Decides on a handshake before any session exists and before any work: `None` for other requests.
    ///
    /// What a retry cures is `503` or `429` with `Retry-After`: from a `connect_error` the official clients
    /// would not come back.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<Option<Arc<Guest>>, Refused> {
        let headers = request.headers();
        let is_refused = |origin| !self.origins.admits(origin, headers.get(header::HOST));
        if headers.get(header::ORIGIN).is_some_and(is_refused) {
            return Err(Refused::Origin);
        }
        if query(request.uri(), "sid").is_some() {
            return Ok(None);
        }
        if self.health.is_draining() {
            return Err(Refused::Draining);
        }
        if !self.hub.has_room() {
            return Err(Refused::Full);
        }
        let guest = self.porch.enter().ok_or(Refused::Busy)?;
        if self.rate.take() != Taken::Granted {
            return Err(Refused::TooOften);
        }
        Ok(Some(guest))
    }

    fn refuse(&self, refused: Refused) -> Response<Body> {
        let (status, code, reason) = refused.as_answer();
        self.metrics.connections_rejected.of(reason).increment(1);
        let mut response = refusal(status, code);
        if matches!(refused, Refused::Draining) {
            // The client's next try finds another node.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    /// Reads the body here: the library would wait for it for ever, also after its session has ended.
    async fn read_body(&self, request: Request<Body>) -> Result<Request<Body>, StatusCode> {
        if request.method() != Method::POST {
            return Ok(request);
        }
        let (parts, body) = request.into_parts();
        let body = tokio::time::timeout(BODY, collect(body, self.limit_body)).await;
        let body = body.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))?;
        Ok(Request::from_parts(parts, whole(body)))
    }

    async fn pass(&self, request: Request<Body>) -> Response<Body> {
        let sid = query(request.uri(), "sid").map(str::to_owned);
        let is_poll =
            request.method() == Method::GET && query(request.uri(), "transport") == Some("polling");
        let line = request.extensions().get::<Arc<Line>>().cloned();
        let response = transport::answer(self.library.clone(), request).await;

        let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(line) = line.filter(|_| upgrades) {
            line.upgrade();
            if let Some(sid) = &sid {
                self.transports.upgrade(sid, &line);
            }
        }
        let is_handshake = sid.is_none();
        match sid
            .filter(|_| is_poll)
            .and_then(|sid| self.transports.account(&sid))
        {
            Some(account) => response.map(|body| {
                let count = move |frame: Frame<Bytes>| {
                    let (packets, bytes) = frame.data_ref().map_or((0, 0), |data| events_in(data));
                    account.written(packets, bytes);
                    frame
                };
                body.map_frame(count).boxed_unsync()
            }),
            None if self.upgrades || !is_handshake => response,
            None => without_upgrade(response).await,
        }
    }
}

/// Why there is no handshake.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    Origin,
    Draining,
    Full,
    TooOften,
    /// Too many sessions wait for their CONNECT.
    Busy,
}

impl Refused {
    fn as_answer(self) -> (StatusCode, &'static str, Rejected) {
        const LATER: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        const LESS: StatusCode = StatusCode::TOO_MANY_REQUESTS;
        match self {
            Self::Origin => (StatusCode::FORBIDDEN, "origin_refused", Rejected::Origin),
            Self::Draining => (LATER, "draining", Rejected::Draining),
            Self::Full => (LATER, "node_full", Rejected::Limit),
            Self::TooOften => (LESS, "rate_limited", Rejected::RateLimited),
            Self::Busy => (LATER, "node_busy", Rejected::Limit),
        }
    }
}

/// The library offers the upgrade whether it is allowed or not, and clients would try it in vain.
async fn without_upgrade(response: Response<Body>) -> Response<Body> {
    /// An open packet has some 130 bytes.
    const OPEN: usize = 4 * 1_024;
    let (mut parts, body) = response.into_parts();
    let body = collect(body, OPEN).await.unwrap_or_default();
    let text =
        String::from_utf8_lossy(&body).replace(r#""upgrades":["websocket"]"#, r#""upgrades":[]"#);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, whole(text.into()))
}

/// All of a body, if it has no more than `limit` bytes.
async fn collect(mut body: Body, limit: usize) -> Result<Bytes, StatusCode> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(StatusCode::BAD_REQUEST);
        };
        let data = frame.into_data().unwrap_or_default();
        if bytes.len() + data.len() > limit {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    let body = serde_json::json!({ "code": code }).to_string();
    let mut response = Response::new(whole(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::TOO_MANY_REQUESTS,
    ]
    .contains(&status)
    {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The events in a polling payload, and their bytes: packets are separated by the record separator.
fn events_in(payload: &[u8]) -> (u64, u64) {
    let events = payload
        .split(|byte| *byte == 0x1e)
        .filter(|packet| packet.starts_with(b"42"));
    events.fold((0, 0), |(packets, bytes), event| {
        (packets + 1, bytes + event.len() as u64)
    })
}

/// Leaves of a handshake only copies of what is looked at.
///
/// The socket library keeps the parts of a session's first request as long as the session lives, and each
/// header would pin the whole buffer that the request was read into.
#[must_use]
pub fn slim(mut request: Request<Body>) -> Request<Body> {
    const KEPT: [header::HeaderName; 7] = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONNECTION,
        header::UPGRADE,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
    ];
    let mut kept = HeaderMap::with_capacity(KEPT.len());
    for name in KEPT {
        for value in request.headers().get_all(&name) {
            if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
                kept.append(name.clone(), copy);
            }
        }
    }
    *request.headers_mut() = kept;
    if let Ok(copy) = request.uri().to_string().parse() {
        *request.uri_mut() = copy;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_in_a_polling_payload() {
        assert_eq!(events_in(b""), (0, 0));
        assert_eq!(events_in(b"2"), (0, 0));
        assert_eq!(
            events_in(b"42[\"a\",1]\x1e6\x1e430[{}]\x1e42[\"b\"]"),
            (2, 16)
        );
    }
}
