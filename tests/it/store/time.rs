//! What time does to an inbox: expiry, retention, and keys that are honoured no longer.

use std::sync::Arc;

use bellhop::notification::{Draft, Reason};
use bellhop::store::{
    Batch, Created, Deletion, Edit, Gone, IdempotencyKey, Retained, Retention, RowState, Store,
};
use chrono::{TimeDelta, Utc};
use uuid::Uuid;

use super::import::old;
use super::{
    batch, counters, draft, key, list, migrated, moved, send, send_many, seqs, up_to, user,
};
use crate::databases::Database;

contract! {
    what_is_due_expires_once_and_in_order
    nothing_expires_before_its_time
    an_expiry_takes_no_more_than_its_limit
    sweepers_at_once_expire_each_one_once
    the_newest_stay_and_the_rest_expires
    a_user_within_the_limits_is_not_due
    no_limit_keeps_everything
    retention_is_done_in_bounded_steps
    tombstones_far_back_are_removed_and_raise_the_floor
    users_are_walked_page_by_page
    users_who_have_much_make_a_shorter_page
}

aged! {
    what_is_older_than_the_days_goes
    tombstones_of_a_key_stay_while_it_is_honoured
    keys_are_forgotten_a_day_later
    a_revocation_outlives_everything
}

const MONTH: Retention = Retention {
    days: 30,
    changes: 0,
};

fn newest(changes: u32) -> Retention {
    Retention { days: 0, changes }
}

fn expiring(seconds: i64) -> Draft {
    let expires_at = Utc::now() + TimeDelta::seconds(seconds);
    Draft {
        expires_at: Some(expires_at),
        ..draft("soon")
    }
}

/// One for each of `seconds` from now.
async fn send_expiring(store: &Store, to: &str, seconds: &[i64]) -> Vec<Uuid> {
    let Batch { to, .. } = batch("", &vec![to; seconds.len()]);
    let drafts = seconds
        .iter()
        .map(|seconds| Arc::new(expiring(*seconds)))
        .collect();
    let to = to.into_iter().enumerate().map(|(draft, mut address)| {
        address.draft = draft;
        address
    });
    let batch = Batch {
        drafts,
        to: to.collect(),
    };
    let created = store.create(&batch, None).await.unwrap();
    created.items.iter().map(|item| item.id).collect()
}

fn gone(to: &str, id: Uuid, unread: u64, seq: u64) -> Gone {
    Gone {
        user: user(to),
        id,
        counters: moved(unread, seq),
    }
}

async fn what_is_due_expires_once_and_in_order(store: Store) {
    let mine = send_expiring(&store, "42", &[-5, 3600, -10, -1]).await;
    let theirs = send_expiring(&store, "7", &[-7]).await;
    send(&store, "42").await;
    store.set_read(&user("42"), mine[0], true).await.unwrap();

    let expired = store.expire(100).await.unwrap();
    let of = |id: &str| {
        expired
            .iter()
            .filter(|gone| gone.user == user(id))
            .cloned()
            .collect::<Vec<_>>()
    };
    // The first due first; one of them was read.
    assert_eq!(
        of("42"),
        [
            gone("42", mine[2], 3, 7),
            gone("42", mine[0], 3, 8),
            gone("42", mine[3], 2, 9)
        ]
    );
    assert_eq!(of("7"), [gone("7", theirs[0], 0, 2)]);
    assert_eq!(counters(&store, "42").await, (2, 9));

    assert_eq!(store.expire(100).await.unwrap(), []);
    let missed = store.missed(&user("42"), 6, 10).await.unwrap();
    assert_eq!(seqs(&missed), [7, 8, 9]);
    for row in &missed.rows {
        assert!(matches!(
            row.state,
            RowState::Deleted {
                reason: Reason::Expired,
                ..
            }
        ));
    }
    let deletion = store
        .delete(&user("42"), mine[0], Reason::Deleted)
        .await
        .unwrap();
    assert_eq!(deletion, Deletion::Already);
}

async fn nothing_expires_before_its_time(store: Store) {
    let id = send_expiring(&store, "42", &[3600]).await[0];
    send(&store, "42").await;
    assert_eq!(store.expire(100).await.unwrap(), []);
    let over = Edit {
        expires_at: Some(Some(Utc::now() - TimeDelta::seconds(1))),
        ..Edit::default()
    };
    store.edit(&user("42"), id, &over).await.unwrap();
    assert_eq!(store.expire(100).await.unwrap(), [gone("42", id, 1, 4)]);
}

