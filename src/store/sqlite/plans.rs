//! No statement of a sweep or of a rare act reads a whole table where an index would do.

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use super::{expire, gathered, import, publisher, received, retain};

/// The tables, and what statements call them.
const TABLES: [&str; 5] = ["user_feed", "notification", "idempotency", "feed", "known"];

async fn plan(connection: &mut SqliteConnection, statement: &str) -> Vec<String> {
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let plan = sqlx::query(explain).fetch_all(connection).await.unwrap();
    let detail = |row: &SqliteRow| row.try_get::<String, _>("detail").unwrap();
    plan.iter().map(detail).collect()
}

async fn scans(connection: &mut SqliteConnection, statement: &str) -> Vec<String> {
    let is_scan = |step: &String| {
        let scanned = step
            .strip_prefix("SCAN ")
            .and_then(|rest| rest.split(' ').next());
        scanned.is_some_and(|table| TABLES.contains(&table))
    };
    let mut steps = plan(connection, statement).await;
    steps.retain(is_scan);
    steps
}

async fn migrated() -> SqliteConnection {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    crate::store::apply_new(&mut connection, &super::MIGRATIONS)
        .await
        .unwrap();
    connection
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let mut connection = migrated().await;
    for statement in [
        expire::DUE,
        gathered::STANDINGS,
        gathered::CONTRADICTED,
        import::INSERT,
        import::MOVE_FEEDS,
        publisher::EDIT,
        publisher::OWN_KEYED,
        publisher::OWN_KEYS,
        publisher::COUNT_LIVE,
        publisher::ERASE,
        received::CONFIRM,
        received::INSPECT,
        retain::USERS,
        retain::OVERDUE,
        retain::REMOVABLE,
        retain::REMOVE,
        retain::KEYS,
        retain::FORGET_KEYS,
    ] {
        assert_eq!(
            scans(&mut connection, statement).await,
            [""; 0],
            "{statement}"
        );
    }
    let whole = "SELECT title FROM notification";
    assert_eq!(scans(&mut connection, whole).await, ["SCAN notification"]);
}

/// Else each of the many looks at a campaign that ends at one instant would sort what is left of it.
#[tokio::test]
async fn what_is_due_comes_in_order_without_being_sorted() {
    let mut connection = migrated().await;
    let steps = plan(&mut connection, expire::DUE).await;
    assert!(
        matches!(&steps[..], [one] if one.contains("notification_by_expiry")),
        "{steps:?}"
    );
}
