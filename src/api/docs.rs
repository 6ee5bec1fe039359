//! A page to read the description of the API and to try it: Swagger UI, from this program and from nowhere else.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header;
use utoipa_swagger_ui::{Config, serve};

use super::problem::Problem;

/// Scripts and styles are files of ours (but for the one style that is written into the logo, by its hash), icons
/// are written into the style sheet, and the page talks to this node only.
const POLICY: &str = "default-src 'self'; \
style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; object-src 'none'; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/api/docs`. It is a page and no part of the API, so it is not in the description.
pub(super) fn page<S: Clone + Send + Sync + 'static>() -> Router<S> {
    // Its own validator would be asked on another host.
    let config = Config::from("/api/openapi.json")
        .validator_url("none")
        .try_it_out_enabled(true);
    let config = Arc::new(config);
    let index = Arc::clone(&config);
    Router::new()
        .route("/api/docs", get(async || Redirect::permanent("/api/docs/")))
        .route("/api/docs/", get(async move || file("", index)))
        .route(
            "/api/docs/{*file}",
            get(async move |Path(name): Path<String>| file(&name, config)),
        )
}

fn file(name: &str, config: Arc<Config<'static>>) -> Result<Response, Problem> {
    let Ok(found) = serve(name, config) else {
        return Err(Problem::Defect("the page could not be configured"));
    };
    let found = found.ok_or(Problem::NotFound)?;
    let body = match found.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    let mut response = Body::from(body).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        http::HeaderValue::from_static(POLICY),
    );
    if let Ok(content_type) = found.content_type.parse() {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    if found.gzpipped {
        headers.insert(
            header::CONTENT_ENCODING,
            http::HeaderValue::from_static("gzip"),
        );
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn get(path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).unwrap();
        page::<()>().oneshot(request).await.unwrap()
    }

    async fn text(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn the_page_and_what_it_needs_come_from_here_under_a_strict_policy() {
        let moved = get("/api/docs").await;
        assert_eq!(moved.headers()[header::LOCATION], "/api/docs/");
        for (name, content_type) in [
            ("", "text/html"),
            ("index.css", "text/css"),
            ("swagger-ui.css", "text/css"),
            ("swagger-ui-bundle.js", "text/javascript"),
            ("swagger-ui-standalone-preset.js", "text/javascript"),
            ("swagger-initializer.js", "text/javascript"),
            ("favicon-32x32.png", "image/png"),
        ] {
            let response = get(&format!("/api/docs/{name}")).await;
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            let headers = response.headers();
            assert_eq!(headers[header::CONTENT_TYPE], content_type, "{name}");
            assert_eq!(headers[header::CONTENT_SECURITY_POLICY], POLICY, "{name}");
        }
        for name in ["nothing", "../mod.rs", "%2e%2e/Cargo.toml"] {
            let response = get(&format!("/api/docs/{name}")).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{name}");
        }
    }

    #[tokio::test]
    async fn it_reads_the_description_of_this_node_and_asks_nobody_else() {
        let script = text(get("/api/docs/swagger-initializer.js").await).await;
        assert!(script.contains(r#""url": "/api/openapi.json""#), "{script}");
        assert!(script.contains(r#""validatorUrl": "none""#), "{script}");
        assert!(!script.contains("://"), "{script}");
    }
}
