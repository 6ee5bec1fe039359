//! Whether messages between nodes can be relied on now, and the log line that tells when they cannot.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::connection::advice;
use crate::metrics::Metrics;

/// The two directions, each with a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Up once Redis has answered a `PUBLISH` on the present connection.
    Publishing,
    /// Up once every wanted channel is confirmed on the present connection and a probe came through it.
    Receiving,
}

/// Whether all links are healthy, when there are several.
#[derive(Debug)]
pub(super) struct Overall {
    /// How many are not.
    unhealthy: Mutex<usize>,
    healthy: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

impl Overall {
    /// None of the links is up yet.
    pub(super) fn new(links: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            unhealthy: Mutex::new(links),
            healthy: watch::Sender::new(false),
            metrics,
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        *self.healthy.borrow()
    }

    /// Changes with [`Overall::is_healthy`].
    pub(super) fn healthy(&self) -> watch::Receiver<bool> {
        self.healthy.subscribe()
    }

    fn one_up(&self) {
        let mut unhealthy = self.unhealthy.lock();
        *unhealthy -= 1;
        if *unhealthy == 0 {
            self.metrics.redis_up.of(()).set(1.0);
            self.healthy.send_replace(true);
        }
    }

    fn one_down(&self) {
        let mut unhealthy = self.unhealthy.lock();
        *unhealthy += 1;
        self.metrics.redis_up.of(()).set(0.0);
        self.healthy.send_if_modified(std::mem::take);
    }
}

/// One link: to one Redis.
#[derive(Debug)]
pub(super) struct Health {
    /// Which Redis, for the log.
    place: String,
    publishing: AtomicBool,
    receiving: AtomicBool,
    /// Whether either was lost since this was asked last.
    interrupted: AtomicBool,
    overall: Arc<Overall>,
    /// What the log was told last; nothing yet at the start. Held while the two flags are changed.
    told: Mutex<Option<bool>>,
}

impl Health {
    pub(super) fn new(place: String, overall: Arc<Overall>) -> Self {
        Self {
            place,
            publishing: AtomicBool::new(false),
            receiving: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            overall,
            told: Mutex::new(None),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.is_up(Direction::Publishing) && self.is_up(Direction::Receiving)
    }

    pub(super) fn is_up(&self, direction: Direction) -> bool {
        self.flag(direction).load(Ordering::Acquire)
    }

    pub(super) fn up(&self, direction: Direction) {
        let mut told = self.told.lock();
        self.flag(direction).store(true, Ordering::Release);
        if self.is_healthy() && *told != Some(true) {
            *told = Some(true);
            tracing::debug!(redis = %self.place, "the bus is joined: Redis carries messages between the nodes");
            self.overall.one_up();
        }
    }

    pub(super) fn down(&self, direction: Direction, cause: &dyn fmt::Display) {
        let mut told = self.told.lock();
        self.flag(direction).store(false, Ordering::Release);
        self.interrupted.store(true, Ordering::Release);
        let before = told.replace(false);
        if before == Some(true) {
            self.overall.one_down();
        }
        if before != Some(false) {
            tracing::warn!(
                redis = %self.place,
                %cause,
                advice = advice(&cause.to_string()),
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
    fn the_bus_is_healthy_while_both_directions_of_every_link_are_up() {
        let metrics = Arc::new(Metrics::new());
        let overall = Arc::new(Overall::new(2, Arc::clone(&metrics)));
        let links = ["a", "b"].map(|place| Health::new(place.to_owned(), Arc::clone(&overall)));
        let shown = |up| {
            metrics
                .render()
                .contains(&format!("\nbellhop_redis_up {up}\n"))
        };
        let is_healthy = |up: bool| overall.is_healthy() == up && shown(u8::from(up));

        links[0].up(Direction::Publishing);
        links[1].down(Direction::Receiving, &"a test");
        assert!(!links[0].is_healthy() && is_healthy(false));
        links[0].up(Direction::Receiving);
        links[1].up(Direction::Receiving);
        assert!(links[0].is_healthy() && is_healthy(false));
        links[1].up(Direction::Publishing);
        assert!(is_healthy(true));
        for direction in [Direction::Publishing, Direction::Receiving] {
            links[0].down(direction, &"a test");
            assert!(!links[0].is_healthy() && links[1].is_healthy() && is_healthy(false));
        }
        links[0].up(Direction::Receiving);
        assert!(is_healthy(false));
        links[0].up(Direction::Publishing);
        assert!(is_healthy(true));
    }
}
