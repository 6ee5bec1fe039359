//! What clients do over their sockets: click, and say what they have received.

use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::cluster;

const CONFIRMED: &str = "bellhop_notifications_confirmed_total";

#[tokio::test(flavor = "multi_thread")]
async fn a_click_marks_it_read_and_clicked_on_every_device() {
    let [a, b] = cluster().await;
    let id = a.publish("42", "one").await["id"].clone();
    let mut on_a = a.connect("42").await;
    let mut on_b = b.connect("42").await;

    let ack = on_a.call("notification:click", json!({ "id": id })).await;

    assert_eq!(ack, json!({ "ok": true, "seq": 2 }));
    for device in [&mut on_a, &mut on_b] {
        let updated = device.until("notification:updated").await;
        assert_eq!(
            (&updated["isRead"], &updated["seq"]),
            (&json!(true), &json!(2))
        );
        assert!(updated["clickedAt"].is_string() && updated["readAt"].is_string());
        assert_eq!(
            device.expect("notification:unread-count").await,
            json!({ "count": 0, "seq": 2 })
        );
    }

    // A repeat is no change.
    let ack = on_b.call("notification:click", json!({ "id": id })).await;
    assert_eq!(ack, json!({ "ok": true, "seq": 2 }));
    on_a.hears_nothing(&a, "42").await;

    // The click stays when it is marked unread, and again does not count.
    let path = format!("/api/notifications/{}/unread", id.as_str().unwrap());
    let (_, unread) = a.as_user("42", Method::PATCH, &path).await;
    assert!(unread["clickedAt"].is_string());
    assert_eq!(unread["isRead"], false);
    on_a.call("notification:click", json!({ "id": id })).await;
    let counts = [
        "bellhop_notifications_clicked_total",
        "bellhop_notifications_read_total",
    ];
    let mut sums = Vec::new();
    for series in counts {
        sums.push(a.metric(series).await + b.metric(series).await);
    }
    assert_eq!(sums, [1.0, 2.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_has_received_is_counted_once_and_kept() {
    let [a] = cluster().await;
    a.publish("42", "before").await;
    let mut device = a.connect("42").await;
    for title in ["one", "two", "three"] {
        a.publish("42", title).await;
        device.until("notification:new").await;
    }

    let received = async |device: &mut crate::client::TestClient, seq: Value| {
        device
            .call("notification:received", json!({ "seq": seq }))
            .await
    };
    assert_eq!(
        received(&mut device, json!(3)).await,
        json!({ "ok": true, "seq": 3 })
    );
    a.metric_becomes(CONFIRMED, 2.0).await;
    a.publish("42", "four").await;
    device.until("notification:new").await;
    // More than the socket was served is not believed.
    assert_eq!(received(&mut device, json!(900)).await["seq"], 5);
    a.metric_becomes(CONFIRMED, 4.0).await;
    assert_eq!(
        received(&mut device, json!(5)).await["code"],
        "rate_limited"
    );

    let inspected = async || {
        let token = a.publisher_token();
        let (_, body) = a.call(Method::GET, "/api/users/42", &token, None).await;
        let changes = body["changes"].as_array().unwrap().clone();
        let times = changes.iter().map(|change| {
            (
                change["seq"].as_u64().unwrap(),
                change["confirmedAt"].is_string(),
            )
        });
        times.collect::<Vec<_>>()
    };
    let kept = async {
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(20));
        while inspected().await != [(5, true), (4, true), (3, true), (2, true), (1, false)] {
            pause.tick().await;
        }
    };
    let kept = tokio::time::timeout(std::time::Duration::from_secs(10), kept).await;
    assert!(kept.is_ok(), "{:?}", inspected().await);
    assert_eq!(a.metric("bellhop_confirm_latency_seconds_count").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_without_a_seq_is_refused_and_a_flood_of_them_is_not_the_limit_of_events() {
    let [a] = cluster().await;
    let mut device = a.connect("42").await;
    for data in [json!({}), json!({ "seq": "x" }), json!({ "seq": -1 })] {
        let ack = device.call("notification:received", data).await;
        assert!(
            ack["code"] == "invalid_seq" || ack["code"] == "rate_limited",
            "{ack}"
        );
    }
    let ack = device.call("notification:read-all", json!({})).await;
    assert_eq!(ack["ok"], true);
}