async fn an_expiry_takes_no_more_than_its_limit(store: Store) {
    let ids = send_expiring(&store, "42", &[-1, -2, -3, -4, -5]).await;
    assert_eq!(
        store.expire(2).await.unwrap(),
        [gone("42", ids[4], 4, 6), gone("42", ids[3], 3, 7)]
    );
    assert_eq!(store.expire(2).await.unwrap().len(), 2);
    assert_eq!(store.expire(2).await.unwrap(), [gone("42", ids[0], 0, 10)]);
    assert_eq!(store.expire(0).await.unwrap(), []);
}

async fn sweepers_at_once_expire_each_one_once(store: Store) {
    for id in ["a", "b", "c"] {
        send_expiring(&store, id, &[-1; 40]).await;
    }
    let mut sweepers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = store.clone();
        sweepers.spawn(async move {
            let mut expired = Vec::new();
            for _ in 0..5 {
                expired.extend(store.expire(30).await.unwrap());
            }
            expired
        });
    }
    let mut expired: Vec<_> = sweepers.join_all().await.into_iter().flatten().collect();
    // What was held by somebody else was left.
    loop {
        let more = store.expire(30).await.unwrap();
        if more.is_empty() {
            break;
        }
        expired.extend(more);
    }
    for id in ["a", "b", "c"] {
        let mut taken: Vec<_> = expired
            .iter()
            .filter(|gone| gone.user == user(id))
            .map(|gone| gone.counters.seq)
            .collect();
        taken.sort_unstable();
        assert_eq!(taken, (41..=80).collect::<Vec<_>>());
        assert_eq!(counters(&store, id).await, (0, 80));
    }
}

async fn due(store: &Store, retention: Retention) -> Vec<String> {
    let page = store.users(None, 100, retention).await.unwrap();
    page.due
        .iter()
        .map(|user| user.as_str().to_owned())
        .collect()
}

async fn the_newest_stay_and_the_rest_expires(store: Store) {
    let items = send_many(&store, "42", 6).await;
    send_many(&store, "7", 3).await;
    store
        .set_read(&user("42"), items[1].id, true)
        .await
        .unwrap();
    assert_eq!(due(&store, newest(3)).await, ["42"]);

    let retained = store.retain(&user("42"), newest(3)).await.unwrap();
    let expected = [
        gone("42", items[0].id, 4, 8),
        gone("42", items[1].id, 4, 9),
        gone("42", items[2].id, 3, 10),
    ];
    assert_eq!(retained.gone, expected);
    assert!(!retained.more);
    let kept: Vec<_> = list(&store, "42", up_to(10))
        .await
        .iter()
        .map(|item| item.id)
        .collect();
    assert_eq!(kept, [items[5].id, items[4].id, items[3].id]);

    // The tombstones' own numbers do not push the next ones out.
    let again = store.retain(&user("42"), newest(3)).await.unwrap();
    assert!(again.gone.is_empty() && again.removed == 0 && !again.more);
    assert_eq!(counters(&store, "42").await, (3, 10));
    assert_eq!(due(&store, newest(3)).await, Vec::<String>::new());
}

async fn a_user_within_the_limits_is_not_due(store: Store) {
    send_many(&store, "42", 3).await;
    assert_eq!(
        due(
            &store,
            Retention {
                days: 30,
                changes: 3
            }
        )
        .await,
        Vec::<String>::new()
    );
    let retained = store
        .retain(
            &user("42"),
            Retention {
                days: 30,
                changes: 3,
            },
        )
        .await
        .unwrap();
    assert!(retained.gone.is_empty() && retained.removed == 0);
    let nobody = store.retain(&user("nobody"), newest(1)).await.unwrap();
    assert!(nobody.gone.is_empty());
    assert_eq!(
        store.standing(&user("nobody")).await.unwrap(),
        bellhop::store::Standing::default()
    );
}

async fn no_limit_keeps_everything(store: Store) {
    store.import(&[old("42"), old("42")]).await.unwrap();
    store.clear(&user("42")).await.unwrap();
    store.import(&[old("42"), old("42")]).await.unwrap();
    for unlimited in [
        newest(0),
        Retention {
            days: u32::MAX,
            changes: u32::MAX,
        },
    ] {
        assert_eq!(due(&store, unlimited).await, Vec::<String>::new());
        let retained = store.retain(&user("42"), unlimited).await.unwrap();
        assert!(retained.gone.is_empty() && retained.removed == 0 && !retained.more);
    }
}

