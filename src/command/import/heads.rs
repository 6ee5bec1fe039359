//! Where an import has moved users' inboxes to, told to the running nodes: connected devices then fetch their lists again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::announce::now_ms;
use crate::bus::{Bus, Sent, redis};
use crate::command::{Failure, complain};
use crate::config::Backends;
use crate::epoch::Epoch;
use crate::event::{Body, Message};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::user::UserId;

/// Redis has this long to be joined, and as long to take a message; without it devices hear of it by the nodes' own feeds, within seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a link that is being made or is busy is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The users whose inboxes moved, and to which head.
#[derive(Debug, Default)]
pub(super) struct Heads(HashMap<UserId, u64>);

impl Heads {
    pub(super) fn moved(&mut self, users: Vec<(UserId, u64)>) {
        self.0.extend(users);
    }

    /// Tells the nodes, if there is a bus; that it fails is no failure of the import.
    pub(super) async fn tell(self, store: &Store, backends: &Backends) {
        let Some(url) = &backends.redis_url else {
            return;
        };
        let config = redis::Config::new(url.expose(), &backends.bus_prefix);
        if let Err(Failure(reason)) = self.tell_by(&config, store).await {
            complain(&format!(
                "running nodes were not told: {reason}; connected devices show what was imported some seconds later"
            ));
        }
    }

    async fn tell_by(self, config: &redis::Config, store: &Store) -> Result<(), Failure> {
        let (tasks, metrics) = (Tasks::default(), Arc::new(Metrics::new()));
        let epoch: Arc<str> = store.epoch().await?.into();
        // Nobody reads what other nodes say: the channel is bounded, and the bus does not wait for us.
        let (bus, _unread) =
            redis::Bus::connect(config, Epoch::new(Arc::clone(&epoch)), metrics, &tasks)?;
        let mut outcome = Ok(());
        for (user, seq) in self.0 {
            let message = Message {
                to: Some(user),
                published_at: now_ms(),
                epoch: Arc::clone(&epoch),
                body: Body::Reached(seq),
            };
            let sent = tokio::time::timeout(PATIENCE, taken(&bus, &message)).await;
            if sent.is_err() {
                outcome = Err(Failure::new("Redis does not answer"));
                break;
            }
        }
        tasks.finish(PATIENCE).await;
        outcome
    }
}

/// Returns when the bus has taken the message.
async fn taken(bus: &Bus, message: &Message) {
    while !bus.is_healthy() || bus.send(message) == Sent::Deferred {
        tokio::time::sleep(LOOK).await;
    }
}
