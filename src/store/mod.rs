//! The memory: what is acknowledged is here, durably, and every answer to "what did I miss?" comes from here.
//!
//! One counter per user, `head_seq`, numbers every change of that user's inbox. It is taken under the
//! lock of the user's row, in the transaction of the change itself: so commit order is seq order, an
//! abort leaves no hole, and a snapshot that shows `head_seq = n` shows all that happened up to `n`.
//! `unread` moves in the same transaction, so that reading it is one key look-up and it cannot drift.
//! Every key begins with `user_id`, and no request reads across users.

mod inspected;
mod postgres;
mod row;
mod sqlite;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::sqlite::SqliteError;
use uuid::Uuid;

use crate::notification::{Draft, Kind, Notification, Reason, rfc3339, rfc3339_or_null};
use crate::user::UserId;

/// Where sqlx notes which migrations a database has.
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

/// How many notifications, and how many tombstones, [`Store::retain`] does away with at once: so long it
/// holds the user's row.
const RETAINED_AT_ONCE: u32 = 500;
/// How many rows a page of [`Store::users`] reads, more or less: a fraction of what a statement has time for.
const ROWS_AT_ONCE: i64 = 50_000;
/// How far below the seq that a device says [`Store::confirm`] looks for what was not confirmed before.
const CONFIRMED_AT_ONCE: u32 = 1000;

/// The two databases that Bellhop runs on.
///
/// A closed set, so an enum: no generic parameter reaches the handlers, no call is boxed, and a third
/// variant does not compile until every method has learnt it. `tests/it/store.rs` holds one contract
/// suite that runs on both.
#[derive(Clone, Debug)]
pub enum Store {
    Sqlite(sqlite::Store),
    Postgres(postgres::Store),
}

/// What the store could not do, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is overloaded, read-only or full, or gave up waiting. Whether a
    /// write happened is unknown; repeating it with its idempotency key is safe.
    #[error("the store is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The key was used within 24 hours for another body.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// A defect: a statement or a stored value that should not exist.
    #[error("the store failed")]
    Failed(#[source] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the migration failed")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// The configuration names a database that cannot be used; the text says which rule it breaks.
    #[error("{0}")]
    Refused(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) {
            Self::Unavailable(error)
        } else {
            Self::Failed(error)
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        if let MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) = &error
            && is_unavailable(cause)
        {
            return Self::Unavailable(sqlx::Error::Migrate(Box::new(error)));
        }
        Self::Migration(error)
    }
}

/// Whether trying again later may help: the link, the server's state or the load is to blame, not the statement.
fn is_unavailable(error: &sqlx::Error) -> bool {
    use sqlx::Error::{
        BeginFailed, Database, Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed,
    };
    if let Database(error) = error {
        let code = error.code().unwrap_or_default();
        return match code.parse::<i32>() {
            Ok(code) if error.try_downcast_ref::<SqliteError>().is_some() => {
                sqlite::is_unavailable(code)
            }
            _ => postgres::is_unavailable(&code),
        };
    }
    matches!(
        error,
        Io(_) | Tls(_) | Protocol(_) | PoolTimedOut | PoolClosed | WorkerCrashed | BeginFailed
    )
}

/// Applies what the database does not have yet; answers how many that were.
///
/// A schema that a later version has added to is left as it is, so that a node can be rolled back:
/// migrations only add what the version before can do without.
async fn apply_new(
    connection: &mut (impl Migrate + Send),
    migrator: &Migrator,
) -> Result<usize, MigrateError> {
    connection.ensure_migrations_table(MIGRATIONS_TABLE).await?;
    let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await?;

    let mut new = 0;
    for migration in migrator.iter() {
        match applied
            .iter()
            .find(|known| known.version == migration.version)
        {
            Some(known) if known.checksum == migration.checksum => {}
            Some(_) => return Err(MigrateError::VersionMismatch(migration.version)),
            None => {
                connection.apply(MIGRATIONS_TABLE, migration).await?;
                new += 1;
            }
        }
    }
    Ok(new)
}

