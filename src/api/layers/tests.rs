//! What callers get around the handlers: ids, problems, limits, and what pages of other origins may read.

use axum::body::{Body, to_bytes};
use axum::routing::{get, post};
use http::HeaderMap;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;

/// Routes that misbehave in each way, under the stack.
fn stack(options: Options) -> Api {
    let routes = Router::new()
        .route("/ok", get(async || "ok").post(async || "ok"))
        .route(
            "/panic",
            get(async || -> &'static str { panic!("on purpose") }),
        )
        .route(
            "/never",
            get(async || std::future::pending::<&'static str>().await),
        )
        .route("/failing", get(async || Problem::Defect("on purpose")))
        .route(
            "/read",
            post(async |body: bytes::Bytes| body.len().to_string()),
        );
    let origins = Origins::new(&["https://app.example.com".to_owned()], false);
    let room = Arc::new(Semaphore::new(options.concurrency));
    around(routes, origins, Arc::new(Metrics::new()), options, room)
}

fn service() -> Api {
    stack(Options::default())
}

async fn send(service: &Api, request: http::Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let (parts, body) = service
        .clone()
        .oneshot(request.map(boxed))
        .await
        .unwrap()
        .into_parts();
    let body = to_bytes(Body::new(body), 64 * 1024).await.unwrap();
    (
        parts.status,
        parts.headers,
        serde_json::from_slice(&body).unwrap_or_default(),
    )
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> http::Request<Body> {
    let mut builder = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let long = "x".repeat(129);
    let kept = ["r-1", "a/b;c=d", &"x".repeat(128)];
    for id in kept {
        let (_, headers, _) =
            send(&service(), request("GET", "/ok", &[("x-request-id", id)])).await;
        assert_eq!(headers["x-request-id"], id);
    }
    for ids in [&[][..], &[""], &[&long], &["a b"], &["a\tb"], &["a", "a"]] {
        let ids: Vec<(&str, &str)> = ids.iter().map(|id| ("x-request-id", *id)).collect();
        let (_, headers, body) = send(&service(), request("GET", "/nowhere", &ids)).await;
        let id = headers["x-request-id"].to_str().unwrap();
        assert!(uuid::Uuid::try_parse(id).is_ok(), "{id}");
        assert_eq!(body["requestId"], id);
        assert_eq!(headers.get_all("x-request-id").iter().count(), 1);
    }
}

#[tokio::test]
async fn every_error_is_a_problem() {
    for (method, path, status, code) in [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "//ok", 404, "not_found"),
        ("GET", "/ok/%00", 404, "not_found"),
        ("PUT", "/ok", 405, "method_not_allowed"),
        ("BREW", "/ok", 405, "method_not_allowed"),
        ("GET", "/panic", 500, "internal_error"),
        ("GET", "/failing", 500, "internal_error"),
    ] {
        let (found, headers, body) = send(&service(), request(method, path, &[])).await;
        assert_eq!(
            (found.as_u16(), &body["code"]),
            (status, &Value::from(code)),
            "{method} {path}"
        );
        assert_eq!(
            headers["content-type"], "application/problem+json",
            "{method} {path}"
        );
        assert!(!body.to_string().contains("on purpose"), "{body}");
        assert_eq!(
            headers.contains_key("allow"),
            status == 405,
            "{method} {path}"
        );
    }
    let (_, headers, _) = send(&service(), request("PUT", "/ok", &[])).await;
    assert_eq!(headers["allow"], "GET,HEAD,POST");
    let (status, ..) = send(&service(), request("HEAD", "/ok", &[])).await;
    assert_eq!(status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_end() {
    let (status, headers, body) = send(&service(), request("GET", "/never", &[])).await;
    assert_eq!(
        (status.as_u16(), &body["code"]),
        (503, &Value::from("timed_out"))
    );
    assert_eq!(headers["retry-after"], "1");
}

#[tokio::test(start_paused = true)]
async fn too_many_at_once_are_refused_whatever_their_route() {
    let router = stack(Options {
        concurrency: 1,
        ..Options::default()
    });
    let waiting = send(&router, request("GET", "/never", &[]));
    let refused = send(&router, request("GET", "/ok", &[]));
    let (_, (status, headers, body)) = tokio::join!(waiting, refused);
    assert_eq!(
        (status.as_u16(), &body["code"]),
        (503, &Value::from("overloaded"))
    );
    assert_eq!(headers["retry-after"], "1");
    let (status, ..) = send(&router, request("GET", "/ok", &[])).await;
    assert_eq!(status, 200, "the place is free again");
}

#[tokio::test]
async fn a_body_that_says_that_it_is_too_large_is_refused_unread() {
    let too_large = (body::LIMIT_OF_A_BATCH + 1).to_string();
    let (status, _, body) = send(
        &service(),
        request("POST", "/ok", &[("content-length", &too_large)]),
    )
    .await;
    assert_eq!(
        (status.as_u16(), &body["code"]),
        (413, &Value::from("body_too_large"))
    );

    let long =
        Body::from_stream(futures_util::stream::iter((0..33).map(|_| {
            Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 64 * 1024]))
        })));
    let (status, ..) = send(&service(), http::Request::post("/read").body(long).unwrap()).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn only_listed_origins_may_read() {
    let origin = ("origin", "https://app.example.com");
    for path in ["/ok", "/nowhere", "/failing"] {
        let (_, headers, _) = send(&service(), request("GET", path, &[origin])).await;
        assert_eq!(headers["access-control-allow-origin"], origin.1, "{path}");
        assert!(
            headers["access-control-expose-headers"]
                .to_str()
                .unwrap()
                .contains("x-request-id")
        );
        assert!(headers["vary"].to_str().unwrap().contains("origin"));
    }
    let preflight = [origin, ("access-control-request-method", "PATCH")];
    let (status, headers, _) = send(&service(), request("OPTIONS", "/ok", &preflight)).await;
    assert_eq!(
        (
            status.as_u16(),
            headers["access-control-max-age"].to_str().unwrap()
        ),
        (200, "600")
    );
    assert_eq!(
        headers["access-control-allow-methods"],
        "GET,POST,PATCH,DELETE"
    );
    assert_eq!(
        headers["access-control-allow-headers"],
        "authorization,content-type,idempotency-key,x-api-key,if-none-match,x-request-id"
    );
    assert!(!headers.contains_key("access-control-allow-credentials"));

    for origin in [
        "https://evil",
        "null",
        "https://app.example.com.evil",
        "http://app.example.com",
    ] {
        for method in ["GET", "OPTIONS"] {
            let (_, headers, _) =
                send(&service(), request(method, "/ok", &[("origin", origin)])).await;
            assert!(
                !headers.contains_key("access-control-allow-origin"),
                "{method} {origin}"
            );
        }
    }
}

#[tokio::test]
async fn nothing_is_cached_or_guessed() {
    for path in ["/ok", "/nowhere"] {
        let (_, headers, _) = send(&service(), request("GET", path, &[])).await;
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
}
