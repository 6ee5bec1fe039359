//! What becomes of notifications, by their users and by publishers: remembered first, then told to all devices.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinError;
use uuid::Uuid;

use crate::announce::Announcer;
use crate::bus::Sent;
use crate::event::Position;
use crate::hub::Haste;
use crate::metrics::Metrics;
use crate::notification::{Change, Notification, Reason, What};
use crate::store::{Bulk, Counters, Deletion, Edit, Gone, Retention, Store, StoreError, Updated};
use crate::tasks::Tasks;
use crate::user::UserId;

/// Acts on one user's inbox: the user's own, from a request or from a socket alike, and publishers'.
///
/// Each is idempotent: repeating it changes nothing, takes no seq and tells nobody. Each runs in a task
/// of its own from the moment its statement is sent, so that a caller that goes away cannot stop it
/// between remembering and telling.
#[derive(Clone, Debug)]
pub struct Inbox {
    store: Store,
    announcer: Announcer,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This user has no such notification, whoever else may have.
    #[error("there is no such notification")]
    NotFound,
    /// The task that was writing it panicked: a defect.
    #[error("the task ended early")]
    Interrupted(#[source] JoinError),
}

impl Inbox {
    #[must_use]
    pub fn new(store: Store, announcer: Announcer, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            announcer,
            tasks,
            metrics,
        }
    }

    /// Marks one notification read or unread, and answers how it is now.
    pub async fn set_read(
        &self,
        user: &UserId,
        id: Uuid,
        read: bool,
    ) -> Result<Notification, InboxError> {
        let (inbox, user) = (self.before_commit(), user.clone());
        self.detached(async move {
            let updated = inbox
                .store
                .set_read(&user, id, read)
                .await?
                .ok_or(InboxError::NotFound)?;
            Ok(inbox.updated(user, updated))
        })
        .await
    }

    /// Marks one notification clicked and read, and answers how it is now.
    pub async fn set_clicked(&self, user: &UserId, id: Uuid) -> Result<Notification, InboxError> {
        let (inbox, user) = (self.before_commit(), user.clone());
        self.detached(async move {
            let updated = inbox.store.set_clicked(&user, id).await?;
            Ok(inbox.updated(user, updated.ok_or(InboxError::NotFound)?))
        })
        .await
    }

    /// Changes what a notification says, and answers how it is now. For publishers.
    pub async fn edit(
        &self,
        user: &UserId,
        id: Uuid,
        edit: Edit,
    ) -> Result<Notification, InboxError> {
        let (inbox, user) = (self.before_commit(), user.clone());
        self.detached(async move {
            let updated = inbox.store.edit(&user, id, &edit).await?;
            Ok(inbox.updated(user, updated.ok_or(InboxError::NotFound)?))
        })
        .await
    }

    fn updated(&self, user: UserId, updated: Updated) -> Notification {
        let Updated {
            notification,
            moved,
            newly_read,
            newly_clicked,
        } = updated;
        self.metrics.read.of(()).increment(u64::from(newly_read));
        let clicked = self.metrics.clicked.of(());
        clicked.increment(u64::from(newly_clicked));
        if let Some(counters) = moved {
            self.announce(user, counters, What::Updated(notification.clone()));
        }
        notification
    }

    fn announce(&self, user: UserId, counters: Counters, what: What) {
        self.announcer.change(
            &Change {
                user,
                seq: counters.seq,
                unread: counters.unread,
                what,
            },
            Haste::Now,
        );
    }

    /// Marks everything read.
    pub async fn read_all(&self, user: &UserId) -> Result<Bulk, InboxError> {
        let (inbox, user) = (self.before_commit(), user.clone());
        self.detached(async move {
            let bulk = inbox.store.read_all(&user).await?;
            inbox.metrics.read.of(()).increment(bulk.changed);
            inbox.announce_bulk(user, bulk, What::ReadAll);
            Ok(bulk)
        })
        .await
    }

