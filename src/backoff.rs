//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// Pauses that double up to a limit, without an end, each shaken so that those who failed together do not
/// try again together.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// The pause that is due now: between half and all of its length.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.most);
        pause.max(self.first / 2)
    }

    /// The attempt succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_stay_there() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, most);
        let pauses: Vec<_> = (0..100).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= first);
        assert!(
            pauses
                .iter()
                .all(|pause| (first / 2..=most).contains(pause))
        );
        assert!(pauses[99] >= most / 2);
        backoff.reset();
        assert!(backoff.pause() <= first);
    }
}
