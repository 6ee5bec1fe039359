//! How both databases spell a change that support looks at: when it was written, received, read, and nothing of its text.

use uuid::Uuid;

use super::row::{FeedRow, Time, from_sql};
use super::{InspectedRow, Inspection};
use crate::notification::Reason;

/// The columns that a [`ChangeRow`] is read from; none of them is also a column of `user_feed`.
macro_rules! change_columns {
    () => {
        "id, created_seq, seq, kind, priority, created_at, confirmed_at, read_at, clicked_at, expires_at, deleted_at, \
         delete_reason"
    };
}
pub(super) use change_columns;

#[derive(Debug, sqlx::FromRow)]
pub(super) struct ChangeRow {
    id: Uuid,
    created_seq: i64,
    seq: i64,
    kind: String,
    priority: String,
    created_at: Time,
    confirmed_at: Option<Time>,
    read_at: Option<Time>,
    clicked_at: Option<Time>,
    expires_at: Option<Time>,
    deleted_at: Option<Time>,
    delete_reason: Option<String>,
}

impl ChangeRow {
    /// As it is stored: a reason that only a later version knows is `deleted` here.
    fn into_inspected(self) -> Result<InspectedRow, sqlx::Error> {
        let reason = self.delete_reason.as_deref();
        let reason = reason.map(|reason| Reason::parse(reason).unwrap_or(Reason::Deleted));
        Ok(InspectedRow {
            seq: from_sql(self.seq)?,
            created_seq: from_sql(self.created_seq)?,
            id: self.id,
            kind: self.kind,
            priority: self.priority,
            created_at: self.created_at.0,
            confirmed_at: self.confirmed_at.map(|time| time.0),
            read_at: self.read_at.map(|time| time.0),
            clicked_at: self.clicked_at.map(|time| time.0),
            expires_at: self.expires_at.map(|time| time.0),
            deleted_at: self.deleted_at.map(|time| time.0),
            delete_reason: reason,
        })
    }
}

impl FeedRow {
    /// What is shown, at most `limit` changes.
    pub(super) fn inspection(
        &self,
        rows: Vec<ChangeRow>,
        limit: u32,
    ) -> Result<Inspection, sqlx::Error> {
        let changes = rows
            .into_iter()
            .take(limit as usize)
            .map(ChangeRow::into_inspected);
        Ok(Inspection {
            standing: self.standing()?,
            floor: from_sql(self.floor_seq)?,
            read_all_seq: from_sql(self.read_all_seq)?,
            cleared_seq: from_sql(self.cleared_seq)?,
            changes: changes.collect::<Result<_, _>>()?,
        })
    }
}
