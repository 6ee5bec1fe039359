//! A socket's place in the hub: its cursor, and the way to its client.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use super::cursor::{Change, Cursor, Item, Missed, Outlet, Read, Reason, Step, Transient};
use super::receipt::{Receipt, seconds_since};
use super::socket::{Sent, Socket};
use super::token::Token;
use super::{Due, Shared};
use crate::auth::Lifetime;
use crate::event::{AUTH_EXPIRING, Event, Position};
use crate::metrics::{Closed, Dropped, Path, Resumed};
use crate::user::UserId;

/// One encoded event on its way to a socket.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Its place in the user's order; 0 for what has none.
    pub seq: u64,
    /// `None`: a change that clients do not hear of.
    pub event: Option<Arc<Event>>,
    /// When it was accepted, in milliseconds since 1970; `None` where its age says nothing about us.
    pub published_at: Option<u64>,
    pub path: Path,
}

impl Parcel {
    /// What a message brings at once, by its way from the node that accepted it.
    pub(super) fn at_once(
        seq: u64,
        event: Option<&Arc<Event>>,
        published_at: u64,
        path: Path,
    ) -> Self {
        Self {
            seq,
            event: event.cloned(),
            published_at: Some(published_at),
            path,
        }
    }
}

/// One connected socket of one user.
///
/// Everything that is sent to it passes its cursor, under one lock, so that its client hears each
/// change once and in order whoever is sending.
pub struct Seat {
    pub user: UserId,
    pub opened: Instant,
    socket: Socket,
    cursor: Mutex<Cursor<Parcel>>,
    /// The client sent `lastSeq`.
    resumes: bool,
    /// The resume was answered by a refresh.
    refreshed: AtomicBool,
    token: Mutex<Token>,
    warned: AtomicBool,
    /// What its client says that it has received.
    receipts: Mutex<Receipt>,
    /// Why this node closed it, if it did.
    closed: OnceLock<Closed>,
    /// The library, if the socket is one of its, refused to send: it has ended. How many sweeps ago that was noticed, and 1.
    lost: AtomicU8,
    gone: AtomicBool,
    /// When it, or another of its shard, is to be looked at by a sweep.
    due: Due,
    _alive: Arc<()>,
    shared: Arc<Shared>,
}

/// What a client brought along to resume from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    pub last_seq: Option<u64>,
    /// It named an epoch, and that is not the present one.
    pub other_epoch: bool,
    /// The epoch's generation by which that was judged.
    pub generation: u64,
    /// It came with many others: that it is to fetch the list, it is told later.
    pub spread: bool,
}

impl Seat {
    /// The seat, and what its cursor asks for first.
    pub(super) fn new(
        user: UserId,
        socket: Socket,
        resume: Resume,
        lifetime: Lifetime,
        due: Due,
        shared: Arc<Shared>,
    ) -> (Self, Step) {
        let (mut cursor, step) = Cursor::new(resume.last_seq, resume.other_epoch);
        if resume.spread {
            cursor.spread();
        }
        let seat = Self {
            user,
            opened: Instant::now(),
            socket,
            cursor: Mutex::new(cursor),
            resumes: resume.last_seq.is_some(),
            refreshed: AtomicBool::new(false),
            token: Mutex::new(Token::new(lifetime)),
            warned: AtomicBool::new(false),
            receipts: Mutex::new(Receipt::from(resume.last_seq.unwrap_or(u64::MAX))),
            closed: OnceLock::new(),
            lost: AtomicU8::new(0),
            gone: AtomicBool::new(false),
            due,
            _alive: Arc::clone(&shared.alive),
            shared,
        };
        (seat, step)
    }

    /// Has the sweep look at it when there is something to do: its token ends or has ended, or it is lost.
    pub(super) fn ask_for_sweep(&self, leeway: u64) {
        let expires_at = self.token.lock().expires_at();
        let at = if self.lost.load(Ordering::SeqCst) > 0 {
            0
        } else if self.warned.load(Ordering::Relaxed) {
            expires_at.saturating_add(leeway).saturating_add(1)
        } else {
            expires_at.saturating_sub(EXPIRY_WARNING_SECONDS)
        };
        self.due.fetch_min(at, Ordering::SeqCst);
    }

