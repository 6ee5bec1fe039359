//! What was missed arrives, oldest first and once; where continuity cannot be proved, a refresh says so.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::client::TestClient;
use crate::cluster::{TestNode, cluster, cluster_with};

async fn resume(node: &TestNode, user: &str, last_seq: Value) -> TestClient {
    node.connect_with(json!({ "token": node.token(user), "lastSeq": last_seq }))
        .await
}

async fn epoch(node: &TestNode, user: &str) -> String {
    let (_, body) = node.as_user(user, Method::GET, "/api/notifications").await;
    body["epoch"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_last_seq_is_told_the_count_and_to_fetch_the_list() {
    let [a] = cluster().await;
    a.publish("42", "one").await;
    let epoch = epoch(&a, "42").await;

    let mut device = a.connect_with(json!({ "token": a.token("42") })).await;

    assert_eq!(
        device.expect("notification:unread-count").await,
        json!({ "count": 1, "seq": 1 })
    );
    assert_eq!(
        device.expect("notification:refresh").await,
        json!({ "reason": "connect", "seq": 1, "epoch": epoch })
    );
    assert_eq!(
        device.expect("notification:synced").await,
        json!({ "seq": 1, "epoch": epoch, "replayed": 0 })
    );
}

/// More than may wait to be written: who reads takes it at once, and is no slow consumer.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_replay_stalls_nobody_who_reads() {
    const MISSED: u64 = 400;
    let settings = [
        "--limit-publishes-per-key=0",
        "--limit-publishes-per-user=0",
    ];
    let [a] = cluster_with(&settings).await;
    for _ in 0..MISSED {
        a.publish("42", "Hello").await;
    }
    let mut device = resume(&a, "42", json!(0)).await;
    for seq in 1..=MISSED {
        assert_eq!(device.expect("notification:new").await["seq"], seq);
    }
    assert_eq!(
        device.until("notification:synced").await["replayed"],
        MISSED
    );
    assert_eq!(
        a.metric(r#"bellhop_repairs_total{kind="stall"}"#).await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_comes_as_ordinary_events_then_one_count_then_synced() {
    let [a, b] = cluster().await;
    let mut ids = Vec::new();
    for title in ["one", "two", "three", "four"] {
        ids.push(a.publish("42", title).await["id"].clone());
    }
    // Seen up to here. Then, while away: read 1 (seq 5), delete 2 (6), new 5 (7), new 6 (8), delete 6 (9).
    let path = |id: &Value, act: &str| format!("/api/notifications/{}{act}", id.as_str().unwrap());
    a.as_user("42", Method::PATCH, &path(&ids[0], "/read"))
        .await;
    a.as_user("42", Method::DELETE, &path(&ids[1], "")).await;
    let five = a.publish("42", "five").await["id"].clone();
    let six = a.publish("42", "six").await["id"].clone();
    a.as_user("42", Method::DELETE, &path(&six, "")).await;

    let mut device = resume(&b, "42", json!(4)).await;

    let updated = device.expect("notification:updated").await;
    assert_eq!(
        (&updated["id"], &updated["seq"], &updated["isRead"]),
        (&ids[0], &json!(5), &json!(true))
    );
    let deleted = device.expect("notification:deleted").await;
    assert_eq!(
        deleted,
        json!({ "id": ids[1], "seq": 6, "reason": "deleted" })
    );
    let new = device.expect("notification:new").await;
    assert_eq!((&new["id"], &new["seq"]), (&five, &json!(7)));
    assert_eq!(
        device.expect("notification:deleted").await,
        json!({ "id": six, "seq": 9, "reason": "deleted" })
    );
    assert_eq!(
        device.expect("notification:unread-count").await,
        json!({ "count": 3, "seq": 9 })
    );
    assert_eq!(
        device.expect("notification:synced").await,
        json!({ "seq": 9, "epoch": epoch(&a, "42").await, "replayed": 4 })
    );

    a.publish("42", "live again").await;
    assert_eq!(device.expect("notification:new").await["seq"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn last_seq_0_is_a_resume_from_the_beginning() {
    let [a] = cluster().await;
    for title in ["one", "two", "three"] {
        a.publish("42", title).await;
    }
    let mut device = resume(&a, "42", json!(0)).await;
    for title in ["one", "two", "three"] {
        assert_eq!(device.expect("notification:new").await["title"], title);
    }
    device.expect("notification:unread-count").await;
    assert_eq!(device.expect("notification:synced").await["replayed"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn read_all_and_clear_are_replayed_at_their_place() {
    let [a] = cluster().await;
    a.publish("42", "one").await;
    a.as_user("42", Method::POST, "/api/notifications/read-all")
        .await;
    a.publish("42", "three").await;
    let mut device = resume(&a, "42", json!(1)).await;
    let refresh = device.expect("notification:refresh").await;
    assert_eq!(
        (&refresh["reason"], &refresh["seq"]),
        (&json!("read-all"), &json!(2))
    );
    assert_eq!(device.expect("notification:new").await["seq"], 3);
    assert_eq!(
        device.expect("notification:unread-count").await,
        json!({ "count": 1, "seq": 3 })
    );
    assert_eq!(device.expect("notification:synced").await["replayed"], 2);

    a.as_user("42", Method::DELETE, "/api/notifications").await;
    let mut device = resume(&a, "42", json!(3)).await;
    let refresh = device.expect("notification:refresh").await;
    assert_eq!(
        (&refresh["reason"], &refresh["seq"]),
        (&json!("cleared"), &json!(4))
    );
    assert_eq!(
        device.expect("notification:unread-count").await,
        json!({ "count": 0, "seq": 4 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_missed_nothing_is_told_so() {
    let [a, b] = cluster().await;
    a.publish("42", "one").await;
    let mut device = resume(&b, "42", json!(1)).await;
    assert_eq!(
        device.expect("notification:unread-count").await,
        json!({ "count": 1, "seq": 1 })
    );
    assert_eq!(device.expect("notification:synced").await["replayed"], 0);
    assert_eq!(
        b.metric(r#"bellhop_reconnections_total{result="nothing_missed"}"#)
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_from_another_history_is_reset() {
    let [a] = cluster().await;
    a.publish("42", "one").await;
    let epoch = epoch(&a, "42").await;
    let other_epoch = json!({ "token": a.token("42"), "lastSeq": 1, "epoch": "another" });
    let from_the_future = json!({ "token": a.token("42"), "lastSeq": 2, "epoch": epoch });
    let no_number = json!({ "token": a.token("42"), "lastSeq": "x" });

    for auth in [other_epoch, from_the_future, no_number] {
        let mut device = a.connect_with(auth).await;
        assert_eq!(
            device.expect("notification:refresh").await,
            json!({ "reason": "reset", "seq": 1, "epoch": epoch })
        );
        assert_eq!(
            device.expect("notification:unread-count").await,
            json!({ "count": 1, "seq": 1 })
        );
        assert_eq!(device.expect("notification:synced").await["replayed"], 0);
    }
    assert_eq!(
        a.metric(r#"bellhop_reconnections_total{result="refresh"}"#)
            .await,
        3.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_replay_limit_is_one_refresh() {
    let [a] = cluster_with(&["--replay-limit=3"]).await;
    for number in 0..4 {
        a.publish("42", &format!("number {number}")).await;
    }
    let mut at_the_limit = resume(&a, "42", json!(1)).await;
    assert_eq!(
        at_the_limit.before("notification:synced").await.len(),
        4,
        "three changes and the count"
    );

    let mut beyond = resume(&a, "42", json!(0)).await;
    let refresh = beyond.expect("notification:refresh").await;
    assert_eq!(
        (&refresh["reason"], &refresh["seq"]),
        (&json!("gap"), &json!(4))
    );
    beyond.expect("notification:unread-count").await;
    assert_eq!(beyond.expect("notification:synced").await["replayed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_longer_than_a_sockets_queue_arrives_whole() {
    let [a] = cluster().await;
    let title = "x".repeat(200);
    for _ in 0..40 {
        let publishing = (0..10).map(|_| a.publish("42", &title));
        futures_util::future::join_all(publishing).await;
    }
    let mut device = resume(&a, "42", json!(0)).await;
    for seq in 1..=400 {
        assert_eq!(device.expect("notification:new").await["seq"], seq);
    }
    assert_eq!(
        device.expect("notification:unread-count").await,
        json!({ "count": 400, "seq": 400 })
    );
    assert_eq!(device.expect("notification:synced").await["replayed"], 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_while_sockets_join_under_load() {
    let [a, b] = cluster().await;
    let publishing = async {
        for number in 0..120 {
            a.publish("42", &format!("number {number}")).await;
        }
    };
    let joining = async {
        for _ in 0..12 {
            let mut device = resume(&b, "42", json!(0)).await;
            // Until the replay is complete and two live ones have come, each seq once and in order.
            let mut last = 0;
            let mut synced = false;
            while !synced || last < 20 {
                let heard = device.next().await;
                match heard.event.as_str() {
                    "notification:new" => {
                        assert_eq!(heard.data["seq"], last + 1);
                        last += 1;
                    }
                    "notification:synced" => synced = true,
                    _ => {}
                }
            }
        }
    };
    tokio::join!(publishing, joining);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_sends_its_clients_to_another_one_which_replays() {
    let [a, b] = cluster().await;
    let mut device = a.connect("42").await;
    a.publish("42", "one").await;
    let last_seq = device.expect("notification:new").await["seq"].clone();

    assert!(a.stop().await, "the node came to a clean end");
    device.ends().await;
    b.publish("42", "two").await;

    let mut device = resume(&b, "42", last_seq).await;
    assert_eq!(device.expect("notification:new").await["title"], "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_the_replay_over_rest() {
    let [a] = cluster().await;
    let mut ids = Vec::new();
    for title in ["one", "two", "three"] {
        ids.push(
            a.publish("42", title).await["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    a.as_user(
        "42",
        Method::PATCH,
        &format!("/api/notifications/{}/read", ids[0]),
    )
    .await;
    a.as_user(
        "42",
        Method::DELETE,
        &format!("/api/notifications/{}", ids[1]),
    )
    .await;
    let epoch = epoch(&a, "42").await;
    let changes = async |query: &str| {
        let (status, body) = a
            .as_user(
                "42",
                Method::GET,
                &format!("/api/notifications/changes?{query}"),
            )
            .await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    };

    let all = changes("since=2").await;
    let items: Vec<_> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (&item["seq"], &item["isRead"]))
        .collect();
    assert_eq!(
        items,
        [(&json!(3), &json!(false)), (&json!(4), &json!(true))]
    );
    assert_eq!(
        all["deleted"],
        json!([{ "id": ids[1], "seq": 5, "reason": "deleted" }])
    );
    for (field, value) in [
        ("seq", json!(5)),
        ("unreadCount", json!(1)),
        ("more", json!(false)),
        ("reset", json!(false)),
        ("readAllSeq", json!(0)),
        ("clearedSeq", json!(0)),
        ("epoch", json!(epoch)),
    ] {
        assert_eq!(all[field], value, "{field}");
    }

    // From before it was created, too: the list that the client has may be newer than its cursor.
    let all = changes("since=1").await;
    assert_eq!(
        all["deleted"],
        json!([{ "id": ids[1], "seq": 5, "reason": "deleted" }])
    );

    let page = changes("since=2&limit=1").await;
    assert_eq!((&page["seq"], &page["more"]), (&json!(3), &json!(true)));
    let page = changes("since=3&limit=2").await;
    assert_eq!((&page["seq"], &page["more"]), (&json!(5), &json!(false)));

    assert_eq!(changes("since=2&epoch=another").await["reset"], true);
    assert_eq!(changes("since=6").await["reset"], true);
    assert_eq!(
        changes(&format!("since=5&epoch={epoch}")).await["reset"],
        false
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_come_at_once_some_are_told_later_to_fetch_the_list() {
    const MANY: usize = 500;
    let [a] = cluster_with(&["--limit-connections-per-user=0"]).await;
    a.publish("42", "one").await;
    let address = a.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket";
    let open = (0..MANY).map(|_| tokio_tungstenite::connect_async(address.as_str()));
    let opened = futures_util::future::join_all(open).await;
    let connect = Message::text(format!("40{}", json!({ "token": a.token("42") })));

    // All CONNECT packets at once, on connections that are there already.
    let start = Instant::now();
    let mut sockets: Vec<_> = opened.into_iter().map(|opened| opened.unwrap().0).collect();
    let sent = sockets
        .iter_mut()
        .map(|socket| socket.send(connect.clone()));
    for sent in futures_util::future::join_all(sent).await {
        sent.unwrap();
    }
    let told = sockets.iter_mut().map(told_until_synced);
    let told = futures_util::future::join_all(told).await;
    let seconds = start.elapsed().as_secs_f64();

    let refresh = "notification:refresh";
    let (at_once, later): (Vec<_>, Vec<_>) = told
        .iter()
        .zip(&mut sockets)
        .partition(|(told, _)| told.iter().any(|heard| heard.0 == refresh));
    let room = 200.0 + 200.0 * seconds;
    assert!(
        (at_once.len() as f64) <= room,
        "{} in {seconds} s",
        at_once.len()
    );
    for (told, socket) in later {
        assert_eq!(told.last().unwrap().1["seq"], 1);
        let heard = tokio::time::timeout(Duration::from_secs(20), event(socket)).await;
        let (name, data) = heard.expect("waited for a refresh");
        assert_eq!(
            (name.as_str(), &data["reason"]),
            (refresh, &json!("connect"))
        );
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn told_until_synced(socket: &mut Socket) -> Vec<(String, Value)> {
    let mut told = Vec::new();
    loop {
        told.push(event(socket).await);
        if told.last().unwrap().0 == "notification:synced" {
            return told;
        }
    }
}

/// The next event, by its packet.
async fn event(socket: &mut Socket) -> (String, Value) {
    loop {
        let message = socket.next().await.unwrap().unwrap();
        if let Some(event) = message.to_text().unwrap().strip_prefix("42") {
            return serde_json::from_str(event).unwrap();
        }
    }
}
