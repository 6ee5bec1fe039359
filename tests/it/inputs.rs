//! Bad input at the HTTP edge: the documented error, all errors at once, and nothing is changed.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{TestNode, cluster, cluster_with};

const PATH: &str = "/api/notifications";

struct Answer {
    status: StatusCode,
    content_type: String,
    body: Value,
}

/// A publish with this body as it is.
async fn post(node: &TestNode, body: impl Into<reqwest::Body>, headers: &[(&str, &str)]) -> Answer {
    let mut request = node
        .request(Method::POST, PATH)
        .bearer_auth(node.publisher_token())
        .body(body);
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    answer(request).await
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let content_type = response
        .headers()
        .get("content-type")
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    let status = response.status();
    Answer {
        status,
        content_type,
        body: serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default(),
    }
}

impl Answer {
    /// The answer is a problem of RFC 9457 with this status and code.
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str, what: &str) {
        assert_eq!(
            (self.status.as_u16(), self.body["code"].as_str()),
            (status, Some(code)),
            "{what}: {}",
            self.body
        );
        assert_eq!(self.content_type, "application/problem+json", "{what}");
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "requestId"] {
            assert!(
                self.body[field].is_string(),
                "{what}: no {field} in {}",
                self.body
            );
        }
    }
}

async fn nothing_was_written(node: &TestNode) {
    for user in ["42", "7"] {
        let (_, count) = node
            .as_user(user, Method::GET, "/api/notifications/unread-count")
            .await;
        assert_eq!(count, json!({ "count": 0, "seq": 0 }));
    }
    assert_eq!(
        node.metric(r#"bellhop_notifications_created_total{priority="NORMAL"}"#)
            .await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_object_is_400_or_422() {
    let [a] = cluster().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (body, status, code) in [
        ("", 400, "body_empty"),
        ("{", 400, "json_invalid"),
        ("not json", 400, "json_invalid"),
        (
            "{\"userId\":\"42\",\"title\":\"x\"} trailing",
            400,
            "json_invalid",
        ),
        ("{\"userId\":\"42\",\"title\":NaN}", 400, "json_invalid"),
        (
            "{\"userId\":\"42\",\"title\":\"\\ud800\"}",
            400,
            "json_invalid",
        ),
        (
            "{\"userId\":\"42\",\"title\":\"x\",\"title\":\"y\"}",
            400,
            "json_duplicate_key",
        ),
        (&deep, 400, "json_too_deep"),
        ("[]", 422, "body_invalid"),
        ("7", 422, "body_invalid"),
        ("null", 422, "body_invalid"),
    ] {
        post(&a, body.to_owned(), &[])
            .await
            .is_problem(status, code, &body[..body.len().min(60)]);
    }
    post(&a, vec![b'{', 0xff, b'}'], &[])
        .await
        .is_problem(400, "utf8_invalid", "not UTF-8");
    nothing_was_written(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_errors_of_a_body_are_reported_at_once() {
    let [a] = cluster().await;
    let body = json!({
        "userId": "a b", "title": "", "message": 7, "type": "lower", "priority": "LOUD", "data": [], "actionUrl": "javascript:alert(1)",
        "icon": "//evil.example", "silent": "yes", "expiresAt": "2001-01-01T00:00:00Z", "colour": "red"
    });
    let answer = post(&a, body.to_string(), &[]).await;
    answer.is_problem(422, "body_invalid", "everything wrong");
    let mut pointers: Vec<_> = answer.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    let expected = [
        "/actionUrl",
        "/colour",
        "/data",
        "/expiresAt",
        "/icon",
        "/message",
        "/priority",
        "/silent",
        "/title",
        "/type",
        "/userId",
    ];
    assert_eq!(pointers, expected);
    for error in answer.body["errors"].as_array().unwrap() {
        assert!(
            error["code"].is_string() && error["expected"].is_string(),
            "{error}"
        );
    }
    assert!(
        !answer.body.to_string().contains("alert(1)"),
        "what was sent is not echoed"
    );
    nothing_was_written(&a).await;
}

/// A body that is fine but for one field.
fn with(field: &str, value: Value) -> String {
    let mut body = json!({ "userId": "42", "title": "Hello" });
    body[field] = value;
    body.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_has_its_rule() {
    let [a] = cluster().await;
    let nested = |depth: usize| (1..depth).fold(json!({}), |inner, _| json!({ "x": inner }));
    let long = |length: usize| json!("x".repeat(length));
    let cases: Vec<(&str, Vec<Value>)> = vec![
        (
            "userId",
            vec![
                json!(""),
                long(129),
                json!("a\u{0}"),
                json!("a\n"),
                json!("é"),
                json!("*"),
                json!("../x"),
                json!(-1),
                json!(7.5),
                json!(9007199254740992_u64),
                json!(null),
                json!([]),
            ],
        ),
        (
            "title",
            vec![
                json!(""),
                json!("   "),
                json!("\u{1}"),
                json!("a\u{7f}"),
                json!("😀".repeat(201)),
                json!(7),
                json!(null),
            ],
        ),
        ("message", vec![long(4_097), json!("\u{8}"), json!({})]),
        (
            "type",
            vec![
                json!(""),
                json!("a"),
                json!("1A"),
                json!("A".repeat(65)),
                json!(1),
            ],
        ),
        ("priority", vec![json!("high"), json!(""), json!(1)]),
        (
            "data",
            vec![
                json!("x"),
                json!([1]),
                json!({ "x": "y".repeat(8_192) }),
                nested(9),
            ],
        ),
        (
            "actionUrl",
            vec![
                json!(""),
                json!("javascript:alert(1)"),
                json!("JaVaScRiPt:x"),
                json!("java\nscript:x"),
                json!("data:text/html,x"),
                json!("vbscript:x"),
                json!("file:///etc/passwd"),
                json!("//evil.example"),
                json!("/\\evil.example"),
                json!("https:\\\\evil"),
                json!("https://user:pw@h.example"),
                json!(" https://h.example"),
                json!("\u{1}https://h.example"),
                json!("http://h.example"),
                json!("orders/7"),
                json!(format!("/{}", "x".repeat(2_048))),
                json!(7),
            ],
        ),
        (
            "badge",
            vec![json!("data:image/svg+xml,x"), json!("ftp://h.example")],
        ),
        ("silent", vec![json!("true"), json!(1)]),
        ("sticky", vec![json!("true"), json!(0)]),
        (
            "expiresAt",
            vec![
                json!("2001-01-01T00:00:00Z"),
                json!("tomorrow"),
                json!("2099-01-01"),
                json!("2099-13-01T00:00:00Z"),
                json!("+12099-01-01T00:00:00Z"),
                json!(1),
            ],
        ),
        ("unknown", vec![json!(1)]),
        ("delivery", vec![json!("live")]),
        ("seq", vec![json!(1)]),
    ];
    for (field, values) in cases {
        for value in values {
            let answer = post(&a, with(field, value.clone()), &[]).await;
            answer.is_problem(422, "body_invalid", &format!("{field}: {value}"));
            let errors = answer.body["errors"].as_array().unwrap();
            assert_eq!(
                (errors.len(), errors[0]["pointer"].as_str()),
                (1, Some(format!("/{field}").as_str())),
                "{field}: {value}: {errors:?}"
            );
        }
    }
    for missing in [
        json!({ "title": "x" }),
        json!({ "userId": "42" }),
        json!({ "userId": "42", "userIds": ["7"], "title": "x" }),
    ] {
        post(&a, missing.to_string(), &[]).await.is_problem(
            422,
            "body_invalid",
            &missing.to_string(),
        );
    }
    for users in [
        json!([]),
        json!(["42", "42"]),
        json!(["42", "a b"]),
        json!("42"),
        json!((0..1_001).collect::<Vec<_>>()),
    ] {
        let body = json!({ "userIds": users, "title": "x" });
        post(&a, body.to_string(), &[]).await.is_problem(
            422,
            "body_invalid",
            &format!("userIds {users:.60}"),
        );
    }
    nothing_was_written(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_at_the_limit_is_accepted() {
    let [a] = cluster().await;
    let nested = (1..8).fold(json!({}), |inner, _| json!({ "x": inner }));
    for (field, value) in [
        ("userId", json!("x".repeat(128))),
        ("userId", json!("user.name_1~x@example-host:tenant")),
        ("userId", json!(9007199254740991_u64)),
        ("title", json!("😀".repeat(200))),
        ("title", json!("tab\tand\nnewline")),
        ("message", json!("😀".repeat(4_096))),
        ("type", json!("A".repeat(64))),
        ("data", json!({ "x": "y".repeat(8_184) })),
        ("data", nested),
        ("actionUrl", json!("/a?b=c#d")),
        ("actionUrl", json!(format!("/{}", "x".repeat(2_047)))),
        ("icon", json!("https://h.example:8443/i.svg")),
        ("expiresAt", json!("2099-12-31T23:59:59+14:00")),
        ("message", json!(null)),
    ] {
        let answer = post(&a, with(field, value.clone()), &[]).await;
        assert_eq!(
            answer.status,
            StatusCode::CREATED,
            "{field}: {value:.80}: {}",
            answer.body
        );
    }
    let users: Vec<_> = (0..1_000).collect();
    let (status, body) = a
        .publish_body(json!({ "userIds": users, "title": "x" }))
        .await;
    assert_eq!(
        (status, body["items"].as_array().unwrap().len()),
        (StatusCode::CREATED, 1_000)
    );

    let [lenient] = cluster_with(&["--allow-http-urls"]).await;
    assert_eq!(
        post(&lenient, with("actionUrl", json!("http://h.example")), &[])
            .await
            .status,
        StatusCode::CREATED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_sizes_have_their_rules() {
    let [a] = cluster().await;
    let good = with("title", json!("Hello"));
    for (headers, status, code) in [
        (
            vec![("content-type", "text/plain")],
            415,
            "media_type_unsupported",
        ),
        (vec![("content-type", "")], 415, "media_type_unsupported"),
        (
            vec![("content-encoding", "gzip")],
            415,
            "media_type_unsupported",
        ),
        (
            vec![("idempotency-key", "é")],
            400,
            "idempotency_key_invalid",
        ),
        (
            vec![("idempotency-key", "a"), ("idempotency-key", "b")],
            400,
            "idempotency_key_invalid",
        ),
    ] {
        post(&a, good.clone(), &headers)
            .await
            .is_problem(status, code, &format!("{headers:?}"));
    }
    let long_key = "k".repeat(256);
    post(&a, good.clone(), &[("idempotency-key", &long_key)])
        .await
        .is_problem(400, "idempotency_key_invalid", "256 characters");
    post(&a, with("message", json!("x".repeat(33_000))), &[])
        .await
        .is_problem(413, "body_too_large", "33 000 bytes");
    let many =
        json!({ "userIds": ["42"], "title": "x", "message": "x".repeat(300_000) }).to_string();
    post(&a, many.clone(), &[])
        .await
        .is_problem(413, "body_too_large", "300 000 bytes");
    let chunks = futures_util::stream::iter(
        many.into_bytes()
            .chunks(4_096)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect::<Vec<_>>(),
    );
    post(&a, reqwest::Body::wrap_stream(chunks), &[])
        .await
        .is_problem(413, "body_too_large", "300 000 bytes in chunks");
    nothing_was_written(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so() {
    let [a] = cluster().await;
    let publish = || {
        a.request(Method::POST, PATH)
            .header("content-type", "application/json")
            .body(with("title", json!("x")))
    };
    let list = || a.request(Method::GET, PATH);
    answer(publish())
        .await
        .is_problem(401, "token_missing", "no token");
    answer(list())
        .await
        .is_problem(401, "token_missing", "no token");
    answer(list().header("authorization", "Basic dTpw"))
        .await
        .is_problem(401, "token_missing", "basic");
    answer(list().bearer_auth("x.y.z"))
        .await
        .is_problem(401, "token_invalid", "garbage");
    answer(a.request(Method::GET, &format!("{PATH}?token={}", a.token("42"))))
        .await
        .is_problem(401, "token_missing", "in the query");
    answer(publish().bearer_auth(a.token("42")))
        .await
        .is_problem(403, "forbidden", "a user publishes");
    let emit = a
        .request(Method::POST, "/api/emit")
        .bearer_auth(a.token("42"))
        .json(&json!({ "broadcast": true, "event": "x", "payload": 1 }));
    answer(emit)
        .await
        .is_problem(403, "forbidden", "a user emits");
    let response = list().send().await.unwrap();
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    nothing_was_written(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_or_path_that_is_wrong_is_refused() {
    let [a] = cluster().await;
    for query in [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=x",
        "limit=1e1",
        "limit=",
        "unread=maybe",
        "type=lower",
        "cursor=x",
        "cursor=AAAA",
        "limit=1&limit=2",
    ] {
        let request = a
            .request(Method::GET, &format!("{PATH}?{query}"))
            .bearer_auth(a.token("42"));
        let answer = answer(request).await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{query}: {}",
            answer.body
        );
        assert_eq!(answer.content_type, "application/problem+json");
    }
    for query in [
        "since=-1",
        "since=x",
        "since=1.5",
        "since=99999999999999999999",
        "limit=0",
    ] {
        let request = a
            .request(Method::GET, &format!("{PATH}/changes?{query}"))
            .bearer_auth(a.token("42"));
        assert_eq!(
            answer(request).await.status,
            StatusCode::BAD_REQUEST,
            "{query}"
        );
    }
    a.publish("7", "one").await;
    a.publish("7", "two").await;
    let (_, theirs) = a
        .as_user("7", Method::GET, &format!("{PATH}?limit=1"))
        .await;
    let cursor = theirs["nextCursor"].as_str().unwrap();
    let request = a
        .request(Method::GET, &format!("{PATH}?cursor={cursor}"))
        .bearer_auth(a.token("42"));
    answer(request)
        .await
        .is_problem(400, "cursor_invalid", "another user's cursor");

    for (method, path, status, code) in [
        (Method::GET, "/api/notifications/x", 404, "not_found"),
        (Method::DELETE, "/api/notifications/7", 404, "not_found"),
        (Method::PATCH, "/api/notifications/x/read", 404, "not_found"),
        (Method::GET, "/api/nothing", 404, "not_found"),
        (Method::GET, "/", 404, "not_found"),
        (Method::GET, "/metrics", 404, "not_found"),
        (Method::PUT, "/api/notifications", 405, "method_not_allowed"),
        (Method::POST, "/api/dev/token", 404, "not_found"),
    ] {
        let request = a.request(method.clone(), path).bearer_auth(a.token("42"));
        answer(request)
            .await
            .is_problem(status, code, &format!("{method} {path}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_emit_has_its_rules() {
    let [a] = cluster().await;
    let mut device = a.connect("42").await;
    let emit = async |body: Value| a.emit(body).await;
    for event in [
        "",
        "Chat",
        "chat typing",
        "chat:",
        ":x",
        "1x",
        "connect",
        "disconnect",
        "disconnecting",
        "error",
        "connect_error",
        "notification:new",
        "notification:updated",
        "notification:deleted",
        "notification:unread-count",
        "notification:refresh",
        "notification:synced",
        "auth:expiring",
        "server:drain",
    ] {
        let (status, body) = emit(json!({ "userId": "42", "event": event, "payload": {} })).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{event}: {body}");
    }
    for to in [
        json!({}),
        json!({ "userId": "42", "broadcast": true }),
        json!({ "broadcast": false }),
        json!({ "userIds": [] }),
        json!({ "room": "user:42" }),
    ] {
        let mut body = json!({ "event": "chat:typing", "payload": {} });
        body.as_object_mut()
            .unwrap()
            .extend(to.as_object().unwrap().clone());
        assert_eq!(emit(body).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{to}");
    }
    device.hears_nothing(&a, "42").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_a_request_id() {
    let [a] = cluster().await;
    let id = async |given: Option<&str>| {
        let mut request = a.request(Method::GET, PATH);
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        let response = request.send().await.unwrap();
        let header = response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(response.json::<Value>().await.unwrap()["requestId"], header);
        header
    };
    assert_eq!(id(Some("trace-7")).await, "trace-7");
    assert_ne!(id(Some(&"x".repeat(129))).await, "x".repeat(129));
    assert_ne!(id(None).await, id(None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_allowed_origins_may_read_the_answers() {
    let [a] = cluster_with(&["--cors-origins=https://app.example.com"]).await;
    let preflight = async |origin: &str| {
        let request = a.request(Method::OPTIONS, PATH).header("origin", origin);
        let request = request
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type,idempotency-key",
            );
        request.send().await.unwrap().headers().clone()
    };
    let headers = preflight("https://app.example.com").await;
    assert_eq!(
        headers["access-control-allow-origin"],
        "https://app.example.com"
    );
    for name in ["authorization", "content-type", "idempotency-key"] {
        assert!(
            headers["access-control-allow-headers"]
                .to_str()
                .unwrap()
                .contains(name),
            "{headers:?}"
        );
    }
    for origin in ["https://evil.example", "null", "http://localhost:4200"] {
        assert!(
            !preflight(origin)
                .await
                .contains_key("access-control-allow-origin"),
            "{origin}"
        );
    }
}
