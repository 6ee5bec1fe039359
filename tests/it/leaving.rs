//! A node that leaves, and a node to which everybody comes at once: nobody is lost, and nobody is refused for good.

use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client::TestClient;
use crate::cluster::{Backing, TestNode, cluster_with};
use crate::commands::{Running, addresses, bellhop};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

async fn handshake(node: &TestNode) -> reqwest::Response {
    node.request(Method::GET, POLLING).send().await.unwrap()
}

async fn readiness(node: &TestNode) -> StatusCode {
    reqwest::get(format!("{}/readyz", node.admin))
        .await
        .unwrap()
        .status()
}

/// What a refused handshake says: status, code, when to come again.
async fn refusal(response: reqwest::Response) -> (u16, Value, Option<String>) {
    let later = response.headers().get(header::RETRY_AFTER);
    let later = later.map(|value| value.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap_or_default();
    (status, body["code"].clone(), later)
}

/// When a device was told that it would be closed, and when it was, since `begun`.
async fn farewell(mut device: TestClient, begun: Instant) -> (Duration, Duration) {
    let told = device.until("server:drain").await["retryAfterMs"].clone();
    device.ends().await;
    (
        Duration::from_millis(told.as_u64().unwrap()),
        begun.elapsed(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaving_node_closes_its_sockets_in_even_batches_and_none_before_its_time() {
    let [mut a] = cluster_with(&["--drain-seconds=2"]).await;
    let mut devices = Vec::new();
    for number in 0..16 {
        devices.push(a.connect(&format!("user-{number}")).await);
    }
    let begun = Instant::now();
    let leaving = a.leave();
    let farewells = devices.into_iter().map(|device| farewell(device, begun));
    let (clean, mut farewells) = tokio::join!(leaving, futures_util::future::join_all(farewells));

    assert!(clean);
    farewells.sort();
    let told: Vec<_> = farewells.iter().map(|(told, _)| told.as_millis()).collect();
    let expected: Vec<_> = (0..16_u128).map(|number| (number / 2 + 1) * 250).collect();
    assert_eq!(told, expected, "two each 250 ms");
    for (told, ended) in farewells {
        assert!(ended >= told, "told {told:?}, closed after {ended:?}");
        assert!(ended < told + Duration::from_secs(1), "{told:?} {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaving_node_refuses_handshakes_and_serves_rest_until_balancers_have_noticed() {
    let backing = Backing::fresh().await;
    let mut a = backing.node(&["--drain-seconds=2"]).await;
    let b = backing.node(&[]).await;
    let (mut near, mut far) = (a.connect("42").await, b.connect("42").await);
    assert_eq!(readiness(&a).await, StatusCode::OK);

    let begun = Instant::now();
    let leaving = a.leave();
    let watching = async {
        near.until("server:drain").await;
        assert_eq!(readiness(&a).await, StatusCode::SERVICE_UNAVAILABLE);
        assert!(begun.elapsed() < Duration::from_secs(1));
        let refused = handshake(&a).await;
        assert_eq!(refused.headers()[header::CONNECTION], "close");
        let expected = (503, json!("draining"), Some("1".to_owned()));
        assert_eq!(refusal(refused).await, expected);

        // Those who are still here are served as ever.
        publish_while_leaving(&a).await;
        for device in [&mut near, &mut far] {
            assert_eq!(device.until("notification:new").await["seq"], 1);
        }
        near.ends().await;
        let seconds = begun.elapsed().as_secs();
        assert!((2..5).contains(&seconds), "{seconds}");
        // Nobody is here any more, and who asks is answered.
        publish_while_leaving(&a).await;
        assert_eq!(far.until("notification:new").await["seq"], 2);
        assert_eq!(handshake(&a).await.status(), 503);
    };
    let (clean, ()) = tokio::join!(leaving, watching);
    assert!(clean);
    let took = begun.elapsed();
    assert!((5..12).contains(&took.as_secs()), "{took:?}");
    assert!(a.request(Method::GET, POLLING).send().await.is_err());
}

async fn publish_while_leaving(node: &TestNode) {
    let request = node.request(Method::POST, "/api/notifications");
    let request = request.bearer_auth(node.publisher_token());
    let body = json!({ "userId": "42", "title": "Hello" });
    let answer = request.json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()[header::CONNECTION], "close");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_by_a_node_that_leaves() {
    let [mut a] = cluster_with(&[]).await;
    let body = json!({ "userId": "42", "title": "Hello" }).to_string();
    let mut stream = TcpStream::connect(a.url.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST /api/notifications HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        a.publisher_token(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut continued = [0; 25];
    stream.read_exact(&mut continued).await.unwrap();
    assert!(continued.starts_with(b"HTTP/1.1 100"));

    let leaving = a.leave();
    let finishing = async {
        while readiness(&a).await == StatusCode::OK {}
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (clean, answer) = tokio::join!(leaving, finishing);
    assert!(clean);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_had_shaken_hands_before_the_node_leaves_is_closed_as_it_comes_in() {
    let [mut a] = cluster_with(&["--drain-seconds=2"]).await;
    let mut first = a.connect("42").await;
    let opened = handshake(&a).await.text().await.unwrap();
    let opened: Value = serde_json::from_str(&opened[1..]).unwrap();
    let session = format!("{POLLING}&sid={}", opened["sid"].as_str().unwrap());

    let leaving = a.leave();
    let coming = async {
        let delay = first.until("server:drain").await["retryAfterMs"].clone();
        assert_eq!(delay, 2_000);
        let connect = format!("40{}", json!({ "token": a.token("7") }));
        let sent = a.request(Method::POST, &session).body(connect).send();
        assert_eq!(sent.await.unwrap().status(), StatusCode::OK);
        let mut heard = Vec::new();
        loop {
            let poll = a.request(Method::GET, &session).send().await.unwrap();
            if poll.status() != StatusCode::OK {
                break;
            }
            let packets = poll.text().await.unwrap();
            heard.extend(packets.split('\x1e').map(str::to_owned));
        }
        let is_disconnect = |packet: &String| packet.starts_with("41");
        assert!(
            !heard.iter().any(is_disconnect),
            "a disconnect of the namespace: {heard:?}"
        );
    };
    let (clean, ()) = tokio::join!(leaving, coming);
    assert!(clean);
}

/// A node as a process, and somebody connected to it.
fn node_with_a_listener(folder: &std::path::Path) -> (Running, Running) {
    let [listen, admin] = &addresses();
    let node = Running::start(bellhop(
        folder,
        &["serve", "--listen", listen, "--admin-listen", admin],
    ));
    node.line("Stop: Ctrl-C");
    let url = format!("http://{listen}");
    let listener = Running::start(bellhop(folder, &["listen", "--user", "42", "--url", &url]));
    listener.line("notification:synced");
    (node, listener)
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (node, listener) = node_with_a_listener(folder.path());
    let begun = std::time::Instant::now();
    node.signal("-TERM");
    assert!(listener.line("server:drain").contains("20000"));
    node.signal("-TERM");
    assert_eq!(node.ends(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn who_presses_ctrl_c_does_not_wait_for_the_drain() {
    let folder = tempfile::tempdir().unwrap();
    let (node, listener) = node_with_a_listener(folder.path());
    let begun = std::time::Instant::now();
    node.signal("-INT");
    listener.line("server:drain");
    assert_eq!(node.ends(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_beyond_the_limit_are_told_to_come_back() {
    let [a] = cluster_with(&["--limit-handshakes-per-second=5"]).await;
    let answers = futures_util::future::join_all((0..40).map(|_| handshake(&a))).await;
    let mut refused = 0;
    for answer in answers {
        if answer.status() != StatusCode::OK {
            let expected = (429, json!("rate_limited"), Some("1".to_owned()));
            assert_eq!(refusal(answer).await, expected);
            refused += 1;
        }
    }
    assert!((20..=35).contains(&refused), "{refused}");
    let series = r#"bellhop_connections_rejected_total{reason="rate_limited"}"#;
    assert_eq!(a.metric(series).await, f64::from(refused));
    // The pause that was asked for is enough.
    tokio::time::sleep(Duration::from_secs(1)).await; // bounded: what Retry-After says
    assert_eq!(handshake(&a).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_0_handshakes_is_none() {
    let [a] = cluster_with(&["--limit-handshakes-per-second=0"]).await;
    let answers = futures_util::future::join_all((0..100).map(|_| handshake(&a))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status() == StatusCode::OK)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_never_connect_do_not_take_a_node_for_long() {
    use futures_util::StreamExt;
    let settings = [
        "--limit-handshakes-per-second=0",
        "--connect-timeout-ms=15000",
    ];
    let [a] = cluster_with(&settings).await;
    // They hold no place: they have sent their CONNECT.
    let mut device = a.connect("42").await;

    let mut tries = futures_util::stream::iter(0..8_192)
        .map(|_| handshake(&a))
        .buffer_unordered(32);
    let mut accepted = 0;
    let refused = loop {
        let answer = tries.next().await.expect("no handshake was refused");
        if answer.status() != StatusCode::OK {
            break answer;
        }
        accepted += 1;
    };
    drop(tries);
    let expected = (503, json!("node_busy"), Some("1".to_owned()));
    assert_eq!(refusal(refused).await, expected);
    assert!((4_096 - 32..=4_096).contains(&accepted), "{accepted}");
    device.hears_nothing(&a, "42").await;

    let again = async {
        let mut pause = tokio::time::interval(Duration::from_millis(100));
        while handshake(&a).await.status() != StatusCode::OK {
            pause.tick().await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(30), again).await;
    assert!(again.is_ok(), "places are not given back");
}

/// Nothing is kept ready for what a socket may be sent some day.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_socket_costs_little_memory() {
    const SOCKETS: u64 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let [listen, admin] = &addresses();
    let secret = format!("--jwt-secret={}", crate::cluster::SECRET);
    let node = Running::start(bellhop(
        folder.path(),
        &[
            "serve",
            "--listen",
            listen,
            "--admin-listen",
            admin,
            &secret,
        ],
    ));
    node.line("serving");
    let connect = async |number: u64| {
        let claims = json!({ "sub": format!("user-{number}"), "exp": crate::auth::now() + 600 });
        let token = crate::auth::sign(&claims, crate::cluster::SECRET);
        let url = format!("http://{listen}");
        // With something to resume from: others are told to fetch the list one after another.
        let auth = json!({ "token": token, "lastSeq": 0 });
        let mut device = TestClient::connect(&url, &auth).await.unwrap();
        device.until("notification:synced").await;
        device
    };
    // What the first ones cost, all share.
    let mut devices = Vec::new();
    for number in 0..50 {
        devices.push(connect(number).await);
    }
    let before = node.memory();
    for number in 0..SOCKETS {
        devices.push(connect(50 + number).await);
    }
    let each = node.memory().saturating_sub(before) / SOCKETS;
    assert!(each < 8, "{each} KiB a socket");
}
