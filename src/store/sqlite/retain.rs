//! Forgetting what is too old or too much: user by user, and key by key.

use sqlx::{Row, Sqlite, Transaction};

use super::Store;
use super::create::KEY_LIFETIME_MILLISECONDS;
use super::expire::bury;
use crate::store::walk::Walked;
use crate::store::{RETAINED_AT_ONCE, ROWS_AT_ONCE, Retained, Retention, StoreError, UserPage};
use crate::user::UserId;

const DAY_MILLISECONDS: i64 = 24 * 60 * 60 * 1000;

/// What [`OVERDUE`] and [`REMOVABLE`] find, as yes or no; the page ends where it may be many rows. It is made
/// once: which one is the first too many is not counted again for each row.
pub(super) const USERS: &str = "
WITH candidate AS MATERIALIZED (
    SELECT user_id, head_seq, min(head_seq, CASE WHEN ?4 > 0 THEN 2 * ?4 ELSE head_seq END) AS weight
    FROM user_feed WHERE user_id > ?1 ORDER BY user_id LIMIT ?2
), weighed AS (
    SELECT user_id, head_seq, sum(weight) OVER (ORDER BY user_id) - weight AS before FROM candidate
), page AS MATERIALIZED (
    SELECT user_id, head_seq, CASE WHEN ?4 > 0 AND head_seq > ?4 THEN (
        SELECT created_seq FROM notification
        WHERE notification.user_id = weighed.user_id AND deleted_at IS NULL
        ORDER BY created_seq DESC LIMIT 1 OFFSET ?4) END AS beyond
    FROM weighed WHERE before < ?6
)
SELECT user_id, EXISTS (
    SELECT 1 FROM notification
    WHERE notification.user_id = page.user_id AND CASE WHEN deleted_at IS NULL
        THEN created_at <= ?3 OR created_seq <= beyond
        ELSE (deleted_at <= ?3 OR ?4 > 0 AND seq <= head_seq - ?4) AND (key IS NULL OR created_at <= ?5)
        END
) AS due, (SELECT count(*) FROM candidate) AS candidates
FROM page ORDER BY user_id";

/// Live ones, oldest first. The number is a count of what lives, not a distance in seqs: each tombstone
/// takes a seq, and would push the next one over the edge.
pub(super) const OVERDUE: &str = "
SELECT id, read_at IS NULL AS was_unread FROM notification
WHERE user_id = ?1 AND deleted_at IS NULL
  AND (created_at <= ?2 OR ?3 > 0 AND created_seq <= (
        SELECT created_seq FROM notification WHERE user_id = ?1 AND deleted_at IS NULL
        ORDER BY created_seq DESC LIMIT 1 OFFSET ?3))
ORDER BY created_seq LIMIT ?4";

/// Tombstones, those of the oldest changes first.
pub(super) const REMOVABLE: &str = "
SELECT seq FROM notification
WHERE user_id = ?1 AND deleted_at IS NOT NULL
  AND (deleted_at <= ?2 OR ?3 > 0 AND seq <= (SELECT head_seq FROM user_feed WHERE user_id = ?1) - ?3)
  AND (key IS NULL OR created_at <= ?4)
ORDER BY seq LIMIT ?5";

pub(super) const REMOVE: &str = "DELETE FROM notification WHERE user_id = ? AND seq = ?";

const RAISE_FLOOR: &str = "UPDATE user_feed SET floor_seq = max(floor_seq, ?2) WHERE user_id = ?1";

pub(super) const KEYS: &str =
    "SELECT scope, key FROM idempotency WHERE (scope, key) > (?, ?) ORDER BY scope, key LIMIT ?";

pub(super) const FORGET_KEYS: &str = "
DELETE FROM idempotency
WHERE (scope, key) > (?1, ?2) AND (scope, key) <= (?3, ?4) AND created_at <= ?5";

/// The limits by the clock of one transaction. What has no limit is older than all time, or a number of 0.
struct Limits {
    created_until: i64,
    changes: u32,
    keys_until: i64,
}

impl Limits {
    fn of(retention: Retention, now: i64) -> Self {
        let age = i64::from(retention.days) * DAY_MILLISECONDS;
        Self {
            created_until: if age == 0 { i64::MIN } else { now - age },
            changes: retention.changes,
            keys_until: now - KEY_LIFETIME_MILLISECONDS,
        }
    }
}

