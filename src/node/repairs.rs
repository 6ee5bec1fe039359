//! What makes up for the bus: the loop that takes what it says, the feed, and the watch over history.

use std::sync::Arc;

use crate::bus::{Bus, Incoming, Receiver};
use crate::epoch::Epoch;
use crate::feed::Feed;
use crate::history::History;
use crate::hub::{Haste, Hub};
use crate::metrics::{Metrics, Path};
use crate::store::Store;
use crate::tasks::Tasks;

/// What the repairs work with.
pub(super) struct Repairs {
    pub(super) store: Store,
    pub(super) hub: Hub,
    pub(super) bus: Bus,
    pub(super) epoch: Epoch,
    pub(super) metrics: Arc<Metrics>,
}

impl Repairs {
    /// Starts what runs for the life of the node, and answers the feed.
    pub(super) fn start(self, incoming: Receiver, tasks: &Tasks) -> Feed {
        let Self {
            store,
            hub,
            bus,
            epoch,
            metrics,
        } = self;
        let history = History::new(store.clone(), epoch, hub.clone(), Arc::clone(&metrics));
        let feed = Feed::new(
            store,
            hub.clone(),
            bus.clone(),
            history.clone(),
            metrics,
            tasks.clone(),
        );
        let (feeding, watching, comparing) = (feed.clone(), history.clone(), feed.clone());
        tasks.essential("feed", |stop| feeding.run(stop));
        tasks.essential("history", |stop| watching.watch(stop));
        tasks.essential("bus to hub", |stop| async move {
            tokio::select! {
                () = pass_on(incoming, hub, bus, comparing, history) => {}
                () = stop.cancelled() => {}
            }
        });
        feed
    }
}

/// So many that wait are more than one task should write to their sockets.
const BEHIND: usize = 256;

/// Passes on what comes from the bus, until it ends.
async fn pass_on(mut waiting: Receiver, hub: Hub, bus: Bus, feed: Feed, history: History) {
    while let Some(incoming) = waiting.recv().await {
        match incoming {
            Incoming::Message(message) => {
                let haste = if waiting.len() < BEHIND {
                    Haste::Now
                } else {
                    Haste::Soon
                };
                hub.deliver(&message, Path::Remote, haste);
            }
            Incoming::Restored => feed.compare_all(),
            // One of the two has read it later than the other; what the store says now decides.
            Incoming::OtherEpoch => history.doubt(),
            Incoming::Asked { user, question } => bus.answer(&question, hub.sockets_of(&user)),
        }
    }
}
