//! Clients that mean harm, or are broken: what they hold is given back, and nobody else notices.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::auth::{now, sign};
use crate::cluster::{SECRET, TestNode, cluster, cluster_with};

/// Sends transient events to a device of `user` that does not read, until the kernel's buffers and then
/// ours are full.
pub async fn fill(node: &TestNode, user: &str) {
    let body = json!({ "userId": user, "event": "test:filler", "payload": "x".repeat(30_000) });
    for _ in 0..2_000 {
        assert_eq!(node.emit(body.clone()).await.0, StatusCode::ACCEPTED);
        if node
            .metric(r#"bellhop_messages_dropped_total{reason="transient_full"}"#)
            .await
            > 0.0
        {
            return;
        }
    }
    panic!("60 MB did not fill it");
}

/// A long-polling client that does only what it is told.
struct Polling<'a> {
    node: &'a TestNode,
    path: String,
    sid: String,
}

impl<'a> Polling<'a> {
    /// Shakes hands, with this much more in the query.
    async fn open(node: &'a TestNode, further: &str) -> Self {
        let path = format!("/socket.io/?EIO=4&transport=polling{further}");
        let response = node.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let open: Value = serde_json::from_str(&response.text().await.unwrap()[1..]).unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        Self {
            node,
            path: format!("{path}&sid={sid}"),
            sid,
        }
    }

    async fn post(&self, packets: &str) -> StatusCode {
        let request = self
            .node
            .request(Method::POST, &self.path)
            .body(packets.to_owned());
        request.send().await.unwrap().status()
    }

    async fn poll(&self) -> Result<String, StatusCode> {
        let response = self
            .node
            .request(Method::GET, &self.path)
            .send()
            .await
            .unwrap();
        match response.status() {
            StatusCode::OK => Ok(response.text().await.unwrap()),
            status => Err(status),
        }
    }

    /// Polls until the session is no more.
    async fn ends(&self) {
        let ended = async { while self.poll().await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(10), ended)
            .await
            .expect("the session is still there");
    }

    fn websocket(&self) -> String {
        let address = self.node.url.replace("http://", "ws://");
        format!(
            "{address}/socket.io/?EIO=4&transport=websocket&sid={}",
            self.sid
        )
    }
}

