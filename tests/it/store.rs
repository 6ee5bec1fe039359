//! The store's contract: every case runs on both databases.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bellhop::notification::{Draft, Kind, Notification, Priority, Reason};
use bellhop::store::{
    Address, Batch, Bulk, Counters, Created, CreatedItem, Deletion, IdempotencyKey, ListQuery,
    Missed, RowState, Store, StoreError,
};
use bellhop::user::UserId;
use chrono::{DateTime, SubsecRound, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::databases::Database;

/// One test for each case and database: `store::sqlite::…` and `store::postgres::…`.
macro_rules! contract {
    ($($case:ident)*) => {
        mod sqlite {
            use super::Database;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let database = Database::sqlite();
                    super::$case($crate::store::migrated(&database).await).await;
                }
            )*
        }
        mod postgres {
            use super::Database;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let Some(database) = Database::postgres().await else { return };
                    super::$case($crate::store::migrated(&database).await).await;
                }
            )*
        }
    };
}

/// The same, for cases that open the database by themselves.
macro_rules! aged {
    ($($case:ident)*) => {
        mod aged_sqlite {
            use super::Database;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(Database::sqlite()).await;
                }
            )*
        }
        mod aged_postgres {
            use super::Database;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let Some(database) = Database::postgres().await else { return };
                    super::$case(database).await;
                }
            )*
        }
    };
}

mod gathered;
mod history;
pub mod import;
mod plans;
mod publisher;
mod received;
mod time;

contract! {
    a_user_that_nothing_was_sent_to_has_zero_counters
    a_users_notifications_are_numbered_from_one
    the_items_of_one_user_in_a_batch_get_consecutive_numbers_in_its_order
    a_batch_without_addresses_does_nothing
    an_address_without_a_draft_is_refused_and_takes_no_number
    a_reader_of_the_counter_misses_nothing_that_concurrent_writers_commit
    batches_that_share_users_in_opposite_order_do_not_deadlock
    publishes_that_come_at_once_each_keep_their_number_and_their_text
    everything_that_was_given_comes_back_exactly
    a_key_creates_once_however_often_it_is_sent_at_once
    a_key_for_another_body_is_refused
    a_key_of_another_scope_is_another_key
    a_first_try_that_failed_leaves_its_key_free
    a_replay_answers_as_it_was_created_whatever_happened_since
    reading_takes_a_number_and_reading_again_does_not
    an_unknown_or_foreign_id_is_not_found
    reading_one_at_once_from_many_devices_counts_once
    acts_on_one_inbox_at_once_neither_deadlock_nor_drift
    reading_all_is_one_change_and_leaves_the_rows_their_numbers
    clearing_is_one_change_and_leaves_the_rows_their_numbers
    what_is_deleted_is_remembered_as_deleted
    pages_stay_in_place_while_new_ones_arrive
    a_page_holds_what_its_filter_says
    what_was_missed_comes_in_order_and_says_when_there_is_more
    the_count_is_a_recount_after_any_history
    the_epoch_stays_and_is_short
}

async fn migrated(database: &Database) -> Store {
    let store = database.open().await;
    store.migrate().await.unwrap();
    store
}

fn user(id: &str) -> UserId {
    UserId::try_from(id).unwrap()
}

pub fn draft(title: &str) -> Draft {
    Draft {
        kind: Kind::default(),
        priority: Priority::Normal,
        title: title.to_owned(),
        message: String::new(),
        data: RawValue::from_string("{}".to_owned()).unwrap(),
        action_url: None,
        icon: None,
        badge: None,
        silent: false,
        sticky: false,
        expires_at: None,
    }
}

/// The first draft to each of `users`.
pub fn batch(title: &str, users: &[&str]) -> Batch {
    let to = users
        .iter()
        .map(|id| Address {
            user: user(id),
            id: Uuid::now_v7(),
            draft: 0,
        })
        .collect();
    Batch {
        drafts: vec![Arc::new(draft(title))],
        to,
    }
}

fn key(scope: &str, key: &str, body: u8) -> IdempotencyKey {
    IdempotencyKey {
        scope: scope.to_owned(),
        key: key.to_owned(),
        body: [body; 32],
    }
}

async fn send(store: &Store, to: &str) -> CreatedItem {
    store
        .create(&batch("hello", &[to]), None)
        .await
        .unwrap()
        .items
        .remove(0)
}

async fn send_many(store: &Store, to: &str, count: usize) -> Vec<CreatedItem> {
    store
        .create(&batch("hello", &vec![to; count]), None)
        .await
        .unwrap()
        .items
}

async fn counters(store: &Store, id: &str) -> (u64, u64) {
    let Counters { unread, seq } = store.standing(&user(id)).await.unwrap().counters;
    (unread, seq)
}

async fn list(store: &Store, id: &str, query: ListQuery) -> Vec<Notification> {
    store.list(&user(id), &query).await.unwrap().items
}

fn up_to(limit: u32) -> ListQuery {
    ListQuery {
        limit,
        ..ListQuery::default()
    }
}

fn moved(unread: u64, seq: u64) -> Counters {
    Counters { unread, seq }
}

fn seqs(missed: &Missed) -> Vec<u64> {
    missed.rows.iter().map(|row| row.seq).collect()
}

async fn a_user_that_nothing_was_sent_to_has_zero_counters(store: Store) {
    assert_eq!(counters(&store, "42").await, (0, 0));

    let page = store.list(&user("42"), &up_to(10)).await.unwrap();
    assert_eq!(
        (page.items.len(), page.next, page.unread, page.seq),
        (0, None, 0, 0)
    );

    let missed = store.missed(&user("42"), 0, 10).await.unwrap();
    assert_eq!(
        (
            missed.head,
            missed.floor,
            missed.unread,
            missed.rows.len(),
            missed.more
        ),
        (0, 0, 0, 0, false)
    );

    let nothing = Bulk {
        changed: 0,
        counters: moved(0, 0),
    };
    assert_eq!(store.read_all(&user("42")).await.unwrap(), nothing);
    assert_eq!(store.clear(&user("42")).await.unwrap(), nothing);
    assert_eq!(
        store.missed(&user("42"), u64::MAX, 10).await.unwrap().head,
        0
    );
}

