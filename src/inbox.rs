//! What users do with their notifications: remembered first, then told to all of their devices.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinError;
use uuid::Uuid;

use crate::announce::Announcer;
use crate::metrics::Metrics;
use crate::notification::{Change, Notification, Reason, What};
use crate::store::{Bulk, Deletion, Store, StoreError};
use crate::tasks::Tasks;
use crate::user::UserId;

/// The acts of users on their own inboxes, from a request or from a socket alike.
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
        let (inbox, user) = (self.clone(), user.clone());
        self.detached(async move {
            let updated = inbox
                .store
                .set_read(&user, id, read)
                .await?
                .ok_or(InboxError::NotFound)?;
            if let Some(counters) = updated.moved {
                inbox.metrics.read.of(()).increment(u64::from(read));
                let what = What::Updated(updated.notification.clone());
                inbox.announcer.change(&Change {
                    user,
                    seq: counters.seq,
                    unread: counters.unread,
                    what,
                });
            }
            Ok(updated.notification)
        })
        .await
    }

    /// Marks everything read.
    pub async fn read_all(&self, user: &UserId) -> Result<Bulk, InboxError> {
        let (inbox, user) = (self.clone(), user.clone());
        self.detached(async move {
            let bulk = inbox.store.read_all(&user).await?;
            inbox.metrics.read.of(()).increment(bulk.changed);
            inbox.announce_bulk(user, bulk, What::ReadAll);
            Ok(bulk)
        })
        .await
    }

    /// Deletes one notification; deleting it again is fine, as long as it is remembered.
    pub async fn delete(&self, user: &UserId, id: Uuid) -> Result<(), InboxError> {
        let (inbox, user) = (self.clone(), user.clone());
        self.detached(async move {
            match inbox.store.delete(&user, id).await? {
                Deletion::Done(counters) => {
                    inbox.metrics.deleted.of(()).increment(1);
                    let what = What::Deleted {
                        id,
                        reason: Reason::Deleted,
                    };
                    inbox.announcer.change(&Change {
                        user,
                        seq: counters.seq,
                        unread: counters.unread,
                        what,
                    });
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
        let (inbox, user) = (self.clone(), user.clone());
        self.detached(async move {
            let bulk = inbox.store.clear(&user).await?;
            inbox.metrics.deleted.of(()).increment(bulk.changed);
            inbox.announce_bulk(user, bulk, What::Cleared);
            Ok(bulk)
        })
        .await
    }

    fn announce_bulk(&self, user: UserId, bulk: Bulk, what: What) {
        if bulk.changed > 0 {
            let counters = bulk.counters;
            self.announcer.change(&Change {
                user,
                seq: counters.seq,
                unread: counters.unread,
                what,
            });
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
