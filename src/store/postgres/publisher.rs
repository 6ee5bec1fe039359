//! What publishers do to an inbox after they have filled it: edit one notification, erase all, revoke tokens.

use std::time::Duration;

use chrono::SubsecRound;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, FromRow, Row};
use uuid::Uuid;

use super::inbox::{LOCK, updated};
use super::{Store, in_time, with_second_try};
use crate::store::row::{FeedRow, columns, feed_columns, from_sql};
use crate::store::{Edit, Erasure, Revocation, StoreError, Updated};
use crate::user::UserId;

/// Locks and tests again as `SET_READ` in `inbox.rs` does. Null leaves a field as it is; one that may be
/// absent has a flag before its value, which says whether it is to be set.
const EDIT: &str = concat!(
    "WITH feed AS (
         SELECT head_seq FROM user_feed WHERE user_id = $1 FOR UPDATE
     ), changed AS (
         UPDATE notification
         SET seq = feed.head_seq + 1,
             title = coalesce($3, title), message = coalesce($4, message), data = coalesce($5, data),
             action_url = CASE WHEN $6 THEN $7 ELSE action_url END,
             icon = CASE WHEN $8 THEN $9 ELSE icon END,
             badge = CASE WHEN $10 THEN $11 ELSE badge END,
             expires_at = CASE WHEN $12 THEN $13 ELSE expires_at END
         FROM feed
         WHERE notification.user_id = $1 AND id = $2 AND deleted_at IS NULL
           AND (title IS DISTINCT FROM coalesce($3, title)
             OR message IS DISTINCT FROM coalesce($4, message)
             OR data IS DISTINCT FROM coalesce($5, data)
             OR $6 AND action_url IS DISTINCT FROM $7
             OR $8 AND icon IS DISTINCT FROM $9
             OR $10 AND badge IS DISTINCT FROM $11
             OR $12 AND expires_at IS DISTINCT FROM $13)
         RETURNING ",
    columns!(),
    "), moved AS (
         UPDATE user_feed SET head_seq = user_feed.head_seq + 1
         FROM changed
         WHERE user_feed.user_id = $1
         RETURNING ",
    feed_columns!(),
    ")
     SELECT * FROM changed CROSS JOIN moved"
);

/// The keys are locked in one order for all, because a key for several users is forgotten bit by bit by
/// erasures that may run at once.
const FORGET_KEYS: &str = "
WITH own AS (
    SELECT key_scope, key, array_agg(id) AS ids
    FROM notification WHERE user_id = $1 AND key IS NOT NULL GROUP BY key_scope, key
), held AS (
    SELECT known.scope, known.key, own.ids AS own, known.ids <@ own.ids AS alone
    FROM own JOIN idempotency AS known ON known.scope = own.key_scope AND known.key = own.key
    WHERE known.ids && own.ids
    ORDER BY known.scope, known.key
    FOR UPDATE OF known
), gone AS (
    DELETE FROM idempotency AS known USING held
    WHERE known.scope = held.scope AND known.key = held.key AND held.alone
)
UPDATE idempotency AS known
SET ids = ARRAY(
        SELECT CASE WHEN id = ANY (held.own) THEN '00000000-0000-0000-0000-000000000000' ELSE id END
        FROM unnest(known.ids) WITH ORDINALITY AS item (id, place) ORDER BY place)
FROM held
WHERE known.scope = held.scope AND known.key = held.key AND NOT held.alone";

/// An inbox without a limit may have any number of rows, and has to be erased all the same. It holds up nobody
/// but its user.
const TAKE_TIME: &str = "SET LOCAL statement_timeout = '60s'";
const ERASE_DEADLINE: Duration = Duration::from_secs(65);

const ERASE: &str = concat!(
    "WITH gone AS (
         DELETE FROM notification WHERE user_id = $1 RETURNING deleted_at
     ), total AS (
         SELECT count(*) AS rows, count(*) FILTER (WHERE deleted_at IS NULL) AS erased FROM gone
     )
     UPDATE user_feed
     SET head_seq = head_seq + 1, cleared_seq = head_seq + 1, floor_seq = head_seq + 1, unread = 0
     FROM total
     WHERE user_id = $1 AND total.rows > 0
     RETURNING total.erased, ",
    feed_columns!()
);

const REVOKE: &str = concat!(
    "INSERT INTO user_feed (user_id, head_seq, valid_after)
     VALUES ($1, 1, date_trunc('milliseconds', now()))
     ON CONFLICT (user_id) DO UPDATE
         SET head_seq = user_feed.head_seq + 1,
             valid_after = greatest(user_feed.valid_after, excluded.valid_after)
     RETURNING ",
    feed_columns!()
);

impl Store {
    /// One round trip; two when nothing changed.
    pub(in crate::store) async fn edit(
        &self,
        user: &UserId,
        id: Uuid,
        edit: &Edit,
    ) -> Result<Option<Updated>, StoreError> {
        let expires_at = edit.expires_at.flatten().map(|time| time.trunc_subsecs(3));
        let change = || async {
            let query = sqlx::query(EDIT)
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
                .bind(expires_at);
            Ok(self.rows_of([user.as_str()].into(), query).await?)
        };
        let rows = with_second_try(change).await?;
        match rows.first() {
            Some(row) => Ok(Some(updated(user, row)?)),
            None => self.unchanged(user, id).await,
        }
    }

    pub(in crate::store) async fn erase(&self, user: &UserId) -> Result<Erasure, StoreError> {
        with_second_try(|| self.erase_once(user)).await
    }

    /// After an error in between, the connection is closed: that undoes the rest at once.
    async fn erase_once(&self, user: &UserId) -> Result<Erasure, StoreError> {
        let mut lease = self.connections.lease_for([user.as_str()].into()).await?;
        let erasure = in_time(ERASE_DEADLINE, erase(&mut lease.connection, user)).await?;
        Ok(lease.end(Ok(erasure))?)
    }

    /// One round trip.
    pub(in crate::store) async fn revoke(&self, user: &UserId) -> Result<Revocation, StoreError> {
        let query = || sqlx::query(REVOKE).bind(user.as_str());
        let change = || async { Ok(self.rows_of([user.as_str()].into(), query()).await?) };
        let rows = with_second_try(change).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(FeedRow::from_row(row)?.revocation()?)
    }
}

async fn erase(connection: &mut PgConnection, user: &UserId) -> Result<Erasure, sqlx::Error> {
    let nothing = Erasure {
        moved: None,
        erased: 0,
    };
    let mut transaction = connection.begin().await?;
    let locked = sqlx::query(LOCK)
        .bind(user.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
    if locked.is_none() {
        transaction.rollback().await?;
        return Ok(nothing);
    }
    sqlx::raw_sql(TAKE_TIME).execute(&mut *transaction).await?;
    sqlx::query(FORGET_KEYS)
        .bind(user.as_str())
        .execute(&mut *transaction)
        .await?;
    let moved = sqlx::query(ERASE)
        .bind(user.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;

    let Some(row) = moved else {
        return Ok(nothing);
    };
    Ok(Erasure {
        moved: Some(FeedRow::from_row(&row)?.counters()?),
        erased: from_sql(row.try_get("erased")?)?,
    })
}