async fn a_users_notifications_are_numbered_from_one(store: Store) {
    for seq in 1..=3 {
        let item = send(&store, "42").await;
        assert_eq!((item.seq, item.unread), (seq, seq));
    }
    assert_eq!(send(&store, "7").await.seq, 1);
    assert_eq!(counters(&store, "42").await, (3, 3));
    assert_eq!(counters(&store, "4").await, (0, 0));
}

async fn the_items_of_one_user_in_a_batch_get_consecutive_numbers_in_its_order(store: Store) {
    send(&store, "b").await;
    let users = ["b", "a", "b", "c", "a", "b"];
    let to = users.iter().enumerate().map(|(draft, id)| Address {
        user: user(id),
        id: Uuid::now_v7(),
        draft,
    });
    let batch = Batch {
        drafts: (0..6).map(|n| Arc::new(draft(&n.to_string()))).collect(),
        to: to.collect(),
    };

    let created = store.create(&batch, None).await.unwrap();

    let numbers: Vec<_> = created
        .items
        .iter()
        .map(|item| (item.user.as_str(), item.seq, item.unread))
        .collect();
    assert_eq!(
        numbers,
        [
            ("b", 2, 2),
            ("a", 1, 1),
            ("b", 3, 3),
            ("c", 1, 1),
            ("a", 2, 2),
            ("b", 4, 4)
        ]
    );
    let ids = |items: &[CreatedItem]| {
        items
            .iter()
            .map(|item| (item.id, item.draft))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(&created.items),
        batch
            .to
            .iter()
            .map(|address| (address.id, address.draft))
            .collect::<Vec<_>>()
    );

    let titles: Vec<_> = list(&store, "b", up_to(9))
        .await
        .into_iter()
        .map(|item| item.title)
        .collect();
    assert_eq!(titles, ["5", "2", "0", "hello"]);
    assert_eq!(counters(&store, "a").await, (2, 2));
}

async fn a_batch_without_addresses_does_nothing(store: Store) {
    let created = store
        .create(&batch("hello", &[]), Some(&key("a", "k", 1)))
        .await
        .unwrap();
    assert!(created.items.is_empty() && !created.replayed);
}

async fn an_address_without_a_draft_is_refused_and_takes_no_number(store: Store) {
    let mut batch = batch("hello", &["42"]);
    batch.to[0].draft = 1;
    assert!(matches!(
        store.create(&batch, None).await,
        Err(StoreError::Failed(_))
    ));
    assert_eq!(counters(&store, "42").await, (0, 0));
}

/// A reader that asks for what is above its cursor, as every hub does, while commits overtake each other.
async fn a_reader_of_the_counter_misses_nothing_that_concurrent_writers_commit(store: Store) {
    const WRITERS: usize = 16;
    const EACH: usize = 25;
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0..EACH {
                let other = format!("other-{n}");
                let items = store
                    .create(&batch("hello", &["42", &other]), None)
                    .await
                    .unwrap()
                    .items;
                acknowledged.push((items[0].seq, items[0].id));
            }
            acknowledged
        });
    }

    let mut seen = Vec::new();
    while seen.len() < WRITERS * EACH {
        let cursor = seen.len() as u64;
        let missed = store.missed(&user("42"), cursor, 50).await.unwrap();
        let expected: Vec<u64> = (cursor + 1..=cursor + missed.rows.len() as u64).collect();
        assert_eq!(seqs(&missed), expected, "a hole");
        assert!(
            missed.more || missed.head == cursor + missed.rows.len() as u64,
            "the head is not in the snapshot"
        );
        for row in missed.rows {
            let RowState::Live(notification) = row.state else {
                unreachable!("nothing was deleted")
            };
            seen.push((row.seq, notification.id));
        }
    }

    let mut acknowledged: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    acknowledged.sort_unstable();
    assert_eq!(seen, acknowledged);
    assert_eq!(counters(&store, "42").await, (400, 400));
}

async fn batches_that_share_users_in_opposite_order_do_not_deadlock(store: Store) {
    const BATCHES: usize = 24;
    let names: Vec<String> = (0..60).map(|n| format!("user-{n}")).collect();
    let mut writers = JoinSet::new();
    for n in 0..BATCHES {
        let store = store.clone();
        let mut users: Vec<String> = names.clone();
        if n % 2 == 0 {
            users.reverse();
        }
        writers.spawn(async move {
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            store.create(&batch("hello", &users), None).await.unwrap();
        });
    }
    writers.join_all().await;
    for name in &names {
        assert_eq!(
            counters(&store, name).await,
            (BATCHES as u64, BATCHES as u64)
        );
    }
}

const DATA: &str = "{ \"b\":1, \"a\" : [1.0, 1e400], \"a\": \"\\u0000 \\ud800 ' \\\" \\\\ 🦀\" }";

/// Whatever a quoting rule, an encoding or an array syntax could trip over.
fn rich_draft() -> Draft {
    let expires_at = DateTime::parse_from_rfc3339("2099-12-31T23:59:59.123999Z")
        .unwrap()
        .to_utc();
    Draft {
        kind: Kind::parse("ORDER_2").unwrap(),
        priority: Priority::Urgent,
        title: "🛎️ O'Brien \"said\" \\ {a,NULL} $1 ?1 %s".to_owned(),
        message: "first line\n\ttabbed\u{200d}👩‍👩‍👧 e\u{301} NULL".to_owned(),
        data: RawValue::from_string(DATA.to_owned()).unwrap(),
        action_url: Some("/orders/7?a=b&c='d'".to_owned()),
        icon: Some(String::new()),
        badge: None,
        silent: true,
        sticky: true,
        expires_at: Some(expires_at),
    }
}

async fn everything_that_was_given_comes_back_exactly(store: Store) {
    let address = |id, draft| Address {
        user: user(id),
        id: Uuid::now_v7(),
        draft,
    };
    // One publish for one user goes another way than one for several.
    comes_back_exactly(&store, vec![address("a.B_c~d@e:f-g", 1), address("7", 0)]).await;
    comes_back_exactly(&store, vec![address("b.B_c~d@e:f-g", 1)]).await;
}

