//! What an orchestrator and Prometheus ask a node, on a listener of its own that is never public.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tower_http::catch_panic::CatchPanicLayer;

/// How far a node is in its life.
#[derive(Debug, Default)]
pub struct Health {
    started: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// The store was reached and is migrated, and the listeners are open.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// The node is leaving: nobody new is to be sent here.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// `/livez`, `/startupz`, `/readyz` and `/metrics`, whose text `metrics` makes.
///
/// None tests Redis or PostgreSQL: all nodes share them, and taking every node out of service because
/// one of them is away helps nobody.
pub fn admin_router(
    health: Arc<Health>,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Router {
    let ready = Arc::clone(&health);
    let is_ready = move || ready.is_started() && !ready.is_draining();
    let text = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Router::new()
        .route("/livez", get(async || answer(true, "")))
        .route(
            "/startupz",
            get(async move || answer(health.is_started(), "waiting for the store")),
        )
        .route("/readyz", get(async move || answer(is_ready(), "no")))
        .route("/metrics", get(async move || (text, metrics())))
        // A defect in here must not look like a dead process.
        .layer(CatchPanicLayer::custom(|_| answer(false, "no")))
}

/// `ok`, or the text that says what is not.
fn answer(ok: bool, otherwise: &str) -> Response {
    let (status, text) = if ok {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, otherwise)
    };
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, format!("{text}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_node_is_ready_between_its_start_and_its_end() {
        let health = Arc::new(Health::default());
        let router = admin_router(Arc::clone(&health), || "bellhop_up 1\n".to_owned());
        let statuses = async || {
            let mut statuses = Vec::new();
            for path in ["/livez", "/startupz", "/readyz", "/metrics", "/"] {
                let request = http::Request::get(path).body(Body::empty()).unwrap();
                statuses.push(
                    router
                        .clone()
                        .oneshot(request)
                        .await
                        .unwrap()
                        .status()
                        .as_u16(),
                );
            }
            statuses
        };
        assert_eq!(statuses().await, [200, 503, 503, 200, 404]);
        health.set_started();
        assert_eq!(statuses().await, [200, 200, 200, 200, 404]);
        health.set_draining();
        assert_eq!(statuses().await, [200, 200, 503, 200, 404]);
    }
}