async fn retention_is_done_in_bounded_steps(store: Store) {
    for _ in 0..3 {
        send_many(&store, "42", 400).await;
    }
    let mut steps = Vec::new();
    loop {
        let Retained {
            gone,
            removed,
            more,
        } = store.retain(&user("42"), newest(10)).await.unwrap();
        steps.push((gone.len(), removed));
        if !more {
            break;
        }
    }
    assert_eq!(
        steps.iter().map(|(gone, _)| *gone).collect::<Vec<_>>(),
        [500, 500, 190]
    );
    assert!(steps.iter().all(|(_, removed)| *removed <= 500));
    assert_eq!(list(&store, "42", up_to(100)).await.len(), 10);
    assert_eq!(due(&store, newest(10)).await, Vec::<String>::new());
    assert_eq!(counters(&store, "42").await, (10, 2390));
}

async fn tombstones_far_back_are_removed_and_raise_the_floor(store: Store) {
    let items = send_many(&store, "42", 4).await;
    for item in &items[..3] {
        store
            .delete(&user("42"), item.id, Reason::Deleted)
            .await
            .unwrap();
    }
    // 5, 6 and 7 are tombstones; then 8 and 9.
    send_many(&store, "42", 2).await;
    assert_eq!(due(&store, newest(4)).await, ["42"]);
    let retained = store.retain(&user("42"), newest(4)).await.unwrap();
    assert!(retained.gone.is_empty() && !retained.more);
    assert_eq!(retained.removed, 1);
    let missed = store.missed(&user("42"), 0, 10).await.unwrap();
    assert_eq!(
        (missed.floor, missed.head, seqs(&missed)),
        (5, 9, vec![4, 6, 7, 8, 9])
    );
    let me = user("42");
    let known = |id| store.delete(&me, id, Reason::Deleted);
    let still = (
        known(items[0].id).await.unwrap(),
        known(items[1].id).await.unwrap(),
    );
    assert_eq!(still, (Deletion::Unknown, Deletion::Already));
    assert_eq!(due(&store, newest(4)).await, Vec::<String>::new());
    assert_eq!(counters(&store, "42").await, (3, 9));
}

async fn users_are_walked_page_by_page(store: Store) {
    for id in ["b", "Z", "a", "~", "1", "b:x"] {
        send_many(&store, id, 2).await;
    }
    send(&store, "c").await;
    let mut after = None;
    let mut pages = Vec::new();
    loop {
        let page = store.users(after.as_ref(), 3, newest(1)).await.unwrap();
        pages.push(
            page.due
                .iter()
                .map(|user| user.as_str().to_owned())
                .collect::<Vec<_>>(),
        );
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, [vec!["1", "Z", "a"], vec!["b", "b:x"], vec!["~"]]);
}

async fn users_who_have_much_make_a_shorter_page(store: Store) {
    for id in ["a", "b", "c"] {
        for _ in 0..26 {
            send_many(&store, id, 1000).await;
        }
    }
    send(&store, "d").await;
    let page = |after: &'static str| {
        let (store, after) = (store.clone(), user(after));
        async move { store.users(Some(&after), 10, newest(25_999)).await.unwrap() }
    };
    let first = page("0").await;
    assert_eq!(first.next, Some(user("b")));
    assert_eq!(first.due, [user("a"), user("b")]);
    let second = page("b").await;
    assert_eq!((second.due, second.next), (vec![user("c")], None));
}

/// PostgreSQL knows as of its last ANALYZE.
#[tokio::test]
async fn how_many_users_there_are_is_estimated() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let store = migrated(&database).await;
    for id in ["a", "b", "c"] {
        send(&store, id).await;
    }
    assert_eq!(store.estimated_users().await.unwrap(), None);
    let mut connection = database.connection().await;
    sqlx::raw_sql("ANALYZE user_feed")
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(store.estimated_users().await.unwrap(), Some(3));
}

/// Lets time pass since `column` was written.
async fn later(database: &Database, store: Store, table: &str, column: &str, hours: u32) -> Store {
    store.close().await;
    database.age(table, column, hours).await;
    database.open().await
}

