//! What an operator sees: values that follow what happened.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::cluster::cluster;

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_by_transport_and_by_how_they_ended() {
    let [a] = cluster().await;
    let first = a.connect("42").await;
    let _second = a.connect("42").await;
    let _other = a.connect("7").await;
    assert_eq!(
        a.metric(r#"bellhop_connections{transport="websocket"}"#)
            .await,
        3.0
    );
    assert_eq!(
        a.metric(r#"bellhop_connections{transport="polling"}"#)
            .await,
        0.0
    );
    assert_eq!(a.metric("bellhop_users_connected").await, 2.0);
    assert_eq!(
        a.metric(r#"bellhop_connections_opened_total{transport="websocket"}"#)
            .await,
        3.0
    );

    drop(first);

    a.metric_becomes(r#"bellhop_connections{transport="websocket"}"#, 2.0)
        .await;
    a.metric_becomes(
        r#"bellhop_connections_closed_total{transport="websocket",reason="transport_error"}"#,
        1.0,
    )
    .await;
    let _back = a.connect("42").await;
    assert_eq!(
        a.metric(r#"bellhop_reconnections_total{result="fresh"}"#)
            .await,
        1.0,
        "its user's socket had just ended"
    );
    assert_eq!(
        a.metric(r#"bellhop_connections_opened_total{transport="websocket"}"#)
            .await,
        4.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_counted_and_timed_where_they_happen() {
    let [a, b] = cluster().await;
    let mut on_a = a.connect("42").await;
    let mut on_b = b.connect("42").await;
    for _ in 0..3 {
        a.publish("42", "Hello").await;
        on_a.until("notification:new").await;
        on_b.until("notification:new").await;
    }
    for (node, path, other) in [(&a, "local", "remote"), (&b, "remote", "local")] {
        assert_eq!(
            node.metric(r#"bellhop_messages_delivered_total{transport="websocket"}"#)
                .await,
            3.0
        );
        assert_eq!(
            node.metric(&format!(
                r#"bellhop_delivery_latency_seconds_count{{path="{path}"}}"#
            ))
            .await,
            3.0
        );
        assert_eq!(
            node.metric(&format!(
                r#"bellhop_delivery_latency_seconds_count{{path="{other}"}}"#
            ))
            .await,
            0.0
        );
        let seconds = node
            .metric(&format!(
                r#"bellhop_delivery_latency_seconds_sum{{path="{path}"}}"#
            ))
            .await;
        assert!((0.0..30.0).contains(&seconds), "{seconds}");
    }
    assert_eq!(
        a.metric(r#"bellhop_notifications_created_total{priority="NORMAL"}"#)
            .await,
        3.0
    );
    assert_eq!(
        b.metric(r#"bellhop_notifications_created_total{priority="NORMAL"}"#)
            .await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_tells_how_the_node_is() {
    let [a] = cluster().await;
    let admin = a.admin.clone();
    let probe = async |path: &str| {
        reqwest::get(format!("{admin}{path}"))
            .await
            .unwrap()
            .status()
    };
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        assert_eq!(probe(path).await, StatusCode::OK, "{path}");
    }
    assert_eq!(
        probe("/api/notifications").await,
        StatusCode::NOT_FOUND,
        "the API is not here"
    );
    for path in ["/livez", "/readyz", "/metrics"] {
        let (status, _) = a.as_user("42", Method::GET, path).await;
        assert_eq!(
            status,
            StatusCode::NOT_FOUND,
            "{path} is not on the public port"
        );
    }
    let text = reqwest::get(format!("{admin}/metrics"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        text.contains(&format!(
            r#"bellhop_build_info{{version="{}"}} 1"#,
            env!("CARGO_PKG_VERSION")
        )),
        "{text}"
    );
    let (status, _) = a
        .emit(json!({ "userId": "42", "event": "x", "payload": 1 }))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
}
