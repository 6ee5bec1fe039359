//! The mission: what is published for a user on any node reaches that user's sockets on every node, and nobody else's.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::cluster::{TestNode, cluster};

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_published_on_one_node_reaches_the_users_sockets_on_all() {
    let [a, b, c] = cluster().await;
    let mut on_a = a.connect("42").await;
    let mut on_b = b.connect("42").await;
    let mut on_c = c.connect("42").await;
    let mut stranger = c.connect("7").await;

    let published = a.publish("42", "Hello").await;

    assert_eq!(published["delivery"], "live");
    for device in [&mut on_a, &mut on_b, &mut on_c] {
        let heard = device.expect("notification:new").await;
        for field in ["id", "userId", "seq", "title", "createdAt", "isRead"] {
            assert_eq!(heard[field], published[field], "{field}");
        }
        assert_eq!(
            device.expect("notification:unread-count").await,
            json!({ "count": 1, "seq": 1 })
        );
    }
    stranger.hears_nothing(&a, "7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_in_the_order_of_their_seqs_whichever_node_they_were_made_on() {
    let [a, b, c] = cluster().await;
    let mut on_c = c.connect("42").await;

    for round in 0..20 {
        let node = if round % 2 == 0 { &a } else { &b };
        node.publish("42", &format!("number {round}")).await;
    }

    for seq in 1..=20 {
        let heard = on_c.expect("notification:new").await;
        assert_eq!(
            (heard["seq"].as_u64(), heard["title"].as_str()),
            (Some(seq), Some(format!("number {}", seq - 1).as_str()))
        );
        assert_eq!(
            on_c.expect("notification:unread-count").await,
            json!({ "count": seq, "seq": seq })
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_publishes_to_one_user_come_in_one_order_on_every_device() {
    let [a, b] = cluster().await;
    let mut on_a = a.connect("42").await;
    let mut on_b = b.connect("42").await;

    let titles: Vec<_> = (0..40).map(|number| format!("number {number}")).collect();
    let publishing = titles.iter().enumerate().map(|(number, title)| {
        let node = if number % 2 == 0 { &a } else { &b };
        node.publish("42", title)
    });
    futures_util::future::join_all(publishing).await;

    let mut orders = Vec::new();
    for device in [&mut on_a, &mut on_b] {
        let mut order = Vec::new();
        while order.len() < titles.len() {
            let heard = device.until("notification:new").await;
            assert_eq!(heard["seq"], order.len() + 1);
            order.push(heard["title"].as_str().unwrap().to_owned());
        }
        orders.push(order);
    }
    assert_eq!(orders[0], orders[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_held_the_user_receives_none_of_its_messages() {
    let [a, b, c, d] = cluster().await;
    let mut on_b = b.connect("42").await;
    let _other = c.connect("7").await;

    for number in 0..25 {
        a.publish("42", &format!("number {number}")).await;
    }
    for _ in 0..25 {
        on_b.until("notification:new").await;
    }
    // What follows everything else on the bus, and everyone gets.
    let (status, _) = a
        .emit(json!({ "broadcast": true, "event": "test:marker", "payload": {} }))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);

    let received = r#"bellhop_bus_messages_total{direction="received"}"#;
    b.metric_becomes(received, 26.0).await;
    for uninvolved in [&c, &d] {
        uninvolved.metric_becomes(received, 1.0).await;
    }
    assert_eq!(
        a.metric(r#"bellhop_bus_messages_total{direction="published"}"#)
            .await,
        26.0
    );
    assert_eq!(a.metric(received).await, 0.0, "a node does not hear itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_are_reached_by_one_request() {
    let [a, b] = cluster().await;
    let mut first = a.connect("first").await;
    let mut second = b.connect("second").await;
    let mut third = b.connect("third").await;

    let (status, body) = a
        .publish_body(json!({ "userIds": ["second", "first", "absent"], "title": "Hello" }))
        .await;

    assert_eq!(status, StatusCode::CREATED);
    let users: Vec<_> = body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["userId"].as_str().unwrap())
        .collect();
    assert_eq!(users, ["second", "first", "absent"]);
    for (device, index) in [(&mut second, 0), (&mut first, 1)] {
        let heard = device.expect("notification:new").await;
        assert_eq!(heard["id"], body["items"][index]["id"]);
        assert_eq!(heard["seq"], body["items"][index]["seq"]);
        device.expect("notification:unread-count").await;
    }
    third.hears_nothing(&a, "third").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_device_reads_deletes_or_clears_the_others_see_at_once() {
    let [a, b] = cluster().await;
    let mut phone = a.connect("42").await;
    let mut laptop = b.connect("42").await;
    let mut ids = Vec::new();
    for title in ["one", "two", "three", "four"] {
        ids.push(a.publish("42", title).await["id"].clone());
        phone.until("notification:unread-count").await;
        laptop.until("notification:unread-count").await;
    }

    let ack = phone
        .call("notification:read", json!({ "id": ids[0] }))
        .await;
    assert_eq!(ack, json!({ "ok": true, "seq": 5 }));
    for device in [&mut phone, &mut laptop] {
        let heard = device.expect("notification:updated").await;
        assert_eq!(
            (&heard["id"], &heard["isRead"], &heard["seq"]),
            (&ids[0], &json!(true), &json!(5))
        );
        assert_eq!(
            device.expect("notification:unread-count").await,
            json!({ "count": 3, "seq": 5 })
        );
    }

    let ack = laptop
        .call("notification:delete", json!({ "id": ids[1] }))
        .await;
    assert_eq!(ack, json!({ "ok": true }));
    for device in [&mut phone, &mut laptop] {
        let heard = device.expect("notification:deleted").await;
        assert_eq!(
            heard,
            json!({ "id": ids[1], "seq": 6, "reason": "deleted" })
        );
        assert_eq!(
            device.expect("notification:unread-count").await,
            json!({ "count": 2, "seq": 6 })
        );
    }

    let ack = phone.call("notification:read-all", json!({})).await;
    assert_eq!(
        ack,
        json!({ "ok": true, "updated": 2, "unreadCount": 0, "seq": 7 })
    );
    for device in [&mut phone, &mut laptop] {
        let heard = device.expect("notification:refresh").await;
        assert_eq!(
            (&heard["reason"], &heard["seq"]),
            (&json!("read-all"), &json!(7))
        );
        assert_eq!(
            device.expect("notification:unread-count").await,
            json!({ "count": 0, "seq": 7 })
        );
    }

    let (status, body) = b.as_user("42", Method::DELETE, "/api/notifications").await;
    assert_eq!(
        (status, body),
        (
            StatusCode::OK,
            json!({ "deleted": 3, "unreadCount": 0, "seq": 8 })
        )
    );
    for device in [&mut phone, &mut laptop] {
        let heard = device.expect("notification:refresh").await;
        assert_eq!(
            (&heard["reason"], &heard["seq"]),
            (&json!("cleared"), &json!(8))
        );
        device.expect("notification:unread-count").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeating_an_act_changes_nothing_and_tells_nobody() {
    let [a] = cluster().await;
    let id = a.publish("42", "Hello").await["id"].clone();
    let mut device = a.connect("42").await;

    for _ in 0..2 {
        let ack = device.call("notification:read", json!({ "id": id })).await;
        assert_eq!(ack, json!({ "ok": true, "seq": 2 }));
    }
    let ack = device.call("notification:read-all", json!({})).await;
    assert_eq!(
        ack,
        json!({ "ok": true, "updated": 0, "unreadCount": 0, "seq": 2 })
    );
    for _ in 0..2 {
        assert_eq!(
            device
                .call("notification:delete", json!({ "id": id }))
                .await["ok"],
            true
        );
    }

    let heard: Vec<_> = [
        device.next().await,
        device.next().await,
        device.next().await,
        device.next().await,
    ]
    .into();
    let heard: Vec<_> = heard.iter().map(|heard| heard.event.as_str()).collect();
    assert_eq!(
        heard,
        [
            "notification:updated",
            "notification:unread-count",
            "notification:deleted",
            "notification:unread-count"
        ]
    );
    device.hears_nothing(&a, "42").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_emit_reaches_one_user_several_or_everyone() {
    let [a, b] = cluster().await;
    let mut one = b.connect("1").await;
    let mut two = a.connect("2").await;
    let mut three = b.connect("3").await;
    let emit = |to: serde_json::Value, text: &str| {
        let mut body = json!({ "event": "chat:typing", "payload": { "text": text } });
        body.as_object_mut()
            .unwrap()
            .extend(to.as_object().unwrap().clone());
        body
    };

    for (to, text) in [
        (json!({ "userId": "1" }), "to one"),
        (json!({ "userIds": ["1", "2"] }), "to two"),
        (json!({ "broadcast": true }), "to all"),
    ] {
        assert_eq!(
            a.emit(emit(to, text)).await,
            (StatusCode::ACCEPTED, json!({ "delivery": "live" }))
        );
    }

    let expected: [(_, &[&str]); 3] = [
        (&mut one, &["to one", "to two", "to all"]),
        (&mut two, &["to two", "to all"]),
        (&mut three, &["to all"]),
    ];
    for (device, texts) in expected {
        for text in texts {
            assert_eq!(device.expect("chat:typing").await, json!({ "text": text }));
        }
    }
    assert_eq!(a.metric(r#"bellhop_emits_total{result="live"}"#).await, 3.0);
}

/// No count is shared and no question is asked when somebody connects: whether other nodes answer is nothing to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_connect_asks_no_other_node() {
    let [a, b] = cluster().await;
    let mut elsewhere = b.connect("42").await;
    let told = async |node: &TestNode, direction: &str| {
        let series = format!(r#"bellhop_bus_messages_total{{direction="{direction}"}}"#);
        node.metric(&series).await
    };
    let before = told(&a, "published").await;
    for _ in 0..20 {
        a.connect("42").await;
    }
    assert_eq!(told(&a, "published").await, before);
    assert_eq!(told(&b, "received").await, 0.0);
    elsewhere.hears_nothing(&b, "42").await;
}
