//! Token buckets, of one party or of many: so many a second in the long run, and a burst at once.

mod many;

use std::time::Instant;

use parking_lot::Mutex;

use crate::config::EventLimit;

pub use self::many::{Buckets, Several};

/// How many in a row are refused until a bucket counts as abused.
const ABUSE: u32 = 100;

/// Starts full.
#[derive(Debug)]
pub struct Bucket {
    limit: EventLimit,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    level: Level,
    /// Refused since the last that was granted.
    refused: u32,
}

/// What was left in a bucket, and when.
#[derive(Clone, Copy, Debug)]
struct Level {
    left: f64,
    since: Instant,
}

impl Level {
    /// What is left by `now`: what came in since is added, as far as it fits.
    fn left(self, limit: EventLimit, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        (self.left + passed * f64::from(limit.rate)).min(f64::from(limit.burst))
    }
}

/// Whether there was one to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Granted,
    Refused,
    /// Refused so often in a row that the taker does not listen.
    Abused,
}

impl Bucket {
    #[must_use]
    pub fn new(limit: EventLimit) -> Self {
        let level = Level {
            left: f64::from(limit.burst),
            since: Instant::now(),
        };
        Self {
            limit,
            state: Mutex::new(State { level, refused: 0 }),
        }
    }

    /// Takes one, if there is one.
    pub fn take(&self) -> Taken {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Taken {
        if self.limit.rate == 0 {
            return Taken::Granted;
        }
        let mut state = self.state.lock();
        let left = state.level.left(self.limit, now);
        if left >= 1.0 {
            state.level = Level {
                left: left - 1.0,
                since: now,
            };
            state.refused = 0;
            return Taken::Granted;
        }
        state.refused += 1;
        if state.refused > ABUSE {
            Taken::Abused
        } else {
            Taken::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_granted_and_then_the_rate() {
        let start = Instant::now();
        let bucket = Bucket::new(EventLimit { rate: 5, burst: 20 });
        let granted = |at: Duration, tries: usize| {
            (0..tries)
                .filter(|_| bucket.take_at(start + at) == Taken::Granted)
                .count()
        };
        assert_eq!(granted(Duration::ZERO, 30), 20);
        assert_eq!(granted(Duration::from_secs(1), 30), 5);
        assert_eq!(granted(Duration::from_secs(100), 30), 20);
    }

    #[test]
    fn a_rate_of_0_is_no_limit() {
        let bucket = Bucket::new(EventLimit { rate: 0, burst: 0 });
        assert!((0..1_000).all(|_| bucket.take() == Taken::Granted));
    }

    #[test]
    fn who_goes_on_and_on_is_told_apart() {
        let now = Instant::now();
        let bucket = Bucket::new(EventLimit { rate: 1, burst: 1 });
        assert_eq!(bucket.take_at(now), Taken::Granted);
        assert!((0..100).all(|_| bucket.take_at(now) == Taken::Refused));
        assert_eq!(bucket.take_at(now), Taken::Abused);
        assert_eq!(bucket.take_at(now + Duration::from_secs(1)), Taken::Granted);
        assert_eq!(bucket.take_at(now + Duration::from_secs(1)), Taken::Refused);
    }
}
