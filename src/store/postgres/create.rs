//! Remembering requests in one statement: their keys, the counters, the notifications. What needs less than that is in
//! [`super::create_each`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use uuid::Uuid;

use super::Store;
use super::connections::Lease;
use super::create_each::Each;
use crate::notification::Draft;
use crate::store::row::{Time, from_sql};
use crate::store::{Address, Batch, Created, CreatedItem, IdempotencyKey, StoreError};

/// Several requests, each whole, or not at all when its key is taken.
///
/// Keys, drafts and addresses come in arrays of their own, so that a draft for a thousand users is sent once; an
/// address names its draft and its key by their places. Keys are claimed before any counter is touched, in their
/// order: while the same key's first request runs, the claim waits for its end, holding no user; then it is taken (its
/// addresses write nothing) or, after a rollback or 24 hours, free. Counters are stepped one user after the other in
/// the order of their ids, once each: two statements that share users wait for each other and cannot deadlock. (Erasing
/// a user may wait for a key while this waits for that user; then the lock timeout ends this one, which is tried again.) A
/// user's items are numbered in address order below the counter's new value.
const CREATE: &str = r#"
WITH request AS (
    SELECT scope, key, body_hash, number
    FROM unnest($1::text[], $2::text[], $3::bytea[]) WITH ORDINALITY AS given (scope, key, body_hash, number)
), given AS (
    SELECT user_id, id, draft, request, place
    FROM unnest($4::text[], $5::uuid[], $6::bigint[], $7::bigint[]) WITH ORDINALITY
         AS given (user_id, id, draft, request, place)
), claim AS (
    INSERT INTO idempotency AS known (scope, key, body_hash, ids, created_at)
    SELECT scope, key, body_hash, ids, date_trunc('milliseconds', now())
    FROM request
    JOIN (SELECT request, array_agg(id ORDER BY place) AS ids FROM given GROUP BY request) AS wanted
      ON wanted.request = number
    ORDER BY scope COLLATE "C", key COLLATE "C"
    ON CONFLICT (scope, key) DO UPDATE
        SET body_hash = excluded.body_hash, ids = excluded.ids, created_at = excluded.created_at
        WHERE known.created_at <= now() - INTERVAL '24 hours'
    RETURNING scope, key
), address AS (
    SELECT user_id, id, draft, place, claim.scope, claim.key,
           row_number() OVER (PARTITION BY user_id ORDER BY place) AS nth,
           count(*) OVER (PARTITION BY user_id) AS step
    FROM given
    LEFT JOIN request ON number = request
    LEFT JOIN claim ON claim.scope = request.scope AND claim.key = request.key
    WHERE request IS NULL OR claim.key IS NOT NULL
), feed AS (
    INSERT INTO user_feed AS held (user_id, head_seq, unread)
    SELECT user_id, step, step FROM address WHERE nth = 1 ORDER BY user_id COLLATE "C"
    ON CONFLICT (user_id) DO UPDATE
        SET head_seq = held.head_seq + excluded.head_seq, unread = held.unread + excluded.unread
    RETURNING user_id, head_seq, unread
), numbered AS (
    SELECT place, address.user_id, id, draft, scope, key,
           head_seq - step + nth AS seq, unread - step + nth AS unread
    FROM address JOIN feed ON feed.user_id = address.user_id
), stored AS (
    INSERT INTO notification (user_id, id, created_seq, seq, kind, priority, title, message, data,
                              action_url, icon, badge, silent, sticky, created_at, expires_at,
                              key_scope, key)
    SELECT user_id, id, seq, seq, kind, priority, title, message, data,
           action_url, icon, badge, silent, sticky, date_trunc('milliseconds', now()), expires_at, scope, key
    FROM numbered
    JOIN unnest($8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
                $15::text[], $16::boolean[], $17::boolean[], $18::timestamptz[]) WITH ORDINALITY
         AS drafts (kind, priority, title, message, data, action_url, icon, badge, silent, sticky,
                    expires_at, number)
      ON number = draft
)
SELECT place, seq, unread, date_trunc('milliseconds', now()) AS created_at FROM numbered ORDER BY place
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
    /// One round trip; two for a key that is known. A request for one user shares its statement with others that come at
    /// the same time.
    pub(in crate::store) async fn create(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        match &self.gathering {
            Some(gathering) if batch.to.len() == 1 => gathering.create(self, batch, key).await,
            Some(_) | None => self.create_alone(batch, key).await.0,
        }
    }

    /// In a statement of its own; also answers how long that took, once it had a connection.
    pub(super) async fn create_alone(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> (Result<Created, StoreError>, Duration) {
        let took = AtomicU64::new(0);
        let created = super::with_second_try(|| self.claim_or_replay(batch, key, &took)).await;
        (created, Duration::from_micros(took.load(Ordering::Relaxed)))
    }

    async fn claim_or_replay(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
        took: &AtomicU64,
    ) -> Result<Created, StoreError> {
        let users = batch.to.iter().map(|address| address.user.as_str());
        let lease = self.connections.lease_for(users.collect()).await?;
        let began = Instant::now();
        let written = insert(lease, &[(batch, key)]).await;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        took.fetch_max(micros, Ordering::Relaxed);
        let written = written?.into_iter().next().flatten();
        match written {
            Some(created) => Ok(created),
            None => self.replay(batch, key).await,
        }
    }

    /// What a taken key stands for.
    pub(super) async fn replay(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        // Without one, nothing is taken.
        let key = key.ok_or(sqlx::Error::RowNotFound)?;
        let first = self.look_up(batch, key).await?;
        // Between the two statements it became a day old and was taken or swept: the next try gets it.
        first.ok_or(StoreError::Unavailable(sqlx::Error::RowNotFound))
    }

    pub(in crate::store) async fn first_answer(
        &self,
        batch: &Batch,
        key: &IdempotencyKey,
    ) -> Result<Option<Created>, StoreError> {
        super::with_second_try(|| self.look_up(batch, key)).await
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

/// A request as it is written: what, and under which key.
pub(super) type Request<'r> = (&'r Batch, Option<&'r IdempotencyKey>);

/// Writes requests in one statement, one round trip; no two have the same key. Answers for each what was created,
/// `None` if its key is taken.
pub(super) async fn insert(
    lease: Lease<'_>,
    requests: &[Request<'_>],
) -> Result<Vec<Option<Created>>, StoreError> {
    if let Some(each) = Each::of(requests) {
        return each.insert(lease).await;
    }
    let mut columns = Columns::default();
    for request in requests {
        columns.add(*request);
    }
    let query = sqlx::query(CREATE)
        .bind(columns.keys(|key| key.scope.as_str()))
        .bind(columns.keys(|key| key.key.as_str()))
        .bind(columns.keys(|key| key.body.as_slice()))
        .bind(&columns.users)
        .bind(&columns.ids)
        .bind(&columns.places_of_drafts)
        .bind(&columns.places_of_keys);
    let rows = super::rows(lease, bind_drafts(query, &columns.drafts)).await?;
    Ok(created(requests, &rows)?)
}

/// The last parameters of a statement that writes drafts: a column of each of their fields.
pub(super) fn bind_drafts<'q>(
    query: Query<'q, Postgres, PgArguments>,
    drafts: &[&'q Draft],
) -> Query<'q, Postgres, PgArguments> {
    query
        .bind(column(drafts, |draft| draft.kind.as_str()))
        .bind(column(drafts, |draft| draft.priority.as_str()))
        .bind(column(drafts, |draft| draft.title.as_str()))
        .bind(column(drafts, |draft| draft.message.as_str()))
        .bind(column(drafts, |draft| draft.data.get()))
        .bind(column(drafts, |draft| draft.action_url.as_deref()))
        .bind(column(drafts, |draft| draft.icon.as_deref()))
        .bind(column(drafts, |draft| draft.badge.as_deref()))
        .bind(column(drafts, |draft| draft.silent))
        .bind(column(drafts, |draft| draft.sticky))
        .bind(column(drafts, |draft| {
            draft.expires_at.map(|time| time.trunc_subsecs(3))
        }))
}

/// Requests, laid out as the statement wants them. SQL counts from 1.
#[derive(Default)]
struct Columns<'r> {
    keys: Vec<&'r IdempotencyKey>,
    users: Vec<&'r str>,
    ids: Vec<Uuid>,
    places_of_drafts: Vec<i64>,
    places_of_keys: Vec<Option<i64>>,
    drafts: Vec<&'r Draft>,
}

impl<'r> Columns<'r> {
    fn add(&mut self, (batch, key): Request<'r>) {
        self.keys.extend(key);
        let key = key.map(|_| self.keys.len() as i64);
        let before = self.drafts.len();
        for address in &batch.to {
            self.users.push(address.user.as_str());
            self.ids.push(address.id);
            self.places_of_drafts
                .push((before + address.draft + 1) as i64);
            self.places_of_keys.push(key);
        }
        self.drafts.extend(batch.drafts.iter().map(AsRef::as_ref));
    }

    fn keys<T>(&self, field: impl Fn(&'r IdempotencyKey) -> T) -> Vec<T> {
        self.keys.iter().map(|key| field(key)).collect()
    }
}

fn column<'r, T>(drafts: &[&'r Draft], field: impl Fn(&'r Draft) -> T) -> Vec<T> {
    drafts.iter().map(|draft| field(draft)).collect()
}

/// Rows come in the order of the addresses; those of a request whose key is taken are not there.
fn created(requests: &[Request<'_>], rows: &[PgRow]) -> Result<Vec<Option<Created>>, sqlx::Error> {
    let mut rows = rows.iter().peekable();
    let mut place = 0_i64;
    let mut all = Vec::with_capacity(requests.len());
    for (batch, _) in requests {
        let mut items = Vec::with_capacity(batch.to.len());
        for address in &batch.to {
            place += 1;
            let Some(row) = rows.peek() else { continue };
            if row.try_get::<i64, _>("place")? == place {
                let (seq, unread) = (row.try_get("seq")?, row.try_get("unread")?);
                let created_at = row.try_get("created_at")?;
                items.push(created_item(address, seq, unread, created_at)?);
                rows.next();
            }
        }
        let is_whole = items.len() == batch.to.len();
        all.push(is_whole.then_some(Created {
            items,
            replayed: false,
        }));
    }
    Ok(all)
}

/// What was written for an address; the counters as SQL has them.
pub(super) fn created_item(
    address: &Address,
    seq: i64,
    unread: i64,
    created_at: DateTime<Utc>,
) -> Result<CreatedItem, sqlx::Error> {
    Ok(CreatedItem {
        user: address.user.clone(),
        id: address.id,
        draft: address.draft,
        seq: from_sql(seq)?,
        unread: from_sql(unread)?,
        created_at,
    })
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
