//! What users do to their inboxes: each act takes the lock of the user's row first, then changes, or
//! finds nothing to change and takes no seq.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, FromRow, Row};
use uuid::Uuid;

use super::{ANSWER_DEADLINE, Store, in_time, with_second_try};
use crate::notification::Reason;
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

/// As [`SET_READ`]. What it was before comes from `before`, whose lock shows the newest version too: so
/// of two clicks at once, one is the click, and whether it was unread is never a guess.
const SET_CLICKED: &str = concat!(
    "WITH feed AS (
         SELECT head_seq FROM user_feed WHERE user_id = $1 FOR UPDATE
     ), before AS (
         SELECT head_seq + 1 AS next, read_at IS NULL AS newly_read, clicked_at IS NULL AS newly_clicked
         FROM feed CROSS JOIN notification
         WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL AND (read_at IS NULL OR clicked_at IS NULL)
         FOR UPDATE OF notification
     ), changed AS (
         UPDATE notification
         SET seq = before.next,
             read_at = coalesce(read_at, date_trunc('milliseconds', now())),
             clicked_at = coalesce(clicked_at, date_trunc('milliseconds', now()))
         FROM before
         WHERE notification.user_id = $1 AND id = $2
         RETURNING newly_read, newly_clicked, ",
    columns!(),
    "), moved AS (
         UPDATE user_feed
         SET head_seq = user_feed.head_seq + 1,
             unread = user_feed.unread - CASE WHEN newly_read THEN 1 ELSE 0 END
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
         SET seq = feed.head_seq + 1, deleted_at = date_trunc('milliseconds', now()), delete_reason = $3,
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
pub(super) const LOCK: &str = concat!(
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
                .rows_of(
                    [user.as_str()].into(),
                    sqlx::query(SET_READ)
                        .bind(user.as_str())
                        .bind(id)
                        .bind(read),
                )
                .await?)
        };
        let rows = with_second_try(change).await?;
        let Some(row) = rows.first() else {
            return self.unchanged(user, id).await;
        };
        Ok(Some(Updated {
            newly_read: read,
            ..updated(user, row)?
        }))
    }

    /// One round trip; two when nothing changed.
    pub(in crate::store) async fn set_clicked(
        &self,
        user: &UserId,
        id: Uuid,
    ) -> Result<Option<Updated>, StoreError> {
        let change = || async {
            Ok(self
                .rows_of(
                    [user.as_str()].into(),
                    sqlx::query(SET_CLICKED).bind(user.as_str()).bind(id),
                )
                .await?)
        };
        let rows = with_second_try(change).await?;
        let Some(row) = rows.first() else {
            return self.unchanged(user, id).await;
        };
        Ok(Some(Updated {
            newly_read: row.try_get("newly_read")?,
            newly_clicked: row.try_get("newly_clicked")?,
            ..updated(user, row)?
        }))
    }

    /// The answer to a change that found nothing to do: as it is, if it is.
    pub(super) async fn unchanged(
        &self,
        user: &UserId,
        id: Uuid,
    ) -> Result<Option<Updated>, StoreError> {
        let found = self.get(user, id).await?.notification;
        Ok(found.map(|notification| Updated {
            notification,
            moved: None,
            newly_read: false,
            newly_clicked: false,
        }))
    }

    /// One round trip; two when nothing changed.
    pub(in crate::store) async fn delete(
        &self,
        user: &UserId,
        id: Uuid,
        reason: Reason,
    ) -> Result<Deletion, StoreError> {
        let change = || async {
            Ok(self
                .rows_of(
                    [user.as_str()].into(),
                    sqlx::query(DELETE)
                        .bind(user.as_str())
                        .bind(id)
                        .bind(reason.as_str()),
                )
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
        let mut lease = self.connections.lease_for([user.as_str()].into()).await?;
        let bulk = in_time(
            ANSWER_DEADLINE,
            change_all(&mut lease.connection, user, change),
        )
        .await?;
        Ok(lease.end(Ok(bulk))?)
    }
}

/// A changed notification and its user's feed after that.
pub(super) fn updated(user: &UserId, row: &PgRow) -> Result<Updated, sqlx::Error> {
    Ok(Updated {
        notification: NotificationRow::from_row(row)?.into_notification(user)?,
        moved: Some(FeedRow::from_row(row)?.counters()?),
        newly_read: false,
        newly_clicked: false,
    })
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
    // Nothing is locked then: what somebody creates from here on is not for this change.
    let Some(locked) = locked else {
        transaction.rollback().await?;
        return Ok(Bulk {
            changed: 0,
            counters: Counters::default(),
        });
    };
    let moved = sqlx::query(change)
        .bind(user.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;

    let changed = moved.as_ref().map_or(Ok(0), |row| row.try_get("changed"))?;
    let feed = FeedRow::from_row(moved.as_ref().unwrap_or(&locked))?;
    Ok(Bulk {
        changed: from_sql(changed)?,
        counters: feed.counters()?,
    })
}
