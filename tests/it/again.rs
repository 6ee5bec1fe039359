//! What is sent again is done once, and what a caller began is done whether it waits or not.

use std::path::Path;
use std::time::Duration;

use bellhop::user::UserId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Executor as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{Backing, SECRET, TestNode, cluster};
use crate::commands::{Running, addresses, bellhop};
use crate::proxy::Proxy;

const PATH: &str = "/api/notifications";
const LOCK: &str = "SELECT * FROM user_feed WHERE user_id = '42' FOR UPDATE";

/// Publishes with this key: the status, whether it is the answer to an earlier request, and the answer.
async fn publish(node: &TestNode, key: &str, body: &Value) -> (StatusCode, bool, Value) {
    let request = node.request(Method::POST, PATH);
    let request = request
        .bearer_auth(node.publisher_token())
        .header("idempotency-key", key);
    let response = request.json(body).send().await.unwrap();
    let replayed = response.headers().contains_key("idempotent-replayed");
    (response.status(), replayed, response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_on_three_nodes_at_once_is_one_notification_and_one_answer() {
    let nodes: [TestNode; 3] = cluster().await;
    for node in &nodes {
        node.metric_becomes("bellhop_redis_up", 1.0).await;
    }
    let mut devices = Vec::new();
    for node in &nodes {
        devices.push(node.connect("42").await);
    }
    let body = json!({ "userId": "42", "title": "once" });
    let requests = (0..50).map(|number| publish(&nodes[number % 3], "one-key", &body));
    let answers = futures_util::future::join_all(requests).await;

    let first = answers.iter().filter(|(_, replayed, _)| !replayed);
    assert_eq!(first.count(), 1);
    for (status, _, answer) in &answers {
        assert_eq!((status, answer), (&StatusCode::CREATED, &answers[0].2));
    }
    for device in &mut devices {
        let heard = device.expect("notification:new").await;
        assert_eq!(heard["id"], answers[0].2["id"]);
        let count = device.expect("notification:unread-count").await;
        assert_eq!(count, json!({ "count": 1, "seq": 1 }));
    }
    for (device, node) in devices.iter_mut().zip(&nodes) {
        device.hears_nothing(node, "42").await;
    }
    let other = json!({ "userId": "42", "title": "another" });
    for node in &nodes {
        let (status, _, problem) = publish(node, "one-key", &other).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(problem["code"], "idempotency_key_reused");
        let list = node.as_user("42", Method::GET, PATH).await.1;
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
    }
}

/// A node as a process, on this database; with an API key, for which it need not ask the database.
fn process(backing: &Backing, database: &str, key: &str, folder: &Path) -> (Running, String) {
    let [listen, admin] = addresses();
    let mut arguments = vec![
        "serve".to_owned(),
        format!("--listen={listen}"),
        format!("--admin-listen={admin}"),
        format!("--jwt-secret={SECRET}"),
        format!("--database-url={database}"),
        // The statements come one after another, on one connection.
        "--database-pool=1".to_owned(),
        key.to_owned(),
    ];
    let given = backing.arguments.iter();
    let others = given.filter(|argument| !argument.starts_with("--database-"));
    arguments.extend(others.cloned());
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let node = Running::start(bellhop(folder, &arguments));
    node.line("serving");
    (node, format!("http://{listen}"))
}

/// The proxy brings the statement to the database and no answer back; the node is killed while it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_between_commit_and_answer_has_published_once() {
    let backing = Backing::fresh().await;
    let Ok(url) = url::Url::parse(&backing.database().url) else {
        return;
    };
    let Some(host) = url.host_str().filter(|_| url.scheme() != "sqlite") else {
        return; // It has no network between node and database.
    };
    let proxy = Proxy::to(&format!("{host}:{}", url.port().unwrap())).await;
    let key = crate::keys::configured(&[("shop", "key-1")]);
    let (b, c) = (backing.node(&[&key]).await, backing.node(&[&key]).await);
    let mut devices = [b.connect("42").await, c.connect("42").await];
    let folder = tempfile::tempdir().unwrap();
    let mut database = url.clone();
    database.set_port(Some(proxy.address.port())).unwrap();
    let (a, at_a) = process(&backing, database.as_str(), &key, folder.path());
    let at_a = format!("{at_a}{PATH}");

    let client = reqwest::Client::new();
    let send = |url: &str, key: &str, body: Value| {
        let request = client.post(url).header("x-api-key", "key-1");
        request
            .header("idempotency-key", key.to_owned())
            .json(&body)
    };
    // The statement is prepared from here on: the next one is one message to the database.
    let body = json!({ "userId": "42", "title": "before" });
    let before = send(&at_a, "before", body).send().await.unwrap();
    assert_eq!(before.status(), StatusCode::CREATED);
    proxy.deafen_after("between commit and answer");
    let body = json!({ "userId": "42", "title": "between commit and answer" });
    let lost = send(&at_a, "between", body.clone()).send();
    let killing = async {
        let (store, user) = (backing.store().await, UserId::try_from("42").unwrap());
        let mut pause = tokio::time::interval(Duration::from_millis(5));
        while store.standing(&user).await.unwrap().counters.seq < 2 {
            pause.tick().await;
        }
        a.signal("-KILL");
    };
    let (lost, ()) = tokio::time::timeout(Duration::from_secs(10), async {
        tokio::join!(lost, killing)
    })
    .await
    .expect("it is not committed");
    assert!(lost.is_err(), "it was answered: {lost:?}");

    let again = send(&format!("{}{PATH}", b.url), "between", body).send();
    let again = again.await.unwrap();
    assert_eq!(again.status(), StatusCode::CREATED);
    assert!(again.headers().contains_key("idempotent-replayed"));
    let answer: Value = again.json().await.unwrap();
    assert_eq!(answer["seq"], 2);
    for device in &mut devices {
        assert_eq!(device.until("notification:new").await["title"], "before");
        device.expect("notification:unread-count").await;
        assert_eq!(device.expect("notification:new").await["id"], answer["id"]);
        let count = device.expect("notification:unread-count").await;
        assert_eq!(count, json!({ "count": 2, "seq": 2 }));
    }
    for (device, node) in devices.iter_mut().zip([&b, &c]) {
        device.hears_nothing(node, "42").await;
    }
    let other = json!({ "userId": "42", "title": "another" });
    let other = send(&format!("{}{PATH}", c.url), "between", other).send();
    assert_eq!(
        other.await.unwrap().status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
}

/// What was answered is in the store by then: nothing of it waits in the node for its end.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill_without_a_word_before_it() {
    let backing = Backing::fresh().await;
    let key = crate::keys::configured(&[("shop", "key-1")]);
    let folder = tempfile::tempdir().unwrap();
    let is_file = backing.database().url.starts_with("sqlite");
    let database = if is_file {
        "sqlite:own.db"
    } else {
        &backing.database().url
    };
    let (a, at_a) = process(&backing, database, &key, folder.path());
    let client = reqwest::Client::new();
    let (answered, mut answers) = tokio::sync::mpsc::channel(10_000);
    let publisher = || async {
        let body = json!({ "userId": "42", "title": "Hello" });
        loop {
            let request = client.post(format!("{at_a}{PATH}")).json(&body);
            let Ok(answer) = request.header("x-api-key", "key-1").send().await else {
                return;
            };
            let is_created = answer.status() == StatusCode::CREATED;
            let Ok(answer) = answer.json::<Value>().await else {
                return;
            };
            assert!(is_created, "{answer}");
            answered
                .try_send(answer["id"].as_str().unwrap().to_owned())
                .unwrap();
        }
    };
    let killing = async {
        let mut ids = Vec::new();
        while ids.len() < 100 {
            ids.push(answers.recv().await.unwrap());
        }
        a.signal("-KILL");
        ids
    };
    let (mut ids, ..) = tokio::join!(killing, publisher(), publisher(), publisher(), publisher());
    while let Ok(id) = answers.try_recv() {
        ids.push(id);
    }
    drop(a);

    let (_b, at_b) = process(&backing, database, &key, folder.path());
    for id in ids {
        let request = client.get(format!("{at_b}/api/users/42/notifications/{id}"));
        let found = request.header("x-api-key", "key-1").send().await.unwrap();
        assert_eq!(found.status(), StatusCode::OK, "{id} is lost");
    }
}

/// The user's row is locked for longer than a statement waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_failed_has_not_used_its_key() {
    let backing = Backing::fresh().await;
    if backing.database().url.starts_with("sqlite") {
        return; // No row is locked there by somebody else.
    }
    let a = backing.node(&[]).await;
    a.publish("42", "before").await;
    let mut device = a.connect("42").await;
    let mut beside = backing.database().connection().await;
    let body = json!({ "userId": "42", "title": "tried again" });
    beside.execute("BEGIN").await.unwrap();
    beside.execute(LOCK).await.unwrap();
    let (status, _, problem) = publish(&a, "key", &body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["code"], "storage_unavailable");
    beside.execute("COMMIT").await.unwrap();
    device.hears_nothing(&a, "42").await;

    let (status, replayed, answer) = publish(&a, "key", &body).await;
    assert_eq!((status, replayed), (StatusCode::CREATED, false));
    assert_eq!(answer["seq"], 2);
    device.expect("notification:new").await;
}

