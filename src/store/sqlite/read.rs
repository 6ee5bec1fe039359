//! Reading an inbox: each question is one statement.

use uuid::Uuid;

use super::Store;
use crate::notification::Kind;
use crate::store::row::{columns, feed_and_rows, feed_columns, to_sql};
use crate::store::{Found, ListQuery, Missed, Page, StoreError};
use crate::user::UserId;

const GET: &str = concat!(
    "SELECT ",
    feed_columns!(),
    ", ",
    columns!(),
    " FROM user_feed LEFT JOIN notification
        ON notification.user_id = user_feed.user_id AND id = ?2 AND deleted_at IS NULL
      WHERE user_feed.user_id = ?1"
);

/// The filters belong to the join, not to the answer: an empty page still has its counters.
const LIST: &str = concat!(
    "SELECT ",
    feed_columns!(),
    ", ",
    columns!(),
    " FROM user_feed LEFT JOIN notification
        ON notification.user_id = user_feed.user_id AND created_seq < ?2 AND deleted_at IS NULL
       AND (?3 IS NULL OR (read_at IS NULL) = ?3) AND (?4 IS NULL OR kind = ?4)
      WHERE user_feed.user_id = ?1 ORDER BY created_seq DESC LIMIT ?5"
);

pub(super) const MISSED: &str = concat!(
    "SELECT ",
    feed_columns!(),
    ", ",
    columns!(),
    " FROM user_feed LEFT JOIN notification ON notification.user_id = user_feed.user_id AND seq > ?2
      WHERE user_feed.user_id = ?1 ORDER BY seq LIMIT ?3"
);

impl Store {
    pub(in crate::store) async fn get(&self, user: &UserId, id: Uuid) -> Result<Found, StoreError> {
        let query = sqlx::query(GET).bind(user.as_str()).bind(id);
        let rows = query.fetch_all(&mut *self.turn().await?).await?;
        let (feed, notifications) = feed_and_rows(&rows)?;
        Ok(feed.found(user, notifications)?)
    }

    pub(in crate::store) async fn list(
        &self,
        user: &UserId,
        query: &ListQuery,
    ) -> Result<Page, StoreError> {
        let statement = sqlx::query(LIST)
            .bind(user.as_str())
            .bind(query.before.map_or(i64::MAX, to_sql))
            .bind(query.unread)
            .bind(query.kind.as_ref().map(Kind::as_str))
            .bind(i64::from(query.limit) + 1);
        let rows = statement.fetch_all(&mut *self.turn().await?).await?;
        let (feed, notifications) = feed_and_rows(&rows)?;
        Ok(feed.page(user, notifications, query.limit)?)
    }

    pub(in crate::store) async fn missed(
        &self,
        user: &UserId,
        since: u64,
        limit: u32,
    ) -> Result<Missed, StoreError> {
        let statement = sqlx::query(MISSED)
            .bind(user.as_str())
            .bind(to_sql(since))
            .bind(i64::from(limit) + 1);
        let rows = statement.fetch_all(&mut *self.turn().await?).await?;
        let (feed, notifications) = feed_and_rows(&rows)?;
        Ok(feed.missed(user, notifications, limit)?)
    }
}
