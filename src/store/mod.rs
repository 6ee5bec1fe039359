//! The memory: what is acknowledged is here, durably, and every answer to "what did I miss?" comes from here.
//!
//! One counter per user, `head_seq`, numbers every change of that user's inbox. It is taken under the
//! lock of the user's row, in the transaction of the change itself: so commit order is seq order, an
//! abort leaves no hole, and a snapshot that shows `head_seq = n` shows all that happened up to `n`.
//! `unread` moves in the same transaction, so that reading it is one key look-up and it cannot drift.
//! Every key begins with `user_id`, and no request reads across users.

mod dialogue;
mod error;
mod inspected;
mod postgres;
mod row;
mod sqlite;
mod walk;

use sha2::{Digest, Sha256};
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use tokio::sync::watch;
use uuid::Uuid;

use crate::notification::{Notification, Reason};
use crate::user::UserId;

pub use self::dialogue::{
    Address, Batch, Bulk, Confirmation, Counters, Created, CreatedItem, Deletion, Edit, Erasure,
    Found, Gone, IdempotencyKey, Imported, InspectedRow, Inspection, Known, ListQuery, Missed,
    MissedRow, Page, Retained, Retention, Revocation, RowState, Since, Standing, Updated, UserPage,
    ValidAfter,
};
pub use self::error::StoreError;

/// Where sqlx notes which migrations a database has.
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

/// How many notifications, and how many tombstones, [`Store::retain`] does away with at once: so long it
/// holds the user's row.
const RETAINED_AT_ONCE: u32 = 500;
/// How many rows a page of [`Store::users`] reads, more or less: a fraction of what a statement has time for.
const ROWS_AT_ONCE: i64 = 50_000;
/// How many rows [`Store::missed_by`] reads, more or less: what many missed is held in memory at once.
const ROWS_FOR_MANY: u32 = 10_000;
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

    /// Settings of the database by which it may lose what it has acknowledged when the power goes, by their names.
    pub async fn doubts(&self) -> Result<Vec<String>, StoreError> {
        match self {
            // Opened by us, with synchronous=FULL.
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Postgres(store) => store.doubts().await,
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

    /// What the first request with this key was answered, if the key is known: for a repeat that came too late to
    /// be a first one. The users of `batch` are that request's; its ids mean nothing.
    pub async fn first_answer(
        &self,
        batch: &Batch,
        key: &IdempotencyKey,
    ) -> Result<Option<Created>, StoreError> {
        batch.check()?;
        match self {
            Self::Sqlite(store) => store.first_answer(batch, key).await,
            Self::Postgres(store) => store.first_answer(batch, key).await,
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
        let standings = self.standings(std::slice::from_ref(user)).await?;
        Ok(standings.into_iter().next().unwrap_or_default())
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

    /// How many users there are, more or less; `None`: nobody has counted.
    pub async fn estimated_users(&self) -> Result<Option<u64>, StoreError> {
        match self {
            // It keeps no count, and to count would be to read all of them.
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(store) => store.estimated_users().await,
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

    /// The standings of many users, in their order: one statement, one key look-up for each.
    pub async fn standings(&self, users: &[UserId]) -> Result<Vec<Standing>, StoreError> {
        match self {
            Self::Sqlite(store) => store.standings(users).await,
            Self::Postgres(store) => store.standings(users).await,
        }
    }

    /// The standings of those who do not stand where they are known to, or whose tokens ever were revoked; `None` for the
    /// others, of whom nothing comes back. In their order: one statement, one key look-up for each.
    pub async fn contradicted(
        &self,
        known: &[Known<'_>],
    ) -> Result<Vec<Option<Standing>>, StoreError> {
        match self {
            Self::Sqlite(store) => store.contradicted(known).await,
            Self::Postgres(store) => store.contradicted(known).await,
        }
    }

    /// What each of them missed, at most `limit` rows each, in one statement: [`Store::missed`] for many.
    ///
    /// Answers the first so many of `asked`, at least one: where together they missed much, the others have to
    /// be asked for again. Each answer is of one snapshot that was taken after the call.
    pub async fn missed_by(&self, asked: &[Since], limit: u32) -> Result<Vec<Missed>, StoreError> {
        match self {
            Self::Sqlite(store) => store.missed_by(asked, limit).await,
            Self::Postgres(store) => store.missed_by(asked, limit).await,
        }
    }

    /// A number that grows with each connection that is made to a server: history may be another one then, so
    /// that [`Store::epoch`] has to be asked. A file's never grows.
    #[must_use]
    pub fn connections_made(&self) -> watch::Receiver<u64> {
        match self {
            Self::Sqlite(_) => watch::channel(0).1,
            Self::Postgres(store) => store.connections_made(),
        }
    }

    /// How many statements may be under way at once.
    #[must_use]
    pub fn width(&self) -> u32 {
        match self {
            Self::Sqlite(_) => 1,
            Self::Postgres(store) => store.width(),
        }
    }

    /// Whether nodes of other processes may use the same database.
    #[must_use]
    pub fn may_be_shared(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(_) => true,
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