    /// The bus subscription is confirmed, or was waited for long enough.
    pub fn subscribed(&self) -> Step {
        self.cursor.lock().subscribed()
    }

    /// A change of this user, from this node or another, of the history that bears `epoch`. To be flushed.
    pub(super) fn change(&self, position: Position, parcel: Parcel, epoch: &str) -> Step {
        let change = Change {
            seq: position.seq,
            unread: position.unread,
            event: parcel,
        };
        let mut cursor = self.cursor.lock();
        // Asked under the lock: either this sees the new epoch, or the cursor is told of it after this.
        if self.shared.epoch.is(epoch) {
            cursor.change(change, &mut Wire(self))
        } else {
            cursor.reached(change.seq)
        }
    }

    /// The user's head is at least `seq`.
    pub(super) fn reached(&self, seq: u64) -> Step {
        self.cursor.lock().reached(seq)
    }

    /// Up to where it has been served, if it is not owed a new beginning.
    pub(super) fn served(&self) -> Option<u64> {
        self.cursor.lock().seq()
    }

    /// Whether there is something up to `head` that it was not handed.
    pub(super) fn is_behind(&self, head: u64) -> bool {
        let cursor = self.cursor.lock();
        cursor.seq().is_some_and(|served| served < head)
    }

    /// Every seq means something else now; the client is told.
    pub(super) fn epoch_changed(&self) -> Step {
        self.cursor.lock().epoch_changed()
    }

    /// Tokens issued at or before `valid_after`, in milliseconds since 1970, are revoked. Answers whether its own is.
    pub(super) fn revoke(&self, valid_after: u64) -> bool {
        self.token.lock().revoke(valid_after)
    }

    /// The same, as the store says; `None`: none are.
    #[must_use]
    pub fn prove(&self, valid_after: Option<u64>) -> bool {
        self.token.lock().prove(valid_after)
    }

    /// The store was away when its token was to be looked up.
    pub fn doubt(&self) {
        self.token.lock().doubt();
    }

