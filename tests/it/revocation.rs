//! Revoked tokens: sockets are closed on every node, and no token of before is believed any more: on sockets and
//! routes of users at once, on those of publishers within seconds.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::auth::{now, sign};
use crate::cluster::{SECRET, TestNode, cluster};

async fn disconnect(node: &TestNode, user: &str) {
    disconnect_as(node, user, &node.publisher_token()).await;
}

async fn disconnect_as(node: &TestNode, user: &str, token: &str) {
    let path = format!("/api/users/{user}/disconnect");
    let (status, body) = node.call(Method::POST, &path, token, None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
}

/// A token that is a little younger than any that was issued by now.
fn later_token(user: &str) -> String {
    let claims = json!({ "sub": user, "iat": now() + 5, "exp": now() + 600 });
    sign(&claims, SECRET)
}

fn later_publisher(user: &str) -> String {
    let claims = json!({ "sub": user, "iat": now() + 5, "exp": now() + 600, "scope": "notifications:publish" });
    sign(&claims, SECRET)
}

async fn refusal(node: &TestNode, token: &str) -> String {
    let auth = json!({ "token": token });
    match bellhop::client::Client::connect(&node.url, "/socket.io/", &auth).await {
        Err(bellhop::client::ClientError::Refused(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_closes_the_users_sockets_on_every_node_and_no_other() {
    let [a, b, c] = cluster().await;
    let mut on_a = a.connect("42").await;
    let mut on_b = b.connect("42").await;
    let mut other = b.connect("7").await;

    disconnect(&c, "42").await;

    on_a.ends().await;
    on_b.ends().await;
    other.hears_nothing(&a, "7").await;
    let kicked = r#"bellhop_connections_closed_total{transport="websocket",reason="kicked"}"#;
    a.metric_becomes(kicked, 1.0).await;
    b.metric_becomes(kicked, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_before_is_refused_everywhere_and_a_new_one_is_not() {
    let [a, b] = cluster().await;
    let old = a.token("42");
    let ageless = sign(&json!({ "sub": "42", "exp": now() + 600 }), SECRET);
    a.publish("42", "one").await;
    disconnect(&a, "42").await;

    for token in [&old, &ageless] {
        assert_eq!(refusal(&b, token).await, "token_expired");
    }
    let new = later_token("42");
    let (status, list) = b.call(Method::GET, "/api/notifications", &new, None).await;
    assert_eq!((status.as_u16(), &list["seq"]), (200, &json!(2)));
    let mut device = b.connect_with(json!({ "token": new })).await;
    device.until("notification:synced").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_with_a_newer_token_stays_and_hears_on_without_a_gap() {
    let [a, b] = cluster().await;
    let mut device = a.connect_with(json!({ "token": later_token("42") })).await;
    device.until("notification:synced").await;

    disconnect(&b, "42").await;
    b.publish("42", "after").await;

    let heard = loop {
        let heard = device.next().await;
        if heard.event != "notification:unread-count" {
            break heard;
        }
    };
    assert_eq!(
        (heard.event.as_str(), &heard.data["seq"]),
        ("notification:new", &json!(2))
    );
    assert_eq!(a.metric(r#"bellhop_repairs_total{kind="gap"}"#).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_does_not_renew_a_socket() {
    let [a] = cluster().await;
    let old = a.token("42");
    disconnect(&a, "42").await;
    let mut device = a.connect_with(json!({ "token": later_token("42") })).await;
    device.until("notification:synced").await;

    let ack = device.call("auth:refresh", json!({ "token": old })).await;
    assert_eq!(
        (&ack["ok"], &ack["code"]),
        (&Value::Bool(false), &json!("token_expired"))
    );
    device.hears_nothing(&a, "42").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whom_nothing_was_sent_can_be_disconnected() {
    let [a] = cluster().await;
    disconnect(&a, "nobody").await;
    assert_eq!(refusal(&a, &a.token("nobody")).await, "token_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_user_is_refused_on_every_route_of_every_node() {
    let [a, b] = cluster().await;
    let created = a.publish("42", "one").await;
    let one = format!("/api/notifications/{}", created["id"].as_str().unwrap());
    let old = a.token("42");
    let without_iat = sign(&json!({ "sub": "42", "exp": now() + 600 }), SECRET);
    let (status, _) = a
        .call(Method::GET, "/api/notifications", &without_iat, None)
        .await;
    assert_eq!(status, StatusCode::OK);

    disconnect(&a, "42").await;

    for (method, path) in [
        (Method::GET, "/api/notifications".to_owned()),
        (Method::GET, "/api/notifications/unread-count".to_owned()),
        (Method::GET, "/api/notifications/changes".to_owned()),
        (Method::GET, one.clone()),
        (
            Method::GET,
            "/api/notifications/0198f1c2-0000-7000-8000-000000000000".to_owned(),
        ),
        (Method::PATCH, format!("{one}/read")),
        (Method::PATCH, format!("{one}/unread")),
        (Method::POST, format!("{one}/click")),
        (Method::POST, "/api/notifications/read-all".to_owned()),
        (Method::POST, "/api/notifications/test".to_owned()),
        (Method::DELETE, one.clone()),
        (Method::DELETE, "/api/notifications".to_owned()),
    ] {
        for token in [&old, &without_iat] {
            let (status, body) = b.call(method.clone(), &path, token, None).await;
            assert_eq!(
                (status, &body["code"]),
                (StatusCode::UNAUTHORIZED, &json!("token_expired")),
                "{method} {path}"
            );
        }
    }
    let (status, list) = b
        .call(Method::GET, "/api/notifications", &later_token("42"), None)
        .await;
    assert_eq!((status, &list["unreadCount"]), (StatusCode::OK, &json!(1)));
    let (status, _) = b.as_user("7", Method::GET, "/api/notifications").await;
    assert_eq!(status, StatusCode::OK, "another user");
    let publisher = b.publisher_token();
    let (_, inspected) = b.call(Method::GET, "/api/users/42", &publisher, None).await;
    let valid_after = inspected["validAfter"].as_str().unwrap();
    assert!(
        valid_after.ends_with('Z') && valid_after.len() == 24,
        "{valid_after}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_publisher_is_refused_within_seconds() {
    let [a, b] = cluster().await;
    let old = a.publisher_token();
    let body = json!({ "userId": "42", "event": "x:y", "payload": 1 });
    let emit = async |node: &TestNode, token: &str| {
        node.call(Method::POST, "/api/emit", token, Some(body.clone()))
            .await
            .0
    };
    for node in [&a, &b] {
        assert_eq!(emit(node, &old).await, StatusCode::ACCEPTED);
    }
    let other = later_publisher("support");
    disconnect_as(&a, "shop", &other).await;

    assert_eq!(
        emit(&a, &old).await,
        StatusCode::UNAUTHORIZED,
        "the node that revoked"
    );
    let refused = async {
        let mut pause = tokio::time::interval(Duration::from_millis(200));
        while emit(&b, &old).await != StatusCode::UNAUTHORIZED {
            pause.tick().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), refused).await;
    assert!(in_time.is_ok(), "the other node still believes it");
    let newer = later_publisher("shop");
    assert_eq!(emit(&b, &newer).await, StatusCode::ACCEPTED);
}
