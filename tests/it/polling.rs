//! Clients without a socket: what they are told to do, unchanged answers without a body, no typo unnoticed.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::cluster::{TestNode, cluster, cluster_with};

const COUNT: &str = "/api/notifications/unread-count";
const CHANGES: &str = "/api/notifications/changes?since=0";

async fn get(node: &TestNode, path: &str, known: Option<&str>) -> (StatusCode, String, String) {
    let mut request = node
        .request(Method::GET, path)
        .bearer_auth(node.token("42"));
    if let Some(known) = known {
        request = request.header(header::IF_NONE_MATCH, known);
    }
    let response = request.send().await.unwrap();
    let headers = response.headers().clone();
    assert_eq!(headers[header::CACHE_CONTROL], "private, no-cache");
    let vary: Vec<_> = headers.get_all(header::VARY).iter().collect();
    assert!(
        vary.iter().any(|value| *value == "Authorization"),
        "{vary:?}"
    );
    let tag = headers[header::ETAG].to_str().unwrap().to_owned();
    (response.status(), tag, response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_answer_has_no_body() {
    let [a, b] = cluster().await;
    a.publish("42", "one").await;
    for path in [COUNT, CHANGES] {
        let (status, tag, body) = get(&a, path, None).await;
        assert_eq!(status, StatusCode::OK);
        assert!(!body.is_empty() && tag.starts_with('"'), "{tag}");
        for known in [&tag, "*", &format!("W/{tag}"), &format!("\"x\", {tag}")] {
            let (status, again, body) = get(&b, path, Some(known)).await;
            assert_eq!(
                (status, again.as_str(), body.as_str()),
                (StatusCode::NOT_MODIFIED, tag.as_str(), ""),
                "{path} {known}"
            );
        }
        a.publish("42", "another").await;
        let (status, changed, _) = get(&b, path, Some(&tag)).await;
        assert_eq!(status, StatusCode::OK);
        assert_ne!(changed, tag);
    }
    let (_, count, _) = get(&a, COUNT, None).await;
    let theirs = a
        .request(Method::GET, COUNT)
        .bearer_auth(a.token("7"))
        .header(header::IF_NONE_MATCH, &count);
    assert_eq!(theirs.send().await.unwrap().status(), StatusCode::OK);
    let nobody = a
        .request(Method::GET, COUNT)
        .header(header::IF_NONE_MATCH, "*");
    assert_eq!(
        nobody.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_how_to_connect() {
    let [a] = cluster().await;
    let fetch = async |node: &TestNode| {
        let request = node.request(Method::GET, "/api/client-config");
        let response = request
            .header("origin", "https://app.example.com")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()[header::CACHE_CONTROL],
            "public, max-age=60"
        );
        let allowed = response
            .headers()
            .contains_key("access-control-allow-origin");
        (allowed, response.json::<Value>().await.unwrap())
    };
    let (allowed, config) = fetch(&a).await;
    assert!(!allowed);
    assert_eq!(
        config,
        json!({ "websocketUrl": null, "enableWebsocket": true, "path": "/socket.io/",
            "transports": ["websocket", "polling"], "pollIntervalMs": 60_000 })
    );
    let [b] = cluster_with(&[
        "--websocket-url=wss://push.example.com",
        "--enable-websocket=false",
        "--socket-io-path=/push/",
        "--socket-io-transports=polling",
        "--cors-origins=https://app.example.com",
    ])
    .await;
    let (allowed, config) = fetch(&b).await;
    assert!(allowed);
    assert_eq!(
        config,
        json!({ "websocketUrl": "wss://push.example.com", "enableWebsocket": false, "path": "/push/",
            "transports": ["polling"], "pollIntervalMs": 60_000 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_a_route_has_not_is_refused() {
    let [a] = cluster().await;
    let created = a.publish("42", "one").await;
    let id = created["id"].as_str().unwrap();
    let (user, publisher) = (a.token("42"), a.publisher_token());
    let one = format!("/api/notifications/{id}");
    for (method, path, token) in [
        (Method::GET, "/api/notifications", &user),
        (Method::DELETE, "/api/notifications", &user),
        (Method::POST, "/api/notifications", &publisher),
        (Method::POST, "/api/notifications/batch", &publisher),
        (Method::POST, "/api/notifications/test", &user),
        (Method::GET, COUNT, &user),
        (Method::GET, "/api/notifications/changes", &user),
        (Method::POST, "/api/notifications/read-all", &user),
        (Method::GET, &one, &user),
        (Method::DELETE, &one, &user),
        (Method::PATCH, &format!("{one}/read"), &user),
        (Method::POST, &format!("{one}/click"), &user),
        (Method::POST, "/api/emit", &publisher),
        (Method::GET, "/api/users/42", &publisher),
        (Method::DELETE, "/api/users/42", &publisher),
        (Method::POST, "/api/users/42/refresh", &publisher),
        (Method::POST, "/api/users/42/disconnect", &publisher),
        (Method::GET, "/api/users/42/presence", &publisher),
        (Method::GET, "/api/client-config", &user),
    ] {
        let path = format!("{path}?unraed=true");
        let (status, body) = a.call(method.clone(), &path, token, None).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::BAD_REQUEST, &json!("query_invalid")),
            "{method} {path}"
        );
        let error = &body["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!("/unraed"), &json!("unknown_parameter")),
            "{method} {path}"
        );
    }
    let (_, list) = a.as_user("42", Method::GET, "/api/notifications?").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}
