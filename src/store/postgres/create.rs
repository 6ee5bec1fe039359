//! Remembering a batch in one statement: the key, the counters, the notifications.

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::Store;
use crate::notification::Draft;
use crate::store::row::{Time, from_sql};
use crate::store::{Address, Batch, Created, CreatedItem, IdempotencyKey, StoreError};

/// All of it, or nothing when the key is taken.
///
/// Drafts and addresses come in arrays of their own, so that a draft for a thousand users is sent once.
/// The key is claimed before any counter is touched: while the same key's first request runs, the claim
/// waits for its end, holding nothing; then it is taken (no row comes back) or, after a rollback or 24
/// hours, free. Counters are stepped one user after the other in the order of their ids, once each: two
/// batches that share users wait for each other and cannot deadlock. A user's items are numbered in
/// address order below the counter's new value.
const CREATE: &str = r#"
WITH claim AS (
    INSERT INTO idempotency AS known (scope, key, body_hash, ids, created_at)
    SELECT $1, $2, $3, $5, date_trunc('milliseconds', now()) WHERE $1 IS NOT NULL
    ON CONFLICT (scope, key) DO UPDATE
        SET body_hash = excluded.body_hash, ids = excluded.ids, created_at = excluded.created_at
        WHERE known.created_at <= now() - INTERVAL '24 hours'
    RETURNING scope
), address AS (
    SELECT user_id, id, draft, place,
           row_number() OVER (PARTITION BY user_id ORDER BY place) AS nth,
           count(*) OVER (PARTITION BY user_id) AS step
    FROM unnest($4::text[], $5::uuid[], $6::bigint[]) WITH ORDINALITY AS given (user_id, id, draft, place)
    WHERE $1 IS NULL OR EXISTS (SELECT FROM claim)
), feed AS (
    INSERT INTO user_feed AS held (user_id, head_seq, unread)
    SELECT user_id, step, step FROM address WHERE nth = 1 ORDER BY user_id COLLATE "C"
    ON CONFLICT (user_id) DO UPDATE
        SET head_seq = held.head_seq + excluded.head_seq, unread = held.unread + excluded.unread
    RETURNING user_id, head_seq, unread
), numbered AS (
    SELECT place, address.user_id, id, draft, head_seq - step + nth AS seq, unread - step + nth AS unread
    FROM address JOIN feed ON feed.user_id = address.user_id
), stored AS (
    INSERT INTO notification (user_id, id, created_seq, seq, kind, priority, title, message, data,
                              action_url, icon, badge, silent, sticky, created_at, expires_at,
                              key_scope, key)
    SELECT user_id, id, seq, seq, kind, priority, title, message, data,
           action_url, icon, badge, silent, sticky, date_trunc('milliseconds', now()), expires_at, $1, $2
    FROM numbered
    JOIN unnest($7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
                $14::text[], $15::boolean[], $16::boolean[], $17::timestamptz[]) WITH ORDINALITY
         AS drafts (kind, priority, title, message, data, action_url, icon, badge, silent, sticky,
                    expires_at, number)
      ON number = draft
)
SELECT seq, unread, date_trunc('milliseconds', now()) AS created_at FROM numbered ORDER BY place
"#;

/// What the first request with this key was answered, in its order.
///
/// The users are the caller's: the same body names the same ones.
const REPLAY: &str = "
SELECT known.body_hash = $3 AS same_body, item.id, notification.created_seq, known.created_at
FROM idempotency AS known
CROSS JOIN LATERAL unnest($4::text[], known.ids) WITH ORDINALITY AS item (user_id, id, place)
LEFT JOIN notification ON notification.user_id = item.user_id AND notification.id = item.id
WHERE known.scope = $1 AND known.key = $2 AND known.created_at > now() - INTERVAL '24 hours'
ORDER BY item.place";

impl Store {
    /// One round trip; two for a key that is known.
    pub(in crate::store) async fn create(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        super::with_second_try(|| self.claim_or_replay(batch, key)).await
    }

