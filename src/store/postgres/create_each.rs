//! Remembering requests that have no key and one notification each, in one statement: what most publishes are.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::connections::Lease;
use super::create::{Request, bind_drafts, created_item};
use crate::notification::Draft;
use crate::store::{Address, Created, StoreError};

/// As [`super::create`] has it, and a fifth cheaper: with nothing to claim, what becomes of each request is known here, and
/// a user's notifications are counted here too. `behind` says how many of the same user's follow one.
///
/// The arrays are taken apart in step, in the list of a SELECT: as a source of rows each would be laid out in memory first.
const CREATE_EACH: &str = r#"
WITH feed AS (
    INSERT INTO user_feed AS held (user_id, head_seq, unread)
    SELECT user_id, step, step
    FROM (SELECT unnest($1::text[]) AS user_id, unnest($2::bigint[]) AS step) AS given
    ORDER BY user_id COLLATE "C"
    ON CONFLICT (user_id) DO UPDATE
        SET head_seq = held.head_seq + excluded.head_seq, unread = held.unread + excluded.unread
    RETURNING user_id, head_seq, unread
), stored AS (
    INSERT INTO notification (user_id, id, created_seq, seq, kind, priority, title, message, data,
                              action_url, icon, badge, silent, sticky, created_at, expires_at)
    SELECT feed.user_id, id, head_seq - behind, head_seq - behind, kind, priority, title, message, data,
           action_url, icon, badge, silent, sticky, date_trunc('milliseconds', now()), expires_at
    FROM (
        SELECT unnest($3::text[]) AS user_id, unnest($4::bigint[]) AS behind, unnest($5::uuid[]) AS id,
               unnest($6::text[]) AS kind, unnest($7::text[]) AS priority, unnest($8::text[]) AS title,
               unnest($9::text[]) AS message, unnest($10::text[]) AS data, unnest($11::text[]) AS action_url,
               unnest($12::text[]) AS icon, unnest($13::text[]) AS badge, unnest($14::boolean[]) AS silent,
               unnest($15::boolean[]) AS sticky, unnest($16::timestamptz[]) AS expires_at
    ) AS given
    JOIN feed ON feed.user_id = given.user_id
)
SELECT user_id, head_seq, unread, date_trunc('milliseconds', now()) AS created_at FROM feed
"#;

/// Requests with one address each, laid out as the statement wants them.
pub(super) struct Each<'r> {
    addresses: Vec<&'r Address>,
    drafts: Vec<&'r Draft>,
    behind: Vec<i64>,
    /// How many each user gets.
    steps: HashMap<&'r str, i64>,
}

impl<'r> Each<'r> {
    /// `None`: one of the requests is of another kind.
    pub(super) fn of(requests: &[Request<'r>]) -> Option<Self> {
        let mut addresses = Vec::with_capacity(requests.len());
        let mut drafts = Vec::with_capacity(requests.len());
        for (batch, key) in requests {
            let ([address], None) = (batch.to.as_slice(), key) else {
                return None;
            };
            addresses.push(address);
            drafts.push(batch.drafts.get(address.draft)?.as_ref());
        }
        let mut steps = HashMap::with_capacity(requests.len());
        let behind = addresses.iter().rev().map(|address| {
            let step = steps.entry(address.user.as_str()).or_default();
            std::mem::replace(step, *step + 1)
        });
        let mut behind: Vec<_> = behind.collect();
        behind.reverse();
        Some(Self {
            addresses,
            drafts,
            behind,
            steps,
        })
    }

    pub(super) async fn insert(self, lease: Lease<'_>) -> Result<Vec<Option<Created>>, StoreError> {
        let of = |address: &&'r Address| address.user.as_str();
        let users: Vec<_> = self.addresses.iter().map(of).collect();
        let ids: Vec<_> = self.addresses.iter().map(|address| address.id).collect();
        // Both in the map's one order.
        let query = sqlx::query(CREATE_EACH)
            .bind(self.steps.keys().copied().collect::<Vec<_>>())
            .bind(self.steps.values().copied().collect::<Vec<_>>())
            .bind(users)
            .bind(&self.behind)
            .bind(ids);
        let rows = super::rows(lease, bind_drafts(query, &self.drafts)).await?;
        Ok(self.created(&rows)?)
    }

    fn created(self, rows: &[PgRow]) -> Result<Vec<Option<Created>>, sqlx::Error> {
        let feeds = rows.iter().map(Feed::of).collect::<Result<Vec<_>, _>>()?;
        let feeds: HashMap<_, _> = feeds.iter().map(|feed| (feed.user, feed)).collect();
        let each = self.addresses.into_iter().zip(self.behind);
        let created = each.map(|(address, behind)| {
            let feed = feeds.get(address.user.as_str());
            let feed = feed.ok_or(sqlx::Error::RowNotFound)?;
            Ok(Some(feed.created(address, behind)?))
        });
        created.collect()
    }
}

/// A user's counters behind the last of the statement's notifications.
struct Feed<'r> {
    user: &'r str,
    head_seq: i64,
    unread: i64,
    created_at: DateTime<Utc>,
}

impl<'r> Feed<'r> {
    fn of(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            user: row.try_get("user_id")?,
            head_seq: row.try_get("head_seq")?,
            unread: row.try_get("unread")?,
            created_at: row.try_get("created_at")?,
        })
    }

    fn created(&self, address: &Address, behind: i64) -> Result<Created, sqlx::Error> {
        let (seq, unread) = (self.head_seq - behind, self.unread - behind);
        let item = created_item(address, seq, unread, self.created_at)?;
        Ok(Created {
            items: vec![item],
            replayed: false,
        })
    }
}
