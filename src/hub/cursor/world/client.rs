//! The client: it keeps what the contract tells it to, and notes what it was not told.

use std::collections::BTreeMap;

use super::super::{Cursor, Reason, Step};
use super::Fault;
use super::history::{Event, History};
use super::socket::Packet;

/// What a client keeps.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Client {
    /// What it will resume from: `lastSeq`. While it fetches the list, nothing moves this.
    pub(super) last: Option<u64>,
    /// What it has seen on this connection; repeats are dropped by it.
    pub(super) seen: u64,
    pub(super) fetching: bool,
    /// It has not fetched the list for the first time: until then it has nothing to resume from.
    pub(super) unlisted: bool,
    pub(super) epoch: u8,
    pub(super) view: BTreeMap<u64, u64>,
    pub(super) count: Option<(u64, u64)>,
}

impl Client {
    pub(super) fn connect(&mut self, epoch: u8, spread: bool) -> (Cursor<Event>, Step) {
        self.unlisted = self.last.is_none();
        let (mut cursor, step) = Cursor::new(self.last, self.last.is_some() && self.epoch != epoch);
        if spread {
            cursor.spread();
        }
        (cursor, step)
    }

    /// A list that was not fetched by now never is: the refresh has to be told again. And a count that
    /// no `lastSeq` vouches for may be of a history that is replaced before the client is back.
    pub(super) fn disconnect(&mut self) {
        self.fetching = false;
        self.seen = self.last.unwrap_or(0);
        self.count = self.last.and(self.count);
    }

    pub(super) fn receive(&mut self, packet: Packet, history: &History) -> Result<(), Fault> {
        match packet {
            Packet::Change(event) if event.seq <= self.seen => {}
            Packet::Change(event) => {
                self.expect_nothing_missed(event.seq, history)?;
                event.apply(&mut self.view);
                self.see(event.seq);
            }
            Packet::Count { unread, seq } => {
                if self.knows(history) && unread != history.unread(seq) {
                    return Err("a count is not that of its seq");
                }
                if self.count.is_none_or(|(_, held)| seq >= held) {
                    self.count = Some((unread, seq));
                }
            }
            Packet::Refresh { reason, epoch } => self.refresh(reason, epoch),
            Packet::Synced { seq } => {
                self.expect_nothing_missed(seq + 1, history)?;
                self.see(self.seen.max(seq));
            }
        }
        Ok(())
    }

    pub(super) fn see(&mut self, seq: u64) {
        self.seen = seq;
        if !self.fetching && !self.unlisted {
            self.last = Some(seq);
        }
    }

    pub(super) fn refresh(&mut self, reason: Reason, epoch: u8) {
        self.fetching = true;
        if reason != Reason::Gap {
            self.epoch = epoch;
        }
        if reason == Reason::Reset {
            *self = Self {
                fetching: true,
                unlisted: true,
                epoch,
                ..Self::default()
            };
        }
    }

    /// The list is the state; what came meanwhile is part of it, since it is fetched at one moment.
    pub(super) fn refetch(&mut self, history: &History) {
        self.fetching = false;
        self.unlisted = false;
        self.view = history.present(history.head());
        self.see(self.seen.max(history.head()));
    }

    pub(super) fn knows(&self, history: &History) -> bool {
        self.epoch == history.epoch
    }

    pub(super) fn expect_nothing_missed(&self, seq: u64, history: &History) -> Result<(), Fault> {
        let excused = self.fetching || self.unlisted || !self.knows(history);
        if excused || self.misses_nothing_before(seq, history) {
            Ok(())
        } else {
            Err("a change was skipped")
        }
    }

    /// Each change between what it has seen and `seq` has a later word on its row.
    pub(super) fn misses_nothing_before(&self, seq: u64, history: &History) -> bool {
        let skipped = |event: &&Event| event.seq > self.seen && event.seq < seq;
        history
            .events
            .iter()
            .filter(skipped)
            .all(|event| !history.is_last_word(event, history.head()))
    }
}
