//! What a client has to know before it connects: where, by which transports, or that it is to poll.

use std::sync::Arc;

use axum::extract;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Serialize;

use super::query::NoParameters;
use super::{State, json, openapi};
use crate::config::{Listen, Transport};

/// How often a client without a socket asks for changes, in milliseconds.
const POLL_INTERVAL_MS: u32 = 60_000;

/// The same for every client of the node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientConfig {
    /// `null`: where this was fetched from.
    websocket_url: Option<String>,
    /// `false`: there are no sockets, and clients poll.
    enable_websocket: bool,
    path: String,
    transports: Vec<Transport>,
    poll_interval_ms: u32,
}

impl ClientConfig {
    #[must_use]
    pub fn new(listen: &Listen) -> Self {
        Self {
            websocket_url: listen.websocket_url.clone(),
            enable_websocket: listen.enable_websocket,
            path: listen.socket_io_path.clone(),
            transports: listen.socket_io_transports.clone(),
            poll_interval_ms: POLL_INTERVAL_MS,
        }
    }
}

/// `GET /api/client-config`
#[utoipa::path(
    get,
    path = "/api/client-config",
    operation_id = "getClientConfig",
    tag = "client",
    summary = "What to know before connecting",
    responses(
        (status = 200, description = "The same for everyone", body = ref("#/components/schemas/ClientConfig")),
        openapi::AnyRefusals,
    ),
)]
pub(super) async fn client_config(
    extract::State(state): extract::State<Arc<State>>,
    _: NoParameters,
) -> Response {
    let for_a_minute = [(header::CACHE_CONTROL, "public, max-age=60")];
    let answer = json(StatusCode::OK, &state.client_config);
    (for_a_minute, answer).into_response()
}
