//! Node to node: a message goes to the nodes that hold its user's sockets, and to no other.
//!
//! A node subscribes per user: the first socket of a user subscribes to that user's channel, the last
//! one unsubscribes, after a linger. So a publish costs about one message however many nodes there
//! are, and a node that never held the user spends nothing on it.
//!
//! The bus only rings a doorbell. What it loses is in the store, and the cursor of each socket notices.

mod backlog;
mod envelope;
pub mod local;
mod questions;
pub mod redis;

use tokio::sync::{mpsc, watch};

use crate::event::Message;
use crate::user::UserId;

pub use local::Exchange;
pub use redis::BusError;

/// How nodes reach each other: a closed set, like [`crate::store::Store`].
#[derive(Clone, Debug)]
pub enum Bus {
    /// Nodes of one process: the embedded default has one, tests have several on one [`Exchange`].
    Local(local::Bus),
    Redis(redis::Bus),
}

/// What the bus tells its node. The channel is bounded; a node that falls behind is told so by
/// [`Incoming::Restored`] instead of what it missed.
#[derive(Debug)]
pub enum Incoming {
    /// From another node; a node's own messages never come back to it.
    Message(Message),
    /// Messages may have been missed (the link was lost, this node fell behind, or another node could not
    /// send), and every wanted channel is subscribed and confirmed: whoever is connected has to be compared
    /// with the store.
    Restored,
    /// Another node bears another epoch: one of the two has not noticed that history was replaced, so
    /// the store has to be asked. Said at most once a second; the message itself follows.
    OtherEpoch,
    /// Another node asks how many sockets of `user` this one holds: to be answered at once, by [`Bus::answer`].
    Asked { user: UserId, question: Question },
}

/// Where the answer to a question of another node belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    asker: u64,
    number: u64,
}

/// Whether the message was taken for sending at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Live,
    /// The link is down or its queue is full: nothing was sent, it is counted, and devices on other
    /// nodes get it from the store. Those nodes are told so ([`Incoming::Restored`]) when this one can
    /// send again.
    Deferred,
}

impl Sent {
    /// Live only if both are.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Live, Self::Live) => Self::Live,
            (Self::Live | Self::Deferred, _) => Self::Deferred,
        }
    }
}

/// Keeps a user's channel subscribed while it lives; dropping the last one lets the channel linger
/// and then go.
#[derive(Debug)]
pub enum Subscription {
    Local(local::Subscription),
    Redis(redis::Subscription),
}

impl Subscription {
    /// Returns when the server has confirmed the subscription on the connection that now serves it:
    /// from here on no message for the user passes this node by. Waits as long as the link is down;
    /// the caller sets the deadline.
    pub async fn confirmed(&self) {
        match self {
            Self::Local(_) => {}
            Self::Redis(subscription) => subscription.confirmed().await,
        }
    }
}

impl Bus {
    /// Hands `message` over for sending to the other nodes: never waits, never fails the caller.
    ///
    /// Messages to one user leave in the order of the calls.
    pub fn send(&self, message: &Message) -> Sent {
        match self {
            Self::Local(bus) => bus.send(message),
            Self::Redis(bus) => bus.send(message),
        }
    }

    /// Asks for the user's messages. They may begin to come at once; they surely come after
    /// [`Subscription::confirmed`].
    #[must_use]
    pub fn subscribe(&self, user: &UserId) -> Subscription {
        match self {
            Self::Local(bus) => Subscription::Local(bus.subscribe(user)),
            Self::Redis(bus) => Subscription::Redis(bus.subscribe(user)),
        }
    }

    /// Asks the other nodes how many sockets of `user` they hold, and waits for their answers, at most 300 ms.
    ///
    /// The question goes to the nodes that are subscribed to the user's messages, and to no other; as soon
    /// as all of them have answered, nobody waits any longer. A Redis in cluster mode says how many have it
    /// of one of its nodes only: there, sockets may be missing from an answer that is called complete. So
    /// may those of a node that has itself lost the bus and is not subscribed to anything.
    pub async fn sockets_elsewhere(&self, user: &UserId) -> Elsewhere {
        match self {
            Self::Local(bus) => bus.sockets_elsewhere(user).await,
            Self::Redis(bus) => bus.sockets_elsewhere(user).await,
        }
    }

    /// Answers what another node has asked: how many sockets of the user are here. Never waits; an answer
    /// that cannot be sent is not, and the other node's answer is not complete.
    pub fn answer(&self, question: &Question, sockets: u64) {
        match self {
            Self::Local(bus) => bus.answer(*question, sockets),
            Self::Redis(bus) => bus.answer(*question, sockets),
        }
    }

    /// `false` while messages between nodes may be lost: the link is down or not yet confirmed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Redis(bus) => bus.is_healthy(),
        }
    }

    /// Whether messages for this user get through: `false` while its own Redis is the one that is away.
    #[must_use]
    pub fn reaches(&self, user: &UserId) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Redis(bus) => bus.reaches(user),
        }
    }

    /// [`Bus::is_healthy`], for whoever waits for it to change. [`Incoming::Restored`] is on its way before it becomes
    /// `true`.
    #[must_use]
    pub fn healthy(&self) -> watch::Receiver<bool> {
        match self {
            Self::Local(_) => watch::channel(true).1,
            Self::Redis(bus) => bus.healthy(),
        }
    }

    /// Whether it reaches nodes of other processes.
    #[must_use]
    pub fn leaves_the_process(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Redis(_) => true,
        }
    }
}

/// A user's sockets on the other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    pub sockets: u64,
    /// The bus is healthy, and every node that has the question has answered it in time.
    pub complete: bool,
}

impl Elsewhere {
    /// Nobody could be asked.
    const UNKNOWN: Self = Self {
        sockets: 0,
        complete: false,
    };
}

/// Room for messages that the node has not yet passed to its sockets; beyond it, the node is told
/// [`Incoming::Restored`] and reads from the store instead.
pub const BACKLOG: usize = 4_096;

/// The receiving end that the node's own loop drains.
pub type Receiver = mpsc::Receiver<Incoming>;