/// What is given to the first, a new user.
async fn comes_back_exactly(store: &Store, to: Vec<Address>) {
    let rich = rich_draft();
    let before = Utc::now();
    let drafts = vec![Arc::new(draft("plain")), Arc::new(rich.clone())];
    let given = Batch { drafts, to };

    let item = store.create(&given, None).await.unwrap().items.remove(0);

    assert_eq!(item.created_at, item.created_at.trunc_subsecs(3));
    assert!(
        (item.created_at - before).num_seconds().abs() <= 2,
        "{} {before}",
        item.created_at
    );
    let expected = Notification {
        expires_at: rich.expires_at.map(|time| time.trunc_subsecs(3)),
        ..Notification::created(&rich, item.user.clone(), item.id, 1, item.created_at)
    };
    let found = store
        .get(&item.user, item.id)
        .await
        .unwrap()
        .notification
        .unwrap();
    assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    assert_eq!(found.data.get(), DATA);
    let listed = store
        .list(&item.user, &up_to(1))
        .await
        .unwrap()
        .items
        .remove(0);
    assert_eq!(format!("{listed:?}"), format!("{expected:?}"));
    let read = store
        .set_read(&item.user, item.id, true)
        .await
        .unwrap()
        .unwrap()
        .notification;
    let expected = Notification {
        seq: 2,
        is_read: true,
        read_at: read.read_at,
        ..expected
    };
    assert_eq!(format!("{read:?}"), format!("{expected:?}"));
}

async fn publishes_that_come_at_once_each_keep_their_number_and_their_text(store: Store) {
    const USERS: [&str; 3] = ["c", "a", "b"];
    let mut publishers = JoinSet::new();
    for number in 0..60_usize {
        let store = store.clone();
        publishers.spawn(async move {
            // Every fifth is for all of them, in another order than that of their ids.
            let to = match number % 5 {
                0 => &USERS[..],
                _ => &USERS[number % 3..=number % 3],
            };
            let title = number.to_string();
            let created = store.create(&batch(&title, to), None).await.unwrap();
            (title, created.items)
        });
    }
    for (title, items) in publishers.join_all().await {
        for item in items {
            assert_eq!(item.unread, item.seq, "nobody reads");
            let found = store.get(&item.user, item.id).await.unwrap();
            let found = found.notification.unwrap();
            assert_eq!((found.seq, &found.title), (item.seq, &title));
        }
    }
    for user in USERS {
        assert_eq!(counters(&store, user).await, (28, 28));
    }
}

async fn a_key_creates_once_however_often_it_is_sent_at_once(store: Store) {
    let mut requests = JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        requests.spawn(async move {
            store
                .create(
                    &batch("hello", &["b", "a", "b"]),
                    Some(&key("shop", "order-7", 1)),
                )
                .await
                .unwrap()
        });
    }
    let answers: Vec<Created> = requests.join_all().await;

    let (replayed, created): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.replayed);
    assert_eq!((created.len(), replayed.len()), (1, 49));
    let told = |item: &CreatedItem| {
        (
            item.user.clone(),
            item.id,
            item.draft,
            item.seq,
            item.created_at,
        )
    };
    let first: Vec<_> = created[0].items.iter().map(told).collect();
    assert_eq!(
        first
            .iter()
            .map(|(user, _, _, seq, _)| (user.as_str(), *seq))
            .collect::<Vec<_>>(),
        [("b", 1), ("a", 1), ("b", 2)]
    );
    for answer in &replayed {
        assert_eq!(answer.items.iter().map(told).collect::<Vec<_>>(), first);
    }
    assert_eq!(counters(&store, "b").await, (2, 2));
    assert_eq!(list(&store, "a", up_to(9)).await.len(), 1);
}

async fn a_key_for_another_body_is_refused(store: Store) {
    store
        .create(&batch("hello", &["42"]), Some(&key("shop", "k", 1)))
        .await
        .unwrap();
    for users in [&["42"][..], &["42", "7"], &["7"]] {
        let answer = store
            .create(&batch("other", users), Some(&key("shop", "k", 2)))
            .await;
        assert!(matches!(answer, Err(StoreError::KeyReused)), "{answer:?}");
    }
    assert_eq!(counters(&store, "42").await, (1, 1));
    assert_eq!(counters(&store, "7").await, (0, 0));
}

async fn a_key_of_another_scope_is_another_key(store: Store) {
    for (n, scope) in ["shop", "shop2"].into_iter().enumerate() {
        let created = store
            .create(&batch("hello", &["42"]), Some(&key(scope, "k", 1)))
            .await
            .unwrap();
        assert!(!created.replayed);
        assert_eq!(created.items[0].seq, n as u64 + 1);
    }
}

async fn a_first_try_that_failed_leaves_its_key_free(store: Store) {
    let known = send(&store, "42").await;
    let mut failing = batch("hello", &["7", "42"]);
    failing.to[1].id = known.id;
    let key = key("shop", "k", 1);
    assert!(matches!(
        store.create(&failing, Some(&key)).await,
        Err(StoreError::Failed(_))
    ));
    assert_eq!(counters(&store, "7").await, (0, 0));

    let created = store
        .create(&batch("hello", &["7"]), Some(&key))
        .await
        .unwrap();
    assert!(!created.replayed);
    assert_eq!(created.items[0].seq, 1);
}

async fn a_replay_answers_as_it_was_created_whatever_happened_since(store: Store) {
    let key = key("shop", "k", 1);
    let first = store
        .create(&batch("hello", &["42", "42"]), Some(&key))
        .await
        .unwrap();
    store
        .set_read(&user("42"), first.items[0].id, true)
        .await
        .unwrap();
    store
        .delete(&user("42"), first.items[1].id, Reason::Deleted)
        .await
        .unwrap();

    let again = store
        .create(&batch("hello", &["42", "42"]), Some(&key))
        .await
        .unwrap();

    assert!(again.replayed);
    for (first, again) in first.items.iter().zip(&again.items) {
        assert_eq!(
            (first.id, first.seq, first.created_at),
            (again.id, again.seq, again.created_at)
        );
    }
    assert_eq!(counters(&store, "42").await, (0, 4));
}