    async fn claim_or_replay(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        let rows = self.insert(batch, key).await?;
        let Some(key) = key.filter(|_| rows.is_empty()) else {
            return Ok(Created {
                items: created_items(&batch.to, &rows)?,
                replayed: false,
            });
        };

        // Between the two statements it became a day old and was taken or swept: the next try gets it.
        let first = self.look_up(batch, key).await?;
        first.ok_or(StoreError::Unavailable(sqlx::Error::RowNotFound))
    }

    pub(in crate::store) async fn first_answer(
        &self,
        batch: &Batch,
        key: &IdempotencyKey,
    ) -> Result<Option<Created>, StoreError> {
        super::with_second_try(|| self.look_up(batch, key)).await
    }

    async fn insert(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Vec<PgRow>, StoreError> {
        let to = &batch.to;
        let ids: Vec<Uuid> = to.iter().map(|address| address.id).collect();
        // SQL counts from 1.
        let drafts: Vec<i64> = to.iter().map(|address| 1 + address.draft as i64).collect();
        let query = sqlx::query(CREATE)
            .bind(key.map(|key| key.scope.as_str()))
            .bind(key.map(|key| key.key.as_str()))
            .bind(key.map(|key| key.body.as_slice()))
            .bind(users(to))
            .bind(ids)
            .bind(drafts)
            .bind(column(batch, |draft| draft.kind.as_str()))
            .bind(column(batch, |draft| draft.priority.as_str()))
            .bind(column(batch, |draft| draft.title.as_str()))
            .bind(column(batch, |draft| draft.message.as_str()))
            .bind(column(batch, |draft| draft.data.get()))
            .bind(column(batch, |draft| draft.action_url.as_deref()))
            .bind(column(batch, |draft| draft.icon.as_deref()))
            .bind(column(batch, |draft| draft.badge.as_deref()))
            .bind(column(batch, |draft| draft.silent))
            .bind(column(batch, |draft| draft.sticky))
            .bind(column(batch, |draft| {
                draft.expires_at.map(|time| time.trunc_subsecs(3))
            }));
        let users = to.iter().map(|address| address.user.as_str()).collect();
        Ok(self.rows_of(users, query).await?)
    }

    async fn look_up(
        &self,
        batch: &Batch,
        key: &IdempotencyKey,
    ) -> Result<Option<Created>, StoreError> {
        let query = sqlx::query(REPLAY)
            .bind(&key.scope)
            .bind(&key.key)
            .bind(key.body.as_slice())
            .bind(users(&batch.to));
        let rows = self.rows(query).await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        if !first.try_get::<bool, _>("same_body")? {
            return Err(StoreError::KeyReused);
        }
        Ok(Some(Created {
            items: replayed_items(&batch.to, &rows)?,
            replayed: true,
        }))
    }
}

fn users(to: &[Address]) -> Vec<&str> {
    to.iter().map(|address| address.user.as_str()).collect()
}

fn column<'batch, T>(batch: &'batch Batch, field: impl Fn(&'batch Draft) -> T) -> Vec<T> {
    batch.drafts.iter().map(|draft| field(draft)).collect()
}

fn created_items(to: &[Address], rows: &[PgRow]) -> Result<Vec<CreatedItem>, sqlx::Error> {
    let item = |(address, row): (&Address, &PgRow)| {
        Ok(CreatedItem {
            user: address.user.clone(),
            id: address.id,
            draft: address.draft,
            seq: from_sql(row.try_get("seq")?)?,
            unread: from_sql(row.try_get("unread")?)?,
            created_at: row.try_get::<DateTime<Utc>, _>("created_at")?,
        })
    };
    to.iter().zip(rows).map(item).collect()
}

fn replayed_items(to: &[Address], rows: &[PgRow]) -> Result<Vec<CreatedItem>, sqlx::Error> {
    let item = |(address, row): (&Address, &PgRow)| {
        Ok(CreatedItem {
            user: address.user.clone(),
            id: row.try_get("id")?,
            draft: address.draft,
            seq: from_sql(row.try_get::<Option<i64>, _>("created_seq")?.unwrap_or(0))?,
            unread: 0,
            created_at: row.try_get::<Time, _>("created_at")?.0,
        })
    };
    to.iter().zip(rows).map(item).collect()
}
