//! A token bucket for each of many parties, and for no more of them than fit.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Level;
use crate::config::EventLimit;

/// More parties are not remembered: whoever names new ones all the time must not fill the memory.
const MAX_PARTIES: usize = 100_000;

/// So many are left after there were too many, so that making room is rare.
const AFTER_MAKING_ROOM: usize = MAX_PARTIES - MAX_PARTIES / 10;

/// All under one limit. Each begins full, and a full one is as good as one that is not there.
#[derive(Debug)]
pub struct Buckets<Party> {
    limit: EventLimit,
    levels: Mutex<HashMap<Party, Level>>,
}

/// Whether there were as many to take as were wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Several {
    Granted,
    /// Nothing was taken; so many are there for whoever lacks the most, and after this time there may be enough.
    Later {
        left: u32,
        wait: Duration,
    },
    /// It is more than fits into a bucket: there will never be as many.
    Never,
}

impl<Party: Clone + Eq + Hash> Buckets<Party> {
    #[must_use]
    pub fn new(limit: EventLimit) -> Self {
        Self {
            limit,
            levels: Mutex::default(),
        }
    }

    /// Takes so many of each party's, all or nothing. Each party is to be named once.
    pub fn take(&self, wanted: &HashMap<Party, u32>) -> Several {
        self.take_at(wanted, Instant::now())
    }

    fn take_at(&self, wanted: &HashMap<Party, u32>, now: Instant) -> Several {
        if self.limit.rate == 0 {
            return Several::Granted;
        }
        if !self.can_ever(wanted) {
            return Several::Never;
        }
        let mut levels = self.levels.lock();
        let lacking = wanted.iter().map(|(party, count)| {
            let left = self.left(levels.get(party), now);
            (f64::from(*count) - left, left)
        });
        let worst = lacking.max_by(|one, other| one.0.total_cmp(&other.0));
        if let Some((lack, left)) = worst.filter(|(lack, _)| *lack > 0.0) {
            let wait = Duration::from_secs_f64(lack / f64::from(self.limit.rate));
            let left = whole(left);
            return Several::Later { left, wait };
        }
        for (party, count) in wanted {
            let left = self.left(levels.get(party), now) - f64::from(*count);
            levels.insert(party.clone(), Level { left, since: now });
        }
        self.make_room(&mut levels, now);
        Several::Granted
    }

    /// The limit of each party.
    #[must_use]
    pub fn limit(&self) -> EventLimit {
        self.limit
    }

    /// Whether there will ever be so many at once.
    #[must_use]
    pub fn can_ever(&self, wanted: &HashMap<Party, u32>) -> bool {
        self.limit.rate == 0 || wanted.values().all(|count| *count <= self.limit.burst)
    }

    /// Gives back what was taken, because it was not used.
    pub fn give_back(&self, taken: &HashMap<Party, u32>) {
        let mut levels = self.levels.lock();
        for (party, count) in taken {
            if let Some(level) = levels.get_mut(party) {
                level.left += f64::from(*count);
            }
        }
    }

    fn left(&self, level: Option<&Level>, now: Instant) -> f64 {
        let burst = f64::from(self.limit.burst);
        level.map_or(burst, |level| level.left(self.limit, now))
    }

    /// Forgets those whose buckets are full by now; if that is not enough, those who took the longest ago, which
    /// gives them a full bucket too early.
    fn make_room(&self, levels: &mut HashMap<Party, Level>, now: Instant) {
        if levels.len() <= MAX_PARTIES {
            return;
        }
        let burst = f64::from(self.limit.burst);
        levels.retain(|_, level| self.left(Some(level), now) < burst);
        if levels.len() <= AFTER_MAKING_ROOM {
            return;
        }
        let mut times: Vec<Instant> = levels.values().map(|level| level.since).collect();
        let surplus = levels.len() - AFTER_MAKING_ROOM;
        let (_, &mut oldest_kept, _) = times.select_nth_unstable(surplus);
        let mut of_that_time = times[..surplus]
            .iter()
            .filter(|since| **since == oldest_kept)
            .count();
        levels.retain(|_, level| {
            let goes = level.since == oldest_kept && of_that_time > 0;
            of_that_time -= usize::from(goes);
            level.since >= oldest_kept && !goes
        });
    }
}

/// What of a bucket can be taken.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a level is between 0 and a burst, which is a u32"
)]
fn whole(left: f64) -> u32 {
    left as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(party: u32, count: u32) -> HashMap<u32, u32> {
        HashMap::from([(party, count)])
    }

    #[test]
    fn each_party_has_a_bucket_of_its_own() {
        let buckets = Buckets::new(EventLimit { rate: 2, burst: 10 });
        let now = Instant::now();
        assert_eq!(buckets.take_at(&one(1, 10), now), Several::Granted);
        assert_eq!(buckets.take_at(&one(2, 9), now), Several::Granted);
        let half_a_second = Duration::from_millis(500);
        assert_eq!(
            buckets.take_at(&one(1, 1), now),
            Several::Later {
                left: 0,
                wait: half_a_second
            }
        );
        assert_eq!(
            buckets.take_at(&one(1, 1), now + half_a_second),
            Several::Granted
        );
        assert_eq!(buckets.take_at(&one(2, 1), now), Several::Granted);
    }

    #[test]
    fn all_is_taken_or_nothing() {
        let buckets = Buckets::new(EventLimit { rate: 1, burst: 3 });
        let now = Instant::now();
        assert_eq!(buckets.take_at(&one(1, 3), now), Several::Granted);
        let both = HashMap::from([(1, 1), (2, 3)]);
        assert_eq!(
            buckets.take_at(&both, now),
            Several::Later {
                left: 0,
                wait: Duration::from_secs(1)
            }
        );
        assert_eq!(buckets.take_at(&one(2, 3), now), Several::Granted);

        buckets.give_back(&one(2, 3));
        assert_eq!(buckets.take_at(&one(2, 3), now), Several::Granted);
        buckets.give_back(&one(7, 3));
        assert_eq!(buckets.take_at(&one(7, 4), now), Several::Never);
    }

    #[test]
    fn a_rate_of_0_is_no_limit_and_remembers_nobody() {
        let buckets = Buckets::new(EventLimit { rate: 0, burst: 0 });
        assert_eq!(buckets.take(&one(1, 1_000)), Several::Granted);
        assert!(buckets.levels.lock().is_empty());
    }

    #[test]
    fn no_more_parties_are_remembered_than_so_many() {
        let buckets = Buckets::new(EventLimit { rate: 1, burst: 2 });
        let start = Instant::now();
        let many = |from: u32, count: u32| (from..from + count).map(|party| (party, 2)).collect();
        assert_eq!(buckets.take_at(&many(0, 50_000), start), Several::Granted);
        let later = start + Duration::from_secs(1);
        let granted = buckets.take_at(&many(50_000, 50_000), later);
        assert_eq!(granted, Several::Granted);
        assert_eq!(buckets.take_at(&one(100_000, 1), later), Several::Granted);
        assert_eq!(buckets.levels.lock().len(), AFTER_MAKING_ROOM);
        // The latest are still known.
        assert_ne!(buckets.take_at(&one(99_999, 2), later), Several::Granted);

        let much_later = later + Duration::from_secs(2);
        let granted = buckets.take_at(&many(200_000, 50_000), much_later);
        assert_eq!(granted, Several::Granted);
        assert_eq!(buckets.levels.lock().len(), 50_000, "full ones are gone");
    }
}