async fn reading_takes_a_number_and_reading_again_does_not(store: Store) {
    let items = send_many(&store, "42", 2).await;
    let id = items[0].id;

    let read = store
        .set_read(&user("42"), id, true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.moved, Some(moved(1, 3)));
    assert_eq!(
        (read.notification.seq, read.notification.is_read),
        (3, true)
    );
    assert_eq!(read.notification.title, "hello");
    let read_at = read.notification.read_at.unwrap();

    let again = store
        .set_read(&user("42"), id, true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((again.moved, again.notification.seq), (None, 3));
    assert_eq!(again.notification.read_at, Some(read_at));
    assert_eq!(counters(&store, "42").await, (1, 3));

    let unread = store
        .set_read(&user("42"), id, false)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(unread.moved, Some(moved(2, 4)));
    assert_eq!(
        (unread.notification.seq, unread.notification.read_at),
        (4, None)
    );
    let again = store
        .set_read(&user("42"), id, false)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((again.moved, again.notification.seq), (None, 4));
    assert_eq!(counters(&store, "42").await, (2, 4));
}

async fn an_unknown_or_foreign_id_is_not_found(store: Store) {
    let item = send(&store, "42").await;
    for (whose, id) in [("7", item.id), ("42", Uuid::now_v7())] {
        assert!(
            store
                .get(&user(whose), id)
                .await
                .unwrap()
                .notification
                .is_none()
        );
        assert!(
            store
                .set_read(&user(whose), id, true)
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            store
                .set_read(&user(whose), id, false)
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(
            store
                .delete(&user(whose), id, Reason::Deleted)
                .await
                .unwrap(),
            Deletion::Unknown
        );
    }
    assert_eq!(counters(&store, "7").await, (0, 0));
    assert_eq!(counters(&store, "42").await, (1, 1));
}

async fn reading_one_at_once_from_many_devices_counts_once(store: Store) {
    let items = send_many(&store, "42", 3).await;
    for (round, read) in [true, false, true].into_iter().enumerate() {
        let mut devices = JoinSet::new();
        for _ in 0..16 {
            let (store, id) = (store.clone(), items[1].id);
            devices.spawn(async move {
                store
                    .set_read(&user("42"), id, read)
                    .await
                    .unwrap()
                    .unwrap()
            });
        }
        let answers = devices.join_all().await;

        let seq = 4 + round as u64;
        let unread = if read { 2 } else { 3 };
        let steps: Vec<_> = answers.iter().filter_map(|answer| answer.moved).collect();
        assert_eq!(steps, [moved(unread, seq)]);
        assert!(answers.iter().all(|answer| answer.notification.is_read == read && answer.notification.seq == seq));
        assert_eq!(counters(&store, "42").await, (unread, seq));
    }
}

/// Everything at once on one user: counts stay exact, and each change took exactly one number.
async fn acts_on_one_inbox_at_once_neither_deadlock_nor_drift(store: Store) {
    let items = send_many(&store, "42", 20).await;
    let mut actors = JoinSet::new();
    for actor in 0..12_usize {
        let (store, ids) = (
            store.clone(),
            items.iter().map(|item| item.id).collect::<Vec<_>>(),
        );
        actors.spawn(async move {
            let mut taken = Vec::new();
            for step in 0..40_usize {
                let id = ids[(actor * 7 + step * 3) % ids.len()];
                let me = user("42");
                match (actor + step) % 6 {
                    0 | 1 => taken.push(
                        store
                            .create(&batch("more", &["42"]), None)
                            .await
                            .unwrap()
                            .items[0]
                            .seq,
                    ),
                    2 => taken.extend(updated(&store, id, true).await),
                    3 => taken.extend(updated(&store, id, false).await),
                    4 if step % 10 == 4 => {
                        match store.delete(&me, id, Reason::Deleted).await.unwrap() {
                            Deletion::Done(counters) => taken.push(counters.seq),
                            Deletion::Already | Deletion::Unknown => {}
                        }
                    }
                    _ if step == 37 && actor == 3 => {
                        taken.extend(bulk_seq(store.clear(&me).await.unwrap()));
                    }
                    _ => taken.extend(bulk_seq(store.read_all(&me).await.unwrap())),
                }
            }
            taken
        });
    }
    let mut taken: Vec<u64> = actors.join_all().await.into_iter().flatten().collect();
    taken.sort_unstable();

    let (unread, head) = counters(&store, "42").await;
    assert_eq!(taken, (21..=head).collect::<Vec<_>>());
    let page = store.list(&user("42"), &up_to(1000)).await.unwrap();
    assert_eq!(
        page.items.iter().filter(|item| !item.is_read).count() as u64,
        unread
    );
}

async fn updated(store: &Store, id: Uuid, read: bool) -> Option<u64> {
    Some(
        store
            .set_read(&user("42"), id, read)
            .await
            .unwrap()?
            .moved?
            .seq,
    )
}

fn bulk_seq(bulk: Bulk) -> Option<u64> {
    (bulk.changed > 0).then_some(bulk.counters.seq)
}

async fn reading_all_is_one_change_and_leaves_the_rows_their_numbers(store: Store) {
    let items = send_many(&store, "42", 3).await;
    store
        .set_read(&user("42"), items[0].id, true)
        .await
        .unwrap();
    send(&store, "7").await;

    assert_eq!(
        store.read_all(&user("42")).await.unwrap(),
        Bulk {
            changed: 2,
            counters: moved(0, 5)
        }
    );
    assert_eq!(
        store.read_all(&user("42")).await.unwrap(),
        Bulk {
            changed: 0,
            counters: moved(0, 5)
        }
    );

    let missed = store.missed(&user("42"), 0, 10).await.unwrap();
    assert_eq!(
        (
            missed.head,
            missed.unread,
            missed.read_all_seq,
            missed.cleared_seq
        ),
        (5, 0, 5, 0)
    );
    assert_eq!(seqs(&missed), [2, 3, 4]);
    assert!(
        list(&store, "42", up_to(9))
            .await
            .iter()
            .all(|item| item.is_read && item.read_at.is_some())
    );
    assert_eq!(counters(&store, "7").await, (1, 1));

    assert_eq!(send(&store, "42").await.seq, 6);
    assert_eq!(
        store.missed(&user("42"), 4, 10).await.unwrap().read_all_seq,
        5
    );
}

async fn clearing_is_one_change_and_leaves_the_rows_their_numbers(store: Store) {
    let items = send_many(&store, "42", 3).await;
    store
        .set_read(&user("42"), items[0].id, true)
        .await
        .unwrap();
    send(&store, "7").await;

    assert_eq!(
        store.clear(&user("42")).await.unwrap(),
        Bulk {
            changed: 3,
            counters: moved(0, 5)
        }
    );
    assert_eq!(
        store.clear(&user("42")).await.unwrap(),
        Bulk {
            changed: 0,
            counters: moved(0, 5)
        }
    );
    assert_eq!(
        store.read_all(&user("42")).await.unwrap(),
        Bulk {
            changed: 0,
            counters: moved(0, 5)
        }
    );

    let missed = store.missed(&user("42"), 0, 10).await.unwrap();
    assert_eq!(
        (
            missed.head,
            missed.unread,
            missed.read_all_seq,
            missed.cleared_seq
        ),
        (5, 0, 0, 5)
    );
    assert_eq!(seqs(&missed), [2, 3, 4]);
    assert!(missed.rows.iter().all(|row| matches!(
        row.state,
        RowState::Deleted {
            reason: Reason::Deleted,
            ..
        }
    )));
    assert!(list(&store, "42", up_to(9)).await.is_empty());
    assert_eq!(
        store
            .delete(&user("42"), items[1].id, Reason::Deleted)
            .await
            .unwrap(),
        Deletion::Already
    );
    assert_eq!(counters(&store, "7").await, (1, 1));
}

async fn what_is_deleted_is_remembered_as_deleted(store: Store) {
    let items = send_many(&store, "42", 3).await;
    let me = user("42");
    store.set_read(&me, items[0].id, true).await.unwrap();

    assert_eq!(
        store
            .delete(&me, items[0].id, Reason::Deleted)
            .await
            .unwrap(),
        Deletion::Done(moved(2, 5))
    );
    assert_eq!(
        store
            .delete(&me, items[1].id, Reason::Deleted)
            .await
            .unwrap(),
        Deletion::Done(moved(1, 6))
    );
    assert_eq!(
        store
            .delete(&me, items[1].id, Reason::Deleted)
            .await
            .unwrap(),
        Deletion::Already
    );
    assert_eq!(
        store
            .delete(&me, Uuid::now_v7(), Reason::Deleted)
            .await
            .unwrap(),
        Deletion::Unknown
    );
    assert_eq!(counters(&store, "42").await, (1, 6));

    assert!(
        store
            .get(&me, items[0].id)
            .await
            .unwrap()
            .notification
            .is_none()
    );
    assert!(
        store
            .set_read(&me, items[0].id, false)
            .await
            .unwrap()
            .is_none()
    );
    let left: Vec<_> = list(&store, "42", up_to(9))
        .await
        .into_iter()
        .map(|item| item.id)
        .collect();
    assert_eq!(left, [items[2].id]);

    let missed = store.missed(&me, 0, 10).await.unwrap();
    let rows: Vec<_> = missed
        .rows
        .iter()
        .map(|row| (row.seq, row.created_seq))
        .collect();
    assert_eq!(rows, [(3, 3), (5, 1), (6, 2)]);
    let RowState::Deleted { id, reason } = missed.rows[1].state else {
        unreachable!("{:?}", missed.rows[1])
    };
    assert_eq!((id, reason), (items[0].id, Reason::Deleted));
}

async fn pages_stay_in_place_while_new_ones_arrive(store: Store) {
    let items = send_many(&store, "42", 5).await;
    store
        .set_read(&user("42"), items[0].id, true)
        .await
        .unwrap();
    let mut query = up_to(2);
    let mut seen = Vec::new();
    loop {
        let page = store.list(&user("42"), &query).await.unwrap();
        assert_eq!((page.unread, page.seq), counters(&store, "42").await);
        seen.extend(page.items.into_iter().map(|item| item.id));
        if page.next.is_none() {
            break;
        }
        query.before = page.next;
        send(&store, "42").await;
    }
    assert_eq!(
        seen,
        items.iter().rev().map(|item| item.id).collect::<Vec<_>>()
    );

    query.before = Some(1);
    let past_the_end = store.list(&user("42"), &query).await.unwrap();
    assert_eq!((past_the_end.items.len(), past_the_end.next), (0, None));
    assert_eq!((past_the_end.unread, past_the_end.seq), (6, 8));
    query.before = Some(u64::MAX);
    assert_eq!(list(&store, "42", query).await[0].seq, 8);
}

async fn a_page_holds_what_its_filter_says(store: Store) {
    let order = Draft {
        kind: Kind::parse("ORDER").unwrap(),
        ..draft("order")
    };
    let to = [0, 1, 0, 1].map(|draft| Address {
        user: user("42"),
        id: Uuid::now_v7(),
        draft,
    });
    let given = Batch {
        drafts: vec![Arc::new(draft("general")), Arc::new(order)],
        to: to.to_vec(),
    };
    store.create(&given, None).await.unwrap();
    store.set_read(&user("42"), to[0].id, true).await.unwrap();
    store.set_read(&user("42"), to[1].id, true).await.unwrap();

    let kind = Kind::parse("ORDER");
    let cases = [
        (None, None, vec![3, 2, 1, 0]),
        (Some(true), None, vec![3, 2]),
        (Some(false), None, vec![1, 0]),
        (None, kind.clone(), vec![3, 1]),
        (Some(true), kind.clone(), vec![3]),
        (Some(false), kind, vec![1]),
        (None, Kind::parse("OTHER"), vec![]),
    ];
    for (unread, kind, expected) in cases {
        let query = ListQuery {
            limit: 9,
            before: None,
            unread,
            kind,
        };
        let page = store.list(&user("42"), &query).await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|item| item.id).collect();
        assert_eq!(
            ids,
            expected
                .into_iter()
                .map(|n: usize| to[n].id)
                .collect::<Vec<_>>(),
            "{query:?}"
        );
        assert_eq!((page.unread, page.seq, page.next), (2, 6, None));
    }
}

async fn what_was_missed_comes_in_order_and_says_when_there_is_more(store: Store) {
    let items = send_many(&store, "42", 4).await;
    store
        .set_read(&user("42"), items[1].id, true)
        .await
        .unwrap();
    store
        .delete(&user("42"), items[0].id, Reason::Deleted)
        .await
        .unwrap();
    let missed = async |since, limit| store.missed(&user("42"), since, limit).await.unwrap();

    let all = missed(0, 4).await;
    assert_eq!((seqs(&all), all.more), (vec![3, 4, 5, 6], false));
    assert_eq!((all.head, all.floor, all.unread), (6, 0, 2));
    let first = missed(0, 2).await;
    assert_eq!(
        (seqs(&first), first.more, first.head),
        (vec![3, 4], true, 6)
    );
    let rest = missed(4, 2).await;
    assert_eq!((seqs(&rest), rest.more), (vec![5, 6], false));
    let RowState::Live(read) = &rest.rows[0].state else {
        unreachable!("{:?}", rest.rows[0])
    };
    assert_eq!(
        (read.id, read.is_read, rest.rows[0].created_seq),
        (items[1].id, true, 2)
    );
    assert!(matches!(rest.rows[1].state, RowState::Deleted { id, .. } if id == items[0].id));

    for since in [6, 7, u64::MAX] {
        let none = missed(since, 10).await;
        assert_eq!(
            (none.rows.len(), none.more, none.head, none.unread),
            (0, false, 6, 2)
        );
    }
    let none_wanted = missed(0, 0).await;
    assert_eq!((none_wanted.rows.len(), none_wanted.more), (0, true));
}

/// What a history should have left behind, as simple as it can be written down.
#[derive(Default)]
struct Model {
    head: u64,
    /// Live ones by the number of their creation: id, number of the last change, read.
    live: BTreeMap<u64, (Uuid, u64, bool)>,
    deleted: HashMap<Uuid, u64>,
}

impl Model {
    fn unread(&self) -> u64 {
        self.live.values().filter(|(_, _, read)| !read).count() as u64
    }

    fn step(&mut self) -> u64 {
        self.head += 1;
        self.head
    }

    fn any(&self, random: &mut StdRng) -> Option<u64> {
        (!self.live.is_empty()).then(|| {
            *self
                .live
                .keys()
                .nth(random.random_range(0..self.live.len()))
                .unwrap()
        })
    }
}

async fn the_count_is_a_recount_after_any_history(store: Store) {
    const SEED: u64 = 20_261_123;
    let mut random = StdRng::seed_from_u64(SEED);
    let mut model = Model::default();
    for _ in 0..300 {
        act(&store, &mut model, &mut random).await;
        assert_eq!(
            counters(&store, "42").await,
            (model.unread(), model.head),
            "seed {SEED}"
        );
    }

    let found: Vec<_> = list(&store, "42", up_to(1000))
        .await
        .iter()
        .map(|item| (item.id, item.seq, item.is_read))
        .collect();
    assert_eq!(
        found,
        model.live.values().rev().copied().collect::<Vec<_>>()
    );
    let missed = store.missed(&user("42"), 0, 10_000).await.unwrap();
    let seqs = seqs(&missed);
    assert_eq!(
        seqs.iter().collect::<BTreeSet<_>>().len(),
        model.live.len() + model.deleted.len()
    );
    assert!(seqs.is_sorted());
}

async fn act(store: &Store, model: &mut Model, random: &mut StdRng) {
    let me = user("42");
    match (random.random_range(0..100), model.any(random)) {
        (0..45, _) | (_, None) => {
            for item in send_many(store, "42", random.random_range(1..4)).await {
                let seq = model.step();
                assert_eq!(item.seq, seq);
                model.live.insert(seq, (item.id, seq, false));
                assert_eq!(item.unread, model.unread());
            }
        }
        (45..80, Some(created)) => {
            read_or_unread(store, model, created, random.random_bool(0.6)).await;
        }
        (80..92, Some(created)) => {
            let (id, _, _) = model.live.remove(&created).unwrap();
            let seq = model.step();
            model.deleted.insert(id, seq);
            let deletion = store.delete(&me, id, Reason::Deleted).await.unwrap();
            assert_eq!(deletion, Deletion::Done(moved(model.unread(), seq)));
        }
        (92..98, Some(_)) => {
            let changed = model.unread();
            model.head += u64::from(changed > 0);
            model
                .live
                .values_mut()
                .for_each(|(_, _, read)| *read = true);
            assert_eq!(
                store.read_all(&me).await.unwrap(),
                Bulk {
                    changed,
                    counters: moved(0, model.head)
                }
            );
        }
        (_, Some(_)) => {
            let changed = model.live.len() as u64;
            let cleared = std::mem::take(&mut model.live);
            model
                .deleted
                .extend(cleared.into_values().map(|(id, seq, _)| (id, seq)));
            let seq = model.step();
            assert_eq!(
                store.clear(&me).await.unwrap(),
                Bulk {
                    changed,
                    counters: moved(0, seq)
                }
            );
        }
    }
}

async fn read_or_unread(store: &Store, model: &mut Model, created: u64, read: bool) {
    let (id, seq, was) = model.live[&created];
    let seq = if was == read { seq } else { model.step() };
    model.live.insert(created, (id, seq, read));
    let updated = store
        .set_read(&user("42"), id, read)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        updated.moved,
        (was != read).then_some(moved(model.unread(), model.head))
    );
    assert_eq!(
        (updated.notification.seq, updated.notification.is_read),
        (seq, read)
    );
}

