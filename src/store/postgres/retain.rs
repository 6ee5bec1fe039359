//! Forgetting what is too old or too much: user by user, and key by key.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, FromRow, Row};
use uuid::Uuid;

use super::expire::bury;
use super::{ANSWER_DEADLINE, Store, in_time, with_second_try};
use crate::store::row::from_sql;
use crate::store::walk::Walked;
use crate::store::{RETAINED_AT_ONCE, ROWS_AT_ONCE, Retained, Retention, StoreError, UserPage};
use crate::user::UserId;

/// Longer than any history, and within what PostgreSQL can subtract from now.
const MOST_DAYS: u32 = 1_000_000;

/// What [`OVERDUE`] and [`REMOVE`] find, as yes or no. Of each user it reads the rows by their key, up to
/// the first that has to go; so the page ends where it may be many rows, which no user has more of than
/// changes, nor, once retention has been there, than live ones and tombstones together. Who has had no more changes than
/// may stay has no notification too many, and none are counted.
const USERS: &str = "
WITH candidate AS (
    SELECT user_id, head_seq, least(head_seq, 2 * $4::bigint) AS weight
    FROM user_feed WHERE user_id > $1 ORDER BY user_id LIMIT $2
), weighed AS (
    SELECT user_id, head_seq, sum(weight) OVER (ORDER BY user_id) - weight AS before FROM candidate
)
SELECT page.user_id, EXISTS (
    SELECT FROM notification
    WHERE notification.user_id = page.user_id AND CASE WHEN deleted_at IS NULL
        THEN created_at <= now() - make_interval(days => $3::int) OR created_seq <= beyond.created_seq
        ELSE (deleted_at <= now() - make_interval(days => $3::int) OR seq <= page.head_seq - $4::bigint)
             AND (key IS NULL OR created_at <= now() - INTERVAL '24 hours')
        END
) AS due, (SELECT count(*) FROM candidate) AS candidates
FROM weighed AS page
LEFT JOIN LATERAL (
    SELECT created_seq FROM notification
    WHERE notification.user_id = page.user_id AND page.head_seq > $4::bigint AND deleted_at IS NULL
    ORDER BY created_seq DESC OFFSET $4::bigint LIMIT 1
) AS beyond ON TRUE
WHERE page.before < $5
ORDER BY page.user_id";

/// As the planner estimates it: as many in a page as the last ANALYZE or VACUUM found, in the pages that there are now.
/// Null or 0: there was none, it saw an empty table, or the rows are in partitions.
const ESTIMATE: &str = "
SELECT (reltuples / nullif(relpages, 0) * pg_relation_size(oid)
        / current_setting('block_size')::bigint)::bigint AS users
FROM pg_class WHERE oid = 'user_feed'::regclass";

const LOCK_IF_FREE: &str = "SELECT FROM user_feed WHERE user_id = $1 FOR UPDATE SKIP LOCKED";

/// Live ones, oldest first. The number is a count of what lives, not a distance in seqs: each tombstone
/// takes a seq, and would push the next one over the edge.
const OVERDUE: &str = "
SELECT id FROM notification
WHERE user_id = $1 AND deleted_at IS NULL
  AND (created_at <= now() - make_interval(days => $2::int)
    OR $3::bigint IS NOT NULL AND created_seq <= (
        SELECT created_seq FROM notification WHERE user_id = $1 AND deleted_at IS NULL
        ORDER BY created_seq DESC OFFSET $3::bigint LIMIT 1))
ORDER BY created_seq LIMIT $4";

/// Tombstones, those of the oldest changes first.
const REMOVE: &str = "
WITH found AS (
    SELECT id, row_number() OVER (ORDER BY seq) AS place
    FROM notification
    WHERE user_id = $1 AND deleted_at IS NOT NULL
      AND (deleted_at <= now() - make_interval(days => $2::int)
        OR seq <= (SELECT head_seq FROM user_feed WHERE user_id = $1) - $3::bigint)
      AND (key IS NULL OR created_at <= now() - INTERVAL '24 hours')
    ORDER BY seq LIMIT $4 + 1
), gone AS (
    DELETE FROM notification USING found
    WHERE user_id = $1 AND notification.id = found.id AND place <= $4
    RETURNING seq
), total AS (
    SELECT count(*) AS removed, max(seq) AS highest FROM gone
)
UPDATE user_feed SET floor_seq = greatest(floor_seq, highest)
FROM total
WHERE user_id = $1 AND removed > 0
RETURNING removed, (SELECT count(*) > $4 FROM found) AS more";

