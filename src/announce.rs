//! After the commit: this node's own sockets first, then the nodes that hold the user.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::{Bus, Sent};
use crate::epoch::Epoch;
use crate::event::{Body, Event, Message, Position};
use crate::hub::{Haste, Hub};
use crate::metrics::Path;
use crate::notification::Change;
use crate::user::UserId;

/// Tells sockets, here and elsewhere, of what the store has committed.
///
/// Never waits and never fails: what it cannot tell now, the store tells later.
#[derive(Clone, Debug)]
pub struct Announcer {
    reach: Arc<Reach>,
    /// The history that what it announces is of; `None`: the present one.
    of: Option<Arc<str>>,
}

/// What it tells sockets by; shared, for an announcer is made for each write.
#[derive(Debug)]
struct Reach {
    hub: Hub,
    bus: Bus,
    epoch: Epoch,
}

impl Announcer {
    #[must_use]
    pub fn new(hub: Hub, bus: Bus, epoch: Epoch) -> Self {
        Self {
            reach: Arc::new(Reach { hub, bus, epoch }),
            of: None,
        }
    }

    /// The same, for what is committed from now on: if history is replaced meanwhile, nobody can tell afterwards
    /// which one it went into, and sockets read it from the store.
    #[must_use]
    pub fn before_commit(&self) -> Self {
        Self {
            reach: Arc::clone(&self.reach),
            of: Some(self.reach.epoch.get()),
        }
    }

    /// Announces a committed change to its user's sockets.
    ///
    /// Changes of one user may be announced in any order; each socket puts them into seq order.
    pub fn change(&self, change: &Change, haste: Haste) -> Sent {
        let position = Position {
            seq: change.seq,
            unread: change.unread,
        };
        let event = Arc::new(Event::of(change, &self.epoch()));
        self.changed(change.user.clone(), position, event, haste)
    }

    /// The same, with the change's one event as it was encoded.
    pub fn changed(&self, user: UserId, at: Position, event: Arc<Event>, haste: Haste) -> Sent {
        self.tell(Some(user), Body::Change(at, event), haste)
    }

    /// Announces that tokens of `user` issued at or before `valid_after` (milliseconds since 1970) are revoked:
    /// their sockets are closed.
    pub fn revoked(&self, user: UserId, position: Position, valid_after: u64) -> Sent {
        let body = Body::Revoked(position, valid_after);
        self.tell(Some(user), body, Haste::Now)
    }

    /// Announces that the user's inbox has come to `seq`, and not by what: sockets behind it ask the store.
    pub fn reached(&self, user: UserId, seq: u64) -> Sent {
        self.tell(Some(user), Body::Reached(seq), Haste::Now)
    }

    /// Asks the user's clients to fetch the list. Like a transient emit, nothing remembers it.
    pub fn refresh(&self, user: UserId, seq: u64) -> Sent {
        let event = Event::refresh("requested", seq, &self.epoch());
        self.transient(Some(user), event, Haste::Now)
    }

    /// Passes a transient emit on, to one user or to everyone. Nothing remembers it.
    pub fn transient(&self, to: Option<UserId>, event: Event, haste: Haste) -> Sent {
        self.tell(to, Body::Emit(Arc::new(event)), haste)
    }

    fn epoch(&self) -> Arc<str> {
        self.of.clone().unwrap_or_else(|| self.reach.epoch.get())
    }

    fn tell(&self, to: Option<UserId>, body: Body, haste: Haste) -> Sent {
        let message = Message {
            to,
            published_at: now_ms(),
            epoch: self.epoch(),
            body,
        };
        self.reach.hub.deliver(&message, Path::Local, haste);
        self.reach.bus.send(&message)
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
