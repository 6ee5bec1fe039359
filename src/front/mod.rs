//! The one public port: accepts connections, and gives each request to the sockets or to the API.
//!
//! An accept loop of our own, because the framework's has no time limit for request headers and leaves
//! `TCP_NODELAY` off; because what is a WebSocket from the start, and a plain publish, needs no HTTP stack; and because each
//! of the other connections is watched by a [`Line`].

mod express;
mod first;
mod gate;
mod raw;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, poll_immediate};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::api::{Health, Lane};
use crate::hub::line::{Line, Watched};
use crate::hub::transport::{self, Body, Endpoint};
use crate::tasks::Tasks;
use first::First;

pub use gate::{Gate, slim};
pub use raw::Raw;

/// How long a client may take to send a request's headers, and how long a connection may idle between
/// two requests: longer than balancers keep one before they use it again, short enough that idle
/// strangers do not keep a descriptor.
const HEADERS: Duration = Duration::from_secs(30);

/// Headers of a request, in number and in bytes; more is `431`.
const HEADER_COUNT: usize = 64;
const HEADER_BYTES: usize = 16 * 1024;

/// How long a connection may take to end after the node was told to stop: what its requests have begun
/// goes on by itself.
const LAST_REQUEST: Duration = Duration::from_secs(3);

/// Pause after a failed accept (no descriptors left, most likely), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers requests on the public port.
pub struct Front {
    pub api: Endpoint,
    /// What comes as a plain publish.
    pub lane: Lane,
    pub sockets: Endpoint,
    /// `None`: connections over WebSocket are not allowed.
    pub raw: Option<Raw>,
    pub socket_path: Arc<str>,
    /// Connections at a time, upgraded ones among them; further ones wait in the kernel's queue.
    pub limit_connections: usize,
    pub health: Arc<Health>,
    pub tasks: Tasks,
}

impl Front {
    /// Serves until `stop` fires; then connections finish the request they are in.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let room = self.limit_connections.clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(room));
        let front = Arc::new(self);
        loop {
            let place = tokio::select! {
                place = Arc::clone(&room).acquire_owned() => place,
                () = stop.cancelled() => return,
            };
            // Closed never: the semaphore lives as long as this.
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = Arc::clone(&front).connection(stream, place, stop.clone());
                    front.tasks.spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        stop: CancellationToken,
    ) {
        // An event is one small write: it is not to wait for a full segment.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let (mut stream, mut early) = (stream, Vec::new());
        let Some(first) = self.begin(&mut stream, &mut early, &stop).await else {
            return;
        };
        if let (First::Handshake(handshake), Some(raw)) = (first, &self.raw)
            && let Some(guest) = raw.admit(&handshake)
        {
            let behind = early.split_off(handshake.length);
            return raw.serve(handshake, guest, (stream, behind), place, &self.tasks);
        }
        let line = Arc::new(Line::default());
        // The place goes with the stream, which outlives this as a WebSocket.
        let stream = Watched::new(stream, early, Arc::clone(&line), place);
        self.http(stream, line, stop).await;
    }

    /// Answers publishes, and what else comes first is returned. `None`: the connection is over.
    async fn begin(
        &self,
        stream: &mut TcpStream,
        early: &mut Vec<u8>,
        stop: &CancellationToken,
    ) -> Option<First> {
        let stopping = stop.cancelled();
        tokio::pin!(stopping);
        let mut is_first = true;
        loop {
            let reading = first::read(stream, &self.socket_path, early);
            let first = tokio::select! {
                biased;
                first = reading => first.ok()?,
                // What has come is answered by the stack, if it is whole in time.
                () = &mut stopping => First::Other,
            };
            match first {
                First::Publish(publish, body) => {
                    let answering = self.express(stream, *publish, body, stop);
                    answering.await.ok()?.then_some(())?;
                }
                // A handshake behind other requests is the stack's.
                First::Handshake(_) if !is_first => return Some(First::Other),
                First::Handshake(_) | First::Other => return Some(first),
            }
            is_first = false;
        }
    }

    /// Serves requests, one after another.
    async fn http(
        self: Arc<Self>,
        stream: Watched<TcpStream, OwnedSemaphorePermit>,
        line: Arc<Line>,
        stop: CancellationToken,
    ) {
        let stream = TokioIo::new(stream);
        let api = Arc::new(Mutex::new(self.api.clone()));
        let service = service_fn(move |request| {
            let (front, line, api) = (Arc::clone(&self), Arc::clone(&line), Arc::clone(&api));
            async move { Ok::<_, Infallible>(front.answer(request, line, api).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_headers(HEADER_COUNT)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(stream, service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            // First, for what has come by now was a request before the end.
            biased;
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                // A request that is not whole by then never was one.
                match tokio::time::timeout(LAST_REQUEST, connection).await {
                    Ok(ended) => ended,
                    Err(_late) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        line: Arc<Line>,
        api: Arc<Mutex<Endpoint>>,
    ) -> Response<Body> {
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        if is_below(request.uri().path(), &self.socket_path) {
            request.extensions_mut().insert(line);
            return transport::answer(self.sockets.clone(), request).await;
        }
        let work = async move { transport::answer_by(&api, request).await };
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        let answered = match poll_immediate(&mut work).await {
            Some(answered) => answered.ok(),
            // In a task of its own as soon as it waits: a caller that hangs up cancels nothing that was begun.
            None => self.tasks.spawn(work).await.ok().and_then(Result::ok),
        };
        let mut response = answered.unwrap_or_else(|| {
            let mut response = Response::new(Body::default());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        });
        if self.health.is_draining() {
            // The caller's next request finds another node.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }
}

/// Whether `path` is `base` or below it; with or without the slash at its end.
fn is_below(path: &str, base: &str) -> bool {
    let base = base.trim_end_matches('/');
    path.strip_prefix(base)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_path_is_not_a_prefix_of_other_names() {
        for path in ["/socket.io", "/socket.io/", "/socket.io/x"] {
            assert!(is_below(path, "/socket.io/"), "{path}");
        }
        for path in ["/", "/socket.iox", "/api/socket.io"] {
            assert!(!is_below(path, "/socket.io/"), "{path}");
        }
    }
}
