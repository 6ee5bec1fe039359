//! What is asked for many users at once is what each would be told alone.

use bellhop::store::{Known, Missed, Since, Standing, Store};
use bellhop::user::UserId;

use super::{send, send_many, seqs, user};
use crate::databases::Database;

contract! {
    standings_come_in_the_order_of_asking
    who_stands_where_known_is_not_told
    what_many_missed_is_what_each_missed
    what_does_not_fit_is_left_for_the_next_time
}

fn since(id: &str, seq: u64) -> Since {
    Since {
        user: user(id),
        seq,
    }
}

fn shown(missed: &Missed) -> (u64, u64, u64, Vec<u64>, bool) {
    let Missed {
        head,
        floor,
        unread,
        ..
    } = *missed;
    (head, floor, unread, seqs(missed), missed.more)
}

async fn standings_come_in_the_order_of_asking(store: Store) {
    send_many(&store, "b", 3).await;
    send(&store, "a").await;
    store.revoke(&user("a")).await.unwrap();
    let users = ["b", "nobody", "a", "b"].map(user);
    let standings = store.standings(&users).await.unwrap();
    let mut alone = Vec::new();
    for user in &users {
        alone.push(store.standing(user).await.unwrap());
    }
    assert_eq!(standings, alone);
    assert_eq!(standings[1], Standing::default());
    assert!(standings[2].valid_after.is_some());
    assert!(store.standings(&[]).await.unwrap().is_empty());
}

async fn who_stands_where_known_is_not_told(store: Store) {
    send_many(&store, "b", 3).await;
    send(&store, "a").await;
    send(&store, "revoked").await;
    store.revoke(&user("revoked")).await.unwrap();
    let known = [
        ("b", Some(3)),
        ("b", Some(2)),
        ("b", Some(4)),
        ("b", None),
        ("nobody", Some(0)),
        ("nobody", Some(1)),
        ("nobody", None),
        ("revoked", Some(2)),
        ("a", Some(1)),
    ];
    let known: Vec<_> = known.iter().map(|(id, head)| (user(id), *head)).collect();
    let asked = known.iter().map(|(user, head)| Known { user, head: *head });
    let asked: Vec<_> = asked.collect();
    let contradicted = store.contradicted(&asked).await.unwrap();
    let mut expected = Vec::new();
    for (user, head) in &known {
        let standing = store.standing(user).await.unwrap();
        let is_known = *head == Some(standing.counters.seq) && standing.valid_after.is_none();
        expected.push((!is_known).then_some(standing));
    }
    assert_eq!(contradicted, expected);
    let told = contradicted.iter().map(Option::is_some);
    assert_eq!(
        told.collect::<Vec<_>>(),
        [false, true, true, true, false, true, true, true, false]
    );
    assert!(store.contradicted(&[]).await.unwrap().is_empty());
}

async fn what_many_missed_is_what_each_missed(store: Store) {
    let items = send_many(&store, "a", 5).await;
    send_many(&store, "b", 2).await;
    let a = user("a");
    store.set_read(&a, items[1].id, true).await.unwrap();
    store.read_all(&user("b")).await.unwrap();
    let asked = [
        since("a", 0),
        since("nobody", 7),
        since("b", 2),
        since("a", 4),
        since("a", 6),
    ];
    for limit in [1, 3, 100] {
        let answers = store.missed_by(&asked, limit).await.unwrap();
        assert_eq!(answers.len(), asked.len());
        for (answer, Since { user, seq }) in answers.iter().zip(&asked) {
            let alone = store.missed(user, *seq, limit).await.unwrap();
            assert_eq!(shown(answer), shown(&alone), "{user:?} {seq} {limit}");
            assert_eq!(answer.read_all_seq, alone.read_all_seq);
        }
    }
}

async fn what_does_not_fit_is_left_for_the_next_time(store: Store) {
    let users: Vec<UserId> = (0..25).map(|number| user(&format!("u{number}"))).collect();
    for user in &users {
        send_many(&store, user.as_str(), 501).await;
    }
    let mut rest: Vec<_> = users.iter().map(|user| since(user.as_str(), 0)).collect();
    rest.push(since("nobody", 0));
    let mut statements = 0;
    while !rest.is_empty() {
        let answers = store.missed_by(&rest, 500).await.unwrap();
        assert!(!answers.is_empty());
        for (answer, asked) in answers.iter().zip(rest.drain(..answers.len())) {
            let expected = if asked.user.as_str() == "nobody" {
                0
            } else {
                500
            };
            assert_eq!(answer.rows.len(), expected);
            assert_eq!(answer.more, expected > 0);
        }
        statements += 1;
    }
    assert_eq!(statements, 2);

    // One user's own always fit.
    let many = store
        .missed_by(&[since("u0", 0), since("u1", 0)], 20_000)
        .await
        .unwrap();
    assert_eq!(many[0].rows.len(), 501);
}