/// An epoch that fits a URL and tells nothing about the database: 32 hexadecimal digits.
fn short(history: &str) -> String {
    Sha256::digest(history)
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Drafts and who gets them. One draft may go to many users; many drafts may go to one.
#[derive(Debug)]
pub struct Batch {
    pub drafts: Vec<Arc<Draft>>,
    pub to: Vec<Address>,
}

impl Batch {
    /// An address without a draft would take a seq and leave a hole: it is refused before anything is written.
    fn check(&self) -> Result<(), StoreError> {
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
    /// Those of the page for whom [`Store::retain`] has something to do.
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

impl Store {
    /// Opens the database that `url` names by its scheme: `postgres:`/`postgresql:` or `sqlite:`.
    ///
    /// Does not connect to PostgreSQL yet: that is for the first statement to find out. SQLite files
    /// are created when missing, and held exclusively: a second process is refused, by name.
    pub async fn open(url: &str, pool: u32) -> Result<Self, StoreError> {
        match url.split_once(':') {
            Some(("sqlite", _)) => Ok(Self::Sqlite(sqlite::Store::open(url).await?)),
            Some(("postgres" | "postgresql", _)) => {
                Ok(Self::Postgres(postgres::Store::open(url, pool)?))
            }
            _ => Err(StoreError::Refused(
                "the database address has to begin with postgres:, postgresql: or sqlite:"
                    .to_owned(),
            )),
        }
    }

    /// Brings the schema up to date, under a lock: any number of nodes may start at once, and each
    /// migration runs once. Answers how many this call applied.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        match self {
            Self::Sqlite(store) => store.migrate().await,
            Self::Postgres(store) => store.migrate().await,
        }
    }

    /// A value that changes whenever history may have gone backwards: clients send it with `lastSeq`.
    ///
    /// An id stored at the first migration and, on PostgreSQL, the cluster's system identifier and timeline
    /// where they can be read.
    pub async fn epoch(&self) -> Result<String, StoreError> {
        match self {
            Self::Sqlite(store) => store.epoch().await,
            Self::Postgres(store) => store.epoch().await,
        }
    }

    /// Remembers the batch, all or nothing. When this returns, it survives a crash.
    ///
    /// One statement and one round trip, with or without a key; a second one only for a key that is
    /// already known. A repeat while the first still runs waits for it.
    pub async fn create(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        batch.check()?;
        if batch.to.is_empty() {
            return Ok(Created {
                items: Vec::new(),
                replayed: false,
            });
        }
        match self {
            Self::Sqlite(store) => store.create(batch, key).await,
            Self::Postgres(store) => store.create(batch, key).await,
        }
    }

    /// One page of what is not deleted.
    pub async fn list(&self, user: &UserId, query: &ListQuery) -> Result<Page, StoreError> {
        match self {
            Self::Sqlite(store) => store.list(user, query).await,
            Self::Postgres(store) => store.list(user, query).await,
        }
    }

    /// The user's counters, and which of their tokens are revoked: one key look-up.
    pub async fn standing(&self, user: &UserId) -> Result<Standing, StoreError> {
        match self {
            Self::Sqlite(store) => store.standing(user).await,
            Self::Postgres(store) => store.standing(user).await,
        }
    }

    /// One notification of this user, if it is not deleted.
    pub async fn get(&self, user: &UserId, id: Uuid) -> Result<Found, StoreError> {
        match self {
            Self::Sqlite(store) => store.get(user, id).await,
            Self::Postgres(store) => store.get(user, id).await,
        }
    }

    /// Marks one notification read or unread. `None`: this user has no such notification.
    pub async fn set_read(
        &self,
        user: &UserId,
        id: Uuid,
        read: bool,
    ) -> Result<Option<Updated>, StoreError> {
        match self {
            Self::Sqlite(store) => store.set_read(user, id, read).await,
            Self::Postgres(store) => store.set_read(user, id, read).await,
        }
    }

    /// Marks one notification clicked, and read. The first click stays. `None`: this user has no such notification.
    pub async fn set_clicked(
        &self,
        user: &UserId,
        id: Uuid,
    ) -> Result<Option<Updated>, StoreError> {
        match self {
            Self::Sqlite(store) => store.set_clicked(user, id).await,
            Self::Postgres(store) => store.set_clicked(user, id).await,
        }
    }

    /// Changes what a notification says. `None`: this user has no such notification.
    pub async fn edit(
        &self,
        user: &UserId,
        id: Uuid,
        edit: &Edit,
    ) -> Result<Option<Updated>, StoreError> {
        match self {
            Self::Sqlite(store) => store.edit(user, id, edit).await,
            Self::Postgres(store) => store.edit(user, id, edit).await,
        }
    }

    /// Marks all of the user's notifications read, as one change: the rows keep their seqs.
    pub async fn read_all(&self, user: &UserId) -> Result<Bulk, StoreError> {
        match self {
            Self::Sqlite(store) => store.read_all(user).await,
            Self::Postgres(store) => store.read_all(user).await,
        }
    }

    /// Deletes one notification; an empty tombstone stays, so that absent devices hear of it.
    pub async fn delete(
        &self,
        user: &UserId,
        id: Uuid,
        reason: Reason,
    ) -> Result<Deletion, StoreError> {
        match self {
            Self::Sqlite(store) => store.delete(user, id, reason).await,
            Self::Postgres(store) => store.delete(user, id, reason).await,
        }
    }

    /// Deletes all of the user's notifications, as one change: the tombstones keep their seqs.
    pub async fn clear(&self, user: &UserId) -> Result<Bulk, StoreError> {
        match self {
            Self::Sqlite(store) => store.clear(user).await,
            Self::Postgres(store) => store.clear(user).await,
        }
    }

    /// Removes every trace of the user's notifications, tombstones and all, and what idempotency remembers
    /// of them: of a key for this user alone everything, of one for several users this user's id in it.
    ///
    /// The counter's row stays and goes on, and so does a revocation. It is one change: seq, clear and floor
    /// are the new head, so that whoever comes back from before it is told to refetch.
    pub async fn erase(&self, user: &UserId) -> Result<Erasure, StoreError> {
        match self {
            Self::Sqlite(store) => store.erase(user).await,
            Self::Postgres(store) => store.erase(user).await,
        }
    }

    /// Revokes the tokens of the user that were issued until now. For a user that nothing was ever sent
    /// to as well: the revocation is remembered.
    pub async fn revoke(&self, user: &UserId) -> Result<Revocation, StoreError> {
        match self {
            Self::Sqlite(store) => store.revoke(user).await,
            Self::Postgres(store) => store.revoke(user).await,
        }
    }

    /// Turns notifications whose `expiresAt` has come, by the database's clock, into tombstones: at most
    /// `limit` of them, the first due first. Users whose rows somebody else holds are left for the next
    /// time, so any number of nodes may call it at once, and each notification expires once.
    ///
    /// When nothing is due: one look into an index.
    pub async fn expire(&self, limit: u32) -> Result<Vec<Gone>, StoreError> {
        match self {
            Self::Sqlite(store) => store.expire(limit).await,
            Self::Postgres(store) => store.expire(limit).await,
        }
    }

    /// The users after `after`, at most `limit`, and which of them have more than `retention` lets them keep.
    /// Of users who have much, fewer are a page; one at least.
    pub async fn users(
        &self,
        after: Option<&UserId>,
        limit: u32,
        retention: Retention,
    ) -> Result<UserPage, StoreError> {
        match self {
            Self::Sqlite(store) => store.users(after, limit, retention).await,
            Self::Postgres(store) => store.users(after, limit, retention).await,
        }
    }

    /// Makes one user's inbox keep to `retention`: what is too old or too many becomes tombstones, with a
    /// seq each; tombstones that are too old or too far back are removed, which raises the floor to the highest
    /// seq that was removed. Does nothing for a user whose row somebody else holds.
    ///
    /// A tombstone whose idempotency key is still honoured stays until it is not: erasing finds the key by it.
    pub async fn retain(
        &self,
        user: &UserId,
        retention: Retention,
    ) -> Result<Retained, StoreError> {
        match self {
            Self::Sqlite(store) => store.retain(user, retention).await,
            Self::Postgres(store) => store.retain(user, retention).await,
        }
    }

    /// Removes the idempotency keys that are no longer honoured among the `limit` keys after `after`.
    /// Answers where the next page begins; `None`: this was the last.
    pub async fn forget_keys(
        &self,
        after: Option<(String, String)>,
        limit: u32,
    ) -> Result<Option<(String, String)>, StoreError> {
        match self {
            Self::Sqlite(store) => store.forget_keys(after, limit).await,
            Self::Postgres(store) => store.forget_keys(after, limit).await,
        }
    }

    /// Notes when devices said that they have received their notifications. Takes no seq, and tells nobody.
    /// Answers those of users whose rows somebody else holds: for the next time.
    pub async fn confirm(
        &self,
        confirmations: &[Confirmation],
    ) -> Result<Vec<Confirmation>, StoreError> {
        match self {
            Self::Sqlite(store) => store.confirm(confirmations).await,
            Self::Postgres(store) => store.confirm(confirmations).await,
        }
    }

    /// Adds old notifications, as they were: with their ids, times and states; their `seq` is not looked at.
    /// In the order given, which is to be the order of their creation. All of them or none; those whose ids are
    /// known are left alone, so that a repeat changes nothing.
    ///
    /// Each takes a seq, and the floor becomes the new head: devices are told to refetch, not one
    /// notification after the other.
    pub async fn import(&self, old: &[Notification]) -> Result<Imported, StoreError> {
        match self {
            Self::Sqlite(store) => store.import(old).await,
            Self::Postgres(store) => store.import(old).await,
        }
    }

    /// The user's counters and the `limit` rows that changed last, in one snapshot.
    pub async fn inspect(&self, user: &UserId, limit: u32) -> Result<Inspection, StoreError> {
        match self {
            Self::Sqlite(store) => store.inspect(user, limit).await,
            Self::Postgres(store) => store.inspect(user, limit).await,
        }
    }

    /// What happened to the user's inbox after `since`, in one snapshot.
    pub async fn missed(
        &self,
        user: &UserId,
        since: u64,
        limit: u32,
    ) -> Result<Missed, StoreError> {
        match self {
            Self::Sqlite(store) => store.missed(user, since, limit).await,
            Self::Postgres(store) => store.missed(user, since, limit).await,
        }
    }

    /// How many connections the server has for its clients, all of them together; `None`: one process has the database.
    pub async fn max_connections(&self) -> Result<Option<u32>, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(store) => Ok(Some(store.max_connections().await?)),
        }
    }

    /// Lets go of every connection.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}
