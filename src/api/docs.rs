//! A page to read the description of the API and to try it: Swagger UI, from this program and from nowhere else.

use std::borrow::Cow;
use std::io::Read as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, header};
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
        .route(
            "/api/docs/",
            get(async move |headers: HeaderMap| file("", &headers, index)),
        )
        .route(
            "/api/docs/{*file}",
            get(async move |Path(name): Path<String>, headers: HeaderMap| {
                file(&name, &headers, config)
            }),
        )
}

fn file(name: &str, asked: &HeaderMap, config: Arc<Config<'static>>) -> Result<Response, Problem> {
    let Ok(found) = serve(name, config) else {
        return Err(Problem::Defect("the page could not be configured"));
    };
    let found = found.ok_or(Problem::NotFound)?;
    let body = match found.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    let packed = found.gzpipped && takes_gzip(asked);
    let body = if found.gzpipped && !packed {
        unpacked(&body)?
    } else {
        body
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
    headers.append(
        header::VARY,
        http::HeaderValue::from_static("accept-encoding"),
    );
    if packed {
        headers.insert(
            header::CONTENT_ENCODING,
            http::HeaderValue::from_static("gzip"),
        );
    }
    Ok(response)
}

/// Whether the caller says that it reads gzip (RFC 9110 section 12.5.3). One that says nothing may not.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    let listed: Vec<_> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|coding| coding.split_once(';').unwrap_or((coding, "")))
        .map(|(name, weight)| (name.trim().to_ascii_lowercase(), is_refused(weight)))
        .collect();
    let said = |wanted: &[&str]| {
        let mut found = listed
            .iter()
            .filter(|(name, _)| wanted.contains(&name.as_str()));
        found.next().map(|(_, refused)| !refused)
    };
    said(&["gzip", "x-gzip"])
        .or_else(|| said(&["*"]))
        .unwrap_or(false)
}

/// Whether a weight is 0, as in `;q=0`.
fn is_refused(weight: &str) -> bool {
    let value = weight.trim().split_once('=').map(|(_, value)| value.trim());
    value.is_some_and(|value| value.parse() == Ok(0.0_f32))
}

/// The files are this program's own, so their size is known to be small.
fn unpacked(packed: &[u8]) -> Result<Bytes, Problem> {
    let mut bytes = Vec::new();
    match GzDecoder::new(packed).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes.into()),
        Err(_broken) => Err(Problem::Defect("a file of the page cannot be unpacked")),
    }
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

    #[tokio::test]
    async fn who_takes_no_gzip_gets_the_file_itself() {
        for (accepts, packed) in [
            (None, false),
            (Some("identity"), false),
            (Some("gzip;q=0, *"), false),
            (Some("br"), false),
            (Some("gzip, deflate"), true),
            (Some("br;q=1.0, GZIP;q=0.5"), true),
            (Some("*"), true),
        ] {
            let mut request = Request::get("/api/docs/swagger-ui.css");
            if let Some(accepts) = accepts {
                request = request.header(header::ACCEPT_ENCODING, accepts);
            }
            let request = request.body(Body::empty()).unwrap();
            let response = page::<()>().oneshot(request).await.unwrap();
            let headers = response.headers();
            assert_eq!(headers[header::VARY], "accept-encoding");
            let coding = headers.get(header::CONTENT_ENCODING).is_some();
            assert_eq!(coding, packed, "{accepts:?}");
            let style = text(response).await;
            assert_eq!(style.contains(".swagger-ui"), !packed, "{accepts:?}");
        }
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
