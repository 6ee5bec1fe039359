//! The short way of the two requests that publishers send most: the same handlers, rules and answers, without the router and
//! the layers, which cost more than the handler does.
//!
//! Only what needs nothing of them comes here, a plain request with a small JSON body: see [`Publish`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{self, FromRequestParts as _};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::answer::{Acting, answer_problem};
use super::body::Large;
use super::caller::Publisher;
use super::problem::Problem;
use super::{State, body, emit, layers, publish};

/// Serves these requests. Shares the limit of requests at a time with all others.
#[derive(Clone, Debug)]
pub struct Lane {
    state: Arc<State>,
    room: Arc<Semaphore>,
}

/// The head of a request that may come this way.
#[derive(Debug)]
pub struct Publish {
    route: Route,
    headers: HeaderMap,
    request_id: String,
    /// Bytes of its body.
    pub length: usize,
}

#[derive(Clone, Copy, Debug)]
enum Route {
    Notify,
    Emit,
}

/// What is answered. To be written with [`Answer::ALWAYS`] beside its own headers.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub request_id: String,
    pub body: Bytes,
}

impl Answer {
    /// What the layers add to every answer.
    pub const ALWAYS: &str = "vary: origin\r\naccess-control-expose-headers: etag,retry-after,x-request-id,idempotent-replayed,ratelimit,ratelimit-policy\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n";
}

impl Publish {
    /// Reads the head of a `POST` to `path` with these headers; `None`: it is for the general way, which knows what is to be
    /// done with pages of other origins, other bodies, other connections, and with mistakes.
    pub fn read<'h>(
        path: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Option<Self> {
        let route = match path {
            "/api/notifications" => Route::Notify,
            "/api/emit" => Route::Emit,
            _ => return None,
        };
        let mut publish = Self {
            route,
            headers: HeaderMap::new(),
            request_id: String::new(),
            length: 0,
        };
        let mut is_json = false;
        for (name, value) in headers {
            let is = |other: &HeaderName| name.eq_ignore_ascii_case(other.as_str());
            if is(&header::CONTENT_LENGTH) {
                publish.length = Self::length(value).filter(|_| publish.length == 0)?;
            } else if is(&header::CONTENT_TYPE) && !is_json {
                is_json = value.eq_ignore_ascii_case(b"application/json");
                is_json.then_some(())?;
            } else if is(&layers::REQUEST_ID) && publish.request_id.is_empty() {
                let id = std::str::from_utf8(value).ok();
                publish.request_id = id.filter(|id| layers::is_request_id(id.as_bytes()))?.into();
            } else if let Some(kept) = KEPT.iter().find(|kept| is(kept)) {
                let mut value = HeaderValue::from_bytes(value).ok()?;
                // Before anything that might print it.
                value.set_sensitive(true);
                publish.headers.append(kept.clone(), value);
            } else if is(&header::CONNECTION) && value.eq_ignore_ascii_case(b"keep-alive") {
                // What is so anyway.
            } else if OTHERS.iter().any(is) {
                return None;
            }
        }
        if publish.request_id.is_empty() {
            let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
            publish.request_id = id.to_string();
        }
        (is_json && publish.length > 0).then_some(publish)
    }

    fn length(value: &[u8]) -> Option<usize> {
        let digits = value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value).ok()?.parse().ok()?;
        (digits && (1..=body::LIMIT).contains(&length)).then_some(length)
    }
}

/// What handlers look at.
const KEPT: [HeaderName; 3] = [
    header::AUTHORIZATION,
    layers::API_KEY,
    layers::IDEMPOTENCY_KEY,
];

/// What the general way acts upon; also a second of those above.
const OTHERS: [HeaderName; 8] = [
    header::ORIGIN,
    header::TRANSFER_ENCODING,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::UPGRADE,
    header::CONNECTION,
    layers::REQUEST_ID,
];

impl Lane {
    pub(super) fn new(state: Arc<State>, room: Arc<Semaphore>) -> Self {
        Self { state, room }
    }

    /// Answers a request whose body has come.
    ///
    /// Whoever calls it waits for the answer, even if the caller hangs up.
    pub async fn answer(&self, publish: Publish, body: Bytes) -> Answer {
        let Publish {
            route,
            headers,
            request_id,
            ..
        } = publish;
        let (span, began) = (layers::span("POST", &request_id), Instant::now());
        span.record("route", route.path());
        let acting = Acting::default();
        // Boxed, for each of those around it would move the whole of it.
        let work = Box::pin(self.run(route, headers, acting.clone(), body));
        let handled = self.guard(work).instrument(span.clone()).await;
        let _in_span = span.enter();
        let response = handled.unwrap_or_else(|problem| {
            answer_problem(&problem, &request_id, Some(&acting), &self.state.metrics)
        });
        layers::log_status(response.status(), began.elapsed());
        let (parts, body) = response.into_parts();
        // Bodies of handlers and problems are there as a whole.
        let body = body.collect().now_or_never().and_then(Result::ok);
        Answer {
            status: parts.status,
            headers: parts.headers,
            request_id,
            body: body.map_or_else(Bytes::new, http_body_util::Collected::to_bytes),
        }
    }

    /// What the layers guard a handler by: the limit of requests at a time, a deadline, and that a panic costs its own request.
    async fn guard(
        &self,
        work: impl Future<Output = Result<Response, Problem>>,
    ) -> Result<Response, Problem> {
        let Ok(_permit) = self.room.try_acquire() else {
            return Err(Problem::Overloaded);
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        let options = self.state.options;
        let deadline = options.body_deadline + options.handler_deadline;
        match tokio::time::timeout(deadline, work).await {
            Ok(Ok(handled)) => handled,
            Ok(Err(_panic)) => Err(Problem::Panicked),
            Err(_late) => Err(Problem::TimedOut),
        }
    }

    async fn run(
        &self,
        route: Route,
        headers: HeaderMap,
        acting: Acting,
        body: Bytes,
    ) -> Result<Response, Problem> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(route.path());
        *request.headers_mut() = headers;
        request.extensions_mut().insert(acting);
        let (mut parts, ()) = request.into_parts();
        let publisher = Publisher::from_request_parts(&mut parts, &self.state).await?;
        let (state, body) = (extract::State(Arc::clone(&self.state)), Large(body));
        match route {
            Route::Notify => publish::create(state, publisher, parts.headers, body).await,
            Route::Emit => emit::emit(state, publisher, body).await,
        }
    }
}

impl Route {
    fn path(self) -> &'static str {
        match self {
            Self::Notify => "/api/notifications",
            Self::Emit => "/api/emit",
        }
    }
}
