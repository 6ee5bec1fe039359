//! The REST contract where all is well: publish, list, count, read, delete, clear.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{TestNode, cluster};

const PATH: &str = "/api/notifications";
const BATCH: &str = "/api/notifications/batch";

fn at(notification: &Value, act: &str) -> String {
    format!("{PATH}/{}{act}", notification["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_notification_is_answered_listed_and_delivered_alike() {
    let [a] = cluster().await;
    let mut device = a.connect("123").await;
    let body = json!({
        "userId": "123", "type": "ORDER_SHIPPED", "priority": "HIGH", "title": "WebSocket Test 😀", "message": "line\r\nline",
        "data": { "orderId": 7, "big": 12345678901234567890_u64, "text": "\u{0}" }, "actionUrl": "/orders/7", "icon": "https://cdn.example/i.png",
        "badge": "/badge.png", "silent": true, "sticky": true, "expiresAt": "2099-01-01T00:00:00.5+01:00"
    });

    let (status, created) = a.publish_body(body).await;

    assert_eq!(status, StatusCode::CREATED, "{created}");
    let mut expected = created.clone();
    expected
        .as_object_mut()
        .unwrap()
        .remove("delivery")
        .unwrap();
    for (field, value) in [
        ("userId", json!("123")),
        ("seq", json!(1)),
        ("type", json!("ORDER_SHIPPED")),
        ("title", json!("WebSocket Test 😀")),
        ("message", json!("line\nline")),
        (
            "data",
            json!({ "orderId": 7, "big": 12345678901234567890_u64, "text": "\u{0}" }),
        ),
        ("silent", json!(true)),
        ("sticky", json!(true)),
        ("isRead", json!(false)),
        ("readAt", json!(null)),
        ("clickedAt", json!(null)),
        ("expiresAt", json!("2098-12-31T23:00:00.500Z")),
    ] {
        assert_eq!(expected[field], value, "{field}");
    }
    assert_eq!(expected.as_object().unwrap().len(), 18, "{expected}");
    assert_eq!(device.expect("notification:new").await, expected);
    assert_eq!(
        a.as_user("123", Method::GET, &at(&created, "")).await,
        (StatusCode::OK, expected.clone())
    );
    let (_, list) = a.as_user("123", Method::GET, PATH).await;
    assert_eq!(list["items"], json!([expected]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_has_its_default() {
    let [a] = cluster().await;
    let plain = a.publish("42", "plain").await;
    for (field, value) in [
        ("type", json!("GENERAL")),
        ("priority", json!("NORMAL")),
        ("message", json!("")),
        ("data", json!({})),
        ("actionUrl", json!(null)),
        ("silent", json!(false)),
        ("sticky", json!(false)),
        ("expiresAt", json!(null)),
    ] {
        assert_eq!(plain[field], value, "{field}");
    }
    let (_, urgent) = a
        .publish_body(json!({ "userId": "42", "title": "urgent", "priority": "URGENT" }))
        .await;
    assert_eq!(urgent["sticky"], true);
    let (_, calm) = a
        .publish_body(
            json!({ "userId": "42", "title": "calm", "priority": "URGENT", "sticky": false }),
        )
        .await;
    assert_eq!(calm["sticky"], false);
    assert_eq!(
        a.metric(r#"bellhop_notifications_created_total{priority="URGENT"}"#)
            .await,
        2.0
    );
    assert_eq!(
        a.metric(r#"bellhop_notifications_created_total{priority="NORMAL"}"#)
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sends_themselves_a_test() {
    let [a, b] = cluster().await;
    let mut device = b.connect("42").await;
    let (status, created) = a
        .as_user("42", Method::POST, "/api/notifications/test")
        .await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(device.expect("notification:new").await["id"], created["id"]);
    device.expect("notification:unread-count").await;

    let body = json!({ "title": "WebSocket Test", "message": "Testing real-time delivery", "type": "GENERAL", "priority": "HIGH" });
    let (status, _) = a
        .call(
            Method::POST,
            "/api/notifications/test",
            &a.token("42"),
            Some(body),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED);
    let heard = device.expect("notification:new").await;
    assert_eq!(
        (&heard["title"], &heard["priority"]),
        (&json!("WebSocket Test"), &json!("HIGH"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_from_the_newest_to_the_oldest_and_stand_still_while_more_come() {
    let [a] = cluster().await;
    for number in 1..=5 {
        a.publish("42", &number.to_string()).await;
    }
    let page = async |query: &str| {
        let (status, body) = a
            .as_user("42", Method::GET, &format!("{PATH}?{query}"))
            .await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let titles: Vec<_> = body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["title"].as_str().unwrap().to_owned())
            .collect();
        (
            titles.join(" "),
            body["nextCursor"].as_str().map(str::to_owned),
            body,
        )
    };

    let (titles, next, body) = page("limit=2").await;
    assert_eq!(
        (titles.as_str(), &body["unreadCount"], &body["seq"]),
        ("5 4", &json!(5), &json!(5))
    );
    a.publish("42", "6").await;
    let (titles, next, _) = page(&format!("limit=2&cursor={}", next.unwrap())).await;
    assert_eq!(titles, "3 2");
    let (titles, next, _) = page(&format!("limit=2&cursor={}", next.unwrap())).await;
    assert_eq!((titles.as_str(), next), ("1", None));
    assert_eq!(page("").await.0, "6 5 4 3 2 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_can_be_of_the_unread_or_of_one_type() {
    let [a] = cluster().await;
    let first = a.publish("42", "first").await;
    a.publish_body(json!({ "userId": "42", "title": "second", "type": "ORDER" }))
        .await;
    a.as_user("42", Method::PATCH, &at(&first, "/read")).await;
    for (query, titles) in [
        ("unread=true", json!(["second"])),
        ("unread=false", json!(["first"])),
        ("type=ORDER", json!(["second"])),
        ("type=NONE", json!([])),
    ] {
        let (_, body) = a
            .as_user("42", Method::GET, &format!("{PATH}?{query}"))
            .await;
        let found: Vec<_> = body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| &item["title"])
            .collect();
        assert_eq!(json!(found), titles, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_and_unread_are_idempotent_and_the_count_is_exact() {
    let [a] = cluster().await;
    let notification = a.publish("42", "one").await;
    a.publish("42", "two").await;
    let count = async || {
        a.as_user("42", Method::GET, "/api/notifications/unread-count")
            .await
            .1
    };
    assert_eq!(count().await, json!({ "count": 2, "seq": 2 }));

    for (act, is_read, seq, left) in [
        ("/read", true, 3, 1),
        ("/read", true, 3, 1),
        ("/unread", false, 4, 2),
        ("/unread", false, 4, 2),
    ] {
        let (status, body) = a
            .as_user("42", Method::PATCH, &at(&notification, act))
            .await;
        assert_eq!(
            (status, &body["isRead"], &body["seq"]),
            (StatusCode::OK, &json!(is_read), &json!(seq))
        );
        assert_eq!(body["readAt"].is_string(), is_read);
        assert_eq!(count().await, json!({ "count": left, "seq": seq }));
    }
    let (status, body) = a
        .as_user("42", Method::POST, "/api/notifications/read-all")
        .await;
    assert_eq!(
        (status, body),
        (
            StatusCode::OK,
            json!({ "updated": 2, "unreadCount": 0, "seq": 5 })
        )
    );
    assert_eq!(a.metric("bellhop_notifications_read_total").await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_is_204_as_long_as_it_is_remembered() {
    let [a] = cluster().await;
    let notification = a.publish("42", "one").await;
    for _ in 0..2 {
        assert_eq!(
            a.as_user("42", Method::DELETE, &at(&notification, ""))
                .await
                .0,
            StatusCode::NO_CONTENT
        );
    }
    assert_eq!(
        a.as_user("42", Method::GET, &at(&notification, "")).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        a.as_user("42", Method::PATCH, &at(&notification, "/read"))
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    a.publish("42", "two").await;
    let clear = async || a.as_user("42", Method::DELETE, PATH).await;
    assert_eq!(
        clear().await,
        (
            StatusCode::OK,
            json!({ "deleted": 1, "unreadCount": 0, "seq": 4 })
        )
    );
    assert_eq!(
        clear().await,
        (
            StatusCode::OK,
            json!({ "deleted": 0, "unreadCount": 0, "seq": 4 })
        )
    );
    assert_eq!(
        a.metric(r#"bellhop_notifications_deleted_total{reason="deleted"}"#)
            .await,
        2.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_notification_is_as_one_that_does_not_exist() {
    let [a] = cluster().await;
    let notification = a.publish("42", "one").await;
    let unknown = json!({ "id": "0198f1c2-0000-7000-8000-000000000000" });
    for (method, act) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::PATCH, "/read"),
        (Method::PATCH, "/unread"),
    ] {
        let (status, mut foreign) = a
            .as_user("7", method.clone(), &at(&notification, act))
            .await;
        let (_, mut missing) = a.as_user("7", method, &at(&unknown, act)).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        for body in [&mut foreign, &mut missing] {
            body.as_object_mut().unwrap().remove("requestId").unwrap();
        }
        assert_eq!(foreign, missing);
    }
    assert_eq!(
        a.as_user("42", Method::GET, "/api/notifications/unread-count")
            .await
            .1,
        json!({ "count": 1, "seq": 1 })
    );
}

async fn with_key(node: &TestNode, key: &str, body: Value) -> (StatusCode, bool, Value) {
    with_key_at(node, PATH, key, body).await
}

async fn with_key_at(
    node: &TestNode,
    path: &str,
    key: &str,
    body: Value,
) -> (StatusCode, bool, Value) {
    let request = node
        .request(Method::POST, path)
        .bearer_auth(node.publisher_token())
        .header("idempotency-key", key);
    let response = request.json(&body).send().await.unwrap();
    let replayed = response
        .headers()
        .get("idempotent-replayed")
        .is_some_and(|value| value == "true");
    (response.status(), replayed, response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_answer_also_when_it_has_expired_meanwhile() {
    let [a, b] = cluster().await;
    let mut device = b.connect("42").await;
    let soon = chrono::Utc::now() + chrono::TimeDelta::milliseconds(1_500);
    let body = |title| json!({ "userId": "42", "title": title, "expiresAt": soon.to_rfc3339() });
    let batch = json!({ "notifications": [body("in a batch")] });
    let (status, _, first) = with_key(&a, "key-1", body("once")).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    let (status, _, first_batch) = with_key_at(&a, BATCH, "key-1", batch.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{first_batch}");
    for _ in 0..2 {
        device.until("notification:deleted").await;
    }

    let (status, replayed, again) = with_key(&b, "key-1", body("once")).await;
    assert_eq!((status, replayed), (StatusCode::CREATED, true), "{again}");
    assert_eq!(again, first);
    let (status, replayed, again) = with_key_at(&b, BATCH, "key-1", batch).await;
    assert_eq!((status, replayed), (StatusCode::CREATED, true), "{again}");
    assert_eq!(again["items"], first_batch["items"]);
    for (key, title, code) in [
        ("key-1", "another", "idempotency_key_reused"),
        ("key-2", "once", "body_invalid"),
        ("key-2", "", "body_invalid"),
    ] {
        let (status, _, problem) = with_key(&b, key, body(title)).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(code)),
            "{key} {title}"
        );
    }
    let (status, problem) = a.publish_body(body("without a key")).await;
    assert_eq!(
        (status, &problem["errors"][0]["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("time_past"))
    );
    let (_, count) = a
        .as_user("42", Method::GET, "/api/notifications/unread-count")
        .await;
    assert_eq!(count["count"], 0, "{count}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_gets_the_first_answer_from_any_node() {
    let [a, b] = cluster().await;
    let mut device = b.connect("42").await;
    let body = json!({ "userId": "42", "title": "once" });

    let (status, replayed, first) = with_key(&a, "key-1", body.clone()).await;
    assert_eq!((status, replayed), (StatusCode::CREATED, false));
    a.as_user("42", Method::PATCH, &at(&first, "/read")).await;
    let (status, replayed, again) = with_key(&b, "key-1", body.clone()).await;
    assert_eq!((status, replayed), (StatusCode::CREATED, true));
    assert_eq!(again, first, "as it was created");

    let (status, _, problem) =
        with_key(&b, "key-1", json!({ "userId": "42", "title": "another" })).await;
    assert_eq!(
        (status, &problem["code"]),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            &json!("idempotency_key_reused")
        )
    );
    let (status, replayed, _) = with_key(&b, "key-2", body).await;
    assert_eq!((status, replayed), (StatusCode::CREATED, false));

    let seqs: Vec<_> = [
        device.until("notification:new").await,
        device.until("notification:new").await,
    ]
    .iter()
    .map(|heard| heard["seq"].clone())
    .collect();
    assert_eq!(seqs, [json!(1), json!(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_used_by_many_at_once_creates_one_notification() {
    let [a, b] = cluster().await;
    let body = json!({ "userIds": ["1", "2"], "title": "once" });
    let requests = (0..30).map(|number| {
        with_key(
            if number % 2 == 0 { &a } else { &b },
            "one-key",
            body.clone(),
        )
    });
    let answers = futures_util::future::join_all(requests).await;

    assert_eq!(
        answers.iter().filter(|(_, replayed, _)| !replayed).count(),
        1
    );
    for (status, _, answer) in &answers {
        assert_eq!(
            (status, &answer["items"]),
            (&StatusCode::CREATED, &answers[0].2["items"])
        );
    }
    assert_eq!(
        a.as_user("1", Method::GET, "/api/notifications/unread-count")
            .await
            .1,
        json!({ "count": 1, "seq": 1 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_cancels_nothing() {
    let [a] = cluster().await;
    let mut device = a.connect("42").await;
    let request = a
        .request(Method::POST, PATH)
        .bearer_auth(a.publisher_token())
        .json(&json!({ "userId": "42", "title": "Hello" }));
    // Dropped as soon as the request is under way; whether the server got it by then is open, but
    // what it began it ends: the device hears of it if and only if it is stored.
    let sending = request.send();
    tokio::select! {
        biased;
        _ = sending => {}
        () = tokio::task::yield_now() => {}
    }
    let second = a.publish("42", "second").await;
    let heard = device.expect("notification:new").await;
    let (_, list) = a.as_user("42", Method::GET, PATH).await;
    let stored: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["seq"].as_u64().unwrap())
        .collect();
    match second["seq"].as_u64().unwrap() {
        1 => assert_eq!(heard["title"], "second"),
        _ => assert_eq!(heard["title"], "Hello"),
    }
    assert!(stored.contains(&second["seq"].as_u64().unwrap()));
}
