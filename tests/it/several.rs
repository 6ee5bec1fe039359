//! More than one Redis: each has some of the users, and the loss of one is felt by these alone.

use serde_json::json;

use crate::client::TestClient;
use crate::cluster::{Backing, TestNode};
use crate::databases;
use crate::outage::{host, through};
use crate::proxy::Proxy;

/// Nodes that share two of them, each behind a proxy; `None` without services.
async fn two() -> Option<(Backing, [Proxy; 2])> {
    if databases::setting("TEST_STORE").as_deref() != Some("postgres") {
        return None;
    }
    let urls =
        ["TEST_REDIS_URL", "TEST_SECOND_REDIS_URL"].map(|name| databases::setting(name).unwrap());
    let proxies = [
        Proxy::to(&host(&urls[0])).await,
        Proxy::to(&host(&urls[1])).await,
    ];
    let list = format!(
        "--redis-url={}, {}",
        through(&proxies[0], &urls[0]),
        through(&proxies[1], &urls[1])
    );
    let mut backing = Backing::postgres().await;
    backing
        .arguments
        .retain(|argument| !argument.starts_with("--redis-url"));
    backing.arguments.push(list);
    Some((backing, proxies))
}

/// Two nodes that have joined, and a device of each user on the second.
async fn nodes_and_devices(backing: &Backing) -> ([TestNode; 2], Vec<TestClient>) {
    let nodes = [backing.node(&[]).await, backing.node(&[]).await];
    for node in &nodes {
        node.metric_becomes("bellhop_redis_up", 1.0).await;
    }
    let mut devices = Vec::new();
    for user in 0..USERS {
        devices.push(nodes[1].connect(&user.to_string()).await);
    }
    (nodes, devices)
}

const USERS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn every_user_is_reached_and_everybody_once() {
    let Some((backing, _proxies)) = two().await else {
        return;
    };
    let ([a, b], mut devices) = nodes_and_devices(&backing).await;
    let subscribed = b.metric("bellhop_bus_subscriptions").await;
    assert_eq!(subscribed, USERS as f64, "over all links");

    let everyone = json!({ "broadcast": true, "event": "test:all", "payload": 1 });
    assert_eq!(a.emit(everyone).await.1["delivery"], "live");
    for (user, device) in devices.iter_mut().enumerate() {
        let published = a.publish(&user.to_string(), "hello").await;
        assert_eq!(published["delivery"], "live");
        device.until("test:all").await;
        // The next: it came once.
        device.expect("notification:new").await;
    }
    let presence = |user: usize| format!("/api/users/{user}/presence");
    for user in 0..USERS {
        let token = a.publisher_token();
        let answer = a
            .call(reqwest::Method::GET, &presence(user), &token, None)
            .await;
        assert_eq!(answer.1["online"], true, "{}", answer.1);
        assert_eq!(answer.1["complete"], true, "{}", answer.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_is_away_its_own_users_wait_for_the_feed_and_the_others_do_not() {
    let Some((backing, proxies)) = two().await else {
        return;
    };
    let ([a, b], mut devices) = nodes_and_devices(&backing).await;

    proxies[1].cut();
    for node in [&a, &b] {
        node.metric_becomes("bellhop_redis_up", 0.0).await;
    }
    let mut deferred = 0;
    for (user, device) in devices.iter_mut().enumerate() {
        let published = a.publish(&user.to_string(), "meanwhile").await;
        let heard = device.until("notification:new").await;
        assert_eq!(heard["id"], published["id"]);
        deferred += usize::from(published["delivery"] == "deferred");
    }
    assert!((1..USERS).contains(&deferred), "{deferred} of {USERS}");
    // What goes to everybody goes by the other.
    let everyone = json!({ "broadcast": true, "event": "test:all", "payload": 1 });
    assert_eq!(a.emit(everyone).await.1["delivery"], "live");
    for device in &mut devices {
        device.until("test:all").await;
    }

    proxies[1].heal();
    for node in [&a, &b] {
        node.metric_becomes("bellhop_redis_up", 1.0).await;
        node.metric_becomes("bellhop_degraded", 0.0).await;
    }
    for (user, device) in devices.iter_mut().enumerate() {
        let published = a.publish(&user.to_string(), "after").await;
        assert_eq!(published["delivery"], "live");
        assert_eq!(device.until("notification:new").await["seq"], 2);
    }
}
