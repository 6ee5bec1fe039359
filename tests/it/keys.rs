//! API keys: publishers without tokens.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cluster::{TestNode, cluster_with};

/// The setting that names these keys.
pub fn configured(keys: &[(&str, &str)]) -> String {
    let spelled = keys.iter().map(|(name, key)| {
        let digest = Sha256::digest(key);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name}:{digest}")
    });
    format!("--api-keys={}", spelled.collect::<Vec<_>>().join(","))
}

async fn two_keys() -> TestNode {
    let [a] = cluster_with(&[&configured(&[("shop", "key-1"), ("crm", "key-2")])]).await;
    a
}

fn publish(node: &TestNode) -> reqwest::RequestBuilder {
    let body = json!({ "userId": "42", "title": "Hello" });
    node.request(Method::POST, "/api/notifications").json(&body)
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_publishes_for_any_user_and_is_no_user() {
    let a = two_keys().await;
    let mut device = a.connect("42").await;
    for key in ["key-1", "key-2"] {
        let published = answer(publish(&a).header("x-api-key", key)).await;
        assert_eq!(published, (201, String::new()), "{key}");
        device.until("notification:new").await;
    }
    for (method, path) in [
        (Method::GET, "/api/notifications"),
        (Method::GET, "/api/notifications/unread-count"),
        (Method::POST, "/api/notifications/test"),
        (Method::POST, "/api/notifications/read-all"),
        (Method::DELETE, "/api/notifications"),
    ] {
        let request = a.request(method, path).header("x-api-key", "key-1");
        assert_eq!(answer(request).await, (403, "forbidden".to_owned()));
    }
    let presence = a
        .request(Method::GET, "/api/users/42/presence")
        .header("x-api-key", "key-2");
    assert_eq!(answer(presence).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_credential() {
    let a = two_keys().await;
    let token = a.publisher_token();
    for (request, status, code) in [
        (
            publish(&a).header("x-api-key", "key-3"),
            401,
            "token_invalid",
        ),
        (publish(&a).header("x-api-key", ""), 401, "token_invalid"),
        (publish(&a), 401, "token_missing"),
        (
            publish(&a)
                .header("x-api-key", "key-1")
                .header("x-api-key", "key-1"),
            400,
            "api_key_repeated",
        ),
        (
            publish(&a).header("x-api-key", "key-1").bearer_auth(&token),
            400,
            "credentials_ambiguous",
        ),
        (
            publish(&a)
                .header("x-api-key", "key-3")
                .bearer_auth("nonsense"),
            400,
            "credentials_ambiguous",
        ),
        (publish(&a).bearer_auth("key-1"), 401, "token_invalid"),
        (publish(&a).bearer_auth("bh_key-1"), 401, "token_invalid"),
        (
            publish(&a)
                .header("x-api-key", "key-1")
                .basic_auth("proxy", Some("p")),
            201,
            "",
        ),
    ] {
        let spelled = format!("{request:?}");
        assert_eq!(
            answer(request).await,
            (status, code.to_owned()),
            "{spelled}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys_of_different_publishers_never_meet() {
    let a = two_keys().await;
    let send = async |request: reqwest::RequestBuilder| {
        let response = request.header("idempotency-key", "k").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        response.headers().contains_key("idempotent-replayed")
    };
    assert!(!send(publish(&a).header("x-api-key", "key-1")).await);
    assert!(send(publish(&a).header("x-api-key", "key-1")).await);
    assert!(!send(publish(&a).header("x-api-key", "key-2")).await);
    assert!(!send(publish(&a).bearer_auth(a.publisher_token())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_may_send_a_key_and_read_a_tag() {
    let [a] = cluster_with(&["--cors-origins=https://app.example.com"]).await;
    let preflight = a
        .request(Method::OPTIONS, "/api/notifications")
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "POST");
    let headers = preflight.send().await.unwrap().headers().clone();
    let allowed = headers["access-control-allow-headers"].to_str().unwrap();
    for name in ["x-api-key", "if-none-match", "authorization"] {
        assert!(allowed.contains(name), "{name} is not in {allowed}");
    }
    let request = a
        .request(Method::GET, "/api/notifications/unread-count")
        .bearer_auth(a.token("42"))
        .header("origin", "https://app.example.com");
    let headers = request.send().await.unwrap().headers().clone();
    let exposed = headers["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("etag"), "{exposed}");
    let vary: Vec<_> = headers
        .get_all("vary")
        .iter()
        .map(|value| value.to_str().unwrap().to_lowercase())
        .collect();
    let vary = vary.join(",");
    assert!(
        vary.contains("origin") && vary.contains("authorization"),
        "{vary}"
    );
}
