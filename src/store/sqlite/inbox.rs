//! What users do to their inboxes: one transaction an act, which ends without a trace when there is
//! nothing to change.

use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::Store;
use crate::notification::Reason;
use crate::store::row::{FeedRow, NotificationRow, columns, feed_columns, to_sql};
use crate::store::{Bulk, Counters, Deletion, StoreError, Updated};
use crate::user::UserId;

const GET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM notification WHERE user_id = ? AND id = ?"
);

const FEED: &str = concat!(
    "SELECT ",
    feed_columns!(),
    " FROM user_feed WHERE user_id = ?"
);

const MOVE: &str = concat!(
    "UPDATE user_feed SET head_seq = head_seq + 1, unread = unread + ?2 WHERE user_id = ?1 RETURNING ",
    feed_columns!()
);

const SET_READ: &str = concat!(
    "UPDATE notification SET seq = ?3, read_at = ?4 WHERE user_id = ?1 AND id = ?2 RETURNING ",
    columns!()
);

const SET_CLICKED: &str = concat!(
    "UPDATE notification
     SET seq = ?3, read_at = coalesce(read_at, ?4), clicked_at = coalesce(clicked_at, ?4)
     WHERE user_id = ?1 AND id = ?2
     RETURNING ",
    columns!()
);

pub(super) const DELETE: &str = "
UPDATE notification
SET seq = ?3, deleted_at = ?4, delete_reason = ?5,
    title = '', message = '', data = '{}', action_url = NULL, icon = NULL, badge = NULL
WHERE user_id = ?1 AND id = ?2";

const READ_ALL: &str = "UPDATE notification SET read_at = ?2 WHERE user_id = ?1 AND read_at IS NULL AND deleted_at IS NULL";

const CLEAR: &str = "
UPDATE notification
SET deleted_at = ?2, delete_reason = 'deleted',
    title = '', message = '', data = '{}', action_url = NULL, icon = NULL, badge = NULL
WHERE user_id = ?1 AND deleted_at IS NULL";

const ALL_READ: &str = concat!(
    "UPDATE user_feed SET head_seq = head_seq + 1, read_all_seq = head_seq + 1, unread = 0 WHERE user_id = ? RETURNING ",
    feed_columns!()
);

const ALL_CLEARED: &str = concat!(
    "UPDATE user_feed SET head_seq = head_seq + 1, cleared_seq = head_seq + 1, unread = 0 WHERE user_id = ? RETURNING ",
    feed_columns!()
);

impl Store {
    pub(in crate::store) async fn set_read(
        &self,
        user: &UserId,
        id: Uuid,
        read: bool,
    ) -> Result<Option<Updated>, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let row = find(&mut transaction, user, id).await?;
        let differs =
            |row: &NotificationRow| row.deleted_at.is_none() && row.read_at.is_some() != read;
        if !row.as_ref().is_some_and(differs) {
            return Ok(unchanged(user, row)?);
        }

        let moved = step(&mut transaction, user, if read { -1 } else { 1 }).await?;
        let now = super::now(&mut transaction).await?;
        let row: NotificationRow = sqlx::query_as(SET_READ)
            .bind(user.as_str())
            .bind(id)
            .bind(to_sql(moved.seq))
            .bind(read.then_some(now))
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Some(Updated {
            notification: row.into_notification(user)?,
            moved: Some(moved),
            newly_read: read,
            newly_clicked: false,
        }))
    }

    pub(in crate::store) async fn set_clicked(
        &self,
        user: &UserId,
        id: Uuid,
    ) -> Result<Option<Updated>, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let row = find(&mut transaction, user, id).await?;
        let Some(before) = row.filter(|row| row.deleted_at.is_none()) else {
            return Ok(None);
        };
        let newly_read = before.read_at.is_none();
        let newly_clicked = before.clicked_at.is_none();
        if !newly_read && !newly_clicked {
            return Ok(unchanged(user, Some(before))?);
        }

        let moved = step(&mut transaction, user, -i64::from(newly_read)).await?;
        let now = super::now(&mut transaction).await?;
        let row: NotificationRow = sqlx::query_as(SET_CLICKED)
            .bind(user.as_str())
            .bind(id)
            .bind(to_sql(moved.seq))
            .bind(now)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Some(Updated {
            notification: row.into_notification(user)?,
            moved: Some(moved),
            newly_read,
            newly_clicked,
        }))
    }

    pub(in crate::store) async fn delete(
        &self,
        user: &UserId,
        id: Uuid,
        reason: Reason,
    ) -> Result<Deletion, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let Some(row) = find(&mut transaction, user, id).await? else {
            return Ok(Deletion::Unknown);
        };
        if row.deleted_at.is_some() {
            return Ok(Deletion::Already);
        }

        let moved = step(
            &mut transaction,
            user,
            if row.read_at.is_none() { -1 } else { 0 },
        )
        .await?;
        let now = super::now(&mut transaction).await?;
        sqlx::query(DELETE)
            .bind(user.as_str())
            .bind(id)
            .bind(to_sql(moved.seq))
            .bind(now)
            .bind(reason.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Deletion::Done(moved))
    }

    pub(in crate::store) async fn read_all(&self, user: &UserId) -> Result<Bulk, StoreError> {
        self.change_all(user, READ_ALL, ALL_READ).await
    }

    pub(in crate::store) async fn clear(&self, user: &UserId) -> Result<Bulk, StoreError> {
        self.change_all(user, CLEAR, ALL_CLEARED).await
    }

    async fn change_all(
        &self,
        user: &UserId,
        change: &'static str,
        step: &'static str,
    ) -> Result<Bulk, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let now = super::now(&mut transaction).await?;
        let changed = sqlx::query(change)
            .bind(user.as_str())
            .bind(now)
            .execute(&mut *transaction)
            .await?
            .rows_affected();

        let statement = if changed > 0 { step } else { FEED };
        let feed = sqlx::query_as::<_, FeedRow>(statement).bind(user.as_str());
        let counters = feed
            .fetch_optional(&mut *transaction)
            .await?
            .unwrap_or_default()
            .counters()?;
        transaction.commit().await?;
        Ok(Bulk { changed, counters })
    }
}

/// The answer to a change that found nothing to do: as it is, if it is.
pub(super) fn unchanged(
    user: &UserId,
    row: Option<NotificationRow>,
) -> Result<Option<Updated>, sqlx::Error> {
    let Some(row) = row.filter(|row| row.deleted_at.is_none()) else {
        return Ok(None);
    };
    Ok(Some(Updated {
        notification: row.into_notification(user)?,
        moved: None,
        newly_read: false,
        newly_clicked: false,
    }))
}

/// Live or a tombstone.
pub(super) async fn find(
    transaction: &mut Transaction<'_, Sqlite>,
    user: &UserId,
    id: Uuid,
) -> Result<Option<NotificationRow>, sqlx::Error> {
    sqlx::query_as(GET)
        .bind(user.as_str())
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await
}

/// Takes the next seq, and moves the number of unread ones.
pub(super) async fn step(
    transaction: &mut Transaction<'_, Sqlite>,
    user: &UserId,
    unread: i64,
) -> Result<Counters, sqlx::Error> {
    let feed: FeedRow = sqlx::query_as(MOVE)
        .bind(user.as_str())
        .bind(unread)
        .fetch_one(&mut **transaction)
        .await?;
    feed.counters()
}
