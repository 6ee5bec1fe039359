//! Reading an inbox: each question is one statement, so its rows and its counters are of one snapshot.

use uuid::Uuid;

use super::Store;
use crate::notification::Kind;
use crate::store::row::{columns, feed_and_rows, feed_columns, to_sql};
use crate::store::{Found, ListQuery, Missed, Page, StoreError};
use crate::user::UserId;

const GET: &str = concat!(
    "SELECT ",
    feed_columns!(),
    ", one.* FROM user_feed LEFT JOIN LATERAL (
         SELECT ",
    columns!(),
    "    FROM notification WHERE notification.user_id = $1 AND id = $2 AND deleted_at IS NULL
     ) AS one ON TRUE
     WHERE user_feed.user_id = $1"
);

const LIST: &str = concat!(
    "SELECT ",
    feed_columns!(),
    ", page.* FROM user_feed LEFT JOIN LATERAL (
         SELECT ",
    columns!(),
    "    FROM notification
         WHERE notification.user_id = $1 AND created_seq < $2 AND deleted_at IS NULL
           AND ($3 IS NULL OR (read_at IS NULL) = $3) AND ($4 IS NULL OR kind = $4)
         ORDER BY created_seq DESC LIMIT $5
     ) AS page ON TRUE
     WHERE user_feed.user_id = $1 ORDER BY page.created_seq DESC"
);

const MISSED: &str = concat!(
    "SELECT ",
    feed_columns!(),
    ", later.* FROM user_feed LEFT JOIN LATERAL (
         SELECT ",
    columns!(),
    "    FROM notification WHERE notification.user_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
     ) AS later ON TRUE
     WHERE user_feed.user_id = $1 ORDER BY later.seq"
);

impl Store {
    pub(in crate::store) async fn get(&self, user: &UserId, id: Uuid) -> Result<Found, StoreError> {
        let rows = self
            .rows(sqlx::query(GET).bind(user.as_str()).bind(id))
            .await?;
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
        let rows = self.rows(statement).await?;
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
        let rows = self.rows(statement).await?;
        let (feed, notifications) = feed_and_rows(&rows)?;
        Ok(feed.missed(user, notifications, limit)?)
    }
}