/// A CONNECT whose token is over in a second, with its leeway.
fn expiring_connect() -> String {
    format!(
        "40{}",
        json!({ "token": sign(&json!({ "sub": "42", "exp": now() - 28 }), SECRET) })
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_socket_stays_when_it_has_ended() {
    let [a] = cluster().await;
    for _ in 0..30 {
        let mut device = a.connect("42").await;
        device.call("nonsense", json!({})).await;
    }
    a.metric_becomes(r#"bellhop_connections{transport="websocket"}"#, 0.0)
        .await;
    let hub = a.node().hub();
    let freed = async {
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        while hub.seats_alive() > 0 {
            pause.tick().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), freed).await;
    assert!(
        in_time.is_ok(),
        "{} of 30 seats are still there",
        hub.seats_alive()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_it_connects_leaves_nothing_behind() {
    let [a] = cluster().await;
    let address = format!(
        "{}/socket.io/?EIO=4&transport=websocket",
        a.url.replace("http://", "ws://")
    );
    let connect = format!("40{}", json!({ "token": a.token("42") }));
    for _ in 0..20 {
        let leaving = (0..25).map(|_| async {
            let (mut stream, _) = connect_async(&address).await.unwrap();
            stream.send(Message::text(connect.clone())).await.unwrap();
        });
        futures_util::future::join_all(leaving).await;
    }
    a.metric_becomes(r#"bellhop_connections{transport="websocket"}"#, 0.0)
        .await;
    assert!(a.stop().await, "the node came to a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_upgrade_does_not_hide_the_first_from_the_end_of_its_token() {
    let [a] = cluster().await;
    let session = Polling::open(&a, "").await;
    assert_eq!(session.post(&expiring_connect()).await, StatusCode::OK);
    let (mut stream, _) = connect_async(session.websocket()).await.unwrap();
    stream.send(Message::text("2probe")).await.unwrap();
    assert_eq!(
        stream.next().await.unwrap().unwrap(),
        Message::text("3probe")
    );
    stream.send(Message::text("5")).await.unwrap();
    let _second = connect_async(session.websocket()).await;

    let ended = async { while let Some(Ok(_)) = stream.next().await {} };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("the socket outlives its token");
    a.metric_becomes("bellhop_users_connected", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_before_the_connect() {
    let [a] = cluster().await;
    let session = Polling::open(&a, "").await;
    let (mut stream, _) = connect_async(session.websocket()).await.unwrap();
    stream.send(Message::text("2probe")).await.unwrap();
    assert_eq!(
        stream.next().await.unwrap().unwrap(),
        Message::text("3probe")
    );
    stream.send(Message::text("5")).await.unwrap();
    let _second = connect_async(session.websocket()).await;
    stream
        .send(Message::text(expiring_connect()))
        .await
        .unwrap();

    let ended = async { while let Some(Ok(_)) = stream.next().await {} };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("the socket outlives its token");
    a.metric_becomes("bellhop_users_connected", 0.0).await;
    assert!(a.stop().await, "the node came to a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_does_not_keep_a_node_from_stopping() {
    let [a] = cluster().await;
    let mut stream = TcpStream::connect(a.url.trim_start_matches("http://"))
        .await
        .unwrap();
    stream
        .write_all(b"GET /api/notifications HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    assert_eq!(
        a.as_user("42", Method::GET, "/api/notifications").await.0,
        StatusCode::OK
    );
    assert!(a.stop().await, "the node came to a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_says_two_things_is_read_as_the_library_reads_it() {
    let [a] = cluster().await;
    let session = Polling::open(&a, "&x=transport=websocket").await;
    assert_eq!(session.post(&expiring_connect()).await, StatusCode::OK);
    session.ends().await;
    a.metric_becomes("bellhop_users_connected", 0.0).await;
    assert!(a.stop().await, "the node came to a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_for_more_acks_than_it_reads_is_closed() {
    let [a] = cluster().await;
    let session = Polling::open(&a, "").await;
    let connect = format!("40{}", json!({ "token": a.token("42"), "lastSeq": 0 }));
    assert_eq!(session.post(&connect).await, StatusCode::OK);
    a.metric_becomes("bellhop_users_connected", 1.0).await;
    let flood = vec![r#"420["a"]"#; 1_500].join("\u{1e}");
    let _refused_in_the_middle = session.post(&flood).await;
    a.publish("42", "Hello").await;
    a.metric_becomes("bellhop_users_connected", 0.0).await;
    assert_eq!(
        a.metric(r#"bellhop_connections_closed_total{transport="polling",reason="protocol"}"#)
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_sockets_holds_also_for_handshakes_that_were_made_before() {
    let [a] = cluster_with(&["--limit-connections=5"]).await;
    let mut sessions = Vec::new();
    for _ in 0..12 {
        sessions.push(Polling::open(&a, "").await);
    }
    let connect = format!("40{}", json!({ "token": a.token("42") }));
    for session in &sessions {
        session.post(&connect).await;
    }
    a.metric_becomes(r#"bellhop_connections_rejected_total{reason="limit"}"#, 7.0)
        .await;
    assert_eq!(
        a.metric(r#"bellhop_connections{transport="polling"}"#)
            .await,
        5.0
    );
    assert_eq!(a.node().hub().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_limit_is_no_limit() {
    let [a] = cluster_with(&["--limit-connections=0", "--limit-connections-per-user=0"]).await;
    let address = a.url.trim_start_matches("http://").to_owned();
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    let mut device = a.connect("42").await;
    a.publish("42", "Hello").await;
    device.expect("notification:new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_refused_does_not_keep_its_transport() {
    let [a] = cluster_with(&["--connect-timeout-ms=60000"]).await;
    let client = Polling::open(&a, "").await;
    // As clients do: a poll is always waiting. The first ping may come before the refusal.
    let refused = async {
        let mut heard = String::new();
        while !heard.contains("token_missing") {
            heard += &client.poll().await.expect(&heard);
        }
    };
    let ((), sent) = tokio::join!(refused, client.post("40{}"));
    assert_eq!(sent, StatusCode::OK);
    client.ends().await;

    let address = a.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket";
    let (mut socket, _) = connect_async(address).await.unwrap();
    socket.send(Message::text("40{}")).await.unwrap();
    let ended = async { while let Some(Ok(_)) = socket.next().await {} };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    assert!(ended.is_ok(), "the connection is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_the_namespace_does_not_keep_its_transport() {
    let [a] = cluster().await;
    let mut device = a.connect("42").await;
    device.send("41").await.unwrap();
    device.ends().await;
    a.metric_becomes(
        r#"bellhop_connections_closed_total{transport="websocket",reason="client"}"#,
        1.0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_comes_ends_its_request() {
    let [a] = cluster().await;
    let session = Polling::open(&a, "").await;
    let address = a.url.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 9\r\n\r\n",
        session.path
    );
    stream.write_all(head.as_bytes()).await.unwrap();

    let mut answer = [0; 12];
    let answered =
        tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await;
    answered.expect("the server waits for ever").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_socket_that_does_not_read_still_stops() {
    let [a] = cluster().await;
    let _slow = a.connect("42").await;
    fill(&a, "42").await;
    // So that its cursor is stalled too.
    a.publish("42", "Hello").await;
    assert!(a.stop().await, "the node came to a clean end");
}
