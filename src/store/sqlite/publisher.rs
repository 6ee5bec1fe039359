//! What publishers do to an inbox after they have filled it: edit one notification, erase all, revoke tokens.

use std::collections::HashSet;

use sqlx::{Row, Sqlite, Transaction};
use uuid::Uuid;

use super::Store;
use super::inbox::{find, step, unchanged};
use crate::store::row::{FeedRow, NotificationRow, columns, feed_columns, from_sql};
use crate::store::{Edit, Erasure, Revocation, StoreError, Updated};
use crate::user::UserId;

/// Changes nothing, and so takes no seq, where all is as it is to be. Null leaves a field as it is; one that
/// may be absent has a flag before its value, which says whether it is to be set.
pub(super) const EDIT: &str = concat!(
    "UPDATE notification
     SET seq = (SELECT head_seq + 1 FROM user_feed WHERE user_id = ?1),
         title = coalesce(?3, title), message = coalesce(?4, message), data = coalesce(?5, data),
         action_url = CASE WHEN ?6 THEN ?7 ELSE action_url END,
         icon = CASE WHEN ?8 THEN ?9 ELSE icon END,
         badge = CASE WHEN ?10 THEN ?11 ELSE badge END,
         expires_at = CASE WHEN ?12 THEN ?13 ELSE expires_at END
     WHERE user_id = ?1 AND id = ?2 AND deleted_at IS NULL
       AND (title IS NOT coalesce(?3, title) OR message IS NOT coalesce(?4, message)
         OR data IS NOT coalesce(?5, data) OR ?6 AND action_url IS NOT ?7 OR ?8 AND icon IS NOT ?9
         OR ?10 AND badge IS NOT ?11 OR ?12 AND expires_at IS NOT ?13)
     RETURNING ",
    columns!()
);

pub(super) const OWN_KEYED: &str =
    "SELECT id FROM notification WHERE user_id = ? AND key IS NOT NULL";

pub(super) const OWN_KEYS: &str = "
SELECT scope, known.key, ids
FROM (SELECT DISTINCT key_scope, key FROM notification WHERE user_id = ? AND key IS NOT NULL) AS own
CROSS JOIN idempotency AS known ON known.scope = own.key_scope AND known.key = own.key";

const FORGET_KEY: &str = "DELETE FROM idempotency WHERE scope = ? AND key = ?";

const KEEP_OTHERS: &str = "UPDATE idempotency SET ids = ?3 WHERE scope = ?1 AND key = ?2";

pub(super) const COUNT_LIVE: &str =
    "SELECT count(*) FROM notification WHERE user_id = ? AND deleted_at IS NULL";

pub(super) const ERASE: &str = "DELETE FROM notification WHERE user_id = ?";

const ALL_ERASED: &str = concat!(
    "UPDATE user_feed
     SET head_seq = head_seq + 1, cleared_seq = head_seq + 1, floor_seq = head_seq + 1, unread = 0
     WHERE user_id = ? RETURNING ",
    feed_columns!()
);

const REVOKE: &str = concat!(
    "INSERT INTO user_feed (user_id, head_seq, valid_after) VALUES (?1, 1, ?2)
     ON CONFLICT (user_id) DO UPDATE
         SET head_seq = head_seq + 1, valid_after = max(coalesce(valid_after, 0), excluded.valid_after)
     RETURNING ",
    feed_columns!()
);

impl Store {
    pub(in crate::store) async fn edit(
        &self,
        user: &UserId,
        id: Uuid,
        edit: &Edit,
    ) -> Result<Option<Updated>, StoreError> {
        let expires_at = edit.expires_at.flatten();
        let expires_at = expires_at.map(|time| time.timestamp_millis());
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let changed: Option<NotificationRow> = sqlx::query_as(EDIT)
            .bind(user.as_str())
            .bind(id)
            .bind(edit.title.as_deref())
            .bind(edit.message.as_deref())
            .bind(edit.data.as_ref().map(|data| data.get()))
            .bind(edit.action_url.is_some())
            .bind(edit.action_url.as_ref().and_then(Option::as_deref))
            .bind(edit.icon.is_some())
            .bind(edit.icon.as_ref().and_then(Option::as_deref))
            .bind(edit.badge.is_some())
            .bind(edit.badge.as_ref().and_then(Option::as_deref))
            .bind(edit.expires_at.is_some())
            .bind(expires_at)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = changed else {
            let row = find(&mut transaction, user, id).await?;
            return Ok(unchanged(user, row)?);
        };
        let moved = step(&mut transaction, user, 0).await?;
        transaction.commit().await?;
        Ok(Some(Updated {
            notification: row.into_notification(user)?,
            moved: Some(moved),
            newly_read: false,
            newly_clicked: false,
        }))
    }

    pub(in crate::store) async fn erase(&self, user: &UserId) -> Result<Erasure, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        forget_keys(&mut transaction, user).await?;
        let live: i64 = sqlx::query_scalar(COUNT_LIVE)
            .bind(user.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        let gone = sqlx::query(ERASE)
            .bind(user.as_str())
            .execute(&mut *transaction)
            .await?;

        let mut moved = None;
        if gone.rows_affected() > 0 {
            let feed = sqlx::query_as::<_, FeedRow>(ALL_ERASED).bind(user.as_str());
            moved = Some(feed.fetch_one(&mut *transaction).await?.counters()?);
        }
        transaction.commit().await?;
        Ok(Erasure {
            moved,
            erased: from_sql(live)?,
        })
    }

    pub(in crate::store) async fn revoke(&self, user: &UserId) -> Result<Revocation, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let now = super::now(&mut transaction).await?;
        let feed: FeedRow = sqlx::query_as(REVOKE)
            .bind(user.as_str())
            .bind(now)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(feed.revocation()?)
    }
}

/// What idempotency remembers of the user: a key for nobody else altogether, else the user's ids in it.
async fn forget_keys(
    transaction: &mut Transaction<'_, Sqlite>,
    user: &UserId,
) -> Result<(), sqlx::Error> {
    let own: Vec<Uuid> = sqlx::query_scalar(OWN_KEYED)
        .bind(user.as_str())
        .fetch_all(&mut **transaction)
        .await?;
    let own: HashSet<Uuid> = own.into_iter().collect();
    let keys = sqlx::query(OWN_KEYS)
        .bind(user.as_str())
        .fetch_all(&mut **transaction)
        .await?;
    for known in keys {
        let ids = known.try_get::<&[u8], _>("ids")?.as_chunks::<16>().0;
        let is_own = |id: &[u8; 16]| own.contains(&Uuid::from_bytes(*id));
        let forget = if ids.iter().all(is_own) {
            sqlx::query(FORGET_KEY)
                .bind(known.try_get::<&str, _>("scope")?)
                .bind(known.try_get::<&str, _>("key")?)
        } else {
            let others = ids.iter().map(|id| if is_own(id) { [0; 16] } else { *id });
            sqlx::query(KEEP_OTHERS)
                .bind(known.try_get::<&str, _>("scope")?)
                .bind(known.try_get::<&str, _>("key")?)
                .bind(others.flatten().collect::<Vec<u8>>())
        };
        forget.execute(&mut **transaction).await?;
    }
    Ok(())
}