    /// Deletes one notification, for its user or for a publisher as `reason` says; deleting it again is fine,
    /// as long as it is remembered.
    pub async fn delete(&self, user: &UserId, id: Uuid, reason: Reason) -> Result<(), InboxError> {
        let (inbox, user) = (self.before_commit(), user.clone());
        self.detached(async move {
            match inbox.store.delete(&user, id, reason).await? {
                Deletion::Done(counters) => {
                    inbox.metrics.deleted.of(reason.into()).increment(1);
                    inbox.announce(user, counters, What::Deleted { id, reason });
                    Ok(())
                }
                Deletion::Already => Ok(()),
                Deletion::Unknown => Err(InboxError::NotFound),
            }
        })
        .await
    }

    /// Deletes everything.
    pub async fn clear(&self, user: &UserId) -> Result<Bulk, InboxError> {
        let (inbox, user) = (self.before_commit(), user.clone());
        self.detached(async move {
            let bulk = inbox.store.clear(&user).await?;
            let deleted = inbox.metrics.deleted.of(Reason::Deleted.into());
            deleted.increment(bulk.changed);
            inbox.announce_bulk(user, bulk, What::Cleared);
            Ok(bulk)
        })
        .await
    }

    fn announce_bulk(&self, user: UserId, bulk: Bulk, what: What) {
        if bulk.changed > 0 {
            self.announce(user, bulk.counters, what);
        }
    }

    /// Forgets everything that the user was ever sent. For publishers; erasing again is fine.
    pub async fn erase(&self, user: &UserId) -> Result<(), InboxError> {
        let (inbox, user) = (self.before_commit(), user.clone());
        self.detached(async move {
            let erasure = inbox.store.erase(&user).await?;
            if let Some(counters) = erasure.moved {
                inbox.announce(user, counters, What::Cleared);
            }
            Ok(())
        })
        .await
    }

    /// Refuses the tokens of the user that were issued until now, and closes their sockets on every node.
    pub async fn revoke(&self, user: &UserId) -> Result<Sent, InboxError> {
        let (inbox, user) = (self.before_commit(), user.clone());
        self.detached(async move {
            let revocation = inbox.store.revoke(&user).await?;
            let Counters { unread, seq } = revocation.counters;
            let position = Position { seq, unread };
            let valid_after = revocation.valid_after;
            Ok(inbox.announcer.revoked(user, position, valid_after))
        })
        .await
    }

    /// Asks the user's clients to fetch the list. For publishers; who is away is not asked.
    pub async fn refresh(&self, user: &UserId) -> Result<Sent, InboxError> {
        let head = self.store.standing(user).await?.counters.seq;
        Ok(self.announcer.refresh(user.clone(), head))
    }

    /// Ends what is due by its `expiresAt`, at most `limit` notifications; answers how many those were.
    pub async fn expire(&self, limit: u32) -> Result<usize, InboxError> {
        let inbox = self.before_commit();
        self.detached(async move {
            let gone = inbox.store.expire(limit).await?;
            let expired = gone.len();
            inbox.announce_gone(gone);
            Ok(expired)
        })
        .await
    }

    /// Makes the user's inbox keep to `retention`; answers whether there is more to do.
    pub async fn retain(&self, user: &UserId, retention: Retention) -> Result<bool, InboxError> {
        let (inbox, user) = (self.before_commit(), user.clone());
        self.detached(async move {
            let retained = inbox.store.retain(&user, retention).await?;
            inbox.announce_gone(retained.gone);
            Ok(retained.more)
        })
        .await
    }

    /// Says of notifications whose time was over that they are gone.
    fn announce_gone(&self, gone: Vec<Gone>) {
        let reason = Reason::Expired;
        let deleted = self.metrics.deleted.of(reason.into());
        deleted.increment(gone.len() as u64);
        for Gone { user, id, counters } in gone {
            self.announce(user, counters, What::Deleted { id, reason });
        }
    }

    fn before_commit(&self) -> Self {
        Self {
            announcer: self.announcer.before_commit(),
            ..self.clone()
        }
    }

    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, InboxError>> + Send + 'static,
    ) -> Result<T, InboxError> {
        self.tasks
            .spawn(work)
            .await
            .map_err(InboxError::Interrupted)?
    }
}
