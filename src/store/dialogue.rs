//! What the store is asked, and what it answers: the same for both databases.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::StoreError;
use crate::notification::{Draft, Kind, Notification, Reason, rfc3339, rfc3339_or_null};
use crate::user::UserId;

/// Drafts and who gets them. One draft may go to many users; many drafts may go to one.
#[derive(Clone, Debug)]
pub struct Batch {
    pub drafts: Vec<Arc<Draft>>,
    pub to: Vec<Address>,
}

impl Batch {
    /// An address without a draft would take a seq and leave a hole: it is refused before anything is written.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self
            .to
            .iter()
            .all(|address| address.draft < self.drafts.len())
        {
            return Ok(());
        }
        Err(StoreError::Failed(sqlx::Error::InvalidArgument(
            "an address names a draft that is not in the batch".to_owned(),
        )))
    }
}

/// One notification to be: `drafts[draft]` for `user`, under an id that the caller chose (`UUIDv7`).
#[derive(Clone, Debug)]
pub struct Address {
    pub user: UserId,
    pub id: Uuid,
    pub draft: usize,
}

/// A publisher's promise that a request with the same key is the same request.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// Publisher and path: keys of different publishers never meet.
    pub scope: String,
    pub key: String,
    /// SHA-256 of the body.
    pub body: [u8; 32],
}

/// What became of a [`Batch`], in the order of its addresses.
#[derive(Debug)]
pub struct Created {
    pub items: Vec<CreatedItem>,
    /// The key was known and its body the same: nothing was written now, these are the first answer's
    /// ids, seqs and times. `unread` is 0 then, and so is the `seq` of what has since been forgotten.
    pub replayed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedItem {
    pub user: UserId,
    pub id: Uuid,
    pub draft: usize,
    pub seq: u64,
    /// Unread after this item, as if the batch's items of one user had come one by one.
    pub unread: u64,
    /// The database's clock, in milliseconds.
    pub created_at: DateTime<Utc>,
}

/// Which notifications to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    pub limit: u32,
    /// Only those created before the one with this `created_seq`.
    pub before: Option<u64>,
    /// `Some(true)`: only unread ones; `Some(false)`: only read ones.
    pub unread: Option<bool>,
    pub kind: Option<Kind>,
}

/// What a publisher changes of a notification; `None` leaves a field as it is.
///
/// Of a field that may be absent, `Some(None)` takes it away.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    pub title: Option<String>,
    pub message: Option<String>,
    pub data: Option<Box<RawValue>>,
    pub action_url: Option<Option<String>>,
    pub icon: Option<Option<String>>,
    pub badge: Option<Option<String>>,
    pub expires_at: Option<Option<DateTime<Utc>>>,
}

/// One page, newest first by creation, with the counters of the same snapshot.
#[derive(Debug)]
pub struct Page {
    pub items: Vec<Notification>,
    /// `before` of the next page; `None` on the last.
    pub next: Option<u64>,
    pub unread: u64,
    /// The user's `head_seq` in the snapshot that the items come from.
    pub seq: u64,
    pub valid_after: ValidAfter,
}

/// Tokens issued at or before it are revoked, in milliseconds since 1970; `None`: none were.
pub type ValidAfter = Option<u64>;

/// What one key look-up tells of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub counters: Counters,
    pub valid_after: ValidAfter,
}

/// Up to where a device of the user has been served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    pub user: UserId,
    pub seq: u64,
}

/// A user, and the seq of the last change as somebody knows it; `None`: nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'u> {
    pub user: &'u UserId,
    pub head: Option<u64>,
}

/// One notification, if there is such a one that is not deleted, and the user's standing of the same snapshot.
#[derive(Debug)]
pub struct Found {
    pub notification: Option<Notification>,
    pub valid_after: ValidAfter,
}

/// A user's counters; both are 0 for a user that nothing was ever sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub unread: u64,
    pub seq: u64,
}

/// A notification after it was asked to change.
#[derive(Debug)]
pub struct Updated {
    pub notification: Notification,
    /// `None`: it already was so; nothing was written and no seq taken.
    pub moved: Option<Counters>,
    /// This change is the one that marked it read.
    pub newly_read: bool,
    /// This change is the one that marked it clicked.
    pub newly_clicked: bool,
}

