//! What devices have received: noting it, and showing it to support.

use sqlx::Row;

use super::{Store, with_second_try};
use crate::store::inspected::change_columns;
use crate::store::row::{feed_and_rows, feed_columns, stored_user, to_sql};
use crate::store::{CONFIRMED_AT_ONCE, Confirmation, Inspection, StoreError};
use crate::user::UserId;

/// Users that somebody else holds are passed over, and answered. What a device says that it has received was
/// committed before it said so: this snapshot has it.
const CONFIRM: &str = "
WITH held AS (
    SELECT user_id, head_seq FROM user_feed WHERE user_id = ANY ($1) ORDER BY user_id FOR UPDATE SKIP LOCKED
), noted AS (
    UPDATE notification SET confirmed_at = date_trunc('milliseconds', now())
    FROM held
    JOIN unnest($1::text[], $2::bigint[], $3::bigint[]) AS said (user_id, above, seq) ON said.user_id = held.user_id
    WHERE notification.user_id = held.user_id AND confirmed_at IS NULL
      AND notification.seq <= least(said.seq, held.head_seq)
      AND notification.seq > greatest(said.above, least(said.seq, held.head_seq) - $4)
)
SELECT user_id FROM user_feed WHERE user_id = ANY ($1) AND user_id NOT IN (SELECT user_id FROM held)";

const INSPECT: &str = concat!(
    "SELECT ",
    feed_columns!(),
    ", latest.* FROM user_feed LEFT JOIN LATERAL (
         SELECT ",
    change_columns!(),
    "    FROM notification WHERE notification.user_id = $1 ORDER BY seq DESC LIMIT $2
     ) AS latest ON TRUE
     WHERE user_feed.user_id = $1 ORDER BY latest.seq DESC"
);

impl Store {
    /// One round trip.
    pub(in crate::store) async fn confirm(
        &self,
        confirmations: &[Confirmation],
    ) -> Result<Vec<Confirmation>, StoreError> {
        if confirmations.is_empty() {
            return Ok(Vec::new());
        }
        let said = confirmations.iter();
        let users: Vec<&str> = said.clone().map(|said| said.user.as_str()).collect();
        let above: Vec<i64> = said.clone().map(|said| to_sql(said.above)).collect();
        let seqs: Vec<i64> = said.clone().map(|said| to_sql(said.seq)).collect();
        let note = || async {
            let query = sqlx::query(CONFIRM)
                .bind(&users)
                .bind(&above)
                .bind(&seqs)
                .bind(i64::from(CONFIRMED_AT_ONCE));
            Ok(self.rows(query).await?)
        };
        let rows = with_second_try(note).await?;
        let mut held = Vec::with_capacity(rows.len());
        for row in &rows {
            held.push(stored_user(row.try_get("user_id")?)?);
        }
        let later = said.filter(|said| held.contains(&said.user));
        Ok(later.cloned().collect())
    }

    /// One round trip.
    pub(in crate::store) async fn inspect(
        &self,
        user: &UserId,
        limit: u32,
    ) -> Result<Inspection, StoreError> {
        let query = sqlx::query(INSPECT)
            .bind(user.as_str())
            .bind(i64::from(limit));
        let rows = self.rows(query).await?;
        let (feed, changes) = feed_and_rows(&rows)?;
        Ok(feed.inspection(changes, limit)?)
    }
}
