//! Time passes: ends notifications whose time is over, and forgets what is too old.

use std::ops::RangeInclusive;
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

/// Users that one look at what is too old covers, at least and at most, and while nobody knows how many there are. It reads
/// all that they have, and for that time a core is busy: so it covers few, as long as all have their turn in
/// [`ROUND_PAGES`].
const USERS: RangeInclusive<u64> = 2..=1_000;
const USERS_UNLESS_KNOWN: u64 = 50;

/// In how many pages all users are looked at: six hours. It takes longer where that would be more than [`USERS`] a page, or
/// more rows than the store reads for one. So long an inbox may hold more than it may keep.
const ROUND_PAGES: u64 = 6 * 60 * 60;

/// Pages until it is asked anew how many users there are.
const ESTIMATED_FOR: u32 = 60;

/// Keys that one look covers: it has to keep up with publishers that use a new one for each publish.
const KEYS: u32 = 2_000;

/// Pause between two pages, and after a first failure. What a page reads at most is bounded by the store.
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

/// Where the walks over all users and all keys are.
#[derive(Debug, Default)]
struct Walk {
    /// Behind whom the next page begins; `None`: at the start.
    users: Option<UserId>,
    keys: Option<(String, String)>,
    /// Users of a page.
    page: u32,
    /// Pages of users until now.
    pages: u32,
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
        let mut walk = Walk::default();
        let mut after_failures = Backoff::new(PAGE_PAUSE, ROUND_PAUSE);
        let mut away = false;
        loop {
            let outcome = tokio::select! {
                outcome = self.forget_one_page(&mut walk) => outcome,
                () = stop.cancelled() => return,
            };
            let failed = outcome.is_err();
            away = self.report(outcome, away, "cannot forget what is too old");
            let at_the_end = walk.users.is_none() && walk.keys.is_none();
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
    async fn forget_one_page(&self, walk: &mut Walk) -> Result<(), InboxError> {
        let of_users = self.retain_one_page(walk).await;
        walk.keys = self.store.forget_keys(walk.keys.clone(), KEYS).await?;
        of_users
    }

    /// The walk goes on behind a user whose turn failed, who has another one in the next round: else one
    /// inbox that cannot be worked on would end retention for all that come after it.
    async fn retain_one_page(&self, walk: &mut Walk) -> Result<(), InboxError> {
        if walk.pages.is_multiple_of(ESTIMATED_FOR) {
            // What is wrong with the store, the page itself says.
            walk.page = page_of(self.store.estimated_users().await.unwrap_or_default());
        }
        let page = self
            .store
            .users(walk.users.as_ref(), walk.page, self.retention);
        let page = page.await?;
        walk.pages = walk.pages.wrapping_add(1);
        for user in page.due {
            let retained = self.retain(&user).await;
            walk.users = Some(user);
            retained?;
        }
        walk.users = page.next;
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

/// How many of so many users a page covers.
fn page_of(users: Option<u64>) -> u32 {
    let page = users.map_or(USERS_UNLESS_KNOWN, |users| users.div_ceil(ROUND_PAGES));
    u32::try_from(page.clamp(*USERS.start(), *USERS.end())).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_small_as_six_hours_allow() {
        assert_eq!(page_of(None), 50);
        assert_eq!(page_of(Some(0)), 2);
        assert_eq!(page_of(Some(10_000)), 2);
        assert_eq!(page_of(Some(1_000_000)), 47);
        assert_eq!(page_of(Some(1_000_000_000)), 1_000);
    }
}
