//! What publishers see and do of one user: look, edit, withdraw, erase, ask to refresh, ask who is there.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{TestNode, cluster};

async fn publisher(
    node: &TestNode,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    node.call(method, path, &node.publisher_token(), body).await
}

fn of(user: &str, notification: &Value) -> String {
    let id = notification["id"].as_str().unwrap();
    format!("/api/users/{user}/notifications/{id}")
}

fn without_delivery(mut notification: Value) -> Value {
    notification.as_object_mut().unwrap().remove("delivery");
    notification
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_sees_whether_it_was_clicked() {
    let [a, b] = cluster().await;
    let created = a.publish("42", "one").await;
    let path = of("42", &created);
    let (status, seen) = publisher(&b, Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(seen, without_delivery(created.clone()));

    let mut device = b.connect("42").await;
    let click = format!(
        "/api/notifications/{}/click",
        created["id"].as_str().unwrap()
    );
    let (status, clicked) = a.as_user("42", Method::POST, &click).await;
    assert_eq!(status, StatusCode::OK, "{clicked}");
    assert_eq!(clicked["isRead"], true);
    assert!(clicked["clickedAt"].is_string() && clicked["readAt"].is_string());
    assert_eq!(device.until("notification:updated").await, clicked);
    let (_, again) = a.as_user("42", Method::POST, &click).await;
    assert_eq!(again, clicked, "the first click stays");
    let (_, seen) = publisher(&b, Method::GET, &path, None).await;
    assert_eq!(seen, clicked);
    assert_eq!(a.metric("bellhop_notifications_clicked_total").await, 1.0);

    let foreign = a.as_user("7", Method::POST, &click).await;
    assert_eq!(foreign.0, StatusCode::NOT_FOUND);
    let foreign = publisher(&a, Method::GET, &of("7", &created), None).await;
    assert_eq!(foreign.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_reaches_the_devices_and_keeps_what_is_left_out() {
    let [a, b] = cluster().await;
    let mut device = b.connect("42").await;
    let body = json!({ "userId": "42", "title": "old", "message": "kept", "actionUrl": "/a", "icon": "/i.png",
        "data": { "a": 1 }, "expiresAt": "2099-01-01T00:00:00Z" });
    let (_, created) = a.publish_body(body).await;
    let path = of("42", &created);
    let edit = json!({ "title": "new", "actionUrl": null, "data": null, "expiresAt": null, "badge": "/b.png" });
    let (status, edited) = publisher(&a, Method::PATCH, &path, Some(edit.clone())).await;

    assert_eq!(status, StatusCode::OK, "{edited}");
    let mut expected = without_delivery(created);
    for (field, value) in [
        ("title", json!("new")),
        ("actionUrl", json!(null)),
        ("data", json!({})),
        ("expiresAt", json!(null)),
        ("badge", json!("/b.png")),
        ("seq", json!(2)),
    ] {
        expected[field] = value;
    }
    assert_eq!(edited, expected);
    assert_eq!(device.until("notification:updated").await, expected);

    let (status, again) = publisher(&b, Method::PATCH, &path, Some(edit)).await;
    assert_eq!((status, again), (StatusCode::OK, expected), "no new seq");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_has_the_rules_of_a_draft() {
    let [a] = cluster().await;
    let created = a.publish("42", "one").await;
    let path = of("42", &created);
    for (body, pointers) in [
        (json!({}), vec![""]),
        (json!([]), vec![""]),
        (json!({ "title": null, "message": null }), vec!["/title"]),
        (
            json!({ "title": " ", "icon": "//evil", "expiresAt": "2001-01-01T00:00:00Z", "type": "X" }),
            vec!["/title", "/icon", "/expiresAt", "/type"],
        ),
    ] {
        let (status, problem) = publisher(&a, Method::PATCH, &path, Some(body.clone())).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        let found: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(found, pointers, "{body}");
    }
    let edit = Some(json!({ "title": "x" }));
    let missing = "/api/users/42/notifications/0198f1c2-0000-7000-8000-000000000000";
    for path in [missing, "/api/users/42/notifications/7", &of("7", &created)] {
        let (status, _) = publisher(&a, Method::PATCH, path, edit.clone()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    let (_, seen) = publisher(&a, Method::GET, &path, None).await;
    assert_eq!(seen, without_delivery(created));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_is_gone_for_the_user_and_said_so() {
    let [a, b] = cluster().await;
    let mut device = b.connect("42").await;
    let created = a.publish("42", "one").await;
    let path = of("42", &created);
    for _ in 0..2 {
        let (status, _) = publisher(&a, Method::DELETE, &path, None).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    assert_eq!(
        device.until("notification:deleted").await,
        json!({ "id": created["id"], "seq": 2, "reason": "withdrawn" })
    );
    let count = device.until("notification:unread-count").await;
    assert_eq!(count, json!({ "count": 0, "seq": 2 }));
    let seen = publisher(&a, Method::GET, &path, None).await;
    assert_eq!(seen.0, StatusCode::NOT_FOUND);
    let unknown = "/api/users/42/notifications/0198f1c2-0000-7000-8000-000000000000";
    let (status, _) = publisher(&a, Method::DELETE, unknown, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_goes_on_from_where_the_counter_was() {
    let [a, b] = cluster().await;
    let mut device = b.connect("42").await;
    for title in ["one", "two"] {
        a.publish("42", title).await;
    }
    let (status, _) = publisher(&a, Method::DELETE, "/api/users/42", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let refresh = device.until("notification:refresh").await;
    assert_eq!(
        (&refresh["reason"], &refresh["seq"]),
        (&json!("cleared"), &json!(3))
    );
    let (_, list) = a.as_user("42", Method::GET, "/api/notifications").await;
    assert_eq!(
        (&list["items"], &list["seq"], &list["unreadCount"]),
        (&json!([]), &json!(3), &json!(0))
    );
    let again = publisher(&a, Method::DELETE, "/api/users/42", None).await;
    assert_eq!(again.0, StatusCode::NO_CONTENT);
    let unknown = publisher(&a, Method::DELETE, "/api/users/nobody", None).await;
    assert_eq!(unknown.0, StatusCode::NO_CONTENT);
    assert!(a.publish("42", "three").await["seq"].as_u64() > Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_asks_devices_to_refresh() {
    let [a, b] = cluster().await;
    a.publish("42", "one").await;
    let mut device = b.connect("42").await;
    let (status, body) = publisher(&a, Method::POST, "/api/users/42/refresh", None).await;
    assert_eq!(
        (status, body),
        (StatusCode::ACCEPTED, json!({ "delivery": "live" }))
    );
    let refresh = device.until("notification:refresh").await;
    assert_eq!(
        (&refresh["reason"], &refresh["seq"]),
        (&json!("requested"), &json!(1))
    );
    let nobody = publisher(&a, Method::POST, "/api/users/nobody/refresh", None).await;
    assert_eq!(nobody.0, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_counts_the_sockets_of_all_nodes() {
    let [a, b] = cluster().await;
    let presence = async |user: &str| {
        let path = format!("/api/users/{user}/presence");
        publisher(&a, Method::GET, &path, None).await
    };
    let _devices = (
        a.connect("42").await,
        b.connect("42").await,
        b.connect("42").await,
    );
    let (status, body) = presence("42").await;
    assert_eq!(
        (status, body),
        (
            StatusCode::OK,
            json!({ "online": true, "sockets": 3, "complete": true })
        )
    );
    let (_, body) = presence("7").await;
    assert_eq!(
        body,
        json!({ "online": false, "sockets": 0, "complete": true })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inspection_tells_all_but_what_was_written() {
    let [a] = cluster().await;
    let first = a.publish("42", "secret-title").await;
    a.publish("42", "secret-title").await;
    a.as_user("42", Method::POST, "/api/notifications/read-all")
        .await;
    publisher(&a, Method::DELETE, &of("42", &first), None).await;

    let (status, body) = publisher(&a, Method::GET, "/api/users/42", None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, list) = a.as_user("42", Method::GET, "/api/notifications").await;
    for (field, value) in [
        ("userId", json!("42")),
        ("seq", json!(4)),
        ("floorSeq", json!(0)),
        ("unreadCount", json!(0)),
        ("readAllSeq", json!(3)),
        ("clearedSeq", json!(0)),
        ("validAfter", json!(null)),
        ("epoch", list["epoch"].clone()),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
    let changes = body["changes"].as_array().unwrap();
    assert_eq!((changes.len(), body.as_object().unwrap().len()), (2, 9));
    assert_eq!(
        (
            &changes[0]["id"],
            &changes[0]["seq"],
            &changes[0]["deleteReason"]
        ),
        (&first["id"], &json!(4), &json!("withdrawn"))
    );
    assert!(!body.to_string().contains("secret-title"));

    let (_, one) = publisher(&a, Method::GET, "/api/users/42?limit=1", None).await;
    assert_eq!(one["changes"].as_array().unwrap().len(), 1);
    let (status, nobody) = publisher(&a, Method::GET, "/api/users/nobody", None).await;
    assert_eq!((status, &nobody["seq"]), (StatusCode::OK, &json!(0)));
    for query in ["limit=0", "limit=201", "limt=1"] {
        let (status, _) = publisher(&a, Method::GET, &format!("/api/users/42?{query}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_in_a_path_is_decoded_once() {
    let [a] = cluster().await;
    let created = a.publish("a@b:c~1", "one").await;
    let id = created["id"].as_str().unwrap();
    for spelled in ["a@b:c~1", "a%40b%3Ac%7E1"] {
        let path = format!("/api/users/{spelled}/notifications/{id}");
        let (status, _) = publisher(&a, Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{spelled}");
    }
    let long = "x".repeat(129);
    for wrong in [
        "a%2540b", "a%2Fb", "a%20b", "%00", "%FF", "%C3%A9", "*", &long,
    ] {
        for (method, act) in [
            (Method::GET, ""),
            (Method::DELETE, ""),
            (Method::GET, "/presence"),
            (Method::POST, "/refresh"),
            (Method::POST, "/disconnect"),
        ] {
            let path = format!("/api/users/{wrong}{act}");
            let (status, body) = publisher(&a, method, &path, None).await;
            assert_eq!(
                (status, &body["code"]),
                (StatusCode::BAD_REQUEST, &json!("user_id_invalid")),
                "{path}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_may_not_do_what_publishers_do() {
    let [a] = cluster().await;
    let created = a.publish("42", "one").await;
    let one = of("42", &created);
    for (method, path) in [
        (Method::GET, one.as_str()),
        (Method::PATCH, &one),
        (Method::DELETE, &one),
        (Method::GET, "/api/users/42"),
        (Method::DELETE, "/api/users/42"),
        (Method::POST, "/api/users/42/refresh"),
        (Method::POST, "/api/users/42/disconnect"),
        (Method::GET, "/api/users/42/presence"),
    ] {
        let own = a.as_user("42", method.clone(), path).await;
        assert_eq!(own.0, StatusCode::FORBIDDEN, "{method} {path}");
        let nobody = a.request(method.clone(), path).send().await.unwrap();
        assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
    }
}