async fn the_epoch_stays_and_is_short(store: Store) {
    let epoch = store.epoch().await.unwrap();
    assert!(
        (1..=40).contains(&epoch.len())
            && epoch
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    );
    send(&store, "42").await;
    assert_eq!(store.epoch().await.unwrap(), epoch);
}

#[tokio::test]
async fn nodes_that_start_at_once_apply_each_migration_once() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let mut nodes = JoinSet::new();
    for _ in 0..5 {
        let store = database.open().await;
        nodes.spawn(async move {
            let applied = store.migrate().await.unwrap();
            (applied, store.epoch().await.unwrap())
        });
    }
    let (applied, epochs): (Vec<usize>, BTreeSet<String>) =
        nodes.join_all().await.into_iter().unzip();

    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
        .fetch_one(&mut database.connection().await)
        .await
        .unwrap();
    assert_eq!(applied.iter().sum::<usize>() as i64, known);
    assert!(applied.iter().filter(|applied| **applied > 0).count() == 1 && known > 0);
    assert_eq!(epochs.len(), 1);
    assert_eq!(database.open().await.migrate().await.unwrap(), 0);
}

#[tokio::test]
async fn every_database_has_an_epoch_of_its_own() {
    let (one, other) = (Database::sqlite(), Database::sqlite());
    assert_ne!(
        migrated(&one).await.epoch().await.unwrap(),
        migrated(&other).await.epoch().await.unwrap()
    );
}

