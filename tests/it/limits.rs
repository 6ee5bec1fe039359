//! How much a publisher may send, and how much one user may be sent.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{TestNode, cluster_with};

struct Refused {
    status: u16,
    code: String,
    retry_after: Option<u64>,
    /// As `RateLimit-Policy` and `RateLimit` say.
    limits: [Option<String>; 2],
}

async fn send(node: &TestNode, path: &str, body: Value) -> Refused {
    let request = node
        .request(Method::POST, path)
        .bearer_auth(node.publisher_token());
    let response = request.json(&body).send().await.unwrap();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().unwrap().parse().unwrap());
    let status = response.status().as_u16();
    let limits = ["ratelimit-policy", "ratelimit"].map(|name| {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    });
    let body: Value = response.json().await.unwrap();
    Refused {
        limits,
        status,
        code: body["code"].as_str().unwrap_or_default().to_owned(),
        retry_after,
    }
}

async fn to(node: &TestNode, users: &[&str]) -> Refused {
    let body = json!({ "userIds": users, "title": "x" });
    send(node, "/api/notifications", body).await
}

async fn seq(node: &TestNode, user: &str) -> Value {
    let path = "/api/notifications/unread-count";
    node.as_user(user, Method::GET, path).await.1["seq"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_sends_no_more_than_its_limit() {
    let [a] = cluster_with(&["--limit-publishes-per-key=1/10"]).await;
    assert_eq!(to(&a, &["1", "2", "3", "4"]).await.status, 201);
    let items: Vec<_> = (0..3)
        .map(|_| json!({ "userId": "1", "title": "x" }))
        .collect();
    let batch = json!({ "notifications": items });
    assert_eq!(
        send(&a, "/api/notifications/batch", batch).await.status,
        201
    );
    let everyone = json!({ "broadcast": true, "event": "a", "payload": 1 });
    assert_eq!(send(&a, "/api/emit", everyone).await.status, 202);

    // 2 are left, and 1 more with each second.
    let refused = to(&a, &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]).await;
    assert_eq!(
        (refused.status, refused.code.as_str()),
        (429, "rate_limited")
    );
    let wait = refused.retry_after.unwrap();
    assert!((1..=8).contains(&wait), "{wait}");
    let [policy, limit] = refused.limits.map(Option::unwrap);
    assert_eq!(policy, r#""publisher";q=10;w=10"#);
    let (left, reset) = limit
        .strip_prefix(r#""publisher";r="#)
        .and_then(|rest| rest.split_once(";t="))
        .unwrap();
    assert_eq!(reset, wait.to_string());
    assert!((2..10).contains(&left.parse().unwrap()), "{left}");
    assert_eq!(seq(&a, "10").await, json!(0), "nothing was written");

    let eleven: Vec<_> = (0..11).map(|user| user.to_string()).collect();
    let eleven: Vec<_> = eleven.iter().map(String::as_str).collect();
    let refused = to(&a, &eleven).await;
    assert_eq!(
        (refused.status, refused.code.as_str(), refused.retry_after),
        (422, "too_many_for_limit", None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_sent_no_more_than_the_limit() {
    let [a] = cluster_with(&["--limit-publishes-per-user=1/3"]).await;
    assert_eq!(to(&a, &["42", "7"]).await.status, 201);
    let test = async || {
        a.as_user("42", Method::POST, "/api/notifications/test")
            .await
    };
    for _ in 0..2 {
        assert_eq!(test().await.0, StatusCode::CREATED);
    }
    // The third may have come back by now, if the machine is slow; the one after it has not.
    let mut last = test().await;
    if last.0 == StatusCode::CREATED {
        last = test().await;
    }
    assert_eq!(
        (last.0, &last.1["code"]),
        (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limited"))
    );
    let before = seq(&a, "7").await;
    let three = json!({ "notifications": [
        { "userId": "7", "title": "x" }, { "userId": "42", "title": "x" }, { "userId": "42", "title": "x" }
    ] });
    let refused = send(&a, "/api/notifications/batch", three).await;
    assert_eq!(refused.status, 429);
    assert_eq!(seq(&a, "7").await, before, "none of them was written");
    let four: Vec<_> = (0..4)
        .map(|_| json!({ "userId": "8", "title": "x" }))
        .collect();
    let refused = send(
        &a,
        "/api/notifications/batch",
        json!({ "notifications": four }),
    )
    .await;
    assert_eq!(
        (refused.status, refused.code.as_str()),
        (422, "too_many_for_limit")
    );
    assert_eq!(to(&a, &["8"]).await.status, 201, "others have their own");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_live_no_longer_than_is_set() {
    let [a] = cluster_with(&["--token-max-lifetime-seconds=60"]).await;
    let (status, body) = a.as_user("42", Method::GET, "/api/notifications").await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::UNAUTHORIZED, &json!("token_invalid"))
    );
    let now = crate::auth::now();
    let claims = json!({ "sub": "42", "iat": now, "exp": now + 60 });
    let token = crate::auth::sign(&claims, crate::cluster::SECRET);
    let (status, _) = a
        .call(Method::GET, "/api/notifications", &token, None)
        .await;
    assert_eq!(status, StatusCode::OK);
}