impl Store {
    pub(in crate::store) async fn users(
        &self,
        after: Option<&UserId>,
        limit: u32,
        retention: Retention,
    ) -> Result<UserPage, StoreError> {
        let mut connection = self.turn().await?;
        let now = sqlx::query_scalar(super::NOW)
            .fetch_one(&mut *connection)
            .await?;
        let limits = Limits::of(retention, now);
        let walked: Vec<Walked> = sqlx::query_as(USERS)
            .bind(after.map_or("", UserId::as_str))
            .bind(limit)
            .bind(limits.created_until)
            .bind(limits.changes)
            .bind(limits.keys_until)
            .bind(ROWS_AT_ONCE)
            .fetch_all(&mut *connection)
            .await?;
        Ok(UserPage::of(walked, limit)?)
    }

    pub(in crate::store) async fn retain(
        &self,
        user: &UserId,
        retention: Retention,
    ) -> Result<Retained, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let now = super::now(&mut transaction).await?;
        let limits = Limits::of(retention, now);
        let mut retained = Retained::default();
        bury_overdue(&mut transaction, user, &limits, now, &mut retained).await?;
        remove(&mut transaction, user, &limits, &mut retained).await?;
        transaction.commit().await?;
        Ok(retained)
    }

    pub(in crate::store) async fn forget_keys(
        &self,
        after: Option<(String, String)>,
        limit: u32,
    ) -> Result<Option<(String, String)>, StoreError> {
        let (scope, key) = after.unwrap_or_default();
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let now = super::now(&mut transaction).await?;
        let page: Vec<(String, String)> = sqlx::query_as(KEYS)
            .bind(&scope)
            .bind(&key)
            .bind(limit)
            .fetch_all(&mut *transaction)
            .await?;
        let full = page.len() >= limit as usize;
        let Some(last) = page.into_iter().next_back() else {
            return Ok(None);
        };

        sqlx::query(FORGET_KEYS)
            .bind(&scope)
            .bind(&key)
            .bind(&last.0)
            .bind(&last.1)
            .bind(now - KEY_LIFETIME_MILLISECONDS)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Some(last).filter(|_| full))
    }
}

async fn bury_overdue(
    transaction: &mut Transaction<'_, Sqlite>,
    user: &UserId,
    limits: &Limits,
    now: i64,
    retained: &mut Retained,
) -> Result<(), sqlx::Error> {
    let overdue = sqlx::query(OVERDUE)
        .bind(user.as_str())
        .bind(limits.created_until)
        .bind(limits.changes)
        .bind(RETAINED_AT_ONCE + 1)
        .fetch_all(&mut **transaction)
        .await?;
    for row in overdue.iter().take(RETAINED_AT_ONCE as usize) {
        let (id, was_unread) = (row.try_get("id")?, row.try_get("was_unread")?);
        let gone = bury(transaction, user.clone(), id, was_unread, now).await?;
        retained.gone.push(gone);
    }
    retained.more |= overdue.len() > retained.gone.len();
    Ok(())
}

async fn remove(
    transaction: &mut Transaction<'_, Sqlite>,
    user: &UserId,
    limits: &Limits,
    retained: &mut Retained,
) -> Result<(), sqlx::Error> {
    let mut removable: Vec<i64> = sqlx::query_scalar(REMOVABLE)
        .bind(user.as_str())
        .bind(limits.created_until)
        .bind(limits.changes)
        .bind(limits.keys_until)
        .bind(RETAINED_AT_ONCE + 1)
        .fetch_all(&mut **transaction)
        .await?;
    retained.more |= removable.len() > RETAINED_AT_ONCE as usize;
    removable.truncate(RETAINED_AT_ONCE as usize);
    for seq in &removable {
        sqlx::query(REMOVE)
            .bind(user.as_str())
            .bind(seq)
            .execute(&mut **transaction)
            .await?;
    }
    retained.removed = removable.len() as u64;

    if let Some(highest) = removable.last() {
        sqlx::query(RAISE_FLOOR)
            .bind(user.as_str())
            .bind(highest)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}
