//! Whether messages between nodes can be relied on now, and the log line that tells when they cannot.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// The two directions, each with a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Up once Redis has answered a `PUBLISH` on the present connection.
    Publishing,
    /// Up once every wanted channel is confirmed on the present connection and a probe came through it.
    Receiving,
}

#[derive(Debug)]
pub(super) struct Health {
    publishing: AtomicBool,
    receiving: AtomicBool,
    /// Whether either was lost since this was asked last.
    interrupted: AtomicBool,
    /// Whether both are up.
    healthy: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    /// What the log was told last; nothing yet at the start. Held while the two flags are changed.
    told: Mutex<Option<bool>>,
}

impl Health {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            publishing: AtomicBool::new(false),
            receiving: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            healthy: watch::Sender::new(false),
            metrics,
            told: Mutex::new(None),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.is_up(Direction::Publishing) && self.is_up(Direction::Receiving)
    }

    /// Changes with [`Health::is_healthy`].
    pub(super) fn healthy(&self) -> watch::Receiver<bool> {
        self.healthy.subscribe()
    }

    pub(super) fn is_up(&self, direction: Direction) -> bool {
        self.flag(direction).load(Ordering::Acquire)
    }

    pub(super) fn up(&self, direction: Direction) {
        let mut told = self.told.lock();
        self.flag(direction).store(true, Ordering::Release);
        if self.is_healthy() && *told != Some(true) {
            *told = Some(true);
            self.metrics.redis_up.of(()).set(1.0);
            tracing::debug!("the bus is joined: Redis carries messages between the nodes");
            self.healthy.send_replace(true);
        }
    }

    pub(super) fn down(&self, direction: Direction, cause: &dyn fmt::Display) {
        let mut told = self.told.lock();
        self.flag(direction).store(false, Ordering::Release);
        self.interrupted.store(true, Ordering::Release);
        self.healthy.send_if_modified(std::mem::take);
        if *told != Some(false) {
            *told = Some(false);
            self.metrics.redis_up.of(()).set(0.0);
            tracing::warn!(
                %cause,
                "degraded: the bus is away, and until it is back sockets on other nodes hear from the store, a second later"
            );
        } else {
            tracing::debug!(?direction, %cause, "the bus is still away");
        }
    }

    /// Whether a direction was lost since this was asked last. Also when it was only publishing: a Redis that
    /// did not answer this node may not have answered others either. They say so when they can send again
    /// ([`super::missed`]), but one that has ended by then, or is of a release that does not, cannot.
    pub(super) fn take_interruption(&self) -> bool {
        self.interrupted.swap(false, Ordering::AcqRel)
    }

    fn flag(&self, direction: Direction) -> &AtomicBool {
        match direction {
            Direction::Publishing => &self.publishing,
            Direction::Receiving => &self.receiving,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_is_healthy_while_both_directions_are_up() {
        let metrics = Arc::new(Metrics::new());
        let health = Health::new(Arc::clone(&metrics));
        let shown = |up| {
            metrics
                .render()
                .contains(&format!("\nbellhop_redis_up {up}\n"))
        };

        health.up(Direction::Publishing);
        assert!(!health.is_healthy() && shown(0));
        health.up(Direction::Receiving);
        assert!(health.is_healthy() && shown(1));
        health.down(Direction::Publishing, &"a test");
        assert!(!health.is_healthy() && shown(0));
        health.up(Direction::Publishing);
        assert!(health.is_healthy() && shown(1));
    }
}
