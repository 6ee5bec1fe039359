//! Burying notifications whose time is over: tombstones with a seq each, in an order that all devices hear of.

use sqlx::{Row, Sqlite, Transaction};
use uuid::Uuid;

use super::Store;
use super::inbox::{DELETE, step};
use crate::notification::Reason;
use crate::store::row::{stored_user, to_sql};
use crate::store::{Gone, StoreError};
use crate::user::UserId;

pub(super) const DUE: &str = "
SELECT user_id, id, read_at IS NULL AS was_unread FROM notification
WHERE deleted_at IS NULL AND expires_at IS NOT NULL AND expires_at <= ?
ORDER BY expires_at, created_seq LIMIT ?";

impl Store {
    pub(in crate::store) async fn expire(&self, limit: u32) -> Result<Vec<Gone>, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let now = super::now(&mut transaction).await?;
        let due = sqlx::query(DUE)
            .bind(now)
            .bind(limit)
            .fetch_all(&mut *transaction)
            .await?;

        let mut gone = Vec::with_capacity(due.len());
        for row in due {
            let user = stored_user(row.try_get("user_id")?)?;
            let (id, was_unread) = (row.try_get("id")?, row.try_get("was_unread")?);
            gone.push(bury(&mut transaction, user, id, was_unread, now).await?);
        }
        transaction.commit().await?;
        Ok(gone)
    }
}

/// Makes a tombstone of a live notification, under the next seq.
pub(super) async fn bury(
    transaction: &mut Transaction<'_, Sqlite>,
    user: UserId,
    id: Uuid,
    was_unread: bool,
    now: i64,
) -> Result<Gone, sqlx::Error> {
    let counters = step(transaction, &user, -i64::from(was_unread)).await?;
    sqlx::query(DELETE)
        .bind(user.as_str())
        .bind(id)
        .bind(to_sql(counters.seq))
        .bind(now)
        .bind(Reason::Expired.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(Gone { user, id, counters })
}
