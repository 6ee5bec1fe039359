//! Many notifications in one request: all of them or none, each user's in their order.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{TestNode, cluster};

const PATH: &str = "/api/notifications/batch";

async fn batch(node: &TestNode, notifications: Value) -> (StatusCode, Value) {
    let body = json!({ "notifications": notifications });
    let token = node.publisher_token();
    node.call(Method::POST, PATH, &token, Some(body)).await
}

async fn count(node: &TestNode, user: &str) -> Value {
    node.as_user(user, Method::GET, "/api/notifications/unread-count")
        .await
        .1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reaches_each_user_in_order_from_any_node() {
    let [a, b] = cluster().await;
    let mut device = b.connect("42").await;
    let mut other = a.connect("7").await;
    let (status, body) = batch(
        &a,
        json!([
            { "userId": "42", "title": "first" },
            { "userId": 7, "title": "theirs", "priority": "URGENT" },
            { "userId": "42", "title": "second", "data": { "n": 2 } },
        ]),
    )
    .await;

    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert!(body["delivery"] == "live" || body["delivery"] == "deferred");
    let items = body["items"].as_array().unwrap();
    let spelled: Vec<_> = items
        .iter()
        .map(|item| (item["userId"].clone(), item["seq"].clone()))
        .collect();
    assert_eq!(
        spelled,
        [
            (json!("42"), json!(1)),
            (json!("7"), json!(1)),
            (json!("42"), json!(2))
        ]
    );
    for (title, seq) in [("first", 1), ("second", 2)] {
        let heard = device.until("notification:new").await;
        assert_eq!(
            (&heard["title"], &heard["seq"]),
            (&json!(title), &json!(seq))
        );
    }
    assert_eq!(other.until("notification:new").await["sticky"], true);
    assert_eq!(count(&b, "42").await, json!({ "count": 2, "seq": 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_breaks_a_rule_stops_them_all() {
    let [a] = cluster().await;
    let (status, body) = batch(
        &a,
        json!([{ "userId": "42", "title": "fine" }, { "userId": "a b", "title": "" }, 7, { "title": "x", "colour": 1 }]),
    )
    .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let pointers: Vec<_> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(
        pointers,
        [
            "/notifications/1/userId",
            "/notifications/1/title",
            "/notifications/2",
            "/notifications/3/userId",
            "/notifications/3/colour"
        ]
    );
    for notifications in [json!([]), json!(null), json!({}), json!(vec![0; 1_001])] {
        let (status, _) = batch(&a, notifications).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let forbidden = a
        .call(Method::POST, PATH, &a.token("42"), Some(json!({})))
        .await;
    assert_eq!(forbidden.0, StatusCode::FORBIDDEN);
    assert_eq!(count(&a, "42").await, json!({ "count": 0, "seq": 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_be_large_and_other_bodies_may_not() {
    let [a] = cluster().await;
    let one =
        |number: usize| json!({ "userId": number, "title": "x", "message": "y".repeat(2_000) });
    let thousand: Vec<_> = (0..1_000).map(one).collect();
    let (status, body) = batch(&a, json!(thousand)).await;
    assert_eq!(status, StatusCode::CREATED, "{body:.200}");
    assert_eq!(body["items"].as_array().unwrap().len(), 1_000);
    assert_eq!(body["items"][999]["userId"], "999");

    let one =
        |number: usize| json!({ "userId": number, "title": "x", "message": "y".repeat(2_100) });
    let more: Vec<_> = (0..1_000).map(one).collect();
    let (status, body) = batch(&a, json!(more)).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large"))
    );
    let body = json!({ "userId": "42", "event": "x", "payload": "y".repeat(300_000) });
    assert_eq!(a.emit(body).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_gets_the_first_batch_and_no_other_paths() {
    let [a, b] = cluster().await;
    let body = json!({ "notifications": [{ "userId": "42", "title": "1" }, { "userId": "42", "title": "2" }] });
    let send = async |node: &TestNode, path: &str, body: &Value| {
        let request = node
            .request(Method::POST, path)
            .bearer_auth(node.publisher_token());
        let response = request.header("idempotency-key", "k").json(body);
        let response = response.send().await.unwrap();
        let replayed = response.headers().contains_key("idempotent-replayed");
        let status = response.status();
        (status, replayed, response.json::<Value>().await.unwrap())
    };
    let (status, replayed, first) = send(&a, PATH, &body).await;
    assert_eq!((status, replayed), (StatusCode::CREATED, false));
    let (status, replayed, again) = send(&b, PATH, &body).await;
    assert_eq!((status, replayed), (StatusCode::CREATED, true));
    assert_eq!(again["items"], first["items"]);
    let (status, _, problem) = send(&b, PATH, &json!({ "notifications": [] })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    let one = json!({ "userId": "42", "title": "another path" });
    let (status, replayed, _) = send(&a, "/api/notifications", &one).await;
    assert_eq!((status, replayed), (StatusCode::CREATED, false));
    assert_eq!(count(&a, "42").await, json!({ "count": 3, "seq": 3 }));
}
