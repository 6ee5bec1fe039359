//! How far one socket has been served, and what it is sent next: a state machine without I/O, time or tasks.
//!
//! Four sentences carry it. The tests in this folder search small histories for one that breaks them.
//!
//! 1. **The cursor moves by one, or by a read.** It never passes over a change that it was not shown.
//! 2. **What was known before a read is in its answer.** A change is handed in only after its commit,
//!    and a snapshot is taken only after its [`Read`] was asked for. So a read begins with nothing
//!    held, and what comes before one, while a socket joins or is stalled, need not be remembered.
//! 3. **What is owed stays owed until it was handed over.** A socket that has no room loses neither
//!    its count, nor a refresh once decided, nor the end of its synchronisation; and nothing that was
//!    handed over is sent to that socket again.
//! 4. **Only the answer to the last read counts.** Late and repeated ones are ignored.

use std::collections::BTreeMap;

use serve::Full;

pub use dialogue::{Change, Item, Missed, Outlet, Read, Reason, Step, Transient};

mod dialogue;
mod serve;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod search;
#[cfg(test)]
mod world;

/// How many changes a socket holds while an earlier one is missing. The next one is dropped, and read
/// from the store instead. Few in tests, so that a search over small histories reaches the bound.
const HELD: usize = if cfg!(test) { 2 } else { 64 };

/// How far one socket has been served.
///
/// Each method tells the cursor what has happened and returns what the driver has to do. All may be
/// called at any time; what does not fit the present phase is ignored.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub struct Cursor<E> {
    /// The last change that the socket was handed, or that a read showed to be none of its concern.
    seq: u64,
    owed: Owed,
    phase: Phase,
    /// Changes above `seq`, by their seq, at most [`HELD`].
    held: BTreeMap<u64, Change<E>>,
    /// The highest change that is known to exist though it is not held. Above `seq`, it has to be read.
    known: u64,
    /// How many reads were asked for, which is the number of the last one.
    reads: u32,
}

/// What the socket has to be told when the store has next been read, besides changes.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
struct Owed {
    refresh: Option<Reason>,
    count: bool,
    /// [`Item::Synced`], with how many changes were replayed so far.
    synced: Option<u64>,
    /// [`Reason::Connect`], but not until [`Cursor::connect_due`].
    connect_later: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum Phase {
    /// The subscription is not confirmed: a read will follow, so nothing is held.
    Joining,
    /// The answer of the store is awaited: what comes is held.
    Reading,
    /// Nothing is missing.
    Live,
    /// A change is missing: it is given 50 ms to come by itself.
    Holding,
    /// The socket has no room: a read will follow, so nothing is held.
    Stalled,
}

impl<E> Cursor<E> {
    /// A socket that has just been registered, so that every change from now on is handed in.
    ///
    /// `resume` is the client's `lastSeq` if it sent one, 0 being the beginning; `other_epoch` says
    /// that it sent an epoch which is not the present one.
    pub fn new(resume: Option<u64>, other_epoch: bool) -> (Self, Step) {
        let refresh = match resume {
            _ if other_epoch => Some(Reason::Reset),
            None => Some(Reason::Connect),
            Some(_) => None,
        };
        let mut cursor = Self {
            seq: resume.unwrap_or(0),
            owed: Owed {
                refresh,
                count: true,
                synced: Some(0),
                connect_later: false,
            },
            phase: Phase::Joining,
            held: BTreeMap::new(),
            known: 0,
            reads: 0,
        };
        let step = if cfg!(feature = "bug-read-before-subscribe") {
            cursor.read()
        } else {
            Step::Subscribe
        };
        (cursor, step)
    }

    /// A client that sent no `lastSeq` is to be told to fetch the list later, when [`connect_due`](Self::connect_due)
    /// says so, and not at once: when many come together, their lists would be fetched together.
    ///
    /// It is live without; what it is told meanwhile continues from its [`Item::Synced`]. To be called before
    /// anything else has happened.
    pub fn spread(&mut self) {
        if self.owed.refresh == Some(Reason::Connect) {
            self.owed.refresh = None;
            self.owed.connect_later = true;
        }
    }

    /// The client is to fetch the list now, if that was put off.
    pub fn connect_due(&mut self, outlet: &mut impl Outlet<E>) -> Step {
        if !std::mem::take(&mut self.owed.connect_later) {
            return Step::Nothing;
        }
        // It has no list, so a gap in it says less: that one is not told any more.
        if self.owed.refresh != Some(Reason::Reset) {
            self.owed.refresh = Some(Reason::Connect);
        }
        match self.phase {
            Phase::Live | Phase::Holding => {
                let told = self.refresh(self.seq, outlet);
                self.settle(told)
            }
            Phase::Joining | Phase::Reading | Phase::Stalled => Step::Nothing,
        }
    }

    /// The subscription is confirmed: what is published from now on will be handed in.
    ///
    /// Also when the wait for it was given up; then [`check`](Self::check) has to make up for the bus.
    pub fn subscribed(&mut self) -> Step {
        match self.phase {
            Phase::Joining => self.read(),
            Phase::Reading | Phase::Live | Phase::Holding | Phase::Stalled => Step::Nothing,
        }
    }

    /// A change came, from the bus or from this node: in any order, any number of times.
    ///
    /// It must be of the present epoch, or it is [`reached`](Self::reached); see [`epoch_changed`](Self::epoch_changed).
    pub fn change(&mut self, change: Change<E>, outlet: &mut impl Outlet<E>) -> Step {
        match self.phase {
            Phase::Joining | Phase::Stalled => Step::Nothing,
            Phase::Reading => {
                self.hold(change);
                Step::Nothing
            }
            Phase::Live | Phase::Holding => {
                let served = self.follow(change, outlet);
                self.settle(served)
            }
        }
    }