#[tokio::test]
async fn a_server_that_does_not_show_its_identity_has_an_epoch_all_the_same() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let store = migrated(&database).await;
    let full = store.epoch().await.unwrap();

    let hide = "CREATE FUNCTION public.pg_control_system() RETURNS TABLE (system_identifier bigint)
                LANGUAGE plpgsql AS $$ BEGIN RAISE insufficient_privilege; END $$";
    let mut connection = database.connection().await;
    sqlx::raw_sql(hide).execute(&mut connection).await.unwrap();
    let first = format!(
        "ALTER DATABASE {} SET search_path = public, pg_catalog",
        database.name()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(first))
        .execute(&mut connection)
        .await
        .unwrap();

    let reopened = database.open().await;
    let bare = reopened.epoch().await.unwrap();
    assert_ne!(bare, full);
    assert_eq!(reopened.epoch().await.unwrap(), bare);
}

#[tokio::test]
async fn a_file_that_is_opened_again_has_kept_everything() {
    let database = Database::sqlite();
    let store = migrated(&database).await;
    let item = send(&store, "42").await;
    let epoch = store.epoch().await.unwrap();
    store.close().await;
    assert!(matches!(
        store.standing(&user("42")).await,
        Err(StoreError::Unavailable(_))
    ));

    let store = database.open().await;
    assert_eq!(store.migrate().await.unwrap(), 0);
    assert_eq!(store.epoch().await.unwrap(), epoch);
    assert_eq!(counters(&store, "42").await, (1, 1));
    assert_eq!(
        store
            .get(&user("42"), item.id)
            .await
            .unwrap()
            .notification
            .unwrap()
            .title,
        "hello"
    );
}

