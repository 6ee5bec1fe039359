//! Without sockets, or with some transports only: clients are told so, and poll.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{TestNode, cluster_with};

async fn handshake(node: &TestNode, transport: &str) -> (StatusCode, String) {
    let path = format!("/socket.io/?EIO=4&transport={transport}");
    let response = node.request(Method::GET, &path).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_sockets_are_disabled_clients_are_told_and_poll() {
    let [a] = cluster_with(&["--enable-websocket=false"]).await;
    let auth = json!({ "token": a.token("42") });
    match bellhop::client::Client::connect(&a.url, "/socket.io/", &auth).await {
        Err(bellhop::client::ClientError::Refused(message)) => assert_eq!(message, "disabled"),
        other => panic!("{other:?}"),
    }
    let refused = r#"bellhop_connections_rejected_total{reason="disabled"}"#;
    a.metric_becomes(refused, 1.0).await;

    let published = a.publish("42", "one").await;
    let changes = "/api/notifications/changes?since=0";
    let (status, body) = a.as_user("42", Method::GET, changes).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["items"][0]["id"], published["id"]);
    let (_, config) = a.call(Method::GET, "/api/client-config", "", None).await;
    assert_eq!(
        config,
        json!({
            "websocketUrl": null, "enableWebsocket": false, "path": "/socket.io/",
            "transports": ["websocket", "polling"], "pollIntervalMs": 60_000
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_is_not_offered_is_refused() {
    let [a] = cluster_with(&["--socket-io-transports=polling"]).await;
    let (status, open) = handshake(&a, "polling").await;
    assert_eq!(status, StatusCode::OK);
    let open: Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
    assert_eq!(open["upgrades"], json!([]));
    assert_eq!(handshake(&a, "websocket").await.0, StatusCode::BAD_REQUEST);

    let [a] = cluster_with(&["--socket-io-transports=websocket"]).await;
    assert_eq!(handshake(&a, "polling").await.0, StatusCode::BAD_REQUEST);
    a.connect("42").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_endpoint_is_where_the_settings_say() {
    let [a] = cluster_with(&[
        "--socket-io-path=/push/",
        "--websocket-url=wss://push.example.com",
    ])
    .await;
    let (_, config) = a.call(Method::GET, "/api/client-config", "", None).await;
    assert_eq!(config["path"], "/push/");
    assert_eq!(config["websocketUrl"], "wss://push.example.com");
    assert_eq!(handshake(&a, "polling").await.0, StatusCode::NOT_FOUND);
    let auth = json!({ "token": a.token("42") });
    bellhop::client::Client::connect(&a.url, "/push/", &auth)
        .await
        .unwrap();
}
