//! Watches over the epoch while the node runs: when history was replaced, every connected client begins anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::epoch::Epoch;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::tick;

/// How often the store is asked at least, give or take a second: a pooler in front of it hides that the server is another.
const PERIOD: Duration = Duration::from_secs(5);

/// How long after the last time at least. It doubles up to the second value while the store does not answer.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// Knows when to ask the store for its epoch. Cloning shares it.
#[derive(Clone, Debug)]
pub struct History {
    store: Store,
    epoch: Epoch,
    hub: Hub,
    metrics: Arc<Metrics>,
    doubted: Arc<Notify>,
}

impl History {
    #[must_use]
    pub fn new(store: Store, epoch: Epoch, hub: Hub, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            epoch,
            hub,
            metrics,
            doubted: Arc::default(),
        }
    }

    /// Another node bears another epoch.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Asks when it is doubted, with each new connection to the database, and every few seconds; for the life of
    /// the node. Not for a file: nobody else can replace what is in it.
    pub async fn watch(self, stop: CancellationToken) {
        if !self.store.may_be_shared() {
            return stop.cancelled().await;
        }
        tokio::select! {
            () = self.ask_again_and_again() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn ask_again_and_again(&self) {
        let mut connections = self.store.connections_made();
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let mut is_known = true;
        let mut not_before = Instant::now();
        loop {
            let next = tick::after(PERIOD);
            if is_known {
                tokio::select! {
                    Ok(()) = connections.changed() => {}
                    () = self.doubted.notified() => {}
                    () = tokio::time::sleep_until(next) => {}
                }
            }
            tokio::time::sleep_until(not_before).await;
            is_known = self.check().await.is_some();
            if is_known {
                backoff.reset();
            }
            not_before = Instant::now() + backoff.pause();
        }
    }

    /// Asks now. Answers whether history was replaced; `None` if the store does not answer.
    pub async fn check(&self) -> Option<bool> {
        let epoch = match self.store.epoch().await {
            Ok(epoch) => epoch,
            Err(error) => {
                self.metrics.store_errors.of((&error).into()).increment(1);
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the epoch is not known"
                );
                return None;
            }
        };
        let is_another = self.epoch.replace(&epoch);
        if is_another {
            tracing::warn!(
                epoch,
                "the history in the database was replaced: connected clients begin anew"
            );
            self.hub.epoch_changed();
        }
        Some(is_another)
    }
}
