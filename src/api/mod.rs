//! HTTP in: the routes of the contract, and the only folder that knows axum.

mod answer;
mod batch;
mod body;
mod caller;
mod changes;
mod client_config;
mod cursor;
mod dev;
mod docs;
mod draft;
mod edit;
mod emit;
mod etag;
pub(crate) mod export_line;
mod fields;
mod health;
mod inbox;
mod json;
mod lane;
mod layers;
mod limits;
mod openapi;
mod origin;
mod problem;
mod publish;
mod query;
mod recipients;
mod revocations;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use chrono::Utc;
use http::{StatusCode, header};
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{ApiKeys, Verifier};
use crate::epoch::Epoch;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::publish::Publisher;
use crate::store::Store;
use crate::telemetry::UserIds;

pub use client_config::ClientConfig;
pub use dev::DevSignIn;
pub use health::{Health, admin_router};
pub use lane::{Answer, Lane, Publish};
pub use layers::{Api, boxed, cors};
pub use limits::PublishLimits;
pub use openapi::Document;
pub use origin::Origins;
pub use problem::{FieldError, Problem};
pub use revocations::Revocations;

/// What the handlers work with.
#[derive(Debug)]
pub struct State {
    pub publisher: Publisher,
    pub inbox: Inbox,
    /// For reading; what writes goes through `publisher` and `inbox`, which also tell the devices.
    pub store: Store,
    pub presence: Presence,
    pub verifier: Verifier,
    pub api_keys: ApiKeys,
    pub revocations: Revocations,
    pub limits: PublishLimits,
    pub client_config: ClientConfig,
    pub user_ids: UserIds,
    pub epoch: Epoch,
    pub metrics: Arc<Metrics>,
    pub origins: Origins,
    pub document: Document,
    /// The development sign-in of the embedded default; elsewhere its route does not exist.
    pub dev: Option<DevSignIn>,
    pub options: Options,
}

impl State {
    fn rules(&self) -> draft::Rules {
        draft::Rules {
            http_urls: self.options.allow_http_urls,
            now: Utc::now(),
        }
    }
}

/// How much the API takes upon itself.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `http:` URLs in notifications are as good as `https:` ones.
    pub allow_http_urls: bool,
    /// Requests at a time; more are refused at once (503).
    pub concurrency: usize,
    /// How long a body may take to arrive (408).
    pub body_deadline: Duration,
    /// How long anything else may take (503).
    pub handler_deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_http_urls: false,
            concurrency: 1_024,
            body_deadline: Duration::from_secs(10),
            handler_deadline: Duration::from_secs(10),
        }
    }
}

/// All routes under `/api`, and the answer to paths that do not exist; and the short way of two of them.
pub fn service(state: State) -> (Api, Lane) {
    let state = Arc::new(state);
    let room = Arc::new(Semaphore::new(state.options.concurrency));
    let lane = Lane::new(Arc::clone(&state), Arc::clone(&room));
    let is_embedded = state.dev.is_some();
    let mut routes = axum::Router::from(described(is_embedded));
    if is_embedded {
        routes = routes.merge(docs::page());
    }
    let (origins, metrics) = (state.origins.clone(), Arc::clone(&state.metrics));
    let options = state.options;
    let api = layers::around(routes.with_state(state), origins, metrics, options, room);
    (api, lane)
}

/// The routes, each with its description: a handler's path and method stand at the handler.
fn described(is_embedded: bool) -> OpenApiRouter<Arc<State>> {
    let routes = OpenApiRouter::with_openapi(openapi::begin())
        .routes(routes!(publish::create, inbox::list, inbox::clear))
        .routes(routes!(batch::create))
        .routes(routes!(publish::test))
        .routes(routes!(inbox::unread_count))
        .routes(routes!(changes::changes))
        .routes(routes!(inbox::read_all))
        .routes(routes!(inbox::one, inbox::delete))
        .routes(routes!(inbox::read))
        .routes(routes!(inbox::unread))
        .routes(routes!(inbox::click))
        .routes(routes!(users::inspect, users::erase))
        .routes(routes!(users::one, users::edit, users::withdraw))
        .routes(routes!(users::refresh))
        .routes(routes!(users::disconnect))
        .routes(routes!(users::presence))
        .routes(routes!(client_config::client_config))
        .routes(routes!(emit::emit))
        .routes(routes!(openapi::read));
    if is_embedded {
        return routes.routes(routes!(dev::token));
    }
    routes
}

/// An answer with a JSON body. What we answer with always has a JSON form.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    json_text(status, serde_json::to_vec(body).unwrap_or_default())
}

/// The same, of a body that is encoded already.
fn json_text(status: StatusCode, body: impl Into<Body>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        body.into(),
    )
        .into_response()
}
