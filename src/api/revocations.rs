//! Which publishers' tokens are revoked, as this node has known it for a moment: publishing is one round trip.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::caller::refuse_revoked;
use super::problem::Problem;
use crate::auth::Identity;
use crate::store::{Store, StoreError, ValidAfter};
use crate::telemetry::causes;
use crate::user::UserId;

/// How long a revoked publisher may go on at most.
const LIFE: Duration = Duration::from_secs(5);

/// Whoever was asked about the longest ago is forgotten for one more.
const MAX_USERS: usize = 1_024;

/// What the store said about the publishers that came here last.
///
/// For tokens with the scope of publishers only: users are checked at each request, and API keys are no users.
#[derive(Debug, Default)]
pub struct Revocations(Mutex<HashMap<UserId, Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    valid_after: ValidAfter,
    asked: Instant,
}

impl Revocations {
    /// Refuses a revoked token, up to 5 s late.
    ///
    /// When the store is away, an older answer counts for as long as the store does; without one the answer is that
    /// the store is away.
    pub(super) async fn check(&self, store: &Store, identity: &Identity) -> Result<(), Problem> {
        let user = &identity.user;
        let known = self.0.lock().get(user).copied();
        let fresh = known.filter(|known| known.asked.elapsed() < LIFE);
        let valid_after = match fresh {
            Some(known) => known.valid_after,
            None => {
                let asked = Instant::now();
                let now = store.standing(user).await;
                let now = now.map(|standing| standing.valid_after);
                let valid_after = now_or_before(now, known)?;
                self.note(user, Known { valid_after, asked });
                valid_after
            }
        };
        refuse_revoked(identity.lifetime, valid_after)
    }

    /// The next request of the user asks the store: for the node that revoked.
    pub(super) fn forget(&self, user: &UserId) {
        self.0.lock().remove(user);
    }

    fn note(&self, user: &UserId, known: Known) {
        let mut users = self.0.lock();
        if users.len() >= MAX_USERS && !users.contains_key(user) {
            let oldest = users.iter().min_by_key(|(_, known)| known.asked);
            let oldest = oldest.map(|(user, _)| user.clone());
            oldest.and_then(|user| users.remove(&user));
        }
        users.insert(user.clone(), known);
    }
}

fn now_or_before(
    now: Result<ValidAfter, StoreError>,
    before: Option<Known>,
) -> Result<ValidAfter, StoreError> {
    match (now, before) {
        (Err(error), Some(before)) => {
            let error = causes(&error);
            tracing::warn!(error, "a publisher is judged by what was known before");
            Ok(before.valid_after)
        }
        (now, _) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_users_are_remembered_than_so_many() {
        let revocations = Revocations::default();
        for number in 0..MAX_USERS as u64 + 10 {
            let user = UserId::try_from(number).unwrap();
            let (valid_after, asked) = (None, Instant::now());
            revocations.note(&user, Known { valid_after, asked });
        }
        let users = revocations.0.lock();
        assert_eq!(users.len(), MAX_USERS);
        let last = UserId::try_from(MAX_USERS as u64 + 9).unwrap();
        assert!(users.contains_key(&last));
        assert!(!users.contains_key(&UserId::try_from(0).unwrap()));
    }

    #[test]
    fn what_was_known_counts_while_the_store_is_away_and_only_then() {
        let known = Some(Known {
            valid_after: Some(7),
            asked: Instant::now(),
        });
        let away = || Err(StoreError::Refused("away".to_owned()));
        assert_eq!(now_or_before(away(), known).unwrap(), Some(7));
        assert!(now_or_before(away(), None).is_err());
        assert_eq!(now_or_before(Ok(None), known).unwrap(), None);
    }
}