#[tokio::test]
async fn a_file_that_is_in_use_is_refused_by_name() {
    let database = Database::sqlite();
    let store = migrated(&database).await;

    let refused = Store::open(&database.url, 1).await.unwrap_err();

    assert!(matches!(refused, StoreError::Refused(_)));
    let text = refused.to_string();
    assert!(
        text.contains("/bellhop.db is in use by another process"),
        "{text}"
    );
    send(&store, "42").await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let database = Database::sqlite();
    let store = migrated(&database).await;
    send(&store, "42").await;
    let file = database.url.strip_prefix("sqlite://").unwrap();
    for file in [file.to_owned(), format!("{file}-wal")] {
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }
}

#[tokio::test]
async fn an_address_that_names_no_database_is_refused() {
    for url in [
        "mysql://root@127.0.0.1/bellhop",
        "bellhop.db",
        "",
        "sqlite:///nowhere/bellhop.db",
    ] {
        assert!(
            matches!(Store::open(url, 1).await, Err(StoreError::Refused(_))),
            "{url}"
        );
    }
}

#[tokio::test]
async fn a_store_in_memory_is_a_store() {
    let store = Store::open("sqlite::memory:", 1).await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(send(&store, "42").await.seq, 1);
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let store = Store::open(&format!("postgres://bellhop@127.0.0.1:{nobody}/bellhop"), 1)
        .await
        .unwrap();
    assert!(matches!(
        store.standing(&user("42")).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(
        store.migrate().await,
        Err(StoreError::Unavailable(_))
    ));
}

/// The server's host is gone: nothing is refused, nothing is answered.
#[tokio::test]
async fn a_server_that_falls_silent_is_unavailable_and_takes_no_connection_with_it() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    migrated(&database).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = by_way_of(listener.local_addr().unwrap(), &database.url);
    let link = Link::from(listener, &database.url);
    let store = Store::open(&url, 2).await.unwrap();
    let (first, second) = (store.clone(), store.clone());
    tokio::join!(send(&first, "42"), send(&second, "7"));

    link.fall_silent();
    let (me, other) = (user("42"), user("7"));
    let (read, written) = tokio::join!(store.standing(&me), store.read_all(&other));
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(
        matches!(written, Err(StoreError::Unavailable(_))),
        "{written:?}"
    );

    link.accept_again();
    assert_eq!(counters(&store, "42").await, (1, 1));
    assert_eq!(send(&store, "7").await.seq, 2);
}

/// On a busy machine; were it dropped with the request that began it, nobody would ever be served.
#[tokio::test]
async fn a_connection_that_takes_longer_than_a_request_serves_the_next_one() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    migrated(&database).await;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = by_way_of(server.local_addr().unwrap(), &database.url);
    let store = Store::open(&url, 1).await.unwrap();
    assert!(matches!(
        store.standing(&user("42")).await,
        Err(StoreError::Unavailable(_))
    ));

    let link = Link::from(server, &database.url);
    assert_eq!(counters(&store, "42").await, (0, 0));
    assert_eq!(*link.accepted.borrow(), 1);
}

