//! How both databases spell a notification: one list of columns, one row, one way back.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteTypeInfo, SqliteValueRef};
use sqlx::{ColumnIndex, Decode, FromRow, Postgres, Row, Sqlite, Type};
use uuid::Uuid;

use super::{Counters, Found, Missed, MissedRow, Page, Revocation, RowState, Standing, ValidAfter};
use crate::notification::{Kind, Notification, Priority, Reason};
use crate::user::UserId;

/// The columns that a [`NotificationRow`] is read from; none of them is also a column of `user_feed`.
macro_rules! columns {
    () => {
        "id, created_seq, seq, kind, priority, title, message, data, action_url, icon, badge, silent, sticky, \
         created_at, read_at, clicked_at, expires_at, deleted_at, delete_reason"
    };
}
pub(super) use columns;

/// The columns that a [`FeedRow`] is read from.
macro_rules! feed_columns {
    () => {
        "user_feed.head_seq, user_feed.floor_seq, user_feed.unread, user_feed.read_all_seq, user_feed.cleared_seq, \
         user_feed.valid_after"
    };
}
pub(super) use feed_columns;

/// A row of `user_feed`; all zeros for a user that nothing was ever sent to.
#[derive(Debug, Default, sqlx::FromRow)]
pub(super) struct FeedRow {
    pub(super) head_seq: i64,
    pub(super) floor_seq: i64,
    unread: i64,
    pub(super) read_all_seq: i64,
    pub(super) cleared_seq: i64,
    valid_after: Option<Time>,
}

impl FeedRow {
    pub(super) fn standing(&self) -> Result<Standing, sqlx::Error> {
        Ok(Standing {
            counters: self.counters()?,
            valid_after: self.valid_after()?,
        })
    }

    pub(super) fn valid_after(&self) -> Result<ValidAfter, sqlx::Error> {
        let milliseconds = self.valid_after.map(|time| time.0.timestamp_millis());
        milliseconds.map(from_sql).transpose()
    }

    pub(super) fn revocation(&self) -> Result<Revocation, sqlx::Error> {
        Ok(Revocation {
            counters: self.counters()?,
            valid_after: self.valid_after()?.unwrap_or_default(),
        })
    }

    pub(super) fn counters(&self) -> Result<Counters, sqlx::Error> {
        Ok(Counters {
            unread: from_sql(self.unread)?,
            seq: from_sql(self.head_seq)?,
        })
    }

    pub(super) fn found(
        &self,
        user: &UserId,
        rows: Vec<NotificationRow>,
    ) -> Result<Found, sqlx::Error> {
        let one = rows.into_iter().next();
        Ok(Found {
            notification: one.map(|row| row.into_notification(user)).transpose()?,
            valid_after: self.valid_after()?,
        })
    }

    /// A page of at most `limit`; one row more than that says that another page follows.
    pub(super) fn page(
        &self,
        user: &UserId,
        mut rows: Vec<NotificationRow>,
        limit: u32,
    ) -> Result<Page, sqlx::Error> {
        let more = cut(&mut rows, limit);
        let next = rows
            .last()
            .filter(|_| more)
            .map(|row| from_sql(row.created_seq))
            .transpose()?;
        let items = rows
            .into_iter()
            .map(|row| row.into_notification(user))
            .collect::<Result<_, _>>()?;
        let Counters { unread, seq } = self.counters()?;
        Ok(Page {
            items,
            next,
            unread,
            seq,
            valid_after: self.valid_after()?,
        })
    }

    /// What was missed, at most `limit`; one row more than that says that there are more.
    pub(super) fn missed(
        &self,
        user: &UserId,
        mut rows: Vec<NotificationRow>,
        limit: u32,
    ) -> Result<Missed, sqlx::Error> {
        let more = cut(&mut rows, limit);
        Ok(Missed {
            head: from_sql(self.head_seq)?,
            floor: from_sql(self.floor_seq)?,
            unread: from_sql(self.unread)?,
            valid_after: self.valid_after()?,
            read_all_seq: from_sql(self.read_all_seq)?,
            cleared_seq: from_sql(self.cleared_seq)?,
            rows: rows
                .into_iter()
                .map(|row| row.into_missed(user))
                .collect::<Result<_, _>>()?,
            more,
        })
    }
}

/// The columns that a [`ContradictionRow`] is read from, of `asked` beside a `user_feed` that may be missing.
macro_rules! contradiction_columns {
    () => {
        "asked.place, coalesce(user_feed.head_seq, 0) AS head_seq, coalesce(user_feed.unread, 0) AS unread, \
         user_feed.valid_after"
    };
}
pub(super) use contradiction_columns;

/// How a user stands who was asked for at a place, from 1.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ContradictionRow {
    place: i64,
    head_seq: i64,
    unread: i64,
    valid_after: Option<Time>,
}

impl ContradictionRow {
    /// The standings by place: `None` where there is no row.
    pub(super) fn standings(
        rows: Vec<Self>,
        places: usize,
    ) -> Result<Vec<Option<Standing>>, sqlx::Error> {
        let mut standings = vec![None; places];
        for row in rows {
            let feed = FeedRow {
                head_seq: row.head_seq,
                unread: row.unread,
                valid_after: row.valid_after,
                ..FeedRow::default()
            };
            let place = usize::try_from(row.place - 1).ok();
            let place = place.and_then(|place| standings.get_mut(place));
            *place.ok_or(sqlx::Error::RowNotFound)? = Some(feed.standing()?);
        }
        Ok(standings)
    }
}