    /// Whether the store has said that its token is not revoked. Before it has, nothing is sent to its client,
    /// or done for it.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.token.lock().is_proven()
    }

    /// An event that nothing remembers: it is handed over now, and to be flushed, or is dropped and counted.
    pub(super) fn transient(&self, parcel: &Parcel) {
        // The lock is held across the hand-over, so that it comes between two changes, never within one.
        let cursor = self.cursor.lock();
        let dropped = &self.shared.metrics.dropped;
        match cursor.transient() {
            Transient::DropSyncing => dropped.of(Dropped::TransientSyncing).increment(1),
            Transient::DropStalled => dropped.of(Dropped::TransientFull).increment(1),
            Transient::Emit => {
                if !Wire(self).parcel(parcel) {
                    dropped.of(Dropped::TransientFull).increment(1);
                }
            }
        }
    }

    /// What was put off by [`Resume::spread`] is due.
    pub fn connect_due(&self) -> Step {
        let step = self.cursor.lock().connect_due(&mut Wire(self));
        self.socket.ping();
        self.flush();
        step
    }

    /// Messages that this node has had for its sockets so far, for whichever: whether somebody hears something just now.
    #[must_use]
    pub fn heard_here(&self) -> u64 {
        self.shared.messages.load(Ordering::Relaxed)
    }

    /// The 50 ms for a slower publisher are over.
    pub fn hold_expired(&self) -> Step {
        self.cursor.lock().hold_expired()
    }

    /// The store's answer to [`Step::Read`].
    pub fn caught_up(&self, read: Read, missed: &Missed<Parcel>) -> Step {
        let step = self.cursor.lock().caught_up(read, missed, &mut Wire(self));
        self.flush();
        step
    }

    /// The store could not answer; the same read is due again.
    pub fn read_failed(&self, read: Read) -> Step {
        self.cursor.lock().read_failed(read)
    }

    /// Messages may have passed by: compare with the store, unless that is under way.
    pub fn recheck(&self) -> Step {
        self.cursor.lock().check(u64::MAX)
    }

    /// The socket has room again.
    pub fn drained(&self) -> Step {
        self.cursor.lock().drained()
    }

    /// Returns when the socket has written half of what stalled it.
    pub async fn room(&self) {
        let limit = self.socket.packet_limit();
        self.socket.account().drained(limit).await;
    }

    /// Warns of the token's end, and ends the socket after it.
    pub(super) fn check_expiry(&self, now: u64, leeway: u64) {
        let expires_at = self.token.lock().expires_at();
        if now > expires_at.saturating_add(leeway) {
            self.close(Closed::AuthExpired);
        } else if now.saturating_add(EXPIRY_WARNING_SECONDS) >= expires_at
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            let expires_at = i64::try_from(expires_at)
                .ok()
                .and_then(|at| chrono::DateTime::from_timestamp(at, 0));
            let expires_at = expires_at.map(crate::notification::timestamp);
            let event = Event::new(
                AUTH_EXPIRING,
                &serde_json::json!({ "expiresAt": expires_at }),
            );
            self.control(&event);
        }
    }

    /// The client brought a new token of the same user. `false`: it is known to be revoked, and is not taken.
    #[must_use]
    pub fn renew(&self, lifetime: Lifetime, proven: bool) -> bool {
        let taken = self.token.lock().renew(lifetime, proven);
        if taken {
            self.warned.store(false, Ordering::Relaxed);
            self.ask_for_sweep(0);
        }
        taken
    }

    /// The client has received everything up to `seq`. Answers what of it is news: above the one and up to
    /// the other; never more than the socket was served.
    pub fn confirm(&self, seq: u64) -> (u64, u64) {
        let Some(served) = self.cursor.lock().seq() else {
            return (0, 0);
        };
        let (above, seq, waits) = self.receipts.lock().take(seq.min(served));
        let metrics = &self.shared.metrics;
        metrics
            .confirmed
            .of(())
            .increment(seq.saturating_sub(above));
        for wait in waits {
            metrics.confirm_latency.of(()).record(wait);
        }
        (above, seq)
    }

    /// Closes the transport, as a broken connection would: the client comes back by itself.
    pub fn close(&self, reason: Closed) {
        self.closed.get_or_init(|| reason);
        self.socket.close(&self.shared.transports, reason);
    }

    /// Writes what was handed over, here and now.
    pub(super) fn flush(&self) {
        self.socket.flush();
    }

    /// Has what was handed over written by the socket's own task.
    pub(super) fn flush_soon(&self) {
        self.socket.flush_soon();
    }

    /// Sends an event about the connection itself, past the cursor. With a full queue it is lost.
    pub fn control(&self, event: &Event) {
        Wire(self).send(event);
        self.flush_soon();
    }

    /// Why this node closed it, if it did.
    #[must_use]
    pub fn close_reason(&self) -> Option<Closed> {
        self.closed.get().copied()
    }

    /// The socket has ended, or is being closed; whoever still works for it may stop.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire) || self.closed.get().is_some()
    }

    /// Ends a socket whose end the library did not report: it may end between its CONNECT and the
    /// moment from which ends are reported. A sweep's time is left for a report that is on its way.
    pub(super) fn dismiss_if_lost(&self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost == 1 {
            self.lost.store(2, Ordering::Relaxed);
        } else if lost > 1 {
            self.closed.get_or_init(|| Closed::TransportError);
            self.socket.abandon();
        }
    }

    /// Answers whether this call is the one that ended it.
    pub(super) fn end(&self) -> bool {
        let first = !self.gone.swap(true, Ordering::AcqRel);
        if first {
            self.socket.forget(&self.shared.transports);
        }
        first
    }

    #[must_use]
    pub fn transport(&self) -> crate::metrics::Transport {
        self.socket.transport()
    }

    /// What its client knows it by.
    #[must_use]
    pub fn id(&self) -> super::socket::Id {
        self.socket.id()
    }
}

