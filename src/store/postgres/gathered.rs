//! Reading for many users at once: one statement, however many there are.

use std::collections::HashMap;

use sqlx::{FromRow, Row};

use super::Store;
use crate::store::row::{
    ContradictionRow, FeedRow, columns, contradiction_columns, feed_and_rows, feed_columns, to_sql,
};
use crate::store::{Known, Missed, ROWS_FOR_MANY, Since, Standing, StoreError};
use crate::user::UserId;

const STANDINGS: &str = concat!(
    "SELECT user_id, ",
    feed_columns!(),
    " FROM user_feed WHERE user_id = ANY ($1)"
);

/// Of an unnest of several arrays the planner expects few rows, and goes by the key; of one in the list of a SELECT a
/// thousand, for which it would read a table of some ten thousand as a whole.
const CONTRADICTED: &str = concat!(
    "SELECT ",
    contradiction_columns!(),
    " FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (user_id, head, place)
     LEFT JOIN user_feed ON user_feed.user_id = asked.user_id
     WHERE coalesce(user_feed.head_seq, 0) IS DISTINCT FROM asked.head OR user_feed.valid_after IS NOT NULL"
);

/// Ordered by the places of those asked for: where the rows end, all before the last one have theirs.
const MISSED: &str = concat!(
    "SELECT asked.place, ",
    feed_columns!(),
    ", later.*
     FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (user_id, since, place)
     JOIN user_feed ON user_feed.user_id = asked.user_id
     LEFT JOIN LATERAL (
         SELECT ",
    columns!(),
    "    FROM notification WHERE notification.user_id = asked.user_id AND seq > asked.since ORDER BY seq LIMIT $3
     ) AS later ON TRUE
     ORDER BY asked.place, later.seq LIMIT $4"
);

impl Store {
    pub(in crate::store) async fn standings(
        &self,
        users: &[UserId],
    ) -> Result<Vec<Standing>, StoreError> {
        let ids: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = self.rows(sqlx::query(STANDINGS).bind(ids)).await?;
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
        let ids: Vec<&str> = known.iter().map(|known| known.user.as_str()).collect();
        let heads: Vec<Option<i64>> = known.iter().map(|known| known.head.map(to_sql)).collect();
        let rows = self
            .rows(sqlx::query(CONTRADICTED).bind(ids).bind(heads))
            .await?;
        let rows = rows.iter().map(FromRow::from_row);
        Ok(ContradictionRow::standings(
            rows.collect::<Result<_, _>>()?,
            known.len(),
        )?)
    }

    pub(in crate::store) async fn missed_by(
        &self,
        asked: &[Since],
        limit: u32,
    ) -> Result<Vec<Missed>, StoreError> {
        let ids: Vec<&str> = asked.iter().map(|asked| asked.user.as_str()).collect();
        let since: Vec<i64> = asked.iter().map(|asked| to_sql(asked.seq)).collect();
        // One user's rows always fit.
        let most = ROWS_FOR_MANY.max(limit.saturating_add(1));
        let statement = sqlx::query(MISSED)
            .bind(ids)
            .bind(since)
            .bind(i64::from(limit) + 1)
            .bind(i64::from(most));
        let rows = self.rows(statement).await?;

        let mut answers = Vec::with_capacity(asked.len());
        let mut rest = rows.as_slice();
        for (place, asked) in (1_i64..).zip(asked) {
            let mut own = 0;
            while let Some(row) = rest.get(own)
                && row.try_get::<i64, _>("place")? == place
            {
                own += 1;
            }
            let (rows_of_this, others) = rest.split_at(own);
            rest = others;
            let may_be_cut = rest.is_empty() && rows.len() >= most as usize;
            if may_be_cut && !answers.is_empty() {
                break;
            }
            let (feed, notifications) = feed_and_rows(rows_of_this)?;
            answers.push(feed.missed(&asked.user, notifications, limit)?);
        }
        Ok(answers)
    }
}
