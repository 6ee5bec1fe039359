//! What devices say that they have received, and what support sees of it.

use bellhop::notification::Reason;
use bellhop::store::{Confirmation, Store};

use super::{counters, moved, send, send_many, user};
use crate::databases::Database;

contract! {
    what_was_received_is_noted_once_and_takes_no_number
    a_confirmation_is_bounded_by_what_there_is
    an_inspection_shows_the_last_changes_newest_first
    a_user_unknown_to_the_store_can_be_inspected
}

fn said(id: &str, above: u64, seq: u64) -> Confirmation {
    Confirmation {
        user: user(id),
        above,
        seq,
    }
}

/// The seqs of what is confirmed, newest first.
async fn confirmed(store: &Store, id: &str) -> Vec<u64> {
    let inspection = store.inspect(&user(id), 5000).await.unwrap();
    let rows = inspection.changes.iter();
    rows.filter(|row| row.confirmed_at.is_some())
        .map(|row| row.seq)
        .collect()
}

async fn what_was_received_is_noted_once_and_takes_no_number(store: Store) {
    let items = send_many(&store, "42", 4).await;
    send_many(&store, "7", 2).await;
    let later = store
        .confirm(&[said("42", 0, 2), said("7", 1, 2), said("nobody", 0, 9)])
        .await
        .unwrap();
    assert!(later.is_empty());
    assert_eq!(confirmed(&store, "42").await, [2, 1]);
    assert_eq!(confirmed(&store, "7").await, [2]);
    assert_eq!(
        store.standing(&user("nobody")).await.unwrap(),
        bellhop::store::Standing::default()
    );

    let first = store.inspect(&user("42"), 10).await.unwrap().changes[3].confirmed_at;
    store
        .set_read(&user("42"), items[0].id, true)
        .await
        .unwrap();
    store
        .delete(&user("42"), items[3].id, Reason::Deleted)
        .await
        .unwrap();
    store.confirm(&[said("42", 2, 6)]).await.unwrap();
    assert_eq!(confirmed(&store, "42").await, [6, 5, 3, 2]);
    let row = &store.inspect(&user("42"), 10).await.unwrap().changes[1];
    assert_eq!((row.created_seq, row.confirmed_at), (1, first));
    assert_eq!(counters(&store, "42").await, (2, 6));
    assert!(store.confirm(&[]).await.unwrap().is_empty());
}

async fn a_confirmation_is_bounded_by_what_there_is(store: Store) {
    send_many(&store, "42", 1000).await;
    send_many(&store, "42", 5).await;
    let all = u64::MAX;
    store.confirm(&[said("42", 0, all)]).await.unwrap();
    // The last thousand: what is older was not received just now.
    assert_eq!(
        confirmed(&store, "42").await,
        (6..=1005).rev().collect::<Vec<_>>()
    );
    store
        .confirm(&[said("42", all, all), said("42", 0, 3)])
        .await
        .unwrap();
    assert_eq!(confirmed(&store, "42").await.len(), 1003);
}

async fn an_inspection_shows_the_last_changes_newest_first(store: Store) {
    let items = send_many(&store, "42", 3).await;
    store.set_clicked(&user("42"), items[0].id).await.unwrap();
    store
        .delete(&user("42"), items[1].id, Reason::Withdrawn)
        .await
        .unwrap();
    store.read_all(&user("42")).await.unwrap();

    let inspection = store.inspect(&user("42"), 2).await.unwrap();
    assert_eq!(inspection.standing.counters, moved(0, 6));
    assert_eq!(
        (
            inspection.floor,
            inspection.read_all_seq,
            inspection.cleared_seq
        ),
        (0, 6, 0)
    );
    let rows: Vec<_> = inspection
        .changes
        .iter()
        .map(|row| (row.seq, row.created_seq, row.id, row.delete_reason))
        .collect();
    assert_eq!(
        rows,
        [
            (5, 2, items[1].id, Some(Reason::Withdrawn)),
            (4, 1, items[0].id, None)
        ]
    );
    let [tombstone, clicked] = &inspection.changes[..] else {
        panic!("two rows")
    };
    assert!(tombstone.deleted_at.is_some() && clicked.deleted_at.is_none());
    assert!(
        clicked.clicked_at.is_some() && clicked.read_at.is_some() && clicked.confirmed_at.is_none()
    );
    assert_eq!(
        (clicked.kind.as_str(), clicked.priority.as_str()),
        ("GENERAL", "NORMAL")
    );

    let none = store.inspect(&user("42"), 0).await.unwrap();
    assert!(none.changes.is_empty());
    assert_eq!(none.standing.counters, moved(0, 6));
    send(&store, "42").await;
    assert_eq!(
        store.inspect(&user("42"), 1).await.unwrap().changes[0].seq,
        7
    );
}

async fn a_user_unknown_to_the_store_can_be_inspected(store: Store) {
    let inspection = store.inspect(&user("nobody"), 10).await.unwrap();
    assert_eq!(inspection.standing.counters, moved(0, 0));
    assert!(inspection.changes.is_empty());
    store.revoke(&user("nobody")).await.unwrap();
    let inspection = store.inspect(&user("nobody"), 10).await.unwrap();
    assert_eq!(inspection.standing.counters, moved(0, 1));
    assert!(inspection.changes.is_empty());
}

/// Whoever is at work on a user's inbox is not waited for.
#[tokio::test]
async fn a_user_that_somebody_else_holds_is_left_for_the_next_time() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let store = super::migrated(&database).await;
    send_many(&store, "42", 2).await;
    send_many(&store, "7", 2).await;
    let mut other = database.connection().await;
    let hold = "BEGIN; SELECT * FROM user_feed WHERE user_id = '42' FOR UPDATE";
    sqlx::raw_sql(hold).execute(&mut other).await.unwrap();

    let both = [said("7", 0, 2), said("42", 0, 2)];
    assert_eq!(store.confirm(&both).await.unwrap(), both[1..]);
    assert_eq!(confirmed(&store, "7").await, [2, 1]);
    let one = bellhop::store::Retention {
        days: 0,
        changes: 1,
    };
    let retained = store.retain(&user("42"), one).await.unwrap();
    assert!(retained.gone.is_empty() && retained.removed == 0 && !retained.more);

    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert!(store.confirm(&both[1..]).await.unwrap().is_empty());
    assert_eq!(confirmed(&store, "42").await, [2, 1]);
    assert_eq!(store.retain(&user("42"), one).await.unwrap().gone.len(), 1);
}