/// How long before its token's end a client is asked for a new one.
const EXPIRY_WARNING_SECONDS: u64 = 60;

/// The socket as the cursor sees it.
struct Wire<'a>(&'a Seat);

impl Wire<'_> {
    /// Hands an event to the socket's queue. `false`: the queue is full.
    fn send(&self, event: &Event) -> bool {
        let seat = self.0;
        match seat.socket.send(event) {
            Sent::Taken => true,
            Sent::Full => {
                // Above what stalls a socket there is room for acks and pings only: it asked for more of
                // them than it reads.
                seat.close(Closed::SlowConsumer);
                false
            }
            // Its end may be one that the library does not report: see dismiss_if_lost.
            Sent::Lost => {
                seat.lost.fetch_max(1, Ordering::SeqCst);
                seat.due.store(0, Ordering::SeqCst);
                true
            }
        }
    }

    /// Whether one more change may be handed over: if need be, when what was is written.
    fn has_room(&self) -> bool {
        let socket = &self.0.socket;
        let has_room = || socket.account().has_room(socket.packet_limit());
        has_room() || {
            socket.flush();
            has_room()
        }
    }

    fn parcel(&self, parcel: &Parcel) -> bool {
        let seat = self.0;
        let Some(event) = &parcel.event else {
            return true;
        };
        let transport = seat.transport();
        if !self.has_room() || !self.send(event) {
            return false;
        }
        let metrics = &seat.shared.metrics;
        metrics.delivered.of(transport).increment(1);
        if let Some(published_at) = parcel.published_at {
            let latency = seconds_since(published_at);
            metrics.delivery_latency.of(parcel.path).record(latency);
            seat.receipts.lock().sent(parcel.seq, published_at);
        }
        true
    }

    /// Counts what a returning client was given, once its resume is complete.
    fn count_resume(&self, replayed: u64) {
        if self.0.resumes {
            let refreshed = self.0.refreshed.load(Ordering::Relaxed);
            let result = match (refreshed, replayed) {
                (true, _) => Resumed::Refresh,
                (false, 0) => Resumed::NothingMissed,
                (false, _) => Resumed::Replayed,
            };
            self.0.shared.metrics.reconnections.of(result).increment(1);
        }
    }
}

impl Outlet<Parcel> for Wire<'_> {
    /// A change needs room in the account. The few events that accompany changes do not: the queue
    /// has room for them far above the account's limit.
    fn emit(&mut self, item: Item<'_, Parcel>) -> bool {
        match item {
            Item::Change(parcel) => self.parcel(parcel),
            Item::Count { unread, seq } => self.send(&Event::unread_count(unread, seq)),
            Item::Refresh { reason, seq } => {
                self.0
                    .refreshed
                    .store(reason != Reason::Connect, Ordering::Relaxed);
                let epoch = self.0.shared.epoch.get();
                self.send(&Event::refresh(spelled(reason), seq, &epoch))
            }
            Item::Synced { seq, replayed } => {
                self.0.receipts.lock().starts_at(seq);
                let epoch = self.0.shared.epoch.get();
                let sent = self.send(&Event::synced(seq, &epoch, replayed));
                if sent {
                    self.count_resume(replayed);
                }
                sent
            }
        }
    }
}

/// The reasons of the contract that a cursor decides on.
fn spelled(reason: Reason) -> &'static str {
    match reason {
        Reason::Connect => "connect",
        Reason::Gap => "gap",
        Reason::Reset => "reset",
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Seat")
            .field("socket", &format_args!("{}", self.id()))
            .finish_non_exhaustive()
    }
}
