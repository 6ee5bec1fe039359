//! What devices have received: noting it, and showing it to support.

use super::Store;
use crate::store::inspected::change_columns;
use crate::store::row::{feed_and_rows, feed_columns, to_sql};
use crate::store::{CONFIRMED_AT_ONCE, Confirmation, Inspection, StoreError};
use crate::user::UserId;

/// The head bounds what is said: a seq that was never given confirms what there is.
pub(super) const CONFIRM: &str = "
WITH said AS MATERIALIZED (SELECT min(?3, head_seq) AS seq FROM user_feed WHERE user_id = ?1)
UPDATE notification SET confirmed_at = ?4
WHERE user_id = ?1 AND confirmed_at IS NULL
  AND seq <= (SELECT seq FROM said) AND seq > max(?2, (SELECT seq FROM said) - ?5)";

pub(super) const INSPECT: &str = concat!(
    "SELECT ",
    feed_columns!(),
    ", ",
    change_columns!(),
    " FROM user_feed LEFT JOIN notification ON notification.user_id = user_feed.user_id
      WHERE user_feed.user_id = ?1 ORDER BY seq DESC LIMIT ?2"
);

impl Store {
    /// Nobody else holds a row: none is left for the next time.
    pub(in crate::store) async fn confirm(
        &self,
        confirmations: &[Confirmation],
    ) -> Result<Vec<Confirmation>, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let now = super::now(&mut transaction).await?;
        for said in confirmations {
            sqlx::query(CONFIRM)
                .bind(said.user.as_str())
                .bind(to_sql(said.above))
                .bind(to_sql(said.seq))
                .bind(now)
                .bind(CONFIRMED_AT_ONCE)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(Vec::new())
    }

    pub(in crate::store) async fn inspect(
        &self,
        user: &UserId,
        limit: u32,
    ) -> Result<Inspection, StoreError> {
        // One row more than none: the counters are in it.
        let query = sqlx::query(INSPECT).bind(user.as_str()).bind(limit.max(1));
        let rows = query.fetch_all(&mut *self.turn().await?).await?;
        let (feed, changes) = feed_and_rows(&rows)?;
        Ok(feed.inspection(changes, limit)?)
    }
}
