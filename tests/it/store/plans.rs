//! No statement of a request or a sweep reads a whole table where an index would do.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop::notification::Reason;
use bellhop::store::{Confirmation, Edit, Known, Retention, Since, Store};
use sqlx::postgres::PgConnection;

use super::import::old;
use super::{batch, key, migrated, send, send_many, up_to, user};
use crate::databases::Database;

/// Enough for a session that ends to leave its figures behind.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often each table was read as a whole, as the server counts it.
async fn scans(connection: &mut PgConnection) -> BTreeMap<String, i64> {
    let figures = "SELECT relname::text, seq_scan FROM pg_stat_user_tables
                   WHERE relname IN ('user_feed', 'notification', 'idempotency')";
    let rows: Vec<(String, i64)> = sqlx::query_as(figures).fetch_all(connection).await.unwrap();
    rows.into_iter().collect()
}

/// Where it may choose, the planner is told to choose an index: so a scan is one that nothing can replace.
#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let mut connection = database.connection().await;
    let store = migrated(&database).await;
    store.close().await;
    let choose = format!(
        "ALTER DATABASE {} SET enable_seqscan = off",
        database.name()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(choose))
        .execute(&mut connection)
        .await
        .unwrap();
    sessions_ended(&mut connection).await;
    let before = scans(&mut connection).await;
    assert_eq!(before.len(), 3);

    let store = database.open().await;
    everything(&store).await;
    store.close().await;
    sessions_ended(&mut connection).await;
    assert_eq!(scans(&mut connection).await, before);

    // The figures would have shown it.
    let mut other = database.connection().await;
    sqlx::raw_sql(
        "SET enable_seqscan = on; SELECT FROM notification; SELECT pg_stat_force_next_flush()",
    )
    .execute(&mut other)
    .await
    .unwrap();
    drop(other);
    sessions_ended(&mut connection).await;
    assert_ne!(scans(&mut connection).await, before);
}

/// With the planner's own choice: where it expects more of the question than there is, it reads the table.
#[tokio::test]
async fn the_feed_goes_by_the_key_in_a_table_of_thousands() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    migrated(&database).await.close().await;
    let mut connection = database.connection().await;
    let thousands =
        "INSERT INTO user_feed (user_id) SELECT 'u' || n FROM generate_series(1, 10000) AS n;
                     ANALYZE user_feed; SELECT pg_stat_force_next_flush()";
    sqlx::raw_sql(thousands)
        .execute(&mut connection)
        .await
        .unwrap();
    sessions_ended(&mut connection).await;
    let before = scans(&mut connection).await;

    let store = database.open().await;
    let users: Vec<_> = (1..=10).map(|n| user(&format!("u{n}"))).collect();
    let known = users.iter().map(|user| Known {
        user,
        head: Some(1),
    });
    let contradicted = store.contradicted(&known.collect::<Vec<_>>()).await;
    assert!(contradicted.unwrap().iter().all(Option::is_some));
    store.close().await;
    sessions_ended(&mut connection).await;
    assert_eq!(scans(&mut connection).await, before);
}

/// A session hands in its figures when it ends.
async fn sessions_ended(connection: &mut PgConnection) {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                  AND backend_type = 'client backend'";
    let gone = async {
        while sqlx::query_scalar::<_, i64>(others)
            .fetch_one(&mut *connection)
            .await
            .unwrap()
            > 0
        {
            tokio::time::sleep(Duration::from_millis(10)).await; // bounded: by the deadline below
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
}

async fn everything(store: &Store) {
    let me = user("42");
    let items = send_many(store, "42", 5).await;
    send(store, "42").await;
    let id = items[0].id;
    for _ in 0..2 {
        store
            .create(&batch("x", &["42", "7"]), Some(&key("shop", "once", 1)))
            .await
            .unwrap();
    }
    store.set_read(&me, id, true).await.unwrap();
    store.set_clicked(&me, id).await.unwrap();
    let edit = Edit {
        title: Some("new".to_owned()),
        ..Edit::default()
    };
    store.edit(&me, id, &edit).await.unwrap();
    store.edit(&me, id, &edit).await.unwrap();
    store.delete(&me, id, Reason::Deleted).await.unwrap();
    store.delete(&me, id, Reason::Deleted).await.unwrap();
    store.read_all(&me).await.unwrap();
    store.revoke(&me).await.unwrap();
    let mut over = old("42");
    over.expires_at = Some(over.created_at);
    store.import(&[over, old("42"), old("9")]).await.unwrap();
    assert_eq!(store.expire(10).await.unwrap().len(), 1);
    assert!(store.expire(10).await.unwrap().is_empty());
    let said = Confirmation {
        user: me.clone(),
        above: 0,
        seq: 5,
    };
    store.confirm(&[said]).await.unwrap();
    let retention = Retention {
        days: 1,
        changes: 2,
    };
    assert!(
        !store
            .users(None, 10, retention)
            .await
            .unwrap()
            .due
            .is_empty()
    );
    assert!(store.retain(&me, retention).await.unwrap().removed > 0);
    store.forget_keys(None, 10).await.unwrap();
    store.list(&me, &up_to(10)).await.unwrap();
    store.get(&me, id).await.unwrap();
    store.missed(&me, 0, 10).await.unwrap();
    store.inspect(&me, 10).await.unwrap();
    store.standing(&me).await.unwrap();
    store.standings(std::slice::from_ref(&me)).await.unwrap();
    let known = Known {
        user: &me,
        head: None,
    };
    store.contradicted(&[known]).await.unwrap();
    let since = Since {
        user: me.clone(),
        seq: 0,
    };
    store.missed_by(&[since], 10).await.unwrap();
    store.clear(&me).await.unwrap();
    store.erase(&me).await.unwrap();
}
