//! When a node does what it does again and again: at instants that all such work shares, for what a node at rest costs is
//! mostly waking up.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

/// The instants are whole seconds from here: nodes of a cluster, which begin at different times, do not load what they
/// share all at once.
static BEGAN: LazyLock<Instant> = LazyLock::new(|| Instant::from_std(std::time::Instant::now()));

/// A pause may become longer or shorter by this part of it.
const TOLERANCE: f64 = 0.2;

/// Ticks at once, and then at each multiple of `period`, which is whole seconds and not 0. A tick that was missed comes at
/// once; the one after it is not later for that.
#[must_use]
pub fn every(period: Duration) -> Interval {
    debug_assert!(period.as_secs() > 0 && period.subsec_nanos() == 0);
    let since = since_the_beginning().as_secs();
    let last = Duration::from_secs(since - since % period.as_secs().max(1));
    let mut ticks = tokio::time::interval_at(*BEGAN + last, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The end of a pause that begins now, up to a fifth longer or shorter at random: at one of the instants, if there is one
/// within that fifth.
#[must_use]
pub fn after(pause: Duration) -> Instant {
    *BEGAN + end_of(pause, since_the_beginning(), rand::random_range(-1.0..1.0))
}

fn since_the_beginning() -> Duration {
    Instant::now().duration_since(*BEGAN)
}

fn end_of(pause: Duration, now: Duration, shake: f64) -> Duration {
    let end = |shake: f64| now + pause.mul_f64(1.0 + shake * TOLERANCE);
    let whole = |time: Duration| Duration::from_secs(time.as_secs());
    let first = whole(end(-1.0) + Duration::from_nanos(999_999_999));
    let last = whole(end(1.0));
    if first > last {
        return end(shake);
    }
    whole(end(shake) + Duration::from_millis(500)).clamp(first, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_began_at_different_times_ticks_together() {
        let mut first = every(Duration::from_secs(2));
        let mut ticks = vec![first.tick().await, first.tick().await];
        for passed in [700, 1_000, 2_400] {
            tokio::time::advance(Duration::from_millis(passed)).await;
            let mut next = every(Duration::from_secs(2));
            ticks.extend([next.tick().await, next.tick().await]);
        }
        let apart = ticks.iter().map(|tick| (*tick - ticks[0]).as_millis());
        assert!(apart.clone().all(|apart| apart % 2_000 == 0));
        assert!(apart.max() >= Some(4_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tick_that_was_missed_moves_no_other() {
        const SECOND: Duration = Duration::from_secs(1);
        let mut ticks = every(SECOND);
        ticks.tick().await;
        let before = ticks.tick().await;
        tokio::time::advance(SECOND * 5 / 2).await;
        assert_eq!(ticks.tick().await - before, SECOND);
        assert_eq!(ticks.tick().await - before, SECOND * 3);
    }

    #[test]
    fn a_pause_ends_at_a_tick_if_that_hardly_changes_it() {
        let end = |pause, now, shake| {
            let [pause, now] = [pause, now].map(Duration::from_millis);
            end_of(pause, now, shake).as_millis()
        };
        for shake in [-1.0, -0.6, 0.0, 0.3, 1.0] {
            assert_eq!(end(997, 4_003, shake), 5_000);
            assert_eq!(end(5_000, 4_003, shake) % 1_000, 0);
            assert_eq!(end(10_000, 4_500, shake) % 1_000, 0);
        }
        assert_eq!(end(5_000, 4_000, -1.0), 8_000);
        assert_eq!(end(5_000, 4_003, -1.0), 9_000);
        assert_eq!(end(5_000, 4_003, 1.0), 10_000);
        // No tick is near enough.
        assert_eq!(end(50, 4_500, 0.0), 4_550);
        assert_eq!(end(50, 4_500, 1.0), 4_560);
        assert_eq!(end(1_000, 4_500, -1.0), 5_300);
        assert_eq!(end(0, 4_500, 1.0), 4_500);
    }
}
