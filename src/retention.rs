//! Time passes: ends notifications whose time is over, and forgets what is too old.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::inbox::{Inbox, InboxError};
use crate::metrics::Metrics;
use crate::store::{Retention, Store, StoreError};
use crate::tick;
use crate::user::UserId;

/// How often a node looks for what has expired: an expiry is told within two of these.
const EXPIRY_PERIOD: Duration = Duration::from_secs(1);

/// Notifications that one transaction ends: it holds the locks of their users.
const AT_ONCE: u32 = 200;

/// Users that one look at what is too old covers. It reads all that they have, and for that time a core is busy: a page
/// is small beside what nodes do in a second.
const USERS: u32 = 50;

/// Keys that one look covers: it has to keep up with publishers that use a new one for each publish.
const KEYS: u32 = 2_000;

/// Pause between two pages, and after a first failure: a million users are looked at in less than six hours,
/// if they have not much. What a page reads at most is bounded by the store.
const PAGE_PAUSE: Duration = Duration::from_secs(1);

/// Pause after all of them, and after several failures.
const ROUND_PAUSE: Duration = Duration::from_secs(10);

/// Does what is due by the clock. Any number of nodes may do so beside each other: the store gives each
/// expiry to one of them.
#[derive(Clone, Debug)]
pub struct Keeper {
    store: Store,
    inbox: Inbox,
    metrics: Arc<Metrics>,
    retention: Retention,
}

impl Keeper {
    #[must_use]
    pub fn new(store: Store, inbox: Inbox, metrics: Arc<Metrics>, retention: Retention) -> Self {
        Self {
            store,
            inbox,
            metrics,
            retention,
        }
    }

    /// Ends each notification within about a second of its `expiresAt`, by the database's clock.
    pub async fn expire(self, stop: CancellationToken) {
        let mut period = tick::every(EXPIRY_PERIOD);
        let mut away = false;
        loop {
            tokio::select! {
                _ = period.tick() => {}
                () = stop.cancelled() => return,
            }
            let outcome = tokio::select! {
                outcome = self.expire_what_is_due() => outcome,
                () = stop.cancelled() => return,
            };
            away = self.report(outcome, away, "cannot end what has expired");
        }
    }

    /// Until a look finds nothing to end. Fewer than were asked for are no sign of that: another node may
    /// just have taken the rest of those, or hold the user of one of them, while more are due.
    async fn expire_what_is_due(&self) -> Result<(), InboxError> {
        while self.inbox.expire(AT_ONCE).await? > 0 {}
        Ok(())
    }

    /// Walks over all users and all idempotency keys, page by page and for ever, and forgets what is too old.
    ///
    /// No index serves it, so that publishing pays for none: each page is a range of the primary key.
    pub async fn forget(self, stop: CancellationToken) {
        // `None`: at the start.
        let (mut users, mut keys) = (None, None);
        let mut after_failures = Backoff::new(PAGE_PAUSE, ROUND_PAUSE);
        let mut away = false;
        loop {
            let outcome = tokio::select! {
                outcome = self.forget_one_page(&mut users, &mut keys) => outcome,
                () = stop.cancelled() => return,
            };
            let failed = outcome.is_err();
            away = self.report(outcome, away, "cannot forget what is too old");
            let at_the_end = users.is_none() && keys.is_none();
            let next = if failed {
                Instant::now() + after_failures.pause()
            } else if at_the_end {
                tick::after(ROUND_PAUSE)
            } else {
                tick::after(PAGE_PAUSE)
            };
            if !failed {
                after_failures.reset();
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Of users and of keys alike, each after where the last page ended, whatever becomes of the others; of two
    /// failures one is told.
    async fn forget_one_page(
        &self,
        users: &mut Option<UserId>,
        keys: &mut Option<(String, String)>,
    ) -> Result<(), InboxError> {
        let of_users = self.retain_one_page(users).await;
        *keys = self.store.forget_keys(keys.clone(), KEYS).await?;
        of_users
    }

    /// The walk goes on behind a user whose turn failed, who has another one in the next round: else one
    /// inbox that cannot be worked on would end retention for all that come after it.
    async fn retain_one_page(&self, users: &mut Option<UserId>) -> Result<(), InboxError> {
        let page = self.store.users(users.as_ref(), USERS, self.retention);
        let page = page.await?;
        for user in page.due {
            let retained = self.retain(&user).await;
            *users = Some(user);
            retained?;
        }
        *users = page.next;
        Ok(())
    }

    async fn retain(&self, user: &UserId) -> Result<(), InboxError> {
        while self.inbox.retain(user, self.retention).await? {}
        Ok(())
    }

    /// Says once that the store is away, not each second. Answers whether it is.
    fn report(&self, outcome: Result<(), InboxError>, away: bool, what: &'static str) -> bool {
        let Err(error) = outcome else { return false };
        if let InboxError::Store(error) = &error {
            self.metrics.store_errors.of(error.into()).increment(1);
        }
        let is_unavailable = matches!(error, InboxError::Store(StoreError::Unavailable(_)));
        if !(away && is_unavailable) {
            tracing::warn!(error = &error as &dyn std::error::Error, "{what}");
        }
        is_unavailable
    }
}
