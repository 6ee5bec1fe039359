//! Packets that no client should send, and events that no server knows: refused, counted, and without effect.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::TestClient;
use crate::cluster::{TestNode, cluster, cluster_with};
use crate::hostile::fill;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_unknown_or_wrong_is_refused_in_its_ack() {
    let [a] = cluster_with(&["--limit-events-per-socket=0"]).await;
    let foreign = a.publish("7", "theirs").await["id"].clone();
    let mut device = a.connect("42").await;
    let unknown = [
        "join",
        "subscribe",
        "room",
        "user:7",
        "notification",
        "notification:new",
        "notification:refresh",
        "message",
        "",
    ];
    for event in unknown {
        let ack = device.call(event, json!({ "room": "user:7" })).await;
        assert_eq!(
            (&ack["ok"], &ack["code"]),
            (&json!(false), &json!("unknown_event")),
            "{event:?}"
        );
        assert!(ack["message"].is_string());
    }
    for event in ["notification:read", "notification:delete"] {
        for data in [
            json!(null),
            json!([]),
            json!("x"),
            json!({}),
            json!({ "id": 7 }),
            json!({ "id": "x" }),
            json!({ "id": [foreign] }),
        ] {
            let ack = device.call(event, data.clone()).await;
            assert_eq!(
                (&ack["ok"], &ack["code"]),
                (&json!(false), &json!("invalid_id")),
                "{event} {data}"
            );
        }
        for id in [
            foreign.clone(),
            json!("0198f1c2-0000-7000-8000-000000000000"),
        ] {
            let ack = device.call(event, json!({ "id": id })).await;
            assert_eq!(
                (&ack["ok"], &ack["code"]),
                (&json!(false), &json!("not_found")),
                "{event}"
            );
        }
    }
    device.hears_nothing(&a, "42").await;
    assert_eq!(
        a.as_user("7", Method::GET, "/api/notifications/unread-count")
            .await
            .1,
        json!({ "count": 1, "seq": 1 })
    );
    let mut theirs = a.connect("7").await;
    a.publish("7", "still theirs").await;
    assert_eq!(theirs.expect("notification:new").await["seq"], 2);
    device.hears_nothing(&a, "42").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_events_are_refused_and_the_socket_stays() {
    let [a] = cluster_with(&["--limit-events-per-socket=1/3"]).await;
    let mut device = a.connect("42").await;
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(
            device.call("nonsense", json!({})).await["code"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(codes[..3], ["unknown_event"; 3]);
    assert_eq!(codes[4], "rate_limited");
    a.publish("42", "still here").await;
    device.until("notification:new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_packet_ends_its_socket_and_nothing_else() {
    let [a] = cluster().await;
    let mut bystander = a.connect("7").await;
    let oversized = format!(
        "42[\"notification:read\",{{\"id\":\"{}\"}}]",
        "x".repeat(16_384)
    );
    let packets = [
        "",
        "4",
        "9",
        "x",
        "42",
        "42[",
        "42{}",
        "42[\"",
        "42[1]",
        "42[null]",
        "4é",
        "4\u{e9}x",
        "48",
        "45",
        "451-[\"x\",{\"_placeholder\":true,\"num\":0}]",
        "4510001-[\"x\"]",
        "4599999999999999999999-[\"x\"]",
        "0{}",
        "5",
        &oversized,
    ];
    for packet in packets {
        let mut device = a.connect("42").await;
        // The server may end the connection while the packet is still on its way.
        let _sent = device.send(packet).await;
        device.ends().await;
    }
    bystander.hears_nothing(&a, "7").await;
    assert_eq!(
        a.as_user("42", Method::GET, "/api/notifications/unread-count")
            .await
            .0,
        StatusCode::OK
    );
    a.metric_becomes("bellhop_users_connected", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_meaning_has_no_effect() {
    let [a] = cluster().await;
    let mut device = a.connect("42").await;
    for packet in [
        "40",
        "40{\"token\":\"x\"}",
        "430[]",
        "43999[1]",
        "42/other,[\"x\"]",
        "3",
        "3",
        "42[\"__proto__\",{\"constructor\":1}]",
    ] {
        device.send(packet).await.unwrap();
    }
    device.hears_nothing(&a, "42").await;
    a.publish("42", "once").await;
    device.expect("notification:new").await;
    device.expect("notification:unread-count").await;
    device.hears_nothing(&a, "42").await;
}

async fn handshake(
    node: &TestNode,
    method: Method,
    query: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, Value) {
    let mut request = node.request(method, &format!("/socket.io/?{query}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    (
        response.status(),
        serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_none_is_refused() {
    let [a] = cluster().await;
    for (method, query) in [
        (Method::GET, ""),
        (Method::GET, "transport=polling"),
        (Method::GET, "EIO=3&transport=polling"),
        (Method::GET, "EIO=99&transport=polling"),
        (Method::GET, "EIO=4"),
        (Method::GET, "EIO=4&transport=carrier-pigeon"),
        (Method::GET, "EIO=4&transport=websocket"),
        (Method::GET, "EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA"),
        (Method::GET, "EIO=4&transport=polling&sid=x"),
        (Method::POST, "EIO=4&transport=polling"),
        (Method::PUT, "EIO=4&transport=polling"),
    ] {
        let (status, _) = handshake(&a, method.clone(), query, &[]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{method} {query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_origins_that_are_allowed_may_connect() {
    let [a] =
        cluster_with(&["--cors-origins=https://app.example.com,https://app.example.com:8443"])
            .await;
    let own = a.url.clone();
    let query = "EIO=4&transport=polling";
    for origin in ["https://app.example.com", "https://app.example.com:8443"] {
        let (status, _) = handshake(&a, Method::GET, query, &[("origin", origin)]).await;
        assert_eq!(status, StatusCode::OK, "{origin}");
    }
    let refused = [
        "null",
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://app.example.com:1",
        "https://APP.example.com.",
        "http://localhost:4200",
        "https://app.example.com/",
        "*",
        "",
        &own,
    ];
    for origin in refused {
        let (status, body) = handshake(&a, Method::GET, query, &[("origin", origin)]).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::FORBIDDEN, &json!("origin_refused")),
            "{origin}"
        );
    }
    let rejected = a
        .metric(r#"bellhop_connections_rejected_total{reason="origin"}"#)
        .await;
    assert_eq!(rejected, refused.len() as f64);
    assert_eq!(
        handshake(&a, Method::GET, query, &[]).await.0,
        StatusCode::OK,
        "clients that are no browsers send none"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_origins_are_listed_the_nodes_own_may_connect() {
    let [a, b] = cluster().await;
    let query = "EIO=4&transport=polling";
    for (origin, expected) in [(&a.url, StatusCode::OK), (&b.url, StatusCode::FORBIDDEN)] {
        let (status, _) = handshake(&a, Method::GET, query, &[("origin", origin)]).await;
        assert_eq!(status, expected, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_body_over_the_limit_is_refused() {
    let [a] = cluster().await;
    let response = a
        .request(Method::GET, "/socket.io/?EIO=4&transport=polling")
        .send()
        .await
        .unwrap();
    let open: Value = serde_json::from_str(&response.text().await.unwrap()[1..]).unwrap();
    let path = format!(
        "/socket.io/?EIO=4&transport=polling&sid={}",
        open["sid"].as_str().unwrap()
    );
    let response = a
        .request(Method::POST, &path)
        .body("4".repeat(16_385))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(open["maxPayload"], 16_384);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_never_connects_is_closed() {
    let [a] = cluster_with(&["--connect-timeout-ms=200"]).await;
    let address = a.url.replace("http://", "ws://");
    let (mut stream, _) =
        tokio_tungstenite::connect_async(format!("{address}/socket.io/?EIO=4&transport=websocket"))
            .await
            .unwrap();
    let ended = async {
        use futures_util::StreamExt;
        while let Some(Ok(_)) = stream.next().await {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended)
        .await
        .expect("the session is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_socket_stalls_nobody_and_catches_up_when_it_reads_again() {
    let [a] = cluster().await;
    let mut slow: TestClient = a.connect("42").await;
    fill(&a, "42").await;
    let mut quick = a.connect("42").await;

    for seq in 1..=20 {
        a.publish("42", "Hello").await;
        assert_eq!(quick.until("notification:new").await["seq"], seq);
    }
    for seq in 1..=20 {
        assert_eq!(
            slow.until("notification:new").await["seq"],
            seq,
            "each once, in order"
        );
    }
    assert_eq!(
        slow.until("notification:unread-count").await,
        json!({ "count": 20, "seq": 20 })
    );
    assert_eq!(
        a.metric(r#"bellhop_repairs_total{kind="stall"}"#).await,
        1.0
    );
}
