//! After the commit: this node's own sockets first, then the nodes that hold the user.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::{Bus, Sent};
use crate::event::{Event, Message, Position};
use crate::hub::Hub;
use crate::metrics::Path;
use crate::notification::Change;
use crate::user::UserId;

/// Tells sockets, here and elsewhere, of what the store has committed.
///
/// Never waits and never fails: what it cannot tell now, the store tells later.
#[derive(Clone, Debug)]
pub struct Announcer {
    hub: Hub,
    bus: Bus,
    epoch: Arc<str>,
}

impl Announcer {
    #[must_use]
    pub fn new(hub: Hub, bus: Bus, epoch: Arc<str>) -> Self {
        Self { hub, bus, epoch }
    }

    /// Announces a committed change to its user's sockets.
    ///
    /// Changes of one user may be announced in any order; each socket puts them into seq order.
    pub fn change(&self, change: &Change) -> Sent {
        let position = Position {
            seq: change.seq,
            unread: change.unread,
        };
        let event = Event::of(change, &self.epoch);
        self.tell(Some(change.user.clone()), Some(position), event)
    }

    /// Passes a transient emit on, to one user or to everyone. Nothing remembers it.
    pub fn transient(&self, to: Option<UserId>, event: Event) -> Sent {
        self.tell(to, None, event)
    }

    fn tell(&self, to: Option<UserId>, change: Option<Position>, event: Event) -> Sent {
        let message = Message {
            to,
            change,
            published_at: now_ms(),
            event: Arc::new(event),
        };
        self.hub.deliver(&message, Path::Local);
        self.bus.send(&message)
    }
}

/// Milliseconds since 1970 by this node's wall clock: for latencies and token lifetimes, never for order.
#[must_use]
pub fn now_ms() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
