//! Clicks, edits, erasures and revocations: what each takes, tells and leaves.

use bellhop::notification::Reason;
use bellhop::store::{
    Counters, Deletion, Edit, Erasure, IdempotencyKey, RowState, Store, StoreError, Updated,
};
use chrono::{DurationRound, TimeDelta, Utc};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{batch, counters, key, list, moved, rich_draft, send, send_many, seqs, up_to, user};
use crate::databases::Database;

contract! {
    a_click_reads_too_and_only_the_first_counts
    clicking_one_at_once_from_many_devices_counts_once
    an_edit_changes_what_it_names_and_nothing_else
    an_edit_that_changes_nothing_takes_no_number
    what_is_not_there_can_be_neither_clicked_nor_edited
    erasing_leaves_the_counter_and_nothing_else
    erasing_forgets_the_keys_of_this_user_alone
    erasing_keeps_a_key_of_many_and_takes_the_users_id_out_of_it
    erasing_finds_the_keys_of_tombstones_too
    a_revocation_is_remembered_and_never_goes_back
}

async fn click(store: &Store, id: Uuid) -> Updated {
    store.set_clicked(&user("42"), id).await.unwrap().unwrap()
}

async fn edit(store: &Store, id: Uuid, edit: Edit) -> Updated {
    store.edit(&user("42"), id, &edit).await.unwrap().unwrap()
}

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

async fn a_click_reads_too_and_only_the_first_counts(store: Store) {
    let id = send_many(&store, "42", 2).await[0].id;
    let first = click(&store, id).await;
    assert_eq!(first.moved, Some(moved(1, 3)));
    assert!(first.newly_read && first.newly_clicked);
    let clicked_at = first.notification.clicked_at;
    assert!(first.notification.is_read && clicked_at.is_some());
    assert_eq!(first.notification.read_at, clicked_at);
    assert_eq!(first.notification.seq, 3);

    let again = click(&store, id).await;
    assert_eq!(
        (again.moved, again.newly_read, again.newly_clicked),
        (None, false, false)
    );
    assert_eq!(again.notification.seq, 3);

    let unread = store
        .set_read(&user("42"), id, false)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(unread.notification.clicked_at, clicked_at);
    let later = click(&store, id).await;
    assert_eq!(later.moved, Some(moved(1, 5)));
    assert!(later.newly_read && !later.newly_clicked);
    assert_eq!(later.notification.clicked_at, clicked_at);

    let other = send(&store, "42").await.id;
    store.set_read(&user("42"), other, true).await.unwrap();
    let read_before = click(&store, other).await;
    assert_eq!(read_before.moved, Some(moved(1, 8)));
    assert!(!read_before.newly_read && read_before.newly_clicked);
    assert_eq!(counters(&store, "42").await, (1, 8));
}

async fn clicking_one_at_once_from_many_devices_counts_once(store: Store) {
    for round in 0..5_u64 {
        let id = send(&store, "42").await.id;
        let mut devices = JoinSet::new();
        for device in 0..10 {
            let store = store.clone();
            devices.spawn(async move {
                if device % 3 == 0 {
                    store
                        .set_read(&user("42"), id, true)
                        .await
                        .unwrap()
                        .unwrap()
                } else {
                    click(&store, id).await
                }
            });
        }
        let answers = devices.join_all().await;
        let count =
            |what: fn(&Updated) -> bool| answers.iter().filter(|answer| what(answer)).count();
        assert_eq!(count(|answer| answer.newly_read), 1, "round {round}");
        assert_eq!(count(|answer| answer.newly_clicked), 1, "round {round}");
        let changes = count(|answer| answer.moved.is_some());
        assert!((1..=2).contains(&changes));
        let found = store
            .get(&user("42"), id)
            .await
            .unwrap()
            .notification
            .unwrap();
        let (unread, head) = counters(&store, "42").await;
        assert_eq!((unread, found.seq), (0, head));
    }
}

