//! What users do to their inboxes: each act takes the lock of the user's row first, then changes, or
//! finds nothing to change and takes no seq.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, FromRow, Row};
use uuid::Uuid;

use super::{ANSWER_DEADLINE, Store, in_time, with_second_try};
use crate::store::row::{FeedRow, NotificationRow, columns, feed_columns, from_sql};
use crate::store::{Bulk, Counters, Deletion, StoreError, Updated};
use crate::user::UserId;

/// Waits for the lock in `feed`; then whoever held it has committed, and PostgreSQL tests the newest
/// version of the notification again before changing it: of two that mark it read at once, one finds
/// nothing to do. The seq comes from the locked row, so it cannot be taken twice.
///
/// That is enough for one notification, which its caller knew before the statement began. Rows that
/// were created while it waited stay out of its sight, so it would not be enough for all of them.
const SET_READ: &str = concat!(
    "WITH feed AS (
         SELECT head_seq FROM user_feed WHERE user_id = $1 FOR UPDATE
     ), changed AS (
         UPDATE notification
         SET seq = feed.head_seq + 1, read_at = CASE WHEN $3 THEN date_trunc('milliseconds', now()) END
         FROM feed
         WHERE notification.user_id = $1 AND id = $2 AND deleted_at IS NULL AND (read_at IS NULL) = $3
         RETURNING ",
    columns!(),
    "), moved AS (
         UPDATE user_feed
         SET head_seq = user_feed.head_seq + 1,
             unread = user_feed.unread + CASE WHEN $3 THEN -1 ELSE 1 END
         FROM changed
         WHERE user_feed.user_id = $1
         RETURNING ",
    feed_columns!(),
    ")
     SELECT * FROM changed CROSS JOIN moved"
);

/// As [`SET_READ`]; `read_at` stays, and tells whether it counted as unread.
const DELETE: &str = concat!(
    "WITH feed AS (
         SELECT head_seq FROM user_feed WHERE user_id = $1 FOR UPDATE
     ), changed AS (
         UPDATE notification
         SET seq = feed.head_seq + 1, deleted_at = date_trunc('milliseconds', now()), delete_reason = 'deleted',
             title = '', message = '', data = '{}', action_url = NULL, icon = NULL, badge = NULL
         FROM feed
         WHERE notification.user_id = $1 AND id = $2 AND deleted_at IS NULL
         RETURNING read_at
     )
     UPDATE user_feed
     SET head_seq = user_feed.head_seq + 1,
         unread = user_feed.unread - CASE WHEN changed.read_at IS NULL THEN 1 ELSE 0 END
     FROM changed
     WHERE user_feed.user_id = $1
     RETURNING ",
    feed_columns!()
);

const EXISTS: &str = "SELECT 1 FROM notification WHERE user_id = $1 AND id = $2";

/// A statement of its own: only the next one sees all that was committed before this one had the lock.
const LOCK: &str = concat!(
    "SELECT ",
    feed_columns!(),
    " FROM user_feed WHERE user_id = $1 FOR UPDATE"
);

const READ_ALL: &str = concat!(
    "WITH changed AS (
         UPDATE notification SET read_at = date_trunc('milliseconds', now())
         WHERE user_id = $1 AND read_at IS NULL AND deleted_at IS NULL
         RETURNING id
     ), total AS (
         SELECT count(*) AS changed FROM changed
     )
     UPDATE user_feed SET head_seq = head_seq + 1, read_all_seq = head_seq + 1, unread = 0
     FROM total
     WHERE user_id = $1 AND total.changed > 0
     RETURNING total.changed, ",
    feed_columns!()
);

const CLEAR: &str = concat!(
    "WITH changed AS (
         UPDATE notification
         SET deleted_at = date_trunc('milliseconds', now()), delete_reason = 'deleted',
             title = '', message = '', data = '{}', action_url = NULL, icon = NULL, badge = NULL
         WHERE user_id = $1 AND deleted_at IS NULL
         RETURNING id
     ), total AS (
         SELECT count(*) AS changed FROM changed
     )
     UPDATE user_feed SET head_seq = head_seq + 1, cleared_seq = head_seq + 1, unread = 0
     FROM total
     WHERE user_id = $1 AND total.changed > 0
     RETURNING total.changed, ",
    feed_columns!()
);

impl Store {
    /// One round trip; two when nothing changed.
    pub(in crate::store) async fn set_read(
        &self,
        user: &UserId,
        id: Uuid,
        read: bool,
    ) -> Result<Option<Updated>, StoreError> {
        let change = || async {
            Ok(self
                .rows(
                    sqlx::query(SET_READ)
                        .bind(user.as_str())
                        .bind(id)
                        .bind(read),
                )
                .await?)
        };
        let rows = with_second_try(change).await?;
        let Some(row) = rows.first() else {
            let unchanged = self.get(user, id).await?;
            return Ok(unchanged.map(|notification| Updated {
                notification,
                moved: None,
            }));
        };
        let notification = NotificationRow::from_row(row)?.into_notification(user)?;
        Ok(Some(Updated {
            notification,
            moved: Some(FeedRow::from_row(row)?.counters()?),
        }))
    }

    /// One round trip; two when nothing changed.
    pub(in crate::store) async fn delete(
        &self,
        user: &UserId,
        id: Uuid,
    ) -> Result<Deletion, StoreError> {
        let change = || async {
            Ok(self
                .rows(sqlx::query(DELETE).bind(user.as_str()).bind(id))
                .await?)
        };
        let rows = with_second_try(change).await?;
        if let Some(row) = rows.first() {
            return Ok(Deletion::Done(FeedRow::from_row(row)?.counters()?));
        }
        let known = self
            .rows(sqlx::query(EXISTS).bind(user.as_str()).bind(id))
            .await?;
        Ok(if known.is_empty() {
            Deletion::Unknown
        } else {
            Deletion::Already
        })
    }

    pub(in crate::store) async fn read_all(&self, user: &UserId) -> Result<Bulk, StoreError> {
        with_second_try(|| self.change_all(user, READ_ALL)).await
    }

    pub(in crate::store) async fn clear(&self, user: &UserId) -> Result<Bulk, StoreError> {
        with_second_try(|| self.change_all(user, CLEAR)).await
    }

    /// Four round trips: begin, lock, change, commit. After an error in between, the connection is closed:
    /// that undoes the rest at once.
    async fn change_all(&self, user: &UserId, change: &'static str) -> Result<Bulk, StoreError> {
        let mut lease = self.connections.lease().await?;
        let bulk = in_time(
            ANSWER_DEADLINE,
            change_all(&mut lease.connection, user, change),
        )
        .await?;
        Ok(lease.end(Ok(bulk))?)
    }
}

async fn change_all(
    connection: &mut PgConnection,
    user: &UserId,
    change: &'static str,
) -> Result<Bulk, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let locked = sqlx::query(LOCK)
        .bind(user.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
    let moved = sqlx::query(change)
        .bind(user.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;

    let changed = moved.as_ref().map_or(Ok(0), |row| row.try_get("changed"))?;
    let feed = moved
        .as_ref()
        .or(locked.as_ref())
        .map(FeedRow::from_row)
        .transpose()?;
    let counters = feed.map_or(Ok(Counters::default()), |feed| feed.counters())?;
    Ok(Bulk {
        changed: from_sql(changed)?,
        counters,
    })
}
