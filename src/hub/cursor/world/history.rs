//! The user's history, as the store keeps it.

use std::collections::BTreeMap;

use super::super::Missed;

/// One change of a row. A row is named by the seq that created it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Event {
    pub(super) seq: u64,
    pub(super) row: u64,
    pub(super) deleted: bool,
}

/// What a commit does: to a new row, or to the newest one that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Commit {
    Create,
    Edit,
    Delete,
}

/// All commits of one user, and which history this is.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct History {
    pub(super) events: Vec<Event>,
    pub(super) epoch: u8,
}

impl History {
    pub(super) fn head(&self) -> u64 {
        self.events.len() as u64
    }

    pub(super) fn event(&self, seq: u64) -> Event {
        self.events[index(seq)]
    }

    pub(super) fn newest(&self) -> Option<u64> {
        self.present(self.head())
            .last_key_value()
            .map(|(row, _)| *row)
    }

    pub(super) fn commit(&mut self, commit: Commit) {
        let seq = self.head() + 1;
        let row = if commit == Commit::Create {
            seq
        } else {
            self.newest().unwrap_or(seq)
        };
        self.events.push(Event {
            seq,
            row,
            deleted: commit == Commit::Delete,
        });
    }

    pub(super) fn lose_last(&mut self) {
        self.events.pop();
        self.epoch += 1;
    }

    /// The rows that exist at `head`, each with the seq of its last change.
    pub(super) fn present(&self, head: u64) -> BTreeMap<u64, u64> {
        let mut rows = BTreeMap::new();
        self.events
            .iter()
            .take_while(|event| event.seq <= head)
            .for_each(|event| event.apply(&mut rows));
        rows
    }

    pub(super) fn unread(&self, head: u64) -> u64 {
        self.present(head).len() as u64
    }

    /// No later change up to `head` speaks of the same row.
    pub(super) fn is_last_word(&self, event: &Event, head: u64) -> bool {
        !self
            .events
            .iter()
            .any(|other| other.row == event.row && other.seq > event.seq && other.seq <= head)
    }

    /// What the store answers, from a snapshot that shows `head`. Deletions are told even of rows that
    /// were created above `since`: the client may have them from a list.
    pub(super) fn missed(&self, since: Option<u64>, head: u64, replay: usize) -> Missed<Event> {
        let since = since.unwrap_or(head);
        let changes: Vec<_> = self
            .events
            .iter()
            .filter(|event| event.seq > since && event.seq <= head)
            .filter(|event| self.is_last_word(event, head))
            .map(|event| (event.seq, *event))
            .collect();
        let too_many = changes.len() > replay;
        let changes = if too_many { Vec::new() } else { changes };
        Missed {
            head,
            floor: 0,
            unread: self.unread(head),
            changes,
            too_many,
        }
    }
}

impl Event {
    pub(super) fn apply(&self, rows: &mut BTreeMap<u64, u64>) {
        if self.deleted {
            rows.remove(&self.row);
        } else {
            rows.insert(self.row, self.seq);
        }
    }
}

pub(super) fn index(seq: u64) -> usize {
    usize::try_from(seq - 1).unwrap()
}