async fn an_edit_changes_what_it_names_and_nothing_else(store: Store) {
    let mut given = batch("", &["42"]);
    given.drafts = vec![std::sync::Arc::new(rich_draft())];
    let id = store.create(&given, None).await.unwrap().items[0].id;
    let before = store
        .get(&user("42"), id)
        .await
        .unwrap()
        .notification
        .unwrap();

    let change = Edit {
        title: Some("new".to_owned()),
        icon: Some(None),
        ..Edit::default()
    };
    let updated = edit(&store, id, change).await;
    assert_eq!(updated.moved, Some(moved(1, 2)));
    assert!(!updated.newly_read && !updated.newly_clicked);
    let after = updated.notification;
    assert_eq!(
        (after.title.as_str(), after.icon, after.seq),
        ("new", None, 2)
    );
    assert_eq!(
        (&after.message, &after.action_url, &after.badge),
        (&before.message, &before.action_url, &before.badge)
    );
    assert_eq!(
        (after.data.get(), after.expires_at),
        (before.data.get(), before.expires_at)
    );

    let expires_at = Utc::now() + TimeDelta::hours(1);
    let change = Edit {
        message: Some("text".to_owned()),
        data: Some(json(r#"{"a": 1}"#)),
        action_url: Some(Some("/there".to_owned())),
        icon: Some(Some("/icon".to_owned())),
        badge: Some(None),
        expires_at: Some(Some(expires_at)),
        ..Edit::default()
    };
    let after = edit(&store, id, change).await.notification;
    assert_eq!(
        (
            after.title.as_str(),
            after.message.as_str(),
            after.data.get()
        ),
        ("new", "text", r#"{"a": 1}"#)
    );
    assert_eq!(
        (
            after.action_url.as_deref(),
            after.icon.as_deref(),
            after.badge
        ),
        (Some("/there"), Some("/icon"), None)
    );
    assert_eq!(
        after.expires_at,
        expires_at.duration_trunc(TimeDelta::milliseconds(1)).ok()
    );
    assert_eq!(
        (after.is_read, after.created_at),
        (false, before.created_at)
    );
    let stored = list(&store, "42", up_to(1)).await.remove(0);
    assert_eq!(serde_json::to_value(stored).unwrap()["message"], "text");

    let never = Edit {
        expires_at: Some(None),
        ..Edit::default()
    };
    assert_eq!(edit(&store, id, never).await.notification.expires_at, None);
}

async fn an_edit_that_changes_nothing_takes_no_number(store: Store) {
    let id = send(&store, "42").await.id;
    let same = Edit {
        title: Some("hello".to_owned()),
        message: Some(String::new()),
        data: Some(json("{}")),
        action_url: Some(None),
        icon: Some(None),
        badge: Some(None),
        expires_at: Some(None),
    };
    for nothing in [Edit::default(), same] {
        let updated = edit(&store, id, nothing).await;
        assert_eq!((updated.moved, updated.notification.seq), (None, 1));
    }
    // Another spelling of the same value is another text.
    let spelled = Edit {
        data: Some(json("{ }")),
        ..Edit::default()
    };
    assert_eq!(edit(&store, id, spelled).await.moved, Some(moved(1, 2)));

    let until = Utc::now() + TimeDelta::hours(1);
    let expiring = || Edit {
        expires_at: Some(Some(until)),
        ..Edit::default()
    };
    assert_eq!(edit(&store, id, expiring()).await.moved, Some(moved(1, 3)));
    assert_eq!(edit(&store, id, expiring()).await.moved, None);
    assert_eq!(counters(&store, "42").await, (1, 3));
}

async fn what_is_not_there_can_be_neither_clicked_nor_edited(store: Store) {
    let gone = send(&store, "42").await.id;
    store
        .delete(&user("42"), gone, Reason::Withdrawn)
        .await
        .unwrap();
    let foreign = send(&store, "7").await.id;
    let change = Edit {
        title: Some("x".to_owned()),
        ..Edit::default()
    };
    for id in [gone, foreign, Uuid::now_v7()] {
        assert!(store.set_clicked(&user("42"), id).await.unwrap().is_none());
        assert!(
            store
                .edit(&user("42"), id, &change)
                .await
                .unwrap()
                .is_none()
        );
    }
    assert_eq!(counters(&store, "42").await, (0, 2));
    assert_eq!(counters(&store, "7").await, (1, 1));
}

async fn erasing_leaves_the_counter_and_nothing_else(store: Store) {
    let me = user("42");
    let nothing = Erasure {
        moved: None,
        erased: 0,
    };
    assert_eq!(store.erase(&me).await.unwrap(), nothing);

    let items = send_many(&store, "42", 4).await;
    send(&store, "7").await;
    store
        .delete(&me, items[0].id, Reason::Deleted)
        .await
        .unwrap();
    store.set_read(&me, items[1].id, true).await.unwrap();
    store.read_all(&me).await.unwrap();
    let revoked = store.revoke(&me).await.unwrap().valid_after;
    let erasure = store.erase(&me).await.unwrap();
    assert_eq!(
        erasure,
        Erasure {
            moved: Some(moved(0, 9)),
            erased: 3
        }
    );

    let missed = store.missed(&me, 0, 10).await.unwrap();
    assert_eq!(
        (
            missed.head,
            missed.floor,
            missed.cleared_seq,
            missed.read_all_seq
        ),
        (9, 9, 9, 7)
    );
    assert_eq!((missed.unread, missed.valid_after), (0, Some(revoked)));
    assert!(missed.rows.is_empty() && list(&store, "42", up_to(10)).await.is_empty());
    let deletion = store
        .delete(&me, items[0].id, Reason::Deleted)
        .await
        .unwrap();
    assert_eq!(deletion, Deletion::Unknown);
    assert_eq!(store.erase(&me).await.unwrap(), nothing);
    assert_eq!(send(&store, "42").await.seq, 10);
    assert_eq!(counters(&store, "7").await, (1, 1));

    // A tombstone is a trace too.
    store.clear(&me).await.unwrap();
    let erasure = store.erase(&me).await.unwrap();
    assert_eq!(
        erasure,
        Erasure {
            moved: Some(moved(0, 12)),
            erased: 0
        }
    );
}

async fn create_with(store: &Store, key: &IdempotencyKey, to: &[&str]) -> Vec<(Uuid, u64)> {
    let created = store.create(&batch("hello", to), Some(key)).await.unwrap();
    created
        .items
        .iter()
        .map(|item| (item.id, item.seq))
        .collect()
}

async fn erasing_forgets_the_keys_of_this_user_alone(store: Store) {
    let [mine, twice, theirs] = ["mine", "twice", "theirs"].map(|name| key("shop", name, 1));
    let first = create_with(&store, &mine, &["42"]).await;
    create_with(&store, &twice, &["42", "42"]).await;
    let other = create_with(&store, &theirs, &["7"]).await;
    assert_eq!(create_with(&store, &mine, &["42"]).await, first);

    assert_eq!(store.erase(&user("42")).await.unwrap().erased, 3);
    let again = create_with(&store, &mine, &["42"]).await;
    assert_eq!(again[0].1, 5);
    assert_ne!(again[0].0, first[0].0);
    assert_eq!(create_with(&store, &twice, &["42", "42"]).await[1].1, 7);
    assert_eq!(create_with(&store, &theirs, &["7"]).await, other);
    assert_eq!(counters(&store, "42").await, (3, 7));
}

async fn erasing_keeps_a_key_of_many_and_takes_the_users_id_out_of_it(store: Store) {
    let shared = key("shop", "shared", 1);
    let to = ["42", "7", "42"];
    let first = create_with(&store, &shared, &to).await;
    store.erase(&user("42")).await.unwrap();

    let none = (Uuid::nil(), 0);
    assert_eq!(
        create_with(&store, &shared, &to).await,
        [none, first[1], none]
    );
    assert_eq!(counters(&store, "42").await, (0, 3));
    let other = IdempotencyKey {
        body: [9; 32],
        ..shared.clone()
    };
    let reused = store.create(&batch("hello", &to), Some(&other)).await;
    assert!(matches!(reused, Err(StoreError::KeyReused)));

    store.erase(&user("7")).await.unwrap();
    assert_eq!(create_with(&store, &shared, &to).await, [none; 3]);
    assert_eq!(counters(&store, "7").await, (0, 2));
}

async fn erasing_finds_the_keys_of_tombstones_too(store: Store) {
    let mine = key("shop", "mine", 1);
    let first = create_with(&store, &mine, &["42"]).await;
    store
        .delete(&user("42"), first[0].0, Reason::Deleted)
        .await
        .unwrap();
    store.erase(&user("42")).await.unwrap();
    assert_eq!(create_with(&store, &mine, &["42"]).await[0].1, 4);
}

async fn a_revocation_is_remembered_and_never_goes_back(store: Store) {
    let before = u64::try_from(Utc::now().timestamp_millis()).unwrap();
    let first = store.revoke(&user("42")).await.unwrap();
    assert_eq!(first.counters, Counters { unread: 0, seq: 1 });
    // The same host, but perhaps not the same reading of its clock.
    assert!(first.valid_after.abs_diff(before) < 60_000);
    let standing = store.standing(&user("42")).await.unwrap();
    assert_eq!(
        (standing.counters, standing.valid_after),
        (first.counters, Some(first.valid_after))
    );

    send(&store, "42").await;
    let second = store.revoke(&user("42")).await.unwrap();
    assert_eq!(second.counters, moved(1, 3));
    assert!(second.valid_after >= first.valid_after);
    let missed = store.missed(&user("42"), 0, 10).await.unwrap();
    assert_eq!((seqs(&missed), missed.head, missed.floor), (vec![2], 3, 0));
    assert!(matches!(missed.rows[0].state, RowState::Live(_)));
}

/// As if there were a million rows: longer than any other statement may take.
#[tokio::test]
async fn erasing_takes_the_time_that_it_takes() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let store = super::migrated(&database).await;
    send_many(&store, "42", 3).await;
    let slow = "
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2.2); RETURN NULL; END';
        CREATE TRIGGER slow BEFORE DELETE ON notification FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    let mut other = database.connection().await;
    sqlx::raw_sql(slow).execute(&mut other).await.unwrap();

    let erasure = store.erase(&user("42")).await.unwrap();
    assert_eq!((erasure.moved, erasure.erased), (Some(moved(0, 4)), 3));
}
