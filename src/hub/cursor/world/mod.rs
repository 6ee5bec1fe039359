//! A small world around one cursor: history, store, bus, socket and client. The search and the
//! properties move it; it says what breaks.

use client::Client;
pub(super) use history::Commit;
use history::{Event, History, index};
use socket::Socket;

use super::{Change, Cursor, Phase, Read, Step};

mod client;
mod history;
mod socket;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Commit(Commit),
    /// The publisher rings the doorbell of this seq, some time after its commit.
    Publish(u64),
    Deliver(u64),
    Duplicate(u64),
    Lose(u64),
    /// The bus has subscribed; before that it passes nothing on.
    Subscribe,
    /// The cursor hears that the subscription is confirmed.
    Confirm,
    /// The cursor is told to go on without the subscription.
    GiveUp,
    HoldExpires,
    Snapshot,
    Answer,
    ReadFails,
    /// The answer to a read that was taken for failed.
    LateAnswer,
    /// The client takes one packet from the socket.
    Receive,
    Drain,
    /// The feed tells the cursor the head.
    Check,
    /// The client has fetched the list that it was told to.
    Refetch,
    /// The refresh of a client that came with many others is due.
    ConnectDue,
    Reconnect,
    /// The history loses its last commit, and the epoch changes.
    Failover,
    /// The doorbell of this seq comes, of the history that ended.
    DeliverStale(u64),
}