/// Leaves at most `limit` rows; answers whether there were more.
fn cut(rows: &mut Vec<NotificationRow>, limit: u32) -> bool {
    let limit = limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

/// Counters and notifications of an answer in which each row has both: the notification is all nulls
/// when there is none, and a user without a feed has no row. `Own` is what is read of a notification; its `id`
/// is among the columns.
pub(super) fn feed_and_rows<'row, R, Own>(
    rows: &'row [R],
) -> Result<(FeedRow, Vec<Own>), sqlx::Error>
where
    R: Row,
    FeedRow: FromRow<'row, R>,
    Own: FromRow<'row, R>,
    Option<Uuid>: Decode<'row, R::Database> + Type<R::Database>,
    &'static str: ColumnIndex<R>,
{
    let feed = rows
        .first()
        .map(FeedRow::from_row)
        .transpose()?
        .unwrap_or_default();
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get::<Option<Uuid>, _>("id")?.is_some() {
            found.push(Own::from_row(row)?);
        }
    }
    Ok((feed, found))
}

/// A row of `notification`, of a user who is known from the question.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct NotificationRow {
    id: Uuid,
    pub(super) created_seq: i64,
    pub(super) seq: i64,
    kind: String,
    priority: String,
    title: String,
    message: String,
    data: String,
    action_url: Option<String>,
    icon: Option<String>,
    badge: Option<String>,
    silent: bool,
    sticky: bool,
    created_at: Time,
    pub(super) read_at: Option<Time>,
    pub(super) clicked_at: Option<Time>,
    expires_at: Option<Time>,
    pub(super) deleted_at: Option<Time>,
    delete_reason: Option<String>,
}

impl NotificationRow {
    /// The live notification; what a tombstone still holds is for [`Self::into_missed`].
    pub(super) fn into_notification(self, user: &UserId) -> Result<Notification, sqlx::Error> {
        let kind = Kind::parse(&self.kind).ok_or_else(|| unknown("type", &self.kind))?;
        let priority =
            Priority::parse(&self.priority).ok_or_else(|| unknown("priority", &self.priority))?;
        let data =
            RawValue::from_string(self.data).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Notification {
            id: self.id,
            user_id: user.clone(),
            seq: from_sql(self.seq)?,
            kind,
            priority,
            title: self.title,
            message: self.message,
            data,
            action_url: self.action_url,
            icon: self.icon,
            badge: self.badge,
            silent: self.silent,
            sticky: self.sticky,
            is_read: self.read_at.is_some(),
            read_at: self.read_at.map(|time| time.0),
            clicked_at: self.clicked_at.map(|time| time.0),
            created_at: self.created_at.0,
            expires_at: self.expires_at.map(|time| time.0),
        })
    }

    /// The row as who was away hears of it. A reason that only a later version knows is `deleted` here.
    pub(super) fn into_missed(self, user: &UserId) -> Result<MissedRow, sqlx::Error> {
        let seq = from_sql(self.seq)?;
        let created_seq = from_sql(self.created_seq)?;
        let state = match &self.delete_reason {
            None => RowState::Live(Box::new(self.into_notification(user)?)),
            Some(reason) => RowState::Deleted {
                id: self.id,
                reason: Reason::parse(reason).unwrap_or(Reason::Deleted),
            },
        };
        Ok(MissedRow {
            seq,
            created_seq,
            state,
        })
    }
}

/// A time, in milliseconds: `TIMESTAMPTZ` in PostgreSQL, milliseconds since 1970 in SQLite.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) DateTime<Utc>);

impl Time {
    pub(super) fn from_milliseconds(milliseconds: i64) -> Result<Self, sqlx::Error> {
        let time = DateTime::from_timestamp_millis(milliseconds);
        time.map(Self)
            .ok_or_else(|| sqlx::Error::Decode("a time is out of range".into()))
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl<'row> Decode<'row, Postgres> for Time {
    fn decode(value: PgValueRef<'row>) -> Result<Self, BoxDynError> {
        <DateTime<Utc> as Decode<Postgres>>::decode(value).map(Self)
    }
}

impl Type<Sqlite> for Time {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(info: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(info)
    }
}

impl<'row> Decode<'row, Sqlite> for Time {
    fn decode(value: SqliteValueRef<'row>) -> Result<Self, BoxDynError> {
        Ok(Self::from_milliseconds(<i64 as Decode<Sqlite>>::decode(
            value,
        )?)?)
    }
}

/// A counter as SQL holds it. Beyond what it can hold lies nothing: as a bound, the largest is as good.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A counter as it was stored; a negative one is a defect.
pub(super) fn from_sql(number: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A user as it was stored; an id that breaks the rules of ids is a defect.
pub(super) fn stored_user(id: &str) -> Result<UserId, sqlx::Error> {
    UserId::try_from(id).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn unknown(field: &str, value: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("a stored {field} is unknown: {value}").into())
}