/// Keys that somebody is just taking again are passed over.
const FORGET_KEYS: &str = "
WITH page AS (
    SELECT scope, key FROM idempotency WHERE (scope, key) > ($1, $2) ORDER BY scope, key LIMIT $3
), old AS (
    SELECT known.scope, known.key
    FROM page JOIN idempotency AS known ON known.scope = page.scope AND known.key = page.key
    WHERE known.created_at <= now() - INTERVAL '24 hours'
    FOR UPDATE OF known SKIP LOCKED
), gone AS (
    DELETE FROM idempotency USING old WHERE idempotency.scope = old.scope AND idempotency.key = old.key
)
SELECT scope, key, count(*) OVER () AS keys FROM page ORDER BY scope DESC, key DESC LIMIT 1";

impl Store {
    /// One round trip.
    pub(in crate::store) async fn estimated_users(&self) -> Result<Option<u64>, StoreError> {
        let rows = self.rows(sqlx::query(ESTIMATE)).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let users = row.try_get::<Option<i64>, _>("users")?;
        Ok(users.filter(|users| *users > 0).map(from_sql).transpose()?)
    }

    /// One round trip.
    pub(in crate::store) async fn users(
        &self,
        after: Option<&UserId>,
        limit: u32,
        retention: Retention,
    ) -> Result<UserPage, StoreError> {
        let query = sqlx::query(USERS)
            .bind(after.map_or("", UserId::as_str))
            .bind(i64::from(limit))
            .bind(days(retention))
            .bind(changes(retention))
            .bind(ROWS_AT_ONCE);
        let rows = self.rows(query).await?;
        let walked = rows.iter().map(Walked::from_row);
        Ok(UserPage::of(walked.collect::<Result<_, _>>()?, limit)?)
    }

    /// A transaction of at most six round trips.
    pub(in crate::store) async fn retain(
        &self,
        user: &UserId,
        retention: Retention,
    ) -> Result<Retained, StoreError> {
        with_second_try(|| self.retain_once(user, retention)).await
    }

    /// After an error in between, the connection is closed: that undoes the rest at once.
    async fn retain_once(
        &self,
        user: &UserId,
        retention: Retention,
    ) -> Result<Retained, StoreError> {
        let mut lease = self.connections.lease().await?;
        let work = retain(&mut lease.connection, user, retention);
        let retained = in_time(ANSWER_DEADLINE, work).await?;
        Ok(lease.end(Ok(retained))?)
    }

    /// One round trip.
    pub(in crate::store) async fn forget_keys(
        &self,
        after: Option<(String, String)>,
        limit: u32,
    ) -> Result<Option<(String, String)>, StoreError> {
        let (scope, key) = after.unwrap_or_default();
        let forget = || async {
            let query = sqlx::query(FORGET_KEYS)
                .bind(&scope)
                .bind(&key)
                .bind(i64::from(limit));
            Ok(self.rows(query).await?)
        };
        let rows = with_second_try(forget).await?;
        match rows.first() {
            Some(last) if last.try_get::<i64, _>("keys")? >= i64::from(limit) => {
                Ok(Some((last.try_get("scope")?, last.try_get("key")?)))
            }
            _ => Ok(None),
        }
    }
}

async fn retain(
    connection: &mut PgConnection,
    user: &UserId,
    retention: Retention,
) -> Result<Retained, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let held = sqlx::query(LOCK_IF_FREE)
        .bind(user.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
    if held.is_none() {
        transaction.rollback().await?;
        return Ok(Retained::default());
    }

    let overdue: Vec<Uuid> = sqlx::query_scalar(OVERDUE)
        .bind(user.as_str())
        .bind(days(retention))
        .bind(changes(retention))
        .bind(i64::from(RETAINED_AT_ONCE) + 1)
        .fetch_all(&mut *transaction)
        .await?;
    let at_once = overdue.iter().take(RETAINED_AT_ONCE as usize);
    let doomed: Vec<_> = at_once.map(|id| (user.as_str(), *id)).collect();
    let gone = bury(&mut transaction, &doomed, false).await?;

    let removed = sqlx::query(REMOVE)
        .bind(user.as_str())
        .bind(days(retention))
        .bind(changes(retention))
        .bind(i64::from(RETAINED_AT_ONCE))
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;

    let mut retained = Retained {
        more: overdue.len() > doomed.len(),
        gone,
        removed: 0,
    };
    if let Some(row) = removed {
        retained.removed = from_sql(row.try_get("removed")?)?;
        retained.more |= row.try_get::<bool, _>("more")?;
    }
    Ok(retained)
}

/// Null is no limit, and makes every comparison with it null.
fn days(retention: Retention) -> Option<i32> {
    let days = i32::try_from(retention.days.min(MOST_DAYS)).ok();
    days.filter(|days| *days > 0)
}

fn changes(retention: Retention) -> Option<i64> {
    Some(i64::from(retention.changes)).filter(|changes| *changes > 0)
}
