//! What an operator can tell a publisher who asks why: one line for each refusal, under the request's own name.

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::commands::{Running, addresses, bellhop};

const KEY: &str = "a-key-of-these-tests";

/// A node that logs JSON, with an API key and with user ids as digests; and its address.
fn node(folder: &std::path::Path) -> (Running, String) {
    let [listen, admin] = addresses();
    let digest = Sha256::digest(KEY);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("--api-keys=shop:{digest}");
    let arguments = [
        "serve",
        "--listen",
        &listen,
        "--admin-listen",
        &admin,
        "--log-format=json",
        "--log-user-ids=hash",
        "--jwt-secret",
        crate::cluster::SECRET,
        &key,
    ];
    let node = Running::start(bellhop(folder, &arguments));
    node.line("serving");
    (node, format!("http://{listen}"))
}

fn token(user: &str, scope: &str) -> String {
    let now = crate::auth::now();
    let claims = json!({ "sub": user, "iat": now, "exp": now + 600, "scope": scope });
    crate::auth::sign(&claims, crate::cluster::SECRET)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_publish_is_one_line_with_the_callers_request_id() {
    let folder = tempfile::tempdir().unwrap();
    let (node, url) = node(folder.path());
    let http = reqwest::Client::new();
    let bad = json!({ "userId": "hunter2", "title": "", "message": 7 });
    let shop = "token:".to_owned() + &hashed("shop");
    let user = "token:".to_owned() + &hashed("42");
    let one = "/api/users/42/notifications/0198f1c2-0000-7000-8000-000000000000";
    let publisher = token("shop", "notifications:publish");
    for (number, (method, path, credential, expected, code)) in [
        (
            Method::POST,
            "/api/notifications",
            None,
            "-",
            "token_missing",
        ),
        (
            Method::POST,
            "/api/notifications",
            Some(publisher.as_str()),
            &shop,
            "body_invalid",
        ),
        (
            Method::POST,
            "/api/notifications/batch",
            Some(KEY),
            "key:shop",
            "body_invalid",
        ),
        (
            Method::POST,
            "/api/emit",
            Some(KEY),
            "key:shop",
            "body_invalid",
        ),
        (
            Method::POST,
            "/api/emit?x=1",
            Some(KEY),
            "key:shop",
            "query_invalid",
        ),
        (Method::PATCH, one, Some(KEY), "key:shop", "body_invalid"),
        (Method::DELETE, one, Some(KEY), "key:shop", "not_found"),
        (
            Method::POST,
            "/api/notifications",
            Some(&token("42", "")),
            &user,
            "forbidden",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("trace-{number}");
        let mut request = http
            .request(method, format!("{url}{path}"))
            .header("x-request-id", &id)
            .json(&bad);
        request = match credential {
            Some(KEY) => request.header("x-api-key", KEY),
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["x-request-id"], id);
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["requestId"], &body["code"]),
            (&json!(id), &json!(code))
        );

        let line = node.line(&format!("\"{id}\""));
        assert!(!line.contains("hunter2") && !line.contains(KEY), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (
                &line["message"],
                &line["level"],
                &line["publisher"],
                &line["code"],
                &line["request"]
            ),
            (
                &json!("publish refused"),
                &json!("INFO"),
                &json!(expected),
                &json!(code),
                &json!(id)
            ),
            "{line}"
        );
        assert_eq!(line["spans"][0]["id"], json!(id), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_logged_by_the_rule_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (node, url) = node(folder.path());
    let request = reqwest::Client::new()
        .post(format!("{url}/api/emit"))
        .header("x-api-key", "hunter2")
        .header("x-request-id", "trace-1");
    assert_eq!(request.send().await.unwrap().status(), 401);
    let line = node.line("token refused");
    assert!(
        line.contains("trace-1") && line.contains("BELLHOP_API_KEYS"),
        "{line}"
    );
    assert!(!line.contains("hunter2"), "{line}");
    let line = node.line("publish refused");
    assert!(
        line.contains("token_invalid") && !line.contains("hunter2"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sent_as_a_token_is_logged_as_one_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (node, url) = node(folder.path());
    let http = reqwest::Client::new();
    let request = http
        .post(format!("{url}/api/emit"))
        .bearer_auth("bh_hunter2");
    assert_eq!(request.send().await.unwrap().status(), 401);
    let line = node.line("token refused");
    assert!(
        line.contains("API key") && line.contains("X-API-Key") && !line.contains("hunter2"),
        "{line}"
    );

    let nobody = http.post(format!("{url}/api/emit")).send().await.unwrap();
    let problem: Value = nobody.json().await.unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("Bearer") && detail.contains("X-API-Key"),
        "{detail}"
    );
}

fn hashed(user: &str) -> String {
    let digest = Sha256::digest(user);
    digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
