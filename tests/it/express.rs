//! Plain publishes take a short way past the HTTP stack: nobody can tell by the answers, and what is not plain is served as ever.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{TestNode, cluster, cluster_with};

/// The one plain publish, and a header that makes it a matter for the stack, without another meaning.
const PLAIN: &str = "application/json";
const BY_THE_STACK: &str = "application/json;charset=utf-8";

/// What of an answer is the same each time.
#[derive(Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    headers: BTreeMap<String, String>,
    body: Value,
}

async fn answer(node: &TestNode, path: &str, body: &str, headers: &[(&str, String)]) -> Answer {
    let mut request = node.request(Method::POST, path).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = request.send().await.unwrap();
    let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = response.headers().iter();
    let mut headers: BTreeMap<_, _> = headers
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    assert!(
        headers
            .remove("date")
            .is_some_and(|date| date.ends_with(" GMT"))
    );
    assert!(headers.remove("content-length").is_some());
    let id = headers.get_mut("x-request-id").expect("an id");
    if *id != "r-1" {
        assert!(uuid::Uuid::try_parse(id).is_ok(), "{id}");
        "made".clone_into(id);
    }
    let status = response.status();
    let mut body: Value = response.json().await.unwrap();
    for changing in ["id", "seq", "createdAt", "requestId"] {
        if let Some(value) = body.get_mut(changing) {
            *value = json!("…");
        }
    }
    Answer {
        status,
        headers,
        body,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_answer_alike() {
    let [a] = cluster().await;
    let publisher = ("authorization", format!("Bearer {}", a.publisher_token()));
    let stranger = ("authorization", format!("Bearer {}", a.token("42")));
    let named = ("x-request-id", "r-1".to_owned());
    let (mut user, mut seen) = (0, BTreeMap::new());
    for path in ["/api/notifications", "/api/emit"] {
        let what = if path.ends_with("emit") {
            r#""event":"e""#
        } else {
            r#""title":"t""#
        };
        for (body, credentials) in [
            (r#"{"userId":"USER",WHAT}"#, vec![publisher.clone()]),
            (
                r#"{"userId":"USER","title":"","event":"E"}"#,
                vec![publisher.clone(), named.clone()],
            ),
            (
                r#"{"userIds":["USER","x-USER"],WHAT}"#,
                vec![publisher.clone()],
            ),
            (r#"{"userId":"USER""#, vec![publisher.clone()]),
            ("{}", vec![]),
            ("{}", vec![stranger.clone()]),
            ("{}", vec![publisher.clone(), ("x-api-key", "k".to_owned())]),
            ("{}", vec![("x-api-key", "k".to_owned()), named.clone()]),
            ("{}", vec![publisher.clone(), publisher.clone()]),
        ] {
            let mut answers = Vec::new();
            for way in [PLAIN, BY_THE_STACK] {
                user += 1;
                let body = body
                    .replace("USER", &user.to_string())
                    .replace("WHAT", what);
                let headers =
                    [credentials.clone(), vec![("content-type", way.to_owned())]].concat();
                let mut answer = answer(&a, path, &body, &headers).await;
                for whose in ["userId", "items"] {
                    if let Some(value) = answer.body.get_mut(whose) {
                        *value = json!("…");
                    }
                }
                answers.push(answer);
            }
            assert_eq!(answers[0], answers[1], "{path} {body} {credentials:?}");
            *seen.entry(answers[0].status.as_u16()).or_insert(0) += 1;
        }
    }
    let seen: Vec<u16> = seen.into_keys().collect();
    assert_eq!(seen, [201, 202, 400, 401, 403, 422]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_limits_hold_on_both_ways() {
    let [a] = cluster_with(&["--limit-publishes-per-user=1/2"]).await;
    let body = r#"{"userId":"42","title":"Hello"}"#;
    let headers = |way: &str, key: &str| {
        vec![
            ("authorization", format!("Bearer {}", a.publisher_token())),
            ("idempotency-key", key.to_owned()),
            ("content-type", way.to_owned()),
        ]
    };
    let path = "/api/notifications";
    let first = answer(&a, path, body, &headers(PLAIN, "k-1")).await;
    assert_eq!(first.headers.get("idempotent-replayed"), None);
    let again = answer(&a, path, body, &headers(BY_THE_STACK, "k-1")).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    for way in [PLAIN, BY_THE_STACK] {
        // Enough that the bucket is empty whatever came back meanwhile.
        let mut limited = answer(&a, path, body, &headers(way, "k-2")).await;
        while limited.status != StatusCode::TOO_MANY_REQUESTS {
            limited = answer(&a, path, body, &headers(way, "k-2")).await;
        }
        assert_eq!(limited.body["code"], "rate_limited", "{limited:?}");
        for header in ["ratelimit", "ratelimit-policy", "retry-after"] {
            assert!(limited.headers.contains_key(header), "{limited:?}");
        }
    }
}

/// A publish as bytes.
fn publish(node: &TestNode, title: &str, further: &str) -> String {
    let body = json!({ "userId": "42", "title": title }).to_string();
    format!(
        "POST /api/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{further}\r\n{body}",
        node.publisher_token(),
        body.len(),
    )
}

async fn stream(node: &TestNode) -> TcpStream {
    let address = node.url.trim_start_matches("http://");
    TcpStream::connect(address).await.unwrap()
}

/// Everything up to the end of the connection, and how often each status is in it.
async fn statuses(mut stream: TcpStream) -> Vec<String> {
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    // Behind the minor version; what comes before the first is nothing.
    let heads = answers.split("HTTP/1.").skip(1);
    heads.map(|head| head[2..5].to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_and_other_requests_may_share_a_connection_however_they_are_cut() {
    let [a] = cluster().await;
    let mut device = a.connect("42").await;
    let last = format!(
        "GET /api/notifications/unread-count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        a.token("42")
    );
    let requests = [
        publish(&a, "one", ""),
        publish(&a, "two", "X-Other: y\r\n"),
        "GET /api/nowhere HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        publish(&a, "three", ""),
        last,
    ];
    for size in [7, 300, 100_000] {
        let mut stream = stream(&a).await;
        for piece in requests.concat().as_bytes().chunks(size) {
            stream.write_all(piece).await.unwrap();
        }
        assert_eq!(statuses(stream).await, ["201", "201", "404", "201", "200"]);
        for title in ["one", "two", "three"] {
            assert_eq!(device.until("notification:new").await["title"], title);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_plain_is_served_by_the_stack() {
    let [a] = cluster().await;
    let plain = publish(&a, "t", "Connection: close\r\n");
    let chunked = plain
        .replace("Content-Length: 27", "Transfer-Encoding: chunked")
        .replace("\r\n\r\n", "\r\n\r\n1b\r\n")
        + "\r\n0\r\n\r\n";
    assert_ne!(chunked, plain);
    for (request, status) in [
        (plain.clone(), "201"),
        (chunked, "201"),
        (plain.replace("HTTP/1.1", "HTTP/1.0"), "201"),
        (
            plain.replace("/api/notifications", "/api/notifications?x=1"),
            "400",
        ),
        (
            plain.replace(
                "Content-Length: 27",
                "Content-Length: 27\r\nContent-Length: 26",
            ),
            "400",
        ),
        (
            plain.replace("Content-Length: 27", "Content-Length: +27"),
            "400",
        ),
        (
            plain.replace(
                "Content-Length: 27",
                "Content-Length: 27\r\nContent-Encoding: gzip",
            ),
            "415",
        ),
        (plain.replace("application/json", "text/plain"), "415"),
        (
            plain.replace("Content-Length: 27", "Content-Length: 99999999"),
            "413",
        ),
        (
            plain.replace("Content-Length: 27", "Content Length: 27"),
            "400",
        ),
    ] {
        let mut stream = stream(&a).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answers = tokio::time::timeout(Duration::from_secs(10), statuses(stream));
        assert_eq!(answers.await.unwrap(), [status], "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_late_is_still_read_and_one_that_never_comes_does_not_stop_a_node() {
    let [a] = cluster().await;
    let request = publish(&a, "late", "Connection: keep-alive\r\n");
    let (now, later) = request.split_at(request.len() - 5);
    let [mut late, mut never] = [stream(&a).await, stream(&a).await];
    late.write_all(now.as_bytes()).await.unwrap();
    never.write_all(now.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await; // bounded: the time after which the stack takes over
    late.write_all(later.as_bytes()).await.unwrap();
    let mut begins = [0; 12];
    late.read_exact(&mut begins).await.unwrap();
    assert_eq!(&begins, b"HTTP/1.1 201");
    assert!(a.stop().await, "the node came to a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_says_so_on_the_short_way_too() {
    let [mut a] = cluster_with(&["--drain-seconds=1"]).await;
    let mut idle = stream(&a).await;
    let request = publish(&a, "t", "");
    idle.write_all(request.as_bytes()).await.unwrap();
    let mut begins = [0; 12];
    idle.read_exact(&mut begins).await.unwrap();
    assert_eq!(&begins, b"HTTP/1.1 201");

    let leaving = a.leave();
    let finishing = async {
        let draining = "bellhop_draining";
        a.metric_becomes(draining, 1.0).await;
        idle.write_all(request.as_bytes()).await.unwrap();
        let mut rest = String::new();
        idle.read_to_string(&mut rest).await.unwrap();
        rest
    };
    let (clean, rest) = tokio::join!(leaving, finishing);
    assert!(clean);
    assert!(rest.contains("HTTP/1.1 201"), "{rest}");
    assert!(rest.contains("connection: close"), "{rest}");
}
