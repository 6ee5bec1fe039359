//! Publishing: remember, then tell every node.

use std::sync::Arc;

use tokio::task::JoinError;
use uuid::Uuid;

use crate::announce::Announcer;
use crate::bus::Sent;
use crate::event::{Event, Position};
use crate::hub::Haste;
use crate::metrics::{Emitted, Metrics};
use crate::notification::{Draft, Notification};
use crate::store::{Address, Batch, Created, CreatedItem, IdempotencyKey, Store, StoreError};
use crate::tasks::Tasks;
use crate::user::UserId;

/// Accepts what applications send.
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Means>);

/// What it publishes by; shared by all that are under way.
#[derive(Debug)]
struct Means {
    store: Store,
    announcer: Announcer,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

/// What was accepted: it survives a crash from here on.
#[derive(Debug)]
pub struct Published {
    /// In the order of what it was published to.
    pub items: Vec<Item>,
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

/// One notification that was accepted.
#[derive(Debug)]
pub struct Item {
    pub user: UserId,
    pub id: Uuid,
    pub seq: u64,
    /// As its user's sockets hear of it: the payload is the notification, encoded once.
    pub event: Arc<Event>,
}

impl Publisher {
    #[must_use]
    pub fn new(store: Store, announcer: Announcer, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Means {
            store,
            announcer,
            tasks,
            metrics,
        }))
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
        let (means, announcer) = (Arc::clone(&self.0), self.0.announcer.before_commit());
        let batch = batch(drafts, to);
        let work = self.0.tasks.spawn(async move {
            means
                .remember_and_tell(&announcer, &batch, key.as_ref())
                .await
        });
        Ok(work.await.map_err(PublishError::Interrupted)??)
    }

    /// Answers as the first request with this key was, if the key is known. Nothing is written.
    pub async fn replay(
        &self,
        drafts: Vec<Draft>,
        to: Vec<(UserId, usize)>,
        key: &IdempotencyKey,
    ) -> Result<Option<Published>, PublishError> {
        let (means, batch) = (&self.0, batch(drafts, to));
        let created = means.store.first_answer(&batch, key).await?;
        Ok(created.map(|created| means.tell(&means.announcer, &batch, created)))
    }

    /// Passes a transient event on to each of `users`, or to everyone: nothing is stored, and who is
    /// away misses it.
    pub fn emit(&self, to: &Recipients, event: &Event) -> Sent {
        let sent = match to {
            Recipients::Everyone => {
                let event = event.clone();
                self.0.announcer.transient(None, event, Haste::Soon)
            }
            Recipients::Users(users) => {
                let haste = Haste::among(users.len());
                let tell = |user: &UserId| {
                    let (user, event) = (user.clone(), event.clone());
                    self.0.announcer.transient(Some(user), event, haste)
                };
                users.iter().map(tell).fold(Sent::Live, Sent::and)
            }
        };
        let reached = match sent {
            Sent::Live => Emitted::Live,
            Sent::Deferred => Emitted::Local,
        };
        self.0.metrics.emits.of(reached).increment(1);
        sent
    }
}

impl Means {
    async fn remember_and_tell(
        &self,
        announcer: &Announcer,
        batch: &Batch,
        key: Option<&IdempotencyKey>,
    ) -> Result<Published, StoreError> {
        if cfg!(feature = "bug-publish-before-commit") {
            self.tell_early(announcer, batch).await?;
        }
        let created = self.store.create(batch, key).await?;
        Ok(self.tell(announcer, batch, created))
    }

    /// Announces what is about to be committed, as the next of its user: wrong if it is not, and if another comes first.
    async fn tell_early(&self, announcer: &Announcer, batch: &Batch) -> Result<(), StoreError> {
        for Address { user, id, draft } in &batch.to {
            let counters = self.store.standing(user).await?.counters;
            let (draft, seq) = (&batch.drafts[*draft], counters.seq + 1);
            let now = chrono::Utc::now();
            let notification = Notification::created(draft, user.clone(), *id, seq, now);
            let (unread, event) = (counters.unread + 1, Event::created(&notification));
            let at = Position { seq, unread };
            announcer.changed(user.clone(), at, Arc::new(event), Haste::Now);
        }
        Ok(())
    }

    fn tell(&self, announcer: &Announcer, batch: &Batch, created: Created) -> Published {
        let mut published = Published {
            items: Vec::with_capacity(created.items.len()),
            delivery: Sent::Live,
            replayed: created.replayed,
        };
        let haste = Haste::among(created.items.len());
        for item in created.items {
            let draft = &batch.drafts[item.draft];
            let (user, id, seq) = (item.user.clone(), item.id, item.seq);
            let unread = item.unread;
            let event = Arc::new(Event::created(&notification(draft, item)));
            let sent = if created.replayed {
                // The node that wrote it may have died before it could tell anybody.
                announcer.reached(user.clone(), seq)
            } else {
                self.metrics.created.of(draft.priority.into()).increment(1);
                let at = Position { seq, unread };
                announcer.changed(user.clone(), at, Arc::clone(&event), haste)
            };
            published.delivery = published.delivery.and(sent);
            published.items.push(Item {
                user,
                id,
                seq,
                event,
            });
        }
        published
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

fn notification(draft: &Draft, item: CreatedItem) -> Notification {
    Notification::created(draft, item.user, item.id, item.seq, item.created_at)
}
