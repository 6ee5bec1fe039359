//! When a node does what it does again and again: all of it at the same instants, for what a node at rest costs is mostly
//! waking up.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

/// The instants are whole seconds of this process, so that the nodes of a cluster do not load what they share together.
static BEGAN: LazyLock<Instant> = LazyLock::new(|| Instant::from_std(std::time::Instant::now()));

/// A pause may become longer or shorter by this part of it.
const TOLERANCE: f64 = 0.2;

/// Ticks at once, and then each `period` of whole seconds. Who comes late waits for the next tick, less than a period.
#[must_use]
pub fn every(period: Duration) -> Interval {
    let began = *BEGAN;
    let since = Instant::now().duration_since(began);
    let mut ticks = tokio::time::interval_at(began + whole_seconds(since), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The end of a pause that begins now, made up to a fifth longer or shorter so that nodes do not stay in step; at a tick, if
/// there is one within that fifth.
#[must_use]
pub fn after(pause: Duration) -> Instant {
    let began = *BEGAN;
    let now = Instant::now().duration_since(began);
    let shake = rand::random_range(-1.0..1.0);
    began + end_of(pause, now, shake)
}

fn end_of(pause: Duration, now: Duration, shake: f64) -> Duration {
    let end = now + pause.mul_f64(1.0 + shake * TOLERANCE);
    let tick = whole_seconds(end + Duration::from_millis(500));
    if tick.abs_diff(now + pause) <= pause.mul_f64(TOLERANCE) {
        tick
    } else {
        end
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_began_at_different_times_ticks_together() {
        let mut first = every(Duration::from_secs(1));
        first.tick().await;
        tokio::time::advance(Duration::from_millis(300)).await;
        let mut second = every(Duration::from_secs(2));
        second.tick().await;

        let mut ticks = vec![first.tick().await, first.tick().await, first.tick().await];
        ticks.retain(|tick| Instant::now() - *tick < Duration::from_millis(2_500));
        assert!(ticks.contains(&second.tick().await));
        // Late by one and a half: the next one is half a second away.
        let before = first.tick().await;
        tokio::time::advance(Duration::from_millis(2_500)).await;
        first.tick().await;
        assert_eq!(first.tick().await - before, Duration::from_secs(3));
    }

    #[test]
    fn a_pause_ends_at_a_tick_if_that_hardly_changes_it() {
        let end = |pause, now, shake| {
            end_of(
                Duration::from_millis(pause),
                Duration::from_millis(now),
                shake,
            )
            .as_millis()
        };
        // A second, from just after a tick.
        for shake in [-1.0, 0.0, 1.0] {
            assert_eq!(end(997, 4_003, shake), 5_000);
        }
        // Five of them: up to one more or less.
        assert_eq!(end(5_000, 3_997, -1.0), 8_000);
        assert_eq!(end(5_000, 3_997, 0.0), 9_000);
        assert_eq!(end(5_000, 3_997, 0.9), 9_897);
        // No tick is near enough.
        assert_eq!(end(50, 4_500, 0.0), 4_550);
        assert_eq!(end(50, 4_500, 1.0), 4_560);
        assert_eq!(end(1_000, 4_500, -1.0), 5_300);
        assert_eq!(end(0, 4_500, 1.0), 4_500);
    }
}
