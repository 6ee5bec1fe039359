//! Time passes: what expires is told like any other change, and what is too old is forgotten, never silently.

use std::sync::Arc;
use std::time::Duration;

use bellhop::notification::Draft;
use bellhop::store::{Batch, Store};
use bellhop::user::UserId;
use chrono::{TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Backing, TestNode, cluster};
use crate::store::batch;

/// Publishes what ends so many milliseconds from now, and answers its id.
async fn short_lived(node: &TestNode, user: &str, milliseconds: i64) -> Value {
    let end = Utc::now() + TimeDelta::milliseconds(milliseconds);
    let body = json!({ "userId": user, "title": "soon over", "expiresAt": end.to_rfc3339() });
    let (status, body) = node.publish_body(body).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_is_a_change_that_every_device_hears_once() {
    let [a, b] = cluster().await;
    let mut on_a = a.connect("42").await;
    let mut on_b = b.connect("42").await;
    a.publish("42", "stays").await;
    let id = short_lived(&a, "42", 700).await;

    for device in [&mut on_a, &mut on_b] {
        assert_eq!(
            device.until("notification:deleted").await,
            json!({ "id": id, "seq": 3, "reason": "expired" })
        );
        assert_eq!(
            device.expect("notification:unread-count").await,
            json!({ "count": 1, "seq": 3 })
        );
        device.hears_nothing(&a, "42").await;
    }
    let (_, list) = b.as_user("42", Method::GET, "/api/notifications").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!((&list["unreadCount"], &list["seq"]), (&json!(1), &json!(3)));
    let deleted = a
        .metric(r#"bellhop_notifications_deleted_total{reason="expired"}"#)
        .await
        + b.metric(r#"bellhop_notifications_deleted_total{reason="expired"}"#)
            .await;
    assert_eq!(deleted, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_that_end_at_once_end_in_one_order_for_all() {
    let [a, b] = cluster().await;
    let mut on_b = b.connect("42").await;
    let mut other = a.connect("7").await;
    let end = (Utc::now() + TimeDelta::seconds(2)).to_rfc3339();
    let one = |number| json!({ "userId": if number % 2 == 0 { "42" } else { "7" }, "title": "soon over", "expiresAt": end });
    let body = json!({ "notifications": (0..10).map(one).collect::<Vec<_>>() });
    let batch = "/api/notifications/batch";
    let (status, body) = a
        .call(Method::POST, batch, &a.publisher_token(), Some(body))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    for device in [&mut on_b, &mut other] {
        let mut seqs = Vec::new();
        while seqs.len() < 5 {
            let gone = device.until("notification:deleted").await;
            assert_eq!(gone["reason"], "expired");
            seqs.push(gone["seq"].as_u64().unwrap());
        }
        assert_eq!(seqs, [6, 7, 8, 9, 10]);
        assert_eq!(
            device.expect("notification:unread-count").await,
            json!({ "count": 0, "seq": 10 })
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_while_a_device_was_away_is_in_its_resume() {
    let [a] = cluster().await;
    let mut here = a.connect("42").await;
    let id = short_lived(&a, "42", 300).await;
    here.until("notification:deleted").await;

    let auth = json!({ "token": a.token("42"), "lastSeq": 1 });
    let mut back = a.connect_with(auth).await;
    assert_eq!(
        back.expect("notification:deleted").await,
        json!({ "id": id, "seq": 2, "reason": "expired" })
    );
    back.expect("notification:unread-count").await;
    assert_eq!(back.expect("notification:synced").await["replayed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_number_that_is_kept_the_oldest_end_and_are_forgotten_at_last() {
    let backing = Backing::fresh().await;
    let a = backing.node(&[]).await;
    let mut device = a.connect("42").await;
    let mut ids = Vec::new();
    for number in 1..=5 {
        ids.push(a.publish("42", &format!("number {number}")).await["id"].clone());
    }

    // A node looks at everybody when it starts.
    let b = backing.node(&["--retention-changes=3"]).await;
    for (id, seq) in ids[..2].iter().zip([6, 7]) {
        assert_eq!(
            device.until("notification:deleted").await,
            json!({ "id": id, "seq": seq, "reason": "expired" })
        );
    }
    assert_eq!(
        device.until("notification:unread-count").await,
        json!({ "count": 3, "seq": 7 })
    );
    assert!(b.stop().await);

    // Two reads push the tombstones beyond the last three changes.
    for id in &ids[2..] {
        let path = format!("/api/notifications/{}/read", id.as_str().unwrap());
        a.as_user("42", Method::PATCH, &path).await;
    }
    let b = backing.node(&["--retention-changes=3"]).await;
    let floor_is = async |expected: bool| {
        let path = "/api/notifications/changes?since=6";
        a.as_user("42", Method::GET, path).await.1["reset"] == json!(expected)
    };
    let forgotten = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while !floor_is(true).await {
            pause.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), forgotten)
        .await
        .expect("the tombstones are still there");

    // Who comes back from below is told to fetch the list; who was above goes on.
    let below = json!({ "token": a.token("42"), "lastSeq": 6 });
    let mut back = b.connect_with(below).await;
    assert_eq!(back.expect("notification:refresh").await["reason"], "gap");
    let above = json!({ "token": a.token("42"), "lastSeq": 8 });
    let mut back = b.connect_with(above).await;
    assert_eq!(back.expect("notification:updated").await["seq"], 9);
    let (status, _) = a
        .as_user(
            "42",
            Method::GET,
            &format!("/api/notifications/{}", ids[0].as_str().unwrap()),
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

/// So many for one user, in the store before any node looks; all of them ended so many seconds ago.
async fn ended(store: &Store, user: &str, count: usize, seconds: i64) {
    let Batch { drafts, to } = batch("over", &vec![user; count]);
    let over = Draft {
        expires_at: Some(Utc::now() - TimeDelta::seconds(seconds)),
        ..Draft::clone(&drafts[0])
    };
    let drafts = vec![Arc::new(over)];
    store.create(&Batch { drafts, to }, None).await.unwrap();
}

/// What is theirs is due first, and more than one look takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_held_makes_nobody_elses_expiry_late() {
    let backing = Backing::fresh().await;
    let Some(mut other) = backing.beside().await else {
        return;
    };
    let store = backing.store().await;
    store.migrate().await.unwrap();
    ended(&store, "held", 300, 9).await;
    for user in ["1", "2", "3", "4"] {
        ended(&store, user, 1_000, 3).await;
    }
    let hold = "BEGIN; SELECT * FROM user_feed WHERE user_id = 'held' FOR UPDATE";
    sqlx::raw_sql(hold).execute(&mut other).await.unwrap();

    let a = backing.node(&[]).await;
    let expired = r#"bellhop_notifications_deleted_total{reason="expired"}"#;
    a.metric_becomes(expired, 4_000.0).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    a.metric_becomes(expired, 4_300.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_that_cannot_be_worked_on_ends_nobody_elses_retention() {
    let backing = Backing::fresh().await;
    let Some(mut other) = backing.beside().await else {
        return;
    };
    let store = backing.store().await;
    store.migrate().await.unwrap();
    for user in ["1", "2"] {
        store
            .create(&batch("one of three", &[user; 3]), None)
            .await
            .unwrap();
    }
    // Not the user's row, which would be passed over: the work itself has to wait, and is given up.
    let hold = "BEGIN; SELECT * FROM notification WHERE user_id = '1' FOR UPDATE";
    sqlx::raw_sql(hold).execute(&mut other).await.unwrap();

    let _node = backing.node(&["--retention-changes=2"]).await;
    let unread = async |user: &str| {
        let user = UserId::try_from(user).unwrap();
        store.standing(&user).await.unwrap().counters.unread
    };
    let forgotten = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while unread("2").await == 3 {
            pause.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), forgotten)
        .await
        .expect("the second user still has everything");
    assert_eq!(unread("1").await, 3);
}