    /// The 50 ms of a [`Step::Hold`] are over: what is still missing is read.
    pub fn hold_expired(&mut self) -> Step {
        match self.phase {
            Phase::Holding => self.read(),
            Phase::Joining | Phase::Reading | Phase::Live | Phase::Stalled => Step::Nothing,
        }
    }

    /// The store answered `read`.
    pub fn caught_up(
        &mut self,
        read: Read,
        missed: &Missed<E>,
        outlet: &mut impl Outlet<E>,
    ) -> Step {
        if !self.awaits(read) {
            return Step::Nothing;
        }
        self.judge(missed);
        let served = self.serve(missed, outlet).and_then(|()| self.flush(outlet));
        self.settle(served)
    }

    /// The store did not answer `read`, and if it still does, that will be ignored.
    ///
    /// Returns the same question anew. The pause before it is asked is the driver's.
    pub fn read_failed(&mut self, read: Read) -> Step {
        if self.awaits(read) {
            self.read()
        } else {
            Step::Nothing
        }
    }

    /// The user's last change in the store is, or lately was, `head`.
    ///
    /// One call after the last fault of the bus makes up for all that the bus lost, whatever the
    /// cursor is doing at that moment.
    pub fn check(&mut self, head: u64) -> Step {
        match self.phase {
            Phase::Live if head != self.seq => self.read(),
            Phase::Reading | Phase::Holding => {
                self.known = self.known.max(head);
                Step::Nothing
            }
            Phase::Live | Phase::Joining | Phase::Stalled => Step::Nothing,
        }
    }

    /// The user's head is said to be at least `seq`, by whom does not matter: it is read, not believed.
    ///
    /// So is a change of another epoch. It may be of a history that ended, and another change may have its seq in this
    /// one.
    pub fn reached(&mut self, seq: u64) -> Step {
        if self.seq().is_some_and(|served| served >= seq) {
            return Step::Nothing;
        }
        self.check(seq)
    }

    /// The history was replaced: every seq means something else now, and the client will be told.
    ///
    /// From now on changes and snapshots must be of the new epoch.
    pub fn epoch_changed(&mut self) -> Step {
        self.owed.refresh = Some(Reason::Reset);
        match self.phase {
            Phase::Reading | Phase::Live | Phase::Holding => self.read(),
            Phase::Joining | Phase::Stalled => Step::Nothing,
        }
    }

    /// The socket has room again.
    pub fn drained(&mut self) -> Step {
        match self.phase {
            Phase::Stalled => self.read(),
            Phase::Joining | Phase::Reading | Phase::Live | Phase::Holding => Step::Nothing,
        }
    }

    /// Whether a transient emit may be passed on now.
    pub fn transient(&self) -> Transient {
        if self.phase == Phase::Stalled {
            Transient::DropStalled
        } else if self.owed.synced.is_some() {
            Transient::DropSyncing
        } else {
            Transient::Emit
        }
    }

    /// The seq up to which the socket has been served; `None` while it is owed a refresh, or has not begun.
    pub fn seq(&self) -> Option<u64> {
        let begins_anew = self.owed.connect_later && self.owed.synced.is_some();
        (self.owed.refresh.is_none() && !begins_anew).then_some(self.seq)
    }

    /// Whether the socket has everything that the cursor knows of.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Asks the store. What is held or known by now will be in the answer.
    fn read(&mut self) -> Step {
        self.held.clear();
        self.known = 0;
        self.phase = Phase::Reading;
        self.reads = self.reads.wrapping_add(1);
        Step::Read(Read {
            since: self.seq(),
            number: self.reads,
        })
    }

    fn awaits(&self, read: Read) -> bool {
        self.phase == Phase::Reading && self.reads == read.number
    }

    /// Decides whether the changes of this answer continue what the client has. Once it was decided
    /// that they do not, later answers cannot undo it.
    fn judge(&mut self, missed: &Missed<E>) {
        if self.seq > missed.head {
            self.owed.refresh = Some(Reason::Reset);
        } else if self.seq < missed.floor || missed.too_many {
            self.owed.refresh.get_or_insert(Reason::Gap);
        }
    }

    /// Hands over `change` and what was waiting for it, or has it wait.
    fn follow(&mut self, change: Change<E>, outlet: &mut impl Outlet<E>) -> Result<(), Full> {
        let is_gap = change.seq > self.seq + 1;
        if is_gap && cfg!(not(feature = "bug-no-gap-repair")) {
            self.hold(change);
            return Ok(());
        }
        if change.seq > self.seq {
            self.hand_over(&change, outlet)?;
        }
        self.flush(outlet)
    }

    fn hold(&mut self, change: Change<E>) {
        if self.held.len() < HELD || self.held.contains_key(&change.seq) {
            self.held.insert(change.seq, change);
        } else {
            self.known = self.known.max(change.seq);
        }
    }

    /// The phase and the step that follow when all was handed over that could be.
    fn settle(&mut self, served: Result<(), Full>) -> Step {
        if let Err(Full) = served {
            self.held.clear();
            self.phase = Phase::Stalled;
            return Step::Stalled;
        }
        if self.known > self.seq {
            return self.read();
        }
        if self.held.is_empty() {
            self.held.clear(); // gives the memory of the last node back
            self.phase = Phase::Live;
            return Step::Nothing;
        }
        match std::mem::replace(&mut self.phase, Phase::Holding) {
            Phase::Holding => Step::Nothing,
            Phase::Joining | Phase::Reading | Phase::Live | Phase::Stalled => Step::Hold,
        }
    }
}
