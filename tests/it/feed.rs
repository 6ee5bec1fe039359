//! Whatever the bus loses, and however silently, the feed brings: within 7 s, and within 2.5 s where nothing else does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop::store::{Address, Batch, Store};
use bellhop::user::UserId;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::cluster::{Backing, TestNode, cluster};
use crate::databases;

/// Of the promise, for what the bus lost.
const BOUND: Duration = Duration::from_secs(7);

/// Of the promise, while there is no bus.
const SHORT_BOUND: Duration = Duration::from_millis(2_500);

const FEED_REPAIRS: &str = r#"bellhop_repairs_total{kind="feed"}"#;

pub fn user(id: &str) -> UserId {
    UserId::try_from(id).unwrap()
}

/// Writes beside the nodes: as if the news of it were lost, and nobody had noticed.
pub async fn create_unheard(store: &Store, to: &str) {
    let batch = Batch {
        drafts: vec![Arc::new(crate::store::draft("unheard"))],
        to: vec![Address {
            user: user(to),
            id: Uuid::now_v7(),
            draft: 0,
        }],
    };
    store.create(&batch, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_bus_lost_silently_arrives() {
    let backing = Backing::fresh().await;
    let a = backing.node(&[]).await;
    let mut device = a.connect("42").await;
    let mut other = a.connect("7").await;
    let store = backing.store().await;
    let start = Instant::now();
    create_unheard(&store, "42").await;
    create_unheard(&store, "42").await;
    for seq in [1, 2] {
        assert_eq!(device.expect("notification:new").await["seq"], seq);
    }
    assert_eq!(
        device.expect("notification:unread-count").await,
        json!({ "count": 2, "seq": 2 })
    );
    assert!(start.elapsed() <= BOUND, "{:?}", start.elapsed());
    assert_eq!(a.metric(FEED_REPAIRS).await, 1.0);
    other.hears_nothing(&a, "7").await;
    assert!(a.metric("bellhop_feed_lag_seconds").await < BOUND.as_secs_f64());
    assert_eq!(a.metric("bellhop_degraded").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_and_an_import_that_nobody_was_told_of_arrive() {
    let backing = Backing::fresh().await;
    let a = backing.node(&[]).await;
    let mut revoked = a.connect("revoked").await;
    let mut device = a.connect("imported").await;
    let store = backing.store().await;
    let start = Instant::now();
    store.revoke(&user("revoked")).await.unwrap();
    let old = crate::store::import::old("imported");
    store.import(&[old]).await.unwrap();
    let refresh = device.expect("notification:refresh").await;
    assert_eq!(
        (&refresh["reason"], &refresh["seq"]),
        (&json!("gap"), &json!(1))
    );
    revoked.ends().await;
    assert!(start.elapsed() <= BOUND, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_share_a_database_and_no_bus_hear_of_each_other() {
    let Some((mut backing, _database, _redis)) = Backing::behind_proxies().await else {
        return;
    };
    backing
        .arguments
        .retain(|argument| !argument.starts_with("--redis-url"));
    let (a, b) = (backing.node(&[]).await, backing.node(&[]).await);
    let mut near = a.connect("42").await;
    let mut far = b.connect("42").await;
    for round in 1..=5 {
        let start = Instant::now();
        a.publish("42", "Hello").await;
        assert_eq!(near.until("notification:new").await["seq"], round);
        assert_eq!(far.until("notification:new").await["seq"], round);
        assert!(start.elapsed() <= SHORT_BOUND, "{:?}", start.elapsed());
    }
    assert!(b.metric(FEED_REPAIRS).await >= 1.0);
    assert_eq!(
        a.metric(FEED_REPAIRS).await,
        0.0,
        "what is on its way is not missing"
    );
    assert_eq!(a.metric("bellhop_degraded").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_pushes_arrive_on_other_nodes_also_for_those_who_come_meanwhile() {
    let Some((backing, _database, redis)) = Backing::behind_proxies().await else {
        return;
    };
    let (a, b) = (backing.node(&[]).await, backing.node(&[]).await);
    for node in [&a, &b] {
        node.metric_becomes("bellhop_degraded", 0.0).await;
    }
    let mut far = b.connect("42").await;

    redis.cut();
    for round in 1..=4 {
        let mut late = None;
        if round == 2 {
            for node in [&a, &b] {
                node.metric_becomes("bellhop_degraded", 1.0).await;
            }
        }
        if round >= 2 {
            let start = Instant::now();
            late = Some(b.connect("42").await);
            let took = start.elapsed();
            assert!(took < Duration::from_millis(900), "{took:?}");
        }
        let start = Instant::now();
        a.publish("42", "meanwhile").await;
        for device in [Some(&mut far), late.as_mut()].into_iter().flatten() {
            assert_eq!(device.until("notification:new").await["seq"], round);
            assert!(start.elapsed() <= SHORT_BOUND, "{:?}", start.elapsed());
        }
    }
    assert!(b.metric(FEED_REPAIRS).await >= 3.0);
    assert_eq!(b.metric("bellhop_feed_period_seconds").await.round(), 1.0);

    redis.heal();
    for node in [&a, &b] {
        node.metric_becomes("bellhop_degraded", 0.0).await;
    }
    let start = Instant::now();
    assert_eq!(a.publish("42", "after").await["delivery"], "live");
    assert_eq!(far.until("notification:new").await["seq"], 5);
    assert!(start.elapsed() < Duration::from_millis(500));
    b.metric_becomes("bellhop_feed_period_seconds", 5.0).await;
}

/// A node alone that lost its database hears of others by the bus, and can read again when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_a_nodes_own_database_was_away_arrives() {
    let Some((backing, database, _redis)) = Backing::behind_proxies().await else {
        return;
    };
    let b = backing.node(&[]).await;
    b.metric_becomes("bellhop_degraded", 0.0).await;
    let mut far = b.connect("42").await;
    // A publisher that the node knows.
    far.hears_nothing(&b, "42").await;
    let store = backing.store().await;
    database.cut();
    create_unheard(&store, "42").await;
    b.metric_becomes_more(r#"bellhop_store_errors_total{kind="unavailable"}"#, 0.0)
        .await;
    far.hears_nothing(&b, "42").await;
    database.heal();
    let start = Instant::now();
    assert_eq!(far.until("notification:new").await["seq"], 1);
    assert!(
        start.elapsed() <= Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

/// The reads of many who come back together are few statements.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_come_back_together_cost_few_statements() {
    const CLIENTS: usize = 400;
    let [a] = cluster().await;
    for number in 0..CLIENTS / 4 {
        a.publish(&format!("u{number}"), "missed").await;
    }
    let come_back = async |number: usize| {
        let user = format!("u{number}");
        let auth = json!({ "token": a.token(&user), "lastSeq": 0 });
        let mut device = a.connect_with(auth).await;
        let synced = device.until("notification:synced").await;
        assert_eq!(synced["replayed"], u64::from(number < CLIENTS / 4));
        device
    };
    let before = reads(&a).await;
    let start = Instant::now();
    let devices = join_all((0..CLIENTS).map(come_back)).await;
    let statements = reads(&a).await - before;
    let took = start.elapsed();
    // 10 000 in 5 s may cost 0.1 each, which is 200 a second: on a machine that takes its time, half of that rate.
    let allowed = (0.1 * devices.len() as f64).max(100.0 * took.as_secs_f64());
    assert!(
        statements <= allowed,
        "{statements} statements for {} clients in {took:?}",
        devices.len()
    );
    let (status, body) = a.as_user("u0", Method::GET, "/api/notifications").await;
    assert_eq!((status, &body["seq"]), (StatusCode::OK, &json!(1)));
}

async fn reads(node: &TestNode) -> f64 {
    let mut all = 0.0;
    for kind in ["standing", "missed"] {
        let series = format!(r#"bellhop_socket_reads_total{{kind="{kind}"}}"#);
        all += node.metric(&series).await;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn when_history_is_replaced_connected_clients_begin_anew() {
    if databases::setting("TEST_POSTGRES_URL").is_none() {
        return;
    }
    let backing = Backing::postgres().await;
    let (a, b) = (backing.node(&[]).await, backing.node(&[]).await);
    a.publish("42", "one").await;
    a.publish("42", "two").await;
    let mut devices = [a.connect("42").await, b.connect("42").await];
    let epoch = async |node: &TestNode| {
        let (_, body) = node.as_user("42", Method::GET, "/api/notifications").await;
        body["epoch"].as_str().unwrap().to_owned()
    };
    let before = epoch(&a).await;

    // As a restored backup would.
    let start = Instant::now();
    let mut connection = backing.beside().await.unwrap();
    sqlx::raw_sql(
        "BEGIN;
         UPDATE installation SET id = gen_random_uuid();
         DELETE FROM notification WHERE seq > 1;
         UPDATE user_feed SET head_seq = 1, unread = 1;
         COMMIT",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let mut after = String::new();
    for device in &mut devices {
        let refresh = device.expect("notification:refresh").await;
        assert_eq!(
            (&refresh["reason"], &refresh["seq"]),
            (&json!("reset"), &json!(1))
        );
        assert_eq!(
            device.expect("notification:unread-count").await,
            json!({ "count": 1, "seq": 1 })
        );
        refresh["epoch"].as_str().unwrap().clone_into(&mut after);
    }
    assert!(start.elapsed() <= Duration::from_secs(10));
    for node in [&a, &b] {
        node.metric_becomes("bellhop_degraded", 0.0).await;
        assert_eq!(epoch(node).await, after);
    }
    assert_ne!(after, before);

    a.publish("42", "two again").await;
    for device in &mut devices {
        assert_eq!(device.expect("notification:new").await["seq"], 2);
        device.expect("notification:unread-count").await;
        device.hears_nothing(&a, "42").await;
    }
    let auth = json!({ "token": a.token("42"), "lastSeq": 2, "epoch": before });
    let mut old = a.connect_with(auth).await;
    let refresh = old.expect("notification:refresh").await;
    assert_eq!(
        (&refresh["reason"], &refresh["epoch"]),
        (&json!("reset"), &json!(after))
    );
}
