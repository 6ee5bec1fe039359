//! A few connections for one user at most: whoever holds that user's row holds these up, and nobody else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that write for one user at a time.
const AT_ONCE: usize = 3;

/// How long a request waits for those before it.
const DEADLINE: Duration = Duration::from_millis(500);

/// Who is being written for. Users nobody writes for take no room.
#[derive(Debug, Default)]
pub(super) struct Bulkhead(Mutex<HashMap<Box<str>, Arc<Semaphore>>>);

/// One of the user's places, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'b> {
    bulkhead: &'b Bulkhead,
    user: Box<str>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Bulkhead {
    /// A place of each of these users, taken in their order, so that two who want the same ones do not wait for each
    /// other. `None`: they are not free in time.
    pub(super) async fn enter(&self, users: BTreeSet<&str>) -> Option<Vec<Place<'_>>> {
        let entering = async {
            let mut places = Vec::with_capacity(users.len());
            for user in users {
                places.push(self.enter_one(user).await?);
            }
            Some(places)
        };
        tokio::time::timeout(DEADLINE, entering).await.ok()?
    }

    async fn enter_one(&self, user: &str) -> Option<Place<'_>> {
        let mut place = Place {
            bulkhead: self,
            user: user.into(),
            permit: None,
        };
        let places = self.places(user);
        // Dropped while it waits, the place cleans up as well.
        place.permit = Some(places.acquire_owned().await.ok()?);
        Some(place)
    }

    fn places(&self, user: &str) -> Arc<Semaphore> {
        let mut users = self.0.lock();
        if let Some(places) = users.get(user) {
            return Arc::clone(places);
        }
        let places = Arc::new(Semaphore::new(AT_ONCE));
        users.insert(user.into(), Arc::clone(&places));
        places
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.permit = None;
        let mut users = self.bulkhead.0.lock();
        // Whoever waits or holds a place has a reference; a new one is had under this lock only.
        if users
            .get(&self.user)
            .is_some_and(|places| Arc::strong_count(places) == 1)
        {
            users.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_user_has_three_places_and_takes_none_from_others() {
        let bulkhead = Bulkhead::default();
        let enter = |users: &[&'static str]| bulkhead.enter(users.iter().copied().collect());
        let held = (
            enter(&["a"]).await.unwrap(),
            enter(&["a", "b"]).await.unwrap(),
            enter(&["a"]).await.unwrap(),
        );
        assert!(enter(&["a"]).await.is_none());
        // It took a place of b, and gave it back.
        assert!(enter(&["b", "a"]).await.is_none());
        let others = (enter(&["b"]).await, enter(&["b"]).await);
        assert!(others.0.is_some() && others.1.is_some());

        let (waits, ()) = tokio::join!(enter(&["a"]), async {
            tokio::time::sleep(DEADLINE / 2).await;
            drop(held.0);
        });
        assert!(waits.is_some());
        drop((waits, held.1, held.2, others));
        assert!(bulkhead.0.lock().is_empty());
    }
}
