//! Reading for many users at once: in one turn of the connection.

use std::collections::HashMap;

use sqlx::types::Json;
use sqlx::{FromRow, Row};

use super::Store;
use super::read::MISSED;
use crate::store::row::{FeedRow, feed_and_rows, feed_columns, to_sql};
use crate::store::{Missed, ROWS_FOR_MANY, Since, Standing, StoreError};
use crate::user::UserId;

pub(super) const STANDINGS: &str = concat!(
    "SELECT user_feed.user_id, ",
    feed_columns!(),
    " FROM json_each(?1) AS asked CROSS JOIN user_feed ON user_feed.user_id = asked.value"
);

impl Store {
    pub(in crate::store) async fn standings(
        &self,
        users: &[UserId],
    ) -> Result<Vec<Standing>, StoreError> {
        let ids: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let query = sqlx::query(STANDINGS).bind(Json(ids));
        let rows = query.fetch_all(&mut *self.turn().await?).await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let id: &str = row.try_get("user_id")?;
            found.insert(id, FeedRow::from_row(row)?.standing()?);
        }
        let standing = |user: &UserId| found.get(user.as_str()).copied().unwrap_or_default();
        Ok(users.iter().map(standing).collect())
    }

    /// A statement each, for none leaves the process.
    pub(in crate::store) async fn missed_by(
        &self,
        asked: &[Since],
        limit: u32,
    ) -> Result<Vec<Missed>, StoreError> {
        let mut connection = self.turn().await?;
        let mut answers = Vec::with_capacity(asked.len());
        let mut read = 0;
        for Since { user, seq } in asked {
            let statement = sqlx::query(MISSED)
                .bind(user.as_str())
                .bind(to_sql(*seq))
                .bind(i64::from(limit) + 1);
            let rows = statement.fetch_all(&mut *connection).await?;
            read += rows.len();
            let (feed, notifications) = feed_and_rows(&rows)?;
            answers.push(feed.missed(user, notifications, limit)?);
            if read >= ROWS_FOR_MANY as usize {
                break;
            }
        }
        Ok(answers)
    }
}