/// The server refuses one user's rows whatever comes with them: the others are not refused with it.
#[tokio::test]
async fn one_publish_that_the_server_refuses_fails_alone() {
    const REFUSE: &str = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON user_feed FOR EACH ROW WHEN (NEW.user_id = 'refused')
            EXECUTE FUNCTION refuse();";
    let Some(database) = Database::postgres().await else {
        return;
    };
    let store = migrated(&database).await;
    let mut beside = database.connection().await;
    sqlx::raw_sql(REFUSE).execute(&mut beside).await.unwrap();
    let mut publishing = JoinSet::new();
    for number in 0..200 {
        let store = store.clone();
        publishing.spawn(async move {
            let is_refused = number % 20 == 7;
            let to = if is_refused {
                "refused".to_owned()
            } else {
                format!("{number}")
            };
            let created = store.create(&batch("hello", &[&to]), None).await;
            match created {
                Ok(_) => assert!(!is_refused, "{number}"),
                Err(error) => assert!(
                    is_refused && matches!(error, StoreError::Failed(_)),
                    "{number}: {error:?}"
                ),
            }
        });
    }
    while let Some(published) = publishing.join_next().await {
        published.unwrap();
    }
    assert_eq!(counters(&store, "0").await, (1, 1));
    assert_eq!(counters(&store, "refused").await, (0, 0));
}

/// Many publishes under one key, and under others, at the same time: some go into one statement, some wait for it.
#[tokio::test]
async fn one_key_of_many_publishes_at_once_creates_once() {
    for database in [Some(Database::sqlite()), Database::postgres().await]
        .into_iter()
        .flatten()
    {
        let store = migrated(&database).await;
        let mut publishing = JoinSet::new();
        for number in 0..120_u8 {
            let store = store.clone();
            publishing.spawn(async move {
                let key = IdempotencyKey {
                    scope: "svc".to_owned(),
                    key: format!("{}", number % 3),
                    body: [1; 32],
                };
                let batch = batch("hello", &["42"]);
                let created = store.create(&batch, Some(&key)).await.unwrap();
                (
                    number % 3,
                    created.replayed,
                    created.items[0].id,
                    created.items[0].seq,
                )
            });
        }
        let mut of_keys: HashMap<u8, BTreeSet<(Uuid, u64)>> = HashMap::new();
        let mut first = 0;
        while let Some(published) = publishing.join_next().await {
            let (key, replayed, id, seq) = published.unwrap();
            first += u32::from(!replayed);
            of_keys.entry(key).or_default().insert((id, seq));
        }
        assert_eq!(first, 3);
        assert!(of_keys.len() == 3 && of_keys.values().all(|answers| answers.len() == 1));
        assert_eq!(counters(&store, "42").await, (3, 3));
    }
}

/// After a restart, or after an operator ended the sessions, one request notices; the next is served.
#[tokio::test]
async fn a_server_that_ended_its_sessions_costs_one_request() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let store = migrated(&database).await;
    let mut made = store.connections_made();
    send(&store, "42").await;
    assert!(
        made.has_changed().unwrap(),
        "publishes have connections of their own"
    );
    let mut users = JoinSet::new();
    for _ in 1..8 {
        let store = store.clone();
        users.spawn(async move {
            send(&store, "42").await;
            store.standing(&user("42")).await.unwrap();
        });
    }
    users.join_all().await;

    made.mark_unchanged();
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let ended = sqlx::query(end)
        .execute(&mut database.connection().await)
        .await
        .unwrap();
    assert!(ended.rows_affected() > 0);

    assert!(matches!(
        store.standing(&user("42")).await,
        Err(StoreError::Unavailable(_))
    ));
    assert_eq!(counters(&store, "42").await, (8, 8));
    assert!(
        made.has_changed().unwrap(),
        "whoever minds the epoch hears of a new connection"
    );
}

/// The same database at another address.
fn by_way_of(address: std::net::SocketAddr, url: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_host(Some(&address.ip().to_string())).unwrap();
    url.set_port(Some(address.port())).unwrap();
    url.into()
}

/// A TCP link that can fall silent: what runs over it then stays open and hears nothing more.
struct Link {
    silent: tokio::sync::watch::Sender<bool>,
    /// How many connections came.
    accepted: tokio::sync::watch::Receiver<usize>,
    _links: JoinSet<()>,
}

impl Link {
    fn from(listener: tokio::net::TcpListener, url: &str) -> Self {
        let url = url::Url::parse(url).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let (silent, is_silent) = tokio::sync::watch::channel(false);
        let (count, accepted) = tokio::sync::watch::channel(0);
        let mut links = JoinSet::new();
        links.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                let mut far = tokio::net::TcpStream::connect(&server).await.unwrap();
                let mut is_silent = is_silent.clone();
                open.spawn(async move {
                    let fell_silent = tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
                        silent = async { is_silent.wait_for(|silent| *silent).await.is_ok() } => silent,
                    };
                    if fell_silent {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self {
            silent,
            accepted,
            _links: links,
        }
    }

    fn fall_silent(&self) {
        self.silent.send_replace(true);
    }

    /// New connections get through; the old ones stay as they are.
    fn accept_again(&self) {
        self.silent.send_replace(false);
    }
}

/// Each request is dropped at another moment of its life; what the next one on the same connection
/// answers is committed.
#[tokio::test]
async fn a_request_that_is_dropped_halfway_leaves_no_transaction_open() {
    for database in [Some(Database::sqlite()), Database::postgres().await]
        .into_iter()
        .flatten()
    {
        migrated(&database).await.close().await;
        for polls in 0..16 {
            for act in 0..3 {
                let store = Store::open(&database.url, 1).await.unwrap();
                let item = send(&store, "42").await;
                let me = user("42");
                match act {
                    0 => abandon(polls, store.read_all(&me)).await,
                    1 => abandon(polls, store.create(&batch("hello", &["42"]), None)).await,
                    _ => abandon(polls, store.set_read(&me, item.id, true)).await,
                }
                let answered = send(&store, "42").await;
                store.close().await;

                let store = Store::open(&database.url, 1).await.unwrap();
                let page = store.list(&me, &up_to(1000)).await.unwrap();
                assert!(page.seq >= answered.seq, "answered, but not committed");
                let unread = page.items.iter().filter(|item| !item.is_read).count();
                assert_eq!(unread as u64, page.unread);
                store.close().await;
            }
        }
    }
}

/// Polls `request` so many times, each time after it asked for it, and drops it.
async fn abandon<T>(mut polls: u32, request: impl Future<Output = T>) {
    let mut request = std::pin::pin!(request);
    std::future::poll_fn(|context| {
        if polls == 0 || request.as_mut().poll(context).is_ready() {
            return std::task::Poll::Ready(());
        }
        polls -= 1;
        std::task::Poll::Pending
    })
    .await;
}
