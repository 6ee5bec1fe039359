//! Publishing: remember, then tell every node.

use std::sync::Arc;

use tokio::task::JoinError;
use uuid::Uuid;

use crate::announce::Announcer;
use crate::bus::Sent;
use crate::event::Event;
use crate::hub::Haste;
use crate::metrics::{Emitted, Metrics};
use crate::notification::{Change, Draft, Notification, What};
use crate::store::{Address, Batch, Created, CreatedItem, IdempotencyKey, Store, StoreError};
use crate::tasks::Tasks;
use crate::user::UserId;

/// Accepts what applications send.
#[derive(Clone, Debug)]
pub struct Publisher {
    store: Store,
    announcer: Announcer,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

/// What was accepted: it survives a crash from here on.
#[derive(Debug)]
pub struct Published {
    /// In the order of what it was published to.
    pub notifications: Vec<Notification>,
    pub delivery: Sent,
    /// This is the answer that an earlier request with the same key got.
    pub replayed: bool,
}

/// Why nothing was accepted, or why that is not known.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task that was writing it panicked: a defect.
    #[error("the publishing task ended early")]
    Interrupted(#[source] JoinError),
}

impl Publisher {
    #[must_use]
    pub fn new(store: Store, announcer: Announcer, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            announcer,
            tasks,
            metrics,
        }
    }

    /// Accepts drafts for users, all or nothing, wherever in the cluster their sockets are: `to` names for each
    /// notification its user and its draft, by its place in `drafts`.
    ///
    /// Once the statement is sent, writing and announcing run in a task of their own: a caller that
    /// goes away cancels nothing. The answer does not wait for the bus; what the bus loses, devices
    /// get from the store.
    pub async fn publish(
        &self,
        drafts: Vec<Draft>,
        to: Vec<(UserId, usize)>,
        key: Option<IdempotencyKey>,
    ) -> Result<Published, PublishError> {
        let publisher = Self {
            announcer: self.announcer.before_commit(),
            ..self.clone()
        };
        let batch = batch(drafts, to);
        let work = self
            .tasks
            .spawn(async move { publisher.remember_and_tell(&batch, key.as_ref()).await });
        Ok(work.await.map_err(PublishError::Interrupted)??)
    }

    /// Answers as the first request with this key was, if the key is known. Nothing is written.
    pub async fn replay(
        &self,
        drafts: Vec<Draft>,
        to: Vec<(UserId, usize)>,
        key: &IdempotencyKey,
    ) -> Result<Option<Published>, PublishError> {
        let batch = batch(drafts, to);
        let created = self.store.first_answer(&batch, key).await?;
        Ok(created.map(|created| self.tell(&batch, created)))
    }

    async fn remember_and_tell(
        &self,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Published, StoreError> {
        if cfg!(feature = "bug-publish-before-commit") {
            self.tell_early(batch).await?;
        }
        let created = self.store.create(batch, key).await?;
        Ok(self.tell(batch, created))
    }

    /// Announces what is about to be committed, as the next of its user: wrong if it is not, and if another comes first.
    async fn tell_early(&self, batch: &Batch) -> Result<(), StoreError> {
        for Address { user, id, draft } in &batch.to {
            let counters = self.store.standing(user).await?.counters;
            let (draft, seq) = (&batch.drafts[*draft], counters.seq + 1);
            let now = chrono::Utc::now();
            let notification = Notification::created(draft, user.clone(), *id, seq, now);
            self.announce_new(&notification, counters.unread + 1, Haste::Now);
        }
        Ok(())
    }

    fn tell(&self, batch: &Batch, created: Created) -> Published {
        let mut published = Published {
            notifications: Vec::with_capacity(created.items.len()),
            delivery: Sent::Live,
            replayed: created.replayed,
        };
        let haste = Haste::among(created.items.len());
        for item in created.items {
            let draft = &batch.drafts[item.draft];
            let unread = item.unread;
            let notification = created_notification(draft, item);
            let sent = if created.replayed {
                // The node that wrote it may have died before it could tell anybody.
                let user = notification.user_id.clone();
                self.announcer.reached(user, notification.seq)
            } else {
                let created = self.metrics.created.of(notification.priority.into());
                created.increment(1);
                self.announce_new(&notification, unread, haste)
            };
            published.delivery = published.delivery.and(sent);
            published.notifications.push(notification);
        }
        published
    }

    fn announce_new(&self, notification: &Notification, unread: u64, haste: Haste) -> Sent {
        let change = Change {
            user: notification.user_id.clone(),
            seq: notification.seq,
            unread,
            what: What::New(notification.clone()),
        };
        self.announcer.change(&change, haste)
    }

    /// Passes a transient event on to each of `users`, or to everyone: nothing is stored, and who is
    /// away misses it.
    pub fn emit(&self, to: &Recipients, event: &Event) -> Sent {
        let sent = match to {
            Recipients::Everyone => {
                let event = event.clone();
                self.announcer.transient(None, event, Haste::Soon)
            }
            Recipients::Users(users) => {
                let haste = Haste::among(users.len());
                let tell = |user: &UserId| {
                    let (user, event) = (user.clone(), event.clone());
                    self.announcer.transient(Some(user), event, haste)
                };
                users.iter().map(tell).fold(Sent::Live, Sent::and)
            }
        };
        let reached = match sent {
            Sent::Live => Emitted::Live,
            Sent::Deferred => Emitted::Local,
        };
        self.metrics.emits.of(reached).increment(1);
        sent
    }
}

/// Whom a transient emit is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    Users(Vec<UserId>),
    Everyone,
}

fn batch(drafts: Vec<Draft>, to: Vec<(UserId, usize)>) -> Batch {
    let address = |(user, draft)| Address {
        user,
        id: Uuid::now_v7(),
        draft,
    };
    Batch {
        drafts: drafts.into_iter().map(Arc::new).collect(),
        to: to.into_iter().map(address).collect(),
    }
}

fn created_notification(draft: &Draft, item: CreatedItem) -> Notification {
    Notification::created(draft, item.user, item.id, item.seq, item.created_at)
}