/// Sends the request on a connection of its own; nobody reads its answer. When there is a body, the node has begun
/// to read it.
async fn send_only(node: &TestNode, path: &str, token: &str, body: &str) -> TcpStream {
    let address = node.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n",
        body.len()
    );
    head += if body.is_empty() {
        "\r\n"
    } else {
        "expect: 100-continue\r\n\r\n"
    };
    stream.write_all(head.as_bytes()).await.unwrap();
    if !body.is_empty() {
        let mut continued = [0; 25];
        stream.read_exact(&mut continued).await.unwrap();
        assert!(continued.starts_with(b"HTTP/1.1 100"));
        stream.write_all(body.as_bytes()).await.unwrap();
    }
    stream
}

/// What a caller of each kind sends: path, token, body, and what the user's device hears of it.
fn acts(node: &TestNode) -> [(&'static str, String, String, &'static str); 3] {
    let one = json!({ "userId": "42", "title": "one" }).to_string();
    let batch = json!({ "notifications": [{ "userId": "42", "title": "of a batch" }] }).to_string();
    let publisher = node.publisher_token();
    [
        (PATH, publisher.clone(), one, "notification:new"),
        (
            "/api/notifications/batch",
            publisher,
            batch,
            "notification:new",
        ),
        (
            "/api/notifications/read-all",
            node.token("42"),
            String::new(),
            "notification:refresh",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_after_its_request_has_done_what_it_asked_for() {
    let [a, b] = cluster().await;
    let mut device = b.connect("42").await;
    for round in 0..20_u64 {
        let publishing = acts(&a).into_iter().take(2);
        for (number, (path, token, body, event)) in (1..).zip(publishing) {
            drop(send_only(&a, path, &token, &body).await);
            let heard = device.until(event).await;
            assert_eq!(heard["seq"], round * 2 + number, "{path}");
        }
    }
}

/// The user's row is locked, so that the statement waits in the database while its caller goes away.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_cancels_nothing_that_was_sent_to_the_database() {
    let backing = Backing::fresh().await;
    if backing.database().url.starts_with("sqlite") {
        return; // Nothing waits there: statements are done one after another.
    }
    let a = backing.node(&[]).await;
    a.publish("42", "before").await;
    let mut device = a.connect("42").await;
    let mut beside = backing.database().connection().await;
    let mut watching = backing.database().connection().await;
    for (path, token, body, event) in acts(&a) {
        beside.execute("BEGIN").await.unwrap();
        beside.execute(LOCK).await.unwrap();
        let caller = send_only(&a, path, &token, &body).await;
        waits_for_the_lock(&mut watching).await;
        drop(caller);
        // What the node does about its caller, it has done when it has answered somebody else.
        a.metric("bellhop_draining").await;
        beside.execute("COMMIT").await.unwrap();
        device.until(event).await;
    }
    let list = a.as_user("42", Method::GET, PATH).await.1;
    assert_eq!(list["seq"], 4);
}

async fn waits_for_the_lock(watching: &mut sqlx::PgConnection) {
    let waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    while watching.fetch_optional(waits).await.unwrap().is_none() {
        pause.tick().await;
    }
}

/// As above, and the node is told to leave while the statement waits.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_began_is_told_by_a_node_that_leaves() {
    let backing = Backing::fresh().await;
    if backing.database().url.starts_with("sqlite") {
        return; // Nothing waits there.
    }
    let (mut a, b) = (backing.node(&[]).await, backing.node(&[]).await);
    for node in [&a, &b] {
        node.metric_becomes("bellhop_redis_up", 1.0).await;
    }
    a.publish("42", "before").await;
    let mut device = b.connect("42").await;
    let mut beside = backing.database().connection().await;
    beside.execute("BEGIN").await.unwrap();
    beside.execute(LOCK).await.unwrap();
    let [(path, token, body, event), ..] = acts(&a);
    let caller = send_only(&a, path, &token, &body).await;
    let mut watching = backing.database().connection().await;
    waits_for_the_lock(&mut watching).await;
    drop(caller);
    let leaving = a.leave();
    let unlocking = async {
        while reqwest::get(format!("{}/readyz", a.admin))
            .await
            .is_ok_and(|ready| ready.status() == StatusCode::OK)
        {}
        beside.execute("COMMIT").await.unwrap();
    };
    let (clean, ()) = tokio::join!(leaving, unlocking);
    assert!(clean);
    assert_eq!(device.until(event).await["seq"], 2);
}
