//! Adding old notifications, a batch in one transaction: what is not there yet, in three statements for all of them.

use chrono::{DateTime, Utc};
use sqlx::{Row, Sqlite, Transaction};

use super::Store;
use crate::notification::Notification;
use crate::store::row::{from_sql, stored_user};
use crate::store::{Imported, StoreError};

const MAKE_FEEDS: &str = "
INSERT INTO user_feed (user_id) SELECT DISTINCT value ->> 0 FROM json_each(?1) WHERE TRUE
ON CONFLICT (user_id) DO NOTHING";

/// Above each user's head, which stays until all are in. Of one that is given twice, the first counts.
pub(super) const INSERT: &str = "
WITH given AS MATERIALIZED (
    SELECT value ->> 0 AS user_id, unhex(value ->> 1) AS id, key AS place, value
    FROM json_each(?1)
), first AS (
    SELECT *, row_number() OVER (PARTITION BY user_id, id ORDER BY place) AS copy FROM given
), fresh AS (
    SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY place) AS nth
    FROM first
    WHERE copy = 1 AND NOT EXISTS (
        SELECT 1 FROM notification WHERE notification.user_id = first.user_id AND notification.id = first.id)
)
INSERT INTO notification (user_id, id, created_seq, seq, kind, priority, title, message, data, action_url, icon,
                          badge, silent, sticky, created_at, read_at, clicked_at, expires_at)
SELECT fresh.user_id, id, head_seq + nth, head_seq + nth, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
       value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12,
       value ->> 13, value ->> 14, value ->> 15
FROM fresh CROSS JOIN user_feed ON user_feed.user_id = fresh.user_id";

/// What is above the head is what was just inserted.
pub(super) const MOVE_FEEDS: &str = "
UPDATE user_feed SET head_seq = step.head, floor_seq = step.head, unread = unread + step.fresh
FROM (
    SELECT feed.user_id, max(seq) AS head, count(*) FILTER (WHERE read_at IS NULL) AS fresh
    FROM (SELECT DISTINCT value ->> 0 AS user_id FROM json_each(?1)) AS given
    CROSS JOIN user_feed AS feed ON feed.user_id = given.user_id
    CROSS JOIN notification ON notification.user_id = feed.user_id AND seq > feed.head_seq
    GROUP BY feed.user_id
) AS step
WHERE user_feed.user_id = step.user_id
RETURNING user_id, head_seq";

impl Store {
    pub(in crate::store) async fn import(
        &self,
        old: &[Notification],
    ) -> Result<Imported, StoreError> {
        if old.is_empty() {
            return Ok(Imported::default());
        }
        let given = json(old)?;
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        execute(&mut transaction, MAKE_FEEDS, &given).await?;
        let created = execute(&mut transaction, INSERT, &given).await?;
        let rows = sqlx::query(MOVE_FEEDS)
            .bind(&given)
            .fetch_all(&mut *transaction)
            .await?;
        transaction.commit().await?;

        let mut moved = Vec::with_capacity(rows.len());
        for row in &rows {
            let user = stored_user(row.try_get("user_id")?)?;
            moved.push((user, from_sql(row.try_get("head_seq")?)?));
        }
        moved.sort_unstable();
        Ok(Imported {
            created,
            known: (old.len() as u64).saturating_sub(created),
            moved,
        })
    }
}

async fn execute(
    transaction: &mut Transaction<'_, Sqlite>,
    statement: &'static str,
    given: &str,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(statement)
        .bind(given)
        .execute(&mut **transaction)
        .await?;
    Ok(done.rows_affected())
}

/// An array of arrays, each in the order in which [`INSERT`] takes it apart: a statement a row would take
/// several times as long. `data` is a string in it, and so stays the text that it is.
fn json(old: &[Notification]) -> Result<String, sqlx::Error> {
    let milliseconds = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_millis());
    let rows: Vec<_> = old
        .iter()
        .map(|old| {
            (
                old.user_id.as_str(),
                old.id.simple().to_string(),
                old.kind.as_str(),
                old.priority.as_str(),
                &old.title,
                &old.message,
                old.data.get(),
                &old.action_url,
                &old.icon,
                &old.badge,
                old.silent,
                old.sticky,
                old.created_at.timestamp_millis(),
                milliseconds(old.was_read_at()),
                milliseconds(old.clicked_at),
                milliseconds(old.expires_at),
            )
        })
        .collect();
    serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))
}