/// What a world still has in store, and how narrow it is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Limits {
    pub(super) commits: usize,
    /// Whether commits also edit and delete rows.
    pub(super) edits: bool,
    /// Whether new clients are told to fetch the list later than at once.
    pub(super) spread: bool,
    /// How many packets the socket has room for.
    pub(super) capacity: usize,
    /// How many changes are replayed at most.
    pub(super) replay: usize,
    pub(super) duplicates: usize,
    pub(super) losses: usize,
    pub(super) give_ups: usize,
    pub(super) failures: usize,
    pub(super) reconnects: usize,
    pub(super) failovers: usize,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct World {
    left: Limits,
    history: History,
    /// What the bus still does with each commit.
    bells: Vec<Bell>,
    /// Doorbells of the history that ended: they may still come.
    stale: Vec<u64>,
    /// The bus passes on what is published from now on.
    subscribed: bool,
    /// The cursor was told so, or that nobody waits for it.
    confirmed: bool,
    /// Something was lost that only the feed makes up for.
    lost: bool,
    timer: bool,
    /// The read under way, and the head that its snapshot shows.
    reading: Option<(Read, Option<u64>)>,
    late: Option<(Read, u64)>,
    cursor: Cursor<Event>,
    socket: Socket,
    client: Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bell {
    Unpublished,
    InFlight,
    InFlightTwice,
    Gone,
}

/// What broke.
pub(super) type Fault = &'static str;

impl World {
    pub(super) fn new(limits: Limits) -> Self {
        let mut client = Client::default();
        let (cursor, step) = client.connect(0, limits.spread);
        let mut world = Self {
            left: limits,
            history: History::default(),
            bells: Vec::new(),
            stale: Vec::new(),
            subscribed: false,
            confirmed: false,
            lost: false,
            timer: false,
            reading: None,
            late: None,
            cursor,
            socket: Socket::new(limits.capacity),
            client,
        };
        world.take(step);
        world
    }

    /// Everything that may happen next.
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = self.settling_moves();
        let mut may = |allowed: bool, move_: Move| moves.extend(allowed.then_some(move_));

        let commits = self.left.commits > 0;
        let edits = commits && self.left.edits && self.history.newest().is_some();
        may(commits, Move::Commit(Commit::Create));
        may(edits, Move::Commit(Commit::Edit));
        may(edits, Move::Commit(Commit::Delete));
        for (bell, seq) in self.bells.iter().zip(1..) {
            let in_flight = *bell == Bell::InFlight;
            may(in_flight && self.left.duplicates > 0, Move::Duplicate(seq));
            may(in_flight && self.left.losses > 0, Move::Lose(seq));
        }
        for seq in &self.stale {
            may(true, Move::DeliverStale(*seq));
        }
        may(self.lost, Move::Check);
        may(!self.confirmed && self.left.give_ups > 0, Move::GiveUp);
        may(
            self.reading.is_some() && self.left.failures > 0,
            Move::ReadFails,
        );
        may(self.left.reconnects > 0, Move::Reconnect);
        may(
            self.left.failovers > 0 && self.history.head() > 0,
            Move::Failover,
        );
        moves
    }

    /// What happens by itself, without a fault and without news.
    pub(super) fn settling_moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        let mut may = |allowed: bool, move_: Move| moves.extend(allowed.then_some(move_));

        for (bell, seq) in self.bells.iter().zip(1..) {
            may(*bell == Bell::Unpublished, Move::Publish(seq));
            may(
                matches!(bell, Bell::InFlight | Bell::InFlightTwice),
                Move::Deliver(seq),
            );
        }
        may(!self.subscribed, Move::Subscribe);
        may(self.subscribed && !self.confirmed, Move::Confirm);
        may(self.timer, Move::HoldExpires);
        may(matches!(self.reading, Some((_, None))), Move::Snapshot);
        may(matches!(self.reading, Some((_, Some(_)))), Move::Answer);
        may(self.late.is_some(), Move::LateAnswer);
        may(!self.socket.queue.is_empty(), Move::Receive);
        may(
            self.stalled() && self.socket.queue.len() * 2 <= self.socket.capacity,
            Move::Drain,
        );
        may(self.client.fetching, Move::Refetch);
        may(self.cursor.owed.connect_later, Move::ConnectDue);
        moves
    }

    /// Lets `move_` happen.
    pub(super) fn apply(&mut self, move_: Move) -> Result<(), Fault> {
        match move_ {
            Move::Commit(commit) => self.commit(commit),
            Move::Publish(seq) => self.publish(seq),
            Move::Deliver(seq) => self.deliver(seq),
            Move::Duplicate(seq) => {
                self.left.duplicates -= 1;
                *self.bell(seq) = Bell::InFlightTwice;
            }
            Move::Lose(seq) => {
                self.left.losses -= 1;
                self.lost = true;
                *self.bell(seq) = Bell::Gone;
            }
            Move::Subscribe => self.subscribed = true,
            Move::Confirm => self.confirm(),
            Move::GiveUp => {
                self.left.give_ups -= 1;
                self.confirm();
            }
            Move::HoldExpires => {
                self.timer = false;
                let step = self.cursor.hold_expired();
                self.take(step);
            }
            Move::Snapshot => {
                let head = self.history.head();
                self.reading = self.reading.map(|(read, _)| (read, Some(head)));
            }
            Move::Answer => self.answer(),
            Move::ReadFails => self.read_fails(),
            Move::LateAnswer => self.late_answer(),
            Move::Receive => self.receive()?,
            Move::Drain => {
                let step = self.cursor.drained();
                self.take(step);
            }
            Move::Check => self.check(),
            Move::Refetch => self.client.refetch(&self.history),
            Move::ConnectDue => {
                let step = self.cursor.connect_due(&mut self.socket);
                self.take(step);
            }
            Move::Reconnect => self.reconnect(),
            Move::Failover => self.failover(),
            Move::DeliverStale(seq) => {
                self.stale.retain(|other| *other != seq);
                let step = self.cursor.reached(seq);
                self.take(step);
            }
        }
        self.renumber();
        self.socket.fault.map_or(Ok(()), Err)?;
        if self.is_quiescent() {
            self.complete()
        } else {
            Ok(())
        }
    }

    /// Tells the cursor the head, as the feed does every few seconds.
    pub(super) fn check(&mut self) {
        self.lost = false;
        let step = self.cursor.check(self.history.head());
        self.take(step);
    }

    /// Nothing happens by itself any more, and nothing was lost that waits for the feed.
    pub(super) fn is_quiescent(&self) -> bool {
        !self.lost && self.settling_moves().is_empty()
    }

    /// Whether the client has everything.
    pub(super) fn complete(&self) -> Result<(), Fault> {
        let head = self.history.head();
        let client = &self.client;
        let holds = |holds: bool, fault: Fault| if holds { Ok(()) } else { Err(fault) };

        holds(
            self.cursor.is_live() && self.cursor.seq() == Some(head),
            "the cursor is not at the head",
        )?;
        holds(self.socket.synced, "the synchronisation has no end")?;
        holds(
            client.epoch == self.history.epoch,
            "the client was not told of the epoch",
        )?;
        holds(
            client.view == self.history.present(head),
            "the client's view is not the state",
        )?;
        holds(
            client.count == Some((self.history.unread(head), head)),
            "the client's count is not the last one",
        )?;
        holds(
            client.last.is_some(),
            "the client has nothing to resume from",
        )?;
        holds(
            client.misses_nothing_before(head + 1, &self.history),
            "the client would be sent something again",
        )
    }

    fn stalled(&self) -> bool {
        self.cursor.phase == Phase::Stalled
    }

    fn bell(&mut self, seq: u64) -> &mut Bell {
        &mut self.bells[index(seq)]
    }

    fn commit(&mut self, commit: Commit) {
        self.left.commits -= 1;
        self.history.commit(commit);
        self.bells.push(Bell::Unpublished);
    }

    /// Unheard if the bus has not subscribed: that is excused only if the cursor was told not to wait.
    fn publish(&mut self, seq: u64) {
        self.lost |= self.confirmed && !self.subscribed;
        *self.bell(seq) = if self.subscribed {
            Bell::InFlight
        } else {
            Bell::Gone
        };
    }

    fn deliver(&mut self, seq: u64) {
        let bell = self.bell(seq);
        *bell = if *bell == Bell::InFlightTwice {
            Bell::InFlight
        } else {
            Bell::Gone
        };
        let change = Change {
            seq,
            unread: self.history.unread(seq),
            event: self.history.event(seq),
        };
        let step = self.cursor.change(change, &mut self.socket);
        self.take(step);
    }

    fn confirm(&mut self) {
        self.confirmed = true;
        let step = self.cursor.subscribed();
        self.take(step);
    }

    fn answer(&mut self) {
        let Some((read, Some(head))) = self.reading.take() else {
            return;
        };
        let missed = self.history.missed(read.since, head, self.left.replay);
        let step = self.cursor.caught_up(read, &missed, &mut self.socket);
        self.take(step);
    }

    /// The driver takes the read for failed. Its answer, if a snapshot was taken, comes nevertheless.
    fn read_fails(&mut self) {
        self.left.failures -= 1;
        let Some((read, snapshot)) = self.reading.take() else {
            return;
        };
        self.late = snapshot.map(|head| (read, head)).or(self.late);
        let step = self.cursor.read_failed(read);
        self.take(step);
    }

    fn late_answer(&mut self) {
        let Some((read, head)) = self.late.take() else {
            return;
        };
        let missed = self.history.missed(read.since, head, self.left.replay);
        let step = self.cursor.caught_up(read, &missed, &mut self.socket);
        self.take(step);
    }

    fn receive(&mut self) -> Result<(), Fault> {
        let Some(packet) = self.socket.queue.pop_front() else {
            return Ok(());
        };
        self.client.receive(packet, &self.history)
    }

    fn reconnect(&mut self) {
        self.left.reconnects -= 1;
        self.client.disconnect();
        let (cursor, step) = self.client.connect(self.history.epoch, self.left.spread);
        self.cursor = cursor;
        self.socket = Socket {
            epoch: self.history.epoch,
            ..Socket::new(self.socket.capacity)
        };
        for bell in self
            .bells
            .iter_mut()
            .filter(|bell| **bell != Bell::Unpublished)
        {
            *bell = Bell::Gone;
        }
        (self.subscribed, self.confirmed, self.lost, self.timer) = (false, false, false, false);
        (self.reading, self.late) = (None, None);
        self.take(step);
    }

    fn failover(&mut self) {
        self.left.failovers -= 1;
        self.history.lose_last();
        let bells = self.bells.iter().zip(1..);
        let rings = bells.filter(|(bell, _)| **bell != Bell::Gone);
        self.stale = rings.map(|(_, seq)| seq).collect();
        self.bells = vec![Bell::Gone; self.history.events.len()];
        self.socket.epoch = self.history.epoch;
        self.lost = false;
        let step = self.cursor.epoch_changed();
        self.take(step);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Nothing | Step::Subscribe => {}
            Step::Hold => self.timer = true,
            Step::Read(read) => {
                let overtaken = self.reading.replace((read, None));
                self.late = overtaken
                    .and_then(|(read, head)| Some((read, head?)))
                    .or(self.late);
            }
            Step::Stalled => self.socket.stall(),
        }
    }

    /// Gives reads that differ in nothing but their number the same one, so that worlds which behave
    /// alike are alike.
    fn renumber(&mut self) {
        self.cursor.reads = 1;
        self.reading
            .iter_mut()
            .for_each(|(read, _)| read.number = 1);
        self.late.iter_mut().for_each(|(read, _)| read.number = 0);
    }
}
