//! Adding old notifications, a batch in one transaction: with the users' locks held, what is not there yet.

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::{ANSWER_DEADLINE, Store, in_time, with_second_try};
use crate::notification::Notification;
use crate::store::row::{from_sql, stored_user};
use crate::store::{Imported, StoreError};

/// Takes the lock of each user's row, and makes those that are missing, in the one order of ids: to make
/// first and to lock afterwards would be two orders.
const LOCK_OR_MAKE: &str = r#"
INSERT INTO user_feed AS held (user_id)
SELECT DISTINCT user_id COLLATE "C" AS user_id FROM unnest($1::text[]) AS given (user_id) ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET head_seq = held.head_seq"#;

const IMPORT: &str = "
WITH given AS (
    SELECT DISTINCT ON (user_id, id) *
    FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::text[], $11::boolean[], $12::boolean[], $13::timestamptz[], $14::timestamptz[],
                $15::timestamptz[], $16::timestamptz[]) WITH ORDINALITY
         AS given (user_id, id, kind, priority, title, message, data, action_url, icon, badge, silent, sticky,
                   created_at, read_at, clicked_at, expires_at, place)
    ORDER BY user_id, id, place
), fresh AS (
    SELECT given.*, head_seq + row_number() OVER (PARTITION BY given.user_id ORDER BY place) AS seq
    FROM given JOIN user_feed ON user_feed.user_id = given.user_id
    WHERE NOT EXISTS (SELECT FROM notification
                      WHERE notification.user_id = given.user_id AND notification.id = given.id)
), stored AS (
    INSERT INTO notification (user_id, id, created_seq, seq, kind, priority, title, message, data, action_url,
                              icon, badge, silent, sticky, created_at, read_at, clicked_at, expires_at)
    SELECT user_id, id, seq, seq, kind, priority, title, message, data, action_url,
           icon, badge, silent, sticky, created_at, read_at, clicked_at, expires_at
    FROM fresh
), step AS (
    SELECT user_id, count(*) AS created, max(seq) AS head, count(*) FILTER (WHERE read_at IS NULL) AS unread
    FROM fresh GROUP BY user_id
)
UPDATE user_feed SET head_seq = step.head, floor_seq = step.head, unread = user_feed.unread + step.unread
FROM step
WHERE user_feed.user_id = step.user_id
RETURNING user_feed.user_id, head_seq, step.created";

impl Store {
    /// A transaction of four round trips.
    pub(in crate::store) async fn import(
        &self,
        old: &[Notification],
    ) -> Result<Imported, StoreError> {
        if old.is_empty() {
            return Ok(Imported::default());
        }
        with_second_try(|| self.import_once(old)).await
    }

    /// After an error in between, the connection is closed: that undoes the rest at once.
    async fn import_once(&self, old: &[Notification]) -> Result<Imported, StoreError> {
        let mut lease = self.connections.lease().await?;
        let imported = in_time(ANSWER_DEADLINE, import(&mut lease.connection, old)).await?;
        Ok(lease.end(Ok(imported))?)
    }
}

async fn import(
    connection: &mut PgConnection,
    old: &[Notification],
) -> Result<Imported, sqlx::Error> {
    let users = column(old, |old| old.user_id.as_str());
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK_OR_MAKE)
        .bind(&users)
        .execute(&mut *transaction)
        .await?;
    let moved = sqlx::query(IMPORT)
        .bind(&users)
        .bind(column::<Uuid>(old, |old| old.id))
        .bind(column(old, |old| old.kind.as_str()))
        .bind(column(old, |old| old.priority.as_str()))
        .bind(column(old, |old| old.title.as_str()))
        .bind(column(old, |old| old.message.as_str()))
        .bind(column(old, |old| old.data.get()))
        .bind(column(old, |old| old.action_url.as_deref()))
        .bind(column(old, |old| old.icon.as_deref()))
        .bind(column(old, |old| old.badge.as_deref()))
        .bind(column(old, |old| old.silent))
        .bind(column(old, |old| old.sticky))
        .bind(column(old, |old| old.created_at.trunc_subsecs(3)))
        .bind(times(old, Notification::was_read_at))
        .bind(times(old, |old| old.clicked_at))
        .bind(times(old, |old| old.expires_at))
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;

    let mut imported = Imported::default();
    for row in &moved {
        imported.created += from_sql(row.try_get("created")?)?;
        let head = from_sql(row.try_get("head_seq")?)?;
        let user = stored_user(row.try_get("user_id")?)?;
        imported.moved.push((user, head));
    }
    imported.known = (old.len() as u64).saturating_sub(imported.created);
    imported.moved.sort_unstable();
    Ok(imported)
}

fn column<'old, T>(old: &'old [Notification], field: impl Fn(&'old Notification) -> T) -> Vec<T> {
    old.iter().map(field).collect()
}

/// Cut to the milliseconds that are kept; PostgreSQL would round them.
fn times(
    old: &[Notification],
    field: impl Fn(&Notification) -> Option<DateTime<Utc>>,
) -> Vec<Option<DateTime<Utc>>> {
    column(old, |old| field(old).map(|time| time.trunc_subsecs(3)))
}
