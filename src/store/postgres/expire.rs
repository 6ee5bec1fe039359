//! Burying notifications whose time is over: tombstones with a seq each, in an order that all devices hear of.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::{ANSWER_DEADLINE, Store, in_time, with_second_try};
use crate::store::row::{from_sql, stored_user};
use crate::store::{Counters, Gone, StoreError};

/// Of users whom nobody holds at this moment: those of one who is being erased, or whom another node is at work
/// on, would take the places of all others.
const DUE: &str = "
SELECT notification.user_id, id FROM notification JOIN user_feed ON user_feed.user_id = notification.user_id
WHERE deleted_at IS NULL AND expires_at IS NOT NULL AND expires_at <= now()
ORDER BY expires_at, created_seq LIMIT $1
FOR UPDATE OF user_feed SKIP LOCKED";

/// Whoever is held by somebody else is left out, so that many nodes may sweep at once and none waits.
const LOCK_FREE: &str = "
SELECT user_id FROM user_feed WHERE user_id = ANY ($1) ORDER BY user_id FOR UPDATE SKIP LOCKED";

/// Numbers what is still there, user by user in the order given. Its snapshot is younger than the locks
/// of all users in it: nothing that it reads can change under it.
const BURY: &str = "
WITH doomed AS (
    SELECT given.user_id, given.id, given.place, read_at IS NULL AS was_unread
    FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS given (user_id, id, place)
    JOIN notification ON notification.user_id = given.user_id AND notification.id = given.id
    WHERE deleted_at IS NULL AND (expires_at <= now() OR NOT $3)
), numbered AS (
    SELECT doomed.user_id, doomed.id,
           head_seq + row_number() OVER step AS seq,
           unread - count(*) FILTER (WHERE was_unread) OVER step AS unread
    FROM doomed JOIN user_feed ON user_feed.user_id = doomed.user_id
    WINDOW step AS (PARTITION BY doomed.user_id ORDER BY place)
), buried AS (
    UPDATE notification
    SET seq = numbered.seq, deleted_at = date_trunc('milliseconds', now()), delete_reason = 'expired',
        title = '', message = '', data = '{}', action_url = NULL, icon = NULL, badge = NULL
    FROM numbered
    WHERE notification.user_id = numbered.user_id AND notification.id = numbered.id
), moved AS (
    UPDATE user_feed SET head_seq = last.seq, unread = last.unread
    FROM (SELECT DISTINCT ON (user_id) user_id, seq, unread FROM numbered ORDER BY user_id, seq DESC) AS last
    WHERE user_feed.user_id = last.user_id
)
SELECT user_id, id, seq, unread FROM numbered ORDER BY user_id, seq";

impl Store {
    /// One round trip when nothing is due; else a transaction of four more.
    pub(in crate::store) async fn expire(&self, limit: u32) -> Result<Vec<Gone>, StoreError> {
        let due = self.rows(sqlx::query(DUE).bind(i64::from(limit))).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        with_second_try(|| self.expire_these(&due)).await
    }

    /// After an error in between, the connection is closed: that undoes the rest at once.
    async fn expire_these(&self, due: &[PgRow]) -> Result<Vec<Gone>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let gone = in_time(ANSWER_DEADLINE, expire(&mut lease.connection, due)).await?;
        Ok(lease.end(Ok(gone))?)
    }
}

async fn expire(connection: &mut PgConnection, due: &[PgRow]) -> Result<Vec<Gone>, sqlx::Error> {
    let mut users = Vec::with_capacity(due.len());
    for row in due {
        users.push(row.try_get::<&str, _>("user_id")?);
    }
    let mut transaction = connection.begin().await?;
    let mut free: Vec<String> = sqlx::query_scalar(LOCK_FREE)
        .bind(&users)
        .fetch_all(&mut *transaction)
        .await?;
    free.sort_unstable();

    let mut doomed = Vec::with_capacity(due.len());
    for (row, user) in due.iter().zip(users) {
        if free
            .binary_search_by(|held| held.as_str().cmp(user))
            .is_ok()
        {
            doomed.push((user, row.try_get("id")?));
        }
    }
    let gone = bury(&mut transaction, &doomed, true).await?;
    transaction.commit().await?;
    Ok(gone)
}

/// Makes tombstones of `doomed`, whose users the caller has locked in an earlier statement; with `due_only`
/// of those whose time is still over. Answers in the order of users and seqs.
pub(super) async fn bury(
    connection: &mut PgConnection,
    doomed: &[(&str, Uuid)],
    due_only: bool,
) -> Result<Vec<Gone>, sqlx::Error> {
    if doomed.is_empty() {
        return Ok(Vec::new());
    }
    let (users, ids): (Vec<&str>, Vec<Uuid>) = doomed.iter().copied().unzip();
    let rows = sqlx::query(BURY)
        .bind(users)
        .bind(ids)
        .bind(due_only)
        .fetch_all(connection)
        .await?;
    rows.iter().map(gone).collect()
}

fn gone(row: &PgRow) -> Result<Gone, sqlx::Error> {
    Ok(Gone {
        user: stored_user(row.try_get("user_id")?)?,
        id: row.try_get("id")?,
        counters: Counters {
            unread: from_sql(row.try_get("unread")?)?,
            seq: from_sql(row.try_get("seq")?)?,
        },
    })
}
