//! The database or Redis away: what is answered meanwhile, and that all is well again afterwards.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::cluster::Backing;
use crate::proxy::Proxy;

/// Host and port of a URL.
pub fn host(url: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
}

/// The same URL by way of the proxy.
pub fn through(proxy: &Proxy, url: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    url.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_publishing_is_503_and_sockets_stay() {
    let Some((backing, database, _)) = Backing::behind_proxies().await else {
        return;
    };
    let a = backing.node(&[]).await;
    let mut device = a.connect("42").await;
    a.publish("42", "before").await;
    device.until("notification:unread-count").await;

    database.cut();
    let request = a
        .request(Method::POST, "/api/notifications")
        .bearer_auth(a.publisher_token());
    let response = request
        .json(&json!({ "userId": "42", "title": "meanwhile" }))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(
        response.json::<serde_json::Value>().await.unwrap()["code"],
        "storage_unavailable"
    );
    assert!(
        a.metric(r#"bellhop_store_errors_total{kind="unavailable"}"#)
            .await
            >= 1.0
    );
    assert_eq!(
        device.call("notification:read-all", json!({})).await["code"],
        "storage_unavailable"
    );
    // Accepted; what it is told waits for the store.
    let mut late = a
        .connect_with(json!({ "token": a.token("42"), "lastSeq": 0 }))
        .await;
    device.hears_nothing(&a, "42").await;
    let ready = reqwest::get(format!("{}/readyz", a.admin))
        .await
        .unwrap()
        .status();
    assert_eq!(
        ready,
        StatusCode::OK,
        "readiness is not the health of what all nodes share"
    );

    database.heal();
    assert_eq!(late.expect("notification:new").await["title"], "before");
    late.until("notification:synced").await;
    a.publish("42", "after").await;
    for device in [&mut device, &mut late] {
        assert_eq!(device.until("notification:new").await["seq"], 2);
    }
}

/// Whether a token is revoked, only the database knows: who was here before goes on, an API key needs nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_known_publishers_go_on_emitting() {
    let Some((backing, database, _)) = Backing::behind_proxies().await else {
        return;
    };
    let key = crate::keys::configured(&[("shop", "key-1")]);
    let a = backing.node(&[&key]).await;
    let mut device = a.connect("42").await;
    let emit = async |request: reqwest::RequestBuilder| {
        let body = json!({ "userId": "42", "event": "test:emit", "payload": 1 });
        request.json(&body).send().await.unwrap().status()
    };
    let token = |user: &str| {
        let now = crate::auth::now();
        let scope = "notifications:publish";
        let claims = json!({ "sub": user, "iat": now, "exp": now + 600, "scope": scope });
        crate::auth::sign(&claims, crate::cluster::SECRET)
    };
    let request = || a.request(Method::POST, "/api/emit");
    let known = token("known");
    let accepted = emit(request().bearer_auth(&known)).await;
    assert_eq!(accepted, StatusCode::ACCEPTED);

    database.cut();
    let unknown = emit(request().bearer_auth(token("unknown"))).await;
    assert_eq!(unknown, StatusCode::SERVICE_UNAVAILABLE);
    for request in [
        request().bearer_auth(&known),
        request().header("x-api-key", "key-1"),
    ] {
        assert_eq!(emit(request).await, StatusCode::ACCEPTED);
    }
    for _ in 0..3 {
        device.until("test:emit").await;
    }
    let own = a.as_user("42", Method::POST, "/api/notifications/test");
    assert_eq!(own.await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_local_devices_are_served_and_others_catch_up() {
    let Some((backing, _database, redis)) = Backing::behind_proxies().await else {
        return;
    };
    let (a, b) = (backing.node(&[]).await, backing.node(&[]).await);
    for node in [&a, &b] {
        node.metric_becomes("bellhop_redis_up", 1.0).await;
    }
    let mut near = a.connect("42").await;
    let mut far = b.connect("42").await;

    redis.cut();
    for node in [&a, &b] {
        node.metric_becomes("bellhop_redis_up", 0.0).await;
    }
    let published = a.publish("42", "meanwhile").await;
    assert_eq!(published["delivery"], "deferred");
    assert!(
        a.metric(r#"bellhop_bus_errors_total{kind="publish"}"#)
            .await
            >= 1.0
    );
    assert_eq!(near.expect("notification:new").await["title"], "meanwhile");
    near.expect("notification:unread-count").await;
    for node in [&a, &b] {
        let ready = reqwest::get(format!("{}/readyz", node.admin));
        assert_eq!(ready.await.unwrap().status(), StatusCode::OK);
    }
    // A device that connects meanwhile is served too.
    let mut late = b
        .connect_with(json!({ "token": b.token("42"), "lastSeq": 0 }))
        .await;
    assert_eq!(late.expect("notification:new").await["title"], "meanwhile");
    assert_eq!(
        a.emit(json!({ "userId": "42", "event": "x", "payload": 1 }))
            .await
            .1,
        json!({ "delivery": "local" })
    );
    near.expect("x").await;

    // Without a bus the feed brings it.
    assert_eq!(far.expect("notification:new").await["title"], "meanwhile");
    assert_eq!(
        far.expect("notification:unread-count").await,
        json!({ "count": 1, "seq": 1 })
    );
    redis.heal();
    for node in [&a, &b] {
        node.metric_becomes("bellhop_degraded", 0.0).await;
    }
    assert_eq!(a.publish("42", "after").await["delivery"], "live");
    for device in [&mut near, &mut far] {
        assert_eq!(device.until("notification:new").await["title"], "after");
    }
    assert!(b.metric("bellhop_bus_reconnections_total").await >= 1.0);
    assert!(
        b.metric(r#"bellhop_repaired_changes_total{kind="feed"}"#)
            .await
            >= 1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_its_database_and_does_not_wait_for_redis() {
    let Some((backing, database, redis)) = Backing::behind_proxies().await else {
        return;
    };
    database.cut();
    redis.cut();
    let admin = format!("--admin-listen={}", free_address().await);
    let settings = [admin.as_str()];
    let starting = backing.node(&settings);
    let probing = async {
        let admin = admin.replace("--admin-listen=", "http://");
        let probe = async |path: &str| {
            reqwest::get(format!("{admin}{path}"))
                .await
                .map(|answer| answer.status())
        };
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(10));
        while probe("/livez").await.is_err() {
            pause.tick().await;
        }
        assert_eq!(probe("/livez").await.unwrap(), StatusCode::OK);
        assert_eq!(
            probe("/startupz").await.unwrap(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(
            probe("/readyz").await.unwrap(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        database.heal();
    };
    let (a, ()) = tokio::join!(starting, probing);

    assert_eq!(
        reqwest::get(format!("{}/startupz", a.admin))
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
    let mut device = a.connect("42").await;
    assert_eq!(a.publish("42", "Hello").await["delivery"], "deferred");
    device.until("notification:new").await;
    redis.heal();
    a.metric_becomes("bellhop_redis_up", 1.0).await;
}

/// A client must be able to renew its token then; what nobody could look up is looked up as soon as somebody can.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_that_came_in_while_the_database_was_away_goes_when_it_is_back() {
    let Some((backing, database, _)) = Backing::behind_proxies().await else {
        return;
    };
    let a = backing.node(&[]).await;
    let now = crate::auth::now();
    let token = |age: i64| {
        let issued = now.saturating_add_signed(age);
        let claims = json!({ "sub": "42", "iat": issued, "exp": now + 600 });
        crate::auth::sign(&claims, crate::cluster::SECRET)
    };
    let mut device = a.connect_with(json!({ "token": token(5) })).await;
    device.until("notification:synced").await;
    // Behind the node's back, as if the bus had lost it.
    let user = bellhop::user::UserId::try_from("42").unwrap();
    backing.store().await.revoke(&user).await.unwrap();

    database.cut();
    let renewed = device
        .call("auth:refresh", json!({ "token": token(-60) }))
        .await;
    assert_eq!(renewed["ok"], true);
    let read = device.call("notification:read-all", json!({})).await;
    assert_eq!(read["code"], "storage_unavailable");
    database.heal();
    device.ends().await;
    let kicked = r#"bellhop_connections_closed_total{transport="websocket",reason="kicked"}"#;
    a.metric_becomes(kicked, 1.0).await;
}

async fn free_address() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Backing {
    /// PostgreSQL and Redis, each behind a proxy. `None` on SQLite, which has no network to cut.
    pub async fn behind_proxies() -> Option<(Self, Proxy, Proxy)> {
        let mut backing = Self::fresh().await;
        let find = |name: &str| {
            backing
                .arguments
                .iter()
                .position(|argument| argument.starts_with(name))
        };
        let (database, redis) = (find("--database-url=")?, find("--redis-url=")?);
        let mut proxies = Vec::new();
        for index in [database, redis] {
            let (name, url) = backing.arguments[index].split_once('=').unwrap();
            let proxy = Proxy::to(&host(url)).await;
            backing.arguments[index] = format!("{name}={}", through(&proxy, url));
            proxies.push(proxy);
        }
        let redis = proxies.pop()?;
        Some((backing, proxies.pop()?, redis))
    }
}