async fn what_is_older_than_the_days_goes(database: Database) {
    let store = migrated(&database).await;
    let items = send_many(&store, "42", 3).await;
    store
        .delete(&user("42"), items[0].id, Reason::Deleted)
        .await
        .unwrap();
    let store = later(&database, store, "notification", "created_at", 24 * 31).await;
    let fresh = send(&store, "42").await;
    assert_eq!(due(&store, MONTH).await, ["42"]);
    let retained = store.retain(&user("42"), MONTH).await.unwrap();
    let expected = [gone("42", items[1].id, 2, 6), gone("42", items[2].id, 1, 7)];
    assert_eq!(
        (retained.gone.as_slice(), retained.removed, retained.more),
        (&expected[..], 0, false)
    );
    assert_eq!(list(&store, "42", up_to(10)).await[0].id, fresh.id);
    assert_eq!(due(&store, MONTH).await, Vec::<String>::new());

    // A tombstone's age counts from its death.
    let store = later(&database, store, "notification", "deleted_at", 24 * 31).await;
    assert_eq!(due(&store, MONTH).await, ["42"]);
    let retained = store.retain(&user("42"), MONTH).await.unwrap();
    assert_eq!(
        (retained.gone.len(), retained.removed, retained.more),
        (0, 3, false)
    );
    let missed = store.missed(&user("42"), 0, 10).await.unwrap();
    assert_eq!((missed.floor, missed.head, seqs(&missed)), (7, 7, vec![5]));
}

async fn create(store: &Store, key: &IdempotencyKey, to: &[&str]) -> Created {
    store.create(&batch("hello", to), Some(key)).await.unwrap()
}

async fn tombstones_of_a_key_stay_while_it_is_honoured(database: Database) {
    let store = migrated(&database).await;
    let once = key("shop", "once", 1);
    let id = create(&store, &once, &["42"]).await.items[0].id;
    store
        .delete(&user("42"), id, Reason::Deleted)
        .await
        .unwrap();
    send_many(&store, "42", 5).await;
    assert_eq!(
        store.retain(&user("42"), newest(5)).await.unwrap().removed,
        0
    );
    assert_eq!(due(&store, newest(5)).await, Vec::<String>::new());
    assert!(create(&store, &once, &["42"]).await.replayed);

    let store = later(&database, store, "notification", "created_at", 25).await;
    assert_eq!(due(&store, newest(5)).await, ["42"]);
    assert_eq!(
        store.retain(&user("42"), newest(5)).await.unwrap().removed,
        1
    );
    let replay = create(&store, &once, &["42"]).await;
    assert_eq!((replay.items[0].id, replay.items[0].seq), (id, 0));
}

async fn forget_all(store: &Store, limit: u32) -> usize {
    let mut pages = 1;
    let mut after = None;
    loop {
        after = store.forget_keys(after, limit).await.unwrap();
        if after.is_none() {
            return pages;
        }
        pages += 1;
    }
}

async fn keys_are_forgotten_a_day_later(database: Database) {
    let store = migrated(&database).await;
    let names: Vec<String> = (0..5).map(|number| format!("key {number}")).collect();
    for name in &names {
        create(&store, &key("shop", name, 1), &["42"]).await;
    }
    let store = later(&database, store, "idempotency", "created_at", 23).await;
    create(&store, &key("bakery", "young", 1), &["7"]).await;
    assert_eq!(forget_all(&store, 4).await, 2);
    assert!(
        create(&store, &key("shop", &names[4], 1), &["42"])
            .await
            .replayed
    );

    let store = later(&database, store, "idempotency", "created_at", 2).await;
    assert_eq!(forget_all(&store, 3).await, 3);
    assert_eq!(forget_all(&store, 3).await, 1);
    assert!(
        create(&store, &key("bakery", "young", 1), &["7"])
            .await
            .replayed
    );
    // Forgotten altogether: even another body is not refused.
    assert!(
        !create(&store, &key("shop", &names[4], 2), &["42"])
            .await
            .replayed
    );
}

async fn a_revocation_outlives_everything(database: Database) {
    let store = migrated(&database).await;
    let revoked = store.revoke(&user("42")).await.unwrap().valid_after;
    send(&store, "42").await;
    let store = later(&database, store, "notification", "created_at", 24 * 40).await;
    store.retain(&user("42"), MONTH).await.unwrap();
    let store = later(&database, store, "notification", "deleted_at", 24 * 40).await;
    assert_eq!(store.retain(&user("42"), MONTH).await.unwrap().removed, 1);
    let standing = store.standing(&user("42")).await.unwrap();
    assert_eq!(
        (standing.counters, standing.valid_after),
        (moved(0, 3), Some(revoked))
    );
}
