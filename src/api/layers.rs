//! What happens to every request before and after its handler: one stack, and why each layer is where it is.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse as _, Response};
use axum::{BoxError, Router, middleware};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::util::{BoxCloneSyncService, MapRequestLayer};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;
use tracing::field::Empty;

use super::answer::answer_problems;
use super::limits::{RATE_LIMIT, RATE_LIMIT_POLICY};
use super::origin::Origins;
use super::problem::Problem;
use super::{Options, body};
use crate::metrics::Metrics;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// How long a browser may remember a preflight.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// The API, to be cloned for each connection rather than for each request.
pub type Api = BoxCloneSyncService<http::Request<Plain>, http::Response<Plain>, Infallible>;

/// A body, whatever made it.
type Plain = UnsyncBoxBody<Bytes, BoxError>;

/// Puts the stack around every route and around the answer to unknown paths. The first layer is the
/// outermost: it sees a request first and its answer last.
///
/// Around the router, and not by it: it would put the stack around each route, and copy it for each request.
pub(super) fn around(
    router: Router,
    origins: Origins,
    metrics: Arc<Metrics>,
    options: Options,
    room: Arc<Semaphore>,
) -> Api {
    let named = router.layer(MapRequestLayer::new(name_route));
    let stack = ServiceBuilder::new()
        .map_request(|request: http::Request<Plain>| request.map(Body::new))
        .map_response(|response: http::Response<_>| response.map(boxed))
        // First of all, so that whatever happens has a name that caller and log share.
        .map_request(drop_bad_request_id)
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        // Before anything that might print a request.
        .layer(SetSensitiveRequestHeadersLayer::new([
            header::AUTHORIZATION,
            header::COOKIE,
            API_KEY,
        ]))
        // Outside of all that answers, so that its line tells what the caller got.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(request_span)
                .on_request(())
                .on_response(log_answer)
                .on_body_chunk(())
                .on_eos(())
                .on_failure(()),
        )
        // Inboxes are private: no cache keeps them, and no browser guesses that one is a page.
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(SetResponseHeaderLayer::overriding(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        // Outside of refusals, so that pages can read those too; answers preflights without a handler.
        .layer(cors(origins))
        // Gives the errors of all layers below, and of the handlers, their one form.
        .layer(middleware::from_fn_with_state(metrics, answer_problems))
        // A defect costs its own request, not the connection; the layers below may have defects too.
        .layer(CatchPanicLayer::custom(|_| {
            Problem::Panicked.into_response()
        }))
        // Turns what the next three refuse into problems.
        .layer(HandleErrorLayer::new(|error: BoxError| async move {
            refusal(&error)
        }))
        // Too many at once are told so at once: a queue would only make all of them late.
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(room))
        // The end of every wait; the body and the store have shorter ones of their own.
        .timeout(options.body_deadline + options.handler_deadline)
        // Innermost, for it only guards what handlers read; a Content-Length that is too large is refused unread.
        .layer(RequestBodyLimitLayer::new(body::LIMIT_OF_A_BATCH))
        .service(named);
    Api::new(stack)
}

/// One type for bodies of whatever made them.
pub fn boxed<B>(body: B) -> Plain
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Removes a request id that is not 1 to 128 visible ASCII characters, or that comes twice: a new one
/// is then made.
fn drop_bad_request_id(mut request: Request) -> Request {
    let mut values = request.headers().get_all(REQUEST_ID).into_iter();
    let is_good = |id: &HeaderValue| is_request_id(id.as_bytes());
    let keep = values.next().is_some_and(is_good) && values.next().is_none();
    if !keep {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

pub(super) fn is_request_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// Names the request in every line that is logged for it: by its route, never by the path or query that the
/// caller wrote. What a layer refuses has no route yet.
fn request_span(request: &Request) -> Span {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    span(standard_name(request.method()), id)
}

pub(super) fn span(method: &'static str, id: &str) -> Span {
    tracing::info_span!("request", method, route = Empty, id)
}

fn name_route(request: Request) -> Request {
    let route = request.extensions().get::<MatchedPath>();
    Span::current().record("route", route.map_or("unmatched", MatchedPath::as_str));
    request
}

fn standard_name(method: &Method) -> &'static str {
    let standard = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let names = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let index = standard.iter().position(|name| name == method);
    index.map_or("other", |index| names[index])
}

fn log_answer(response: &Response, latency: Duration, _: &Span) {
    log_status(response.status(), latency);
}

pub(super) fn log_status(status: StatusCode, latency: Duration) {
    let status = status.as_u16();
    tracing::debug!(status, ms = latency.as_secs_f64() * 1_000.0, "answered");
}

/// The page states its origin; the rule is exact, and nothing is sent that a page could use without a token.
pub fn cors(origins: Origins) -> CorsLayer {
    let allowed = AllowOrigin::predicate(move |origin, parts| {
        origins.admits(origin, parts.headers.get(header::HOST))
    });
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            IDEMPOTENCY_KEY,
            API_KEY,
            header::IF_NONE_MATCH,
            REQUEST_ID,
        ])
        .expose_headers([
            header::ETAG,
            header::RETRY_AFTER,
            REQUEST_ID,
            IDEMPOTENT_REPLAYED,
            RATE_LIMIT,
            RATE_LIMIT_POLICY,
        ])
        .max_age(PREFLIGHT_MAX_AGE)
}

fn refusal(error: &BoxError) -> Problem {
    if error.is::<tower::load_shed::error::Overloaded>() {
        return Problem::Overloaded;
    }
    if error.is::<tower::timeout::error::Elapsed>() {
        return Problem::TimedOut;
    }
    Problem::Defect("an error of a layer")
}

#[cfg(test)]
mod tests;
