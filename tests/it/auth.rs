//! Who may connect, with what, and for how long.

use bellhop::client::ClientError;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::TestClient;
use crate::cluster::{SECRET, TestNode, cluster, cluster_with};

/// A token with exactly these claims, signed with this secret.
pub fn sign(claims: &Value, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

pub fn now() -> u64 {
    bellhop::announce::now_ms() / 1_000
}

async fn refusal(node: &TestNode, auth: Value) -> String {
    match TestClient::connect(&node.url, &auth).await {
        Err(ClientError::Refused(message)) => message,
        Ok(_) => panic!("{auth} was accepted"),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_needs_a_good_token() {
    let [a] = cluster().await;
    let good = json!({ "sub": "42", "exp": now() + 60 });
    for (auth, code) in [
        (json!({}), "token_missing"),
        (json!({ "token": null }), "token_missing"),
        (json!({ "token": "" }), "token_missing"),
        (json!("token"), "token_missing"),
        (json!({ "token": ["x"] }), "token_missing"),
        (json!({ "token": "x" }), "token_invalid"),
        (
            json!({ "token": sign(&good, "another-secret-of-the-tests-0123456789") }),
            "token_invalid",
        ),
        (
            json!({ "token": sign(&json!({ "sub": "42" }), SECRET) }),
            "token_invalid",
        ),
        (
            json!({ "token": sign(&json!({ "exp": now() + 60 }), SECRET) }),
            "token_invalid",
        ),
        (
            json!({ "token": sign(&json!({ "sub": "a b", "exp": now() + 60 }), SECRET) }),
            "token_invalid",
        ),
        (
            json!({ "token": sign(&json!({ "sub": "42", "exp": now() - 60 }), SECRET) }),
            "token_expired",
        ),
        (
            json!({ "token": sign(&json!({ "sub": "42", "exp": now() + 60, "nbf": now() + 60 }), SECRET) }),
            "token_invalid",
        ),
    ] {
        assert_eq!(refusal(&a, auth.clone()).await, code, "{auth}");
    }
    assert_eq!(
        a.metric(r#"bellhop_connections_rejected_total{reason="auth"}"#)
            .await,
        12.0
    );
    assert_eq!(
        a.metric(r#"bellhop_connections{transport="websocket"}"#)
            .await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_the_user_of_its_decimal_spelling() {
    let [a] = cluster().await;
    let token = sign(&json!({ "sub": 42, "exp": now() + 60 }), SECRET);
    let mut device = a.connect_with(json!({ "token": token })).await;
    device.until("notification:synced").await;

    a.publish("42", "as text").await;
    assert_eq!(device.expect("notification:new").await["title"], "as text");
    device.expect("notification:unread-count").await;
    a.publish_body(json!({ "userId": 42, "title": "as a number" }))
        .await;
    assert_eq!(
        device.expect("notification:new").await["title"],
        "as a number"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_audience_and_user_claim_are_as_configured() {
    let [a] = cluster_with(&[
        "--jwt-issuer=https://id.example",
        "--jwt-audience=push",
        "--jwt-user-claim=uid",
    ])
    .await;
    let claims = |changed: Value| {
        let mut claims = json!({ "uid": "42", "exp": now() + 60, "iss": "https://id.example", "aud": ["push", "mail"] });
        for (name, value) in changed.as_object().unwrap() {
            claims[name] = value.clone();
        }
        json!({ "token": sign(&claims, SECRET) })
    };
    for wrong in [
        json!({ "iss": "https://other.example" }),
        json!({ "iss": null }),
        json!({ "aud": "mail" }),
        json!({ "aud": null }),
        json!({ "uid": null, "sub": "42" }),
    ] {
        assert_eq!(
            refusal(&a, claims(wrong.clone())).await,
            "token_invalid",
            "{wrong}"
        );
    }
    a.connect_with(claims(json!({})))
        .await
        .until("notification:synced")
        .await;
    assert_eq!(
        a.as_user("42", Method::GET, "/api/notifications").await.0,
        200,
        "our own tokens carry them too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_may_be_signed_by_a_private_key_that_the_node_does_not_have() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header};

    type Read = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;
    let keys: [(&str, Algorithm, Read); 3] = [
        ("rs256", Algorithm::RS256, EncodingKey::from_rsa_pem),
        ("es256", Algorithm::ES256, EncodingKey::from_ec_pem),
        ("eddsa", Algorithm::EdDSA, EncodingKey::from_ed_pem),
    ];
    let folder = format!("{}/src/auth/test_keys", env!("CARGO_MANIFEST_DIR"));
    for (name, algorithm, read) in keys {
        let [a] =
            cluster_with(&[&format!("--jwt-public-key-file={folder}/{name}.public.pem")]).await;
        let private = std::fs::read(format!("{folder}/{name}.private.pem")).unwrap();
        let claims =
            json!({ "sub": "42", "exp": now() + 3_600, "scope": "mail notifications:publish" });
        let token =
            jsonwebtoken::encode(&Header::new(algorithm), &claims, &read(&private).unwrap())
                .unwrap();

        let mut device = a.connect_with(json!({ "token": token })).await;
        device.until("notification:synced").await;
        let body = json!({ "userId": "42", "title": name });
        let (status, _) = a
            .call(Method::POST, "/api/notifications", &token, Some(body))
            .await;
        assert_eq!(status, 201, "{name}");
        assert_eq!(device.expect("notification:new").await["title"], name);

        // The public key is public: it must not do as a secret (RFC 8725 section 2.1).
        let public = std::fs::read_to_string(format!("{folder}/{name}.public.pem")).unwrap();
        assert_eq!(
            refusal(&a, json!({ "token": sign(&claims, &public) })).await,
            "token_invalid",
            "{name}"
        );
        assert_eq!(
            refusal(&a, json!({ "token": sign(&claims, SECRET) })).await,
            "token_invalid",
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_asked_for_a_new_token_and_keeps_its_socket_with_one() {
    let [a] = cluster().await;
    let exp = now() + 30;
    let mut device = a
        .connect_with(json!({ "token": sign(&json!({ "sub": "42", "exp": exp }), SECRET) }))
        .await;
    let expiring = device.until("auth:expiring").await;
    let at = chrono::DateTime::parse_from_rfc3339(expiring["expiresAt"].as_str().unwrap()).unwrap();
    assert_eq!(at.timestamp(), i64::try_from(exp).unwrap());

    let bad = device.call("auth:refresh", json!({ "token": "x" })).await;
    assert_eq!(
        (&bad["ok"], &bad["code"]),
        (&json!(false), &json!("token_invalid"))
    );
    assert_eq!(
        device
            .call("auth:refresh", json!({ "token": a.token("42") }))
            .await,
        json!({ "ok": true })
    );
    device.hears_nothing(&a, "42").await;

    device
        .send(&format!(
            "42{}",
            json!(["auth:refresh", { "token": a.token("7") }])
        ))
        .await
        .unwrap();
    device.ends().await;
    a.metric_becomes(
        r#"bellhop_connections_closed_total{transport="websocket",reason="auth_expired"}"#,
        1.0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_ends_after_its_token() {
    let [a] = cluster().await;
    // Within the leeway of 30 s by a second: taken, and over almost at once.
    let token = sign(&json!({ "sub": "42", "exp": now() - 29 }), SECRET);
    let mut device = a.connect_with(json!({ "token": token })).await;
    device.ends().await;
    a.metric_becomes(
        r#"bellhop_connections_closed_total{transport="websocket",reason="auth_expired"}"#,
        1.0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_socket_of_a_user_is_refused_over_the_limit() {
    let [a] = cluster_with(&["--limit-connections-per-user=2"]).await;
    let mut first = a.connect("42").await;
    let _second = a.connect("42").await;
    assert_eq!(
        refusal(&a, json!({ "token": a.token("42") })).await,
        "too_many_connections"
    );
    let _other = a.connect("7").await;
    first.hears_nothing(&a, "42").await;
    assert_eq!(
        a.metric(r#"bellhop_connections_rejected_total{reason="limit"}"#)
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_sends_clients_away_before_a_session_exists() {
    let [a] = cluster_with(&["--limit-connections=1"]).await;
    let _only = a.connect("42").await;
    let response = a
        .request(Method::GET, "/socket.io/?EIO=4&transport=polling")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(
        response.json::<Value>().await.unwrap(),
        json!({ "code": "node_full" })
    );
}
