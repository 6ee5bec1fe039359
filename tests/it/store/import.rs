//! Importing old notifications: as they were, once, and in order.

use std::sync::Arc;

use bellhop::notification::{Notification, Reason};
use bellhop::store::{Imported, RowState, Store};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use uuid::Uuid;

use super::{counters, draft, list, rich_draft, send, seqs, up_to, user};
use crate::databases::Database;

contract! {
    what_is_imported_comes_back_as_it_was
    what_is_known_is_left_alone
    an_import_tells_devices_to_refetch
    an_import_for_many_users_numbers_each_of_them
    imports_are_quick_enough_for_a_hundred_thousand_in_a_minute
}

fn long_ago() -> DateTime<Utc> {
    (Utc::now() - TimeDelta::days(2)).trunc_subsecs(3)
}

pub fn old(to: &str) -> Notification {
    Notification::created(&draft("old"), user(to), Uuid::now_v7(), 0, long_ago())
}

fn json(notification: &Notification) -> String {
    serde_json::to_string(notification).unwrap()
}

async fn what_is_imported_comes_back_as_it_was(store: Store) {
    let mut rich = Notification::created(&rich_draft(), user("42"), Uuid::now_v7(), 77, long_ago());
    rich.is_read = true;
    rich.read_at = Some(long_ago());
    rich.clicked_at = Some(long_ago());
    let mut over = old("42");
    over.expires_at = Some(long_ago());
    let mut read = old("42");
    read.is_read = true;
    let imported = store
        .import(&[rich.clone(), over.clone(), read.clone()])
        .await
        .unwrap();
    assert_eq!(
        imported,
        Imported {
            created: 3,
            known: 0,
            moved: vec![(user("42"), 3)]
        }
    );
    assert_eq!(counters(&store, "42").await, (1, 3));

    let found = list(&store, "42", up_to(10)).await;
    (rich.seq, over.seq, read.seq) = (1, 2, 3);
    rich.expires_at = rich.expires_at.map(|time| time.trunc_subsecs(3));
    // Read, nobody knows when.
    read.read_at = Some(read.created_at);
    assert_eq!(json(&found[2]), json(&rich));
    assert_eq!(found[2].data.get(), rich.data.get());
    assert_eq!(json(&found[1]), json(&over));
    assert_eq!(json(&found[0]), json(&read));

    // What was over before is over now.
    let gone = store.expire(10).await.unwrap();
    assert_eq!(
        gone.iter().map(|gone| gone.id).collect::<Vec<_>>(),
        [over.id]
    );
}

async fn what_is_known_is_left_alone(store: Store) {
    let given = [old("42"), old("42"), old("7")];
    store.import(&given).await.unwrap();
    store
        .set_read(&user("42"), given[0].id, true)
        .await
        .unwrap();
    store
        .delete(&user("42"), given[1].id, Reason::Deleted)
        .await
        .unwrap();
    let before = (counters(&store, "42").await, counters(&store, "7").await);

    let again = store.import(&given).await.unwrap();
    assert_eq!(
        again,
        Imported {
            created: 0,
            known: 3,
            moved: Vec::new()
        }
    );
    assert_eq!(
        (counters(&store, "42").await, counters(&store, "7").await),
        before
    );

    // Twice in one call; and the same id for another user is another notification.
    let fresh = old("42");
    let mut theirs = fresh.clone();
    theirs.user_id = user("9");
    let mut second = fresh.clone();
    second.title = "second".to_owned();
    let imported = store
        .import(&[fresh, given[2].clone(), second, theirs])
        .await
        .unwrap();
    assert_eq!(
        imported,
        Imported {
            created: 2,
            known: 2,
            moved: vec![(user("42"), 5), (user("9"), 1)]
        }
    );
    assert_eq!(list(&store, "42", up_to(1)).await[0].title, "old");
    assert_eq!(store.import(&[]).await.unwrap(), Imported::default());
}

async fn an_import_tells_devices_to_refetch(store: Store) {
    send(&store, "42").await;
    store.import(&[old("42"), old("42")]).await.unwrap();
    let missed = store.missed(&user("42"), 0, 10).await.unwrap();
    assert_eq!((missed.head, missed.floor, missed.cleared_seq), (3, 3, 0));
    assert_eq!(seqs(&missed), [1, 2, 3]);
    assert!(
        missed
            .rows
            .iter()
            .all(|row| matches!(row.state, RowState::Live(_)))
    );
    assert_eq!(send(&store, "42").await.unread, 4);
}

async fn an_import_for_many_users_numbers_each_of_them(store: Store) {
    send(&store, "b").await;
    let given: Vec<_> = ["b", "Z", "a", "b", "a", "b"]
        .into_iter()
        .map(old)
        .collect();
    let imported = store.import(&given).await.unwrap();
    let moved = [("Z", 1), ("a", 2), ("b", 4)].map(|(id, head)| (user(id), head));
    assert_eq!(
        imported,
        Imported {
            created: 6,
            known: 0,
            moved: moved.to_vec()
        }
    );
    let ids: Vec<_> = list(&store, "b", up_to(10))
        .await
        .iter()
        .map(|item| item.id)
        .collect();
    assert_eq!(ids[..3], [given[5].id, given[3].id, given[0].id]);
}

async fn imports_are_quick_enough_for_a_hundred_thousand_in_a_minute(store: Store) {
    const CHUNK: usize = 1000;
    const CHUNKS: usize = 20;
    let began = std::time::Instant::now();
    let text = Arc::new(draft(&"t".repeat(60)));
    for chunk in 0..CHUNKS {
        let given: Vec<_> = (0..CHUNK)
            .map(|number| {
                let to = user(&format!("user-{}", (chunk * 7 + number) % 300));
                Notification::created(&text, to, Uuid::now_v7(), 0, long_ago())
            })
            .collect();
        assert_eq!(store.import(&given).await.unwrap().created, CHUNK as u64);
    }
    let took = began.elapsed();
    assert!(took.as_secs() < 12, "{took:?}");
    let (unread, head) = counters(&store, "user-0").await;
    assert_eq!(unread, head);
}
