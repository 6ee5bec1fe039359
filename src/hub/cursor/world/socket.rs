//! The socket: it has little room, and notes what must never be handed to it.

use std::collections::VecDeque;

use super::super::{Item, Outlet, Reason};
use super::Fault;
use super::history::Event;

/// What the socket was handed, until the client takes it.
#[derive(Clone, Debug, Hash)]
pub(super) struct Socket {
    pub(super) queue: VecDeque<Packet>,
    pub(super) capacity: usize,
    pub(super) epoch: u8,
    /// The seq of the last change that was handed over.
    pub(super) last: u64,
    pub(super) synced: bool,
    pub(super) fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Packet {
    Change(Event),
    Count { unread: u64, seq: u64 },
    Refresh { reason: Reason, epoch: u8 },
    Synced { seq: u64 },
}

impl Socket {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            capacity,
            epoch: 0,
            last: 0,
            synced: false,
            fault: None,
        }
    }

    pub(super) fn stall(&mut self) {
        if self.queue.len() < self.capacity {
            self.fault = Some("the socket was stalled though it had room");
        }
    }

    pub(super) fn changed(&mut self, event: Event) -> Packet {
        if event.seq <= self.last {
            self.fault = Some("a change was sent again or out of order");
        }
        self.last = event.seq;
        Packet::Change(event)
    }

    pub(super) fn refreshed(&mut self, reason: Reason, seq: u64) -> Packet {
        if reason == Reason::Reset {
            self.last = seq;
        }
        Packet::Refresh {
            reason,
            epoch: self.epoch,
        }
    }

    pub(super) fn synchronised(&mut self, seq: u64) -> Packet {
        if self.synced {
            self.fault = Some("the synchronisation ended twice");
        }
        self.synced = true;
        Packet::Synced { seq }
    }
}

impl Outlet<Event> for Socket {
    fn emit(&mut self, item: Item<'_, Event>) -> bool {
        if self.queue.len() >= self.capacity {
            return false;
        }
        let packet = match item {
            Item::Change(event) => self.changed(*event),
            Item::Count { unread, seq } => Packet::Count { unread, seq },
            Item::Refresh { reason, seq } => self.refreshed(reason, seq),
            Item::Synced { seq, .. } => self.synchronised(seq),
        };
        self.queue.push_back(packet);
        true
    }
}
