//! Remembering a batch in one transaction: the key, then each item with its step of the counter.

use sqlx::{Row, Sqlite, Transaction};
use uuid::Uuid;

use super::Store;
use crate::notification::Draft;
use crate::store::row::{Time, from_sql};
use crate::store::{Address, Batch, Created, CreatedItem, IdempotencyKey, StoreError};

/// For how long a key is honoured.
pub(super) const KEY_LIFETIME_MILLISECONDS: i64 = 24 * 60 * 60 * 1000;

const KNOWN: &str = "
SELECT body_hash, ids, created_at FROM idempotency WHERE scope = ? AND key = ? AND created_at > ?";

const CLAIM: &str = "INSERT OR REPLACE INTO idempotency (scope, key, body_hash, ids, created_at) VALUES (?, ?, ?, ?, ?)";

const STEP: &str = "
INSERT INTO user_feed (user_id, head_seq, unread) VALUES (?, 1, 1)
ON CONFLICT (user_id) DO UPDATE SET head_seq = head_seq + 1, unread = unread + 1
RETURNING head_seq, unread";

const INSERT: &str = "
INSERT INTO notification (user_id, id, created_seq, seq, kind, priority, title, message, data,
                          action_url, icon, badge, silent, sticky, created_at, expires_at,
                          key_scope, key)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const CREATED_SEQ: &str = "SELECT created_seq FROM notification WHERE user_id = ? AND id = ?";

impl Store {
    pub(in crate::store) async fn create(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let now = super::now(&mut transaction).await?;

        if let Some(key) = key {
            if let Some(items) = first_answer(&mut transaction, &batch.to, key, now).await? {
                return Ok(Created {
                    items,
                    replayed: true,
                });
            }
            claim(&mut transaction, &batch.to, key, now).await?;
        }
        let mut items = Vec::with_capacity(batch.to.len());
        for address in &batch.to {
            let draft = &batch.drafts[address.draft];
            items.push(insert(&mut transaction, address, draft, key, now).await?);
        }
        transaction.commit().await?;
        Ok(Created {
            items,
            replayed: false,
        })
    }

    pub(in crate::store) async fn first_answer(
        &self,
        batch: &Batch,
        key: &IdempotencyKey,
    ) -> Result<Option<Created>, StoreError> {
        let mut connection = self.turn().await?;
        let mut transaction = super::begin(&mut connection).await?;
        let now = super::now(&mut transaction).await?;
        let items = first_answer(&mut transaction, &batch.to, key, now).await?;
        Ok(items.map(|items| Created {
            items,
            replayed: true,
        }))
    }
}

async fn first_answer(
    transaction: &mut Transaction<'_, Sqlite>,
    to: &[Address],
    key: &IdempotencyKey,
    now: i64,
) -> Result<Option<Vec<CreatedItem>>, StoreError> {
    let known = sqlx::query(KNOWN)
        .bind(&key.scope)
        .bind(&key.key)
        .bind(now - KEY_LIFETIME_MILLISECONDS)
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(known) = known else {
        return Ok(None);
    };
    if known.try_get::<&[u8], _>("body_hash")? != key.body {
        return Err(StoreError::KeyReused);
    }

    let created_at = known.try_get::<Time, _>("created_at")?.0;
    let (ids, _) = known.try_get::<&[u8], _>("ids")?.as_chunks::<16>();
    let mut items = Vec::with_capacity(to.len());
    for (address, id) in to.iter().zip(ids) {
        let id = Uuid::from_bytes(*id);
        let seq: Option<i64> = sqlx::query_scalar(CREATED_SEQ)
            .bind(address.user.as_str())
            .bind(id)
            .fetch_optional(&mut **transaction)
            .await?;
        let seq = from_sql(seq.unwrap_or(0))?;
        let Address { user, draft, .. } = address.clone();
        items.push(CreatedItem {
            user,
            id,
            draft,
            seq,
            unread: 0,
            created_at,
        });
    }
    Ok(Some(items))
}

async fn claim(
    transaction: &mut Transaction<'_, Sqlite>,
    to: &[Address],
    key: &IdempotencyKey,
    now: i64,
) -> Result<(), sqlx::Error> {
    let ids: Vec<u8> = to
        .iter()
        .flat_map(|address| address.id.into_bytes())
        .collect();
    sqlx::query(CLAIM)
        .bind(&key.scope)
        .bind(&key.key)
        .bind(key.body.as_slice())
        .bind(ids)
        .bind(now)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    address: &Address,
    draft: &Draft,
    key: Option<&IdempotencyKey>,
    now: i64,
) -> Result<CreatedItem, StoreError> {
    let step = sqlx::query(STEP)
        .bind(address.user.as_str())
        .fetch_one(&mut **transaction)
        .await?;
    let seq: i64 = step.try_get("head_seq")?;
    sqlx::query(INSERT)
        .bind(address.user.as_str())
        .bind(address.id)
        .bind(seq)
        .bind(seq)
        .bind(draft.kind.as_str())
        .bind(draft.priority.as_str())
        .bind(&draft.title)
        .bind(&draft.message)
        .bind(draft.data.get())
        .bind(draft.action_url.as_deref())
        .bind(draft.icon.as_deref())
        .bind(draft.badge.as_deref())
        .bind(draft.silent)
        .bind(draft.sticky)
        .bind(now)
        .bind(draft.expires_at.map(|time| time.timestamp_millis()))
        .bind(key.map(|key| key.scope.as_str()))
        .bind(key.map(|key| key.key.as_str()))
        .execute(&mut **transaction)
        .await?;
    let Address { user, id, draft } = address.clone();
    let created_at = Time::from_milliseconds(now)?.0;
    Ok(CreatedItem {
        user,
        id,
        draft,
        seq: from_sql(seq)?,
        unread: from_sql(step.try_get("unread")?)?,
        created_at,
    })
}
