//! Reading for many users at once: in one turn of the connection.

use std::collections::HashMap;

use sqlx::types::Json;
use sqlx::{FromRow, Row};

use super::Store;
use super::read::MISSED;
use crate::store::row::{
    ContradictionRow, FeedRow, contradiction_columns, feed_and_rows, feed_columns, to_sql,
};
use crate::store::{Known, Missed, ROWS_FOR_MANY, Since, Standing, StoreError};
use crate::user::UserId;

pub(super) const STANDINGS: &str = concat!(
    "SELECT user_feed.user_id, ",
    feed_columns!(),
    " FROM json_each(?1) AS asked CROSS JOIN user_feed ON user_feed.user_id = asked.value"
);

pub(super) const CONTRADICTED: &str = concat!(
    "SELECT ",
    contradiction_columns!(),
    " FROM (SELECT key + 1 AS place, value ->> 0 AS user_id, value ->> 1 AS head FROM json_each(?1)) AS asked
     LEFT JOIN user_feed ON user_feed.user_id = asked.user_id
     WHERE coalesce(user_feed.head_seq, 0) IS NOT asked.head OR user_feed.valid_after IS NOT NULL"
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

    pub(in crate::store) async fn contradicted(
        &self,
        known: &[Known<'_>],
    ) -> Result<Vec<Option<Standing>>, StoreError> {
        let asked = known
            .iter()
            .map(|known| (known.user.as_str(), known.head.map(to_sql)));
        let asked: Vec<_> = asked.collect();
        let query = sqlx::query_as(CONTRADICTED).bind(Json(asked));
        let rows = query.fetch_all(&mut *self.turn().await?).await?;
        Ok(ContradictionRow::standings(rows, known.len())?)
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