/// What became of a request to delete one notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Done(Counters),
    /// It is already deleted, and still remembered as that.
    Already,
    /// This user has no such notification: it never existed, or is somebody else's, or is forgotten.
    Unknown,
}

/// What became of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// `None`: there was nothing that devices could know; no seq was taken.
    pub moved: Option<Counters>,
    /// Notifications that are gone; tombstones are not counted.
    pub erased: u64,
}

/// A revocation of a user's tokens. It takes a seq each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub counters: Counters,
    /// In milliseconds since 1970, by the database's clock.
    pub valid_after: u64,
}

/// A notification that became a tombstone because its time was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub user: UserId,
    pub id: Uuid,
    /// After this one; several of one user come in the order of their seqs.
    pub counters: Counters,
}

/// How long the store remembers. A value of 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Notifications and tombstones older than this go.
    pub days: u32,
    /// Of one user: the newest so many notifications stay, and tombstones of the last so many changes.
    pub changes: u32,
}

/// What retention did to one user's inbox.
#[derive(Debug, Default)]
pub struct Retained {
    /// Live ones that became tombstones: those are announced like any expiry.
    pub gone: Vec<Gone>,
    /// Tombstones that were removed, which raised the floor.
    pub removed: u64,
    /// There was more to do than is done at once.
    pub more: bool,
}

/// One page of a walk over all users, in the order of their ids.
#[derive(Debug)]
pub struct UserPage {
    /// Those of the page for whom [`super::Store::retain`] has something to do.
    pub due: Vec<UserId>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<UserId>,
}

/// What a user's devices say that they have received: everything up to `seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    pub user: UserId,
    /// Up to here it was noted before; 0 if that is not known.
    pub above: u64,
    pub seq: u64,
}

/// What became of a batch of imported notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub created: u64,
    /// Their ids were there already, live or as tombstones: left as they are.
    pub known: u64,
    /// The users whose inboxes moved, and to which head.
    pub moved: Vec<(UserId, u64)>,
}

/// An inbox as support looks at it.
#[derive(Debug)]
pub struct Inspection {
    pub standing: Standing,
    pub floor: u64,
    pub read_all_seq: u64,
    pub cleared_seq: u64,
    /// The last changes of notifications, newest first.
    pub changes: Vec<InspectedRow>,
}

/// A notification or tombstone, without what was written in it.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedRow {
    pub seq: u64,
    pub created_seq: u64,
    pub id: Uuid,
    #[serde(rename = "type")]
    pub kind: String,
    pub priority: String,
    #[serde(serialize_with = "rfc3339")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "rfc3339_or_null")]
    pub confirmed_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "rfc3339_or_null")]
    pub read_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "rfc3339_or_null")]
    pub clicked_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "rfc3339_or_null")]
    pub expires_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "rfc3339_or_null")]
    pub deleted_at: Option<DateTime<Utc>>,
    pub delete_reason: Option<Reason>,
}

/// What became of read-all or clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// Notifications that it changed; with 0 no seq was taken.
    pub changed: u64,
    pub counters: Counters,
}

/// What a user missed: one snapshot of the rows above a seq and of the counters.
#[derive(Debug)]
pub struct Missed {
    pub head: u64,
    /// Nothing below it can be replayed: a reader whose cursor is lower has to refetch.
    pub floor: u64,
    pub unread: u64,
    pub valid_after: ValidAfter,
    /// Seq of the last read-all; 0 if there was none.
    pub read_all_seq: u64,
    /// Seq of the last clear; 0 if there was none.
    pub cleared_seq: u64,
    /// The rows with `seq > since`, in seq order, at most `limit`.
    pub rows: Vec<MissedRow>,
    /// There are rows above the last of `rows`.
    pub more: bool,
}

#[derive(Debug)]
pub struct MissedRow {
    /// The user's counter at the row's last change.
    pub seq: u64,
    /// The user's counter when it was created: above `since`, the reader has never seen it.
    pub created_seq: u64,
    pub state: RowState,
}

#[derive(Debug)]
pub enum RowState {
    Live(Box<Notification>),
    Deleted { id: Uuid, reason: Reason },
}
