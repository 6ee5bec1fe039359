//! The sockets of this node: who is here, and how a message for a user reaches each of their sockets.

mod account;
mod compare;
pub mod cursor;
mod drain;
pub mod line;
pub mod porch;
mod receipt;
mod seat;
mod socket;
mod token;
pub mod transport;
pub mod websocket;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use socketioxide::extract::SocketRef;
use tokio::sync::Notify;

use crate::auth::Lifetime;
use crate::epoch::Epoch;
use crate::event::{Body, Message};
use crate::metrics::{Closed, Labels, Metrics, Path, Rejected, Repair, Resumed, Transport};
use crate::telemetry::UserIds;
use crate::user::UserId;
use cursor::Step;
use transport::Transports;

pub use compare::{Behind, Compared, Head, Served};
pub use seat::{Parcel, Resume, Seat};
pub use socket::Socket;

/// Locks that the users are spread over, so that a connect and a delivery rarely meet.
const SHARDS: usize = 64;

/// How long a user whose socket ended counts as one that may come back.
const RETURN_WINDOW: Duration = Duration::from_secs(120);

/// Users remembered for that; beyond it, later ones are not counted as returning.
const DEPARTURES: usize = 100_000;

/// What a cursor asks for is done outside the hub, by whoever knows the store.
///
/// Called with the seat, what is next, and why, if the reason is not the socket's own start. Must not block.
pub type Follow = Box<dyn Fn(Arc<Seat>, Step, Option<Repair>) + Send + Sync>;

/// The sockets of some of the users.
type Shard = RwLock<HashMap<UserId, Vec<Arc<Seat>>>>;

/// When the sockets of one shard are to be looked through next, in seconds since 1970: a sweep costs nothing before.
type Due = Arc<AtomicU64>;

/// The registry of this node's sockets. Cloning shares it.
#[derive(Clone)]
pub struct Hub {
    shards: Arc<[Shard]>,
    due: Arc<[Due]>,
    hasher: RandomState,
    sockets: Arc<AtomicUsize>,
    emptied: Arc<Notify>,
    departures: Arc<Mutex<HashMap<UserId, Instant>>>,
    follow: Arc<Follow>,
    limits: Limits,
    closing: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

/// Sockets that whoever delivers writes to itself; if there are more, their own tasks do, side by side.
const AT_ONCE: usize = 8;

/// Who writes what is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Whoever delivers it, here and now: no task has to be woken.
    Now,
    /// The sockets' own tasks: whoever delivers has more to do.
    Soon,
}

impl Haste {
    /// For whoever has something for so many.
    #[must_use]
    pub fn among(recipients: usize) -> Self {
        if recipients <= AT_ONCE {
            Self::Now
        } else {
            Self::Soon
        }
    }
}

/// How many sockets a node takes; a limit of 0 is none.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub sockets: usize,
    pub per_user: usize,
}

/// What every seat needs.
pub(crate) struct Shared {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) transports: Arc<Transports>,
    pub(crate) epoch: Epoch,
    pub(crate) user_ids: UserIds,
    /// That were to be delivered here, so far.
    pub(crate) messages: AtomicU64,
    /// Each seat holds one more of it.
    pub(crate) alive: Arc<()>,
}

impl Hub {
    #[must_use]
    pub fn new(
        metrics: Arc<Metrics>,
        transports: Arc<Transports>,
        epoch: Epoch,
        user_ids: UserIds,
        limits: Limits,
        follow: Follow,
    ) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            due: (0..SHARDS).map(|_| Due::default()).collect(),
            hasher: RandomState::new(),
            sockets: Arc::default(),
            emptied: Arc::default(),
            departures: Arc::default(),
            follow: Arc::new(follow),
            limits,
            closing: Arc::default(),
            shared: Arc::new(Shared {
                metrics,
                transports,
                epoch,
                user_ids,
                messages: AtomicU64::default(),
                alive: Arc::default(),
            }),
        }
    }

    /// Registers a socket: from here on it is handed every message for its user that this node gets,
    /// and its first read, which it asks for in the step that is answered, is after that.
    ///
    /// `None`: over a limit that its handshake could not foresee. Its transport is closed, so that its client
    /// comes back, and is then told.
    pub fn enter(
        &self,
        user: &UserId,
        socket: Socket,
        resume: Resume,
        lifetime: Lifetime,
    ) -> Option<(Arc<Seat>, Step)> {
        let (seat, step) = Seat::new(
            user.clone(),
            socket,
            resume,
            lifetime,
            Arc::clone(&self.due[self.part(user)]),
            Arc::clone(&self.shared),
        );
        let seat = Arc::new(seat);
        if !self.register(&seat) {
            self.shared
                .metrics
                .connections_rejected
                .of(Rejected::Limit)
                .increment(1);
            // Of no account: it never counted as open.
            seat.close(Closed::Client);
            seat.end();
            return None;
        }
        // Now that a sweep finds it.
        seat.ask_for_sweep(0);
        self.report_entry(&seat, resume);
        let step = self.mind_epoch(&seat, resume, step);
        // After it was registered: either the closing sees it, or it sees the closing.
        if self.closing.load(Ordering::SeqCst) {
            drain::send_away(&seat);
        }
        Some((seat, step))
    }

    fn register(&self, seat: &Arc<Seat>) -> bool {
        let mut shard = self.shard(&seat.user).write();
        let seats = shard.entry(seat.user.clone()).or_default();
        let one_more = |taken| has_room(self.limits.sockets, taken).then_some(taken + 1);
        let fits = has_room(self.limits.per_user, seats.len())
            && self
                .sockets
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
                .is_ok();
        if fits {
            seats.push(Arc::clone(seat));
        } else if seats.is_empty() {
            shard.remove(&seat.user);
        }
        fits
    }

    fn report_entry(&self, seat: &Seat, resume: Resume) {
        let metrics = &self.shared.metrics;
        if resume.last_seq.is_none() && self.departures.lock().contains_key(&seat.user) {
            metrics.reconnections.of(Resumed::Fresh).increment(1);
        }
        metrics.connections_opened.of(seat.transport()).increment(1);
        tracing::info!(
            user = %self.shared.user_ids.show(&seat.user),
            socket = %seat.id(),
            transport = seat.transport().as_str(),
            "connected"
        );
    }

    /// A socket of the library, to [`enter`](Self::enter).
    #[must_use]
    pub fn library(&self, socket: &SocketRef) -> Socket {
        Socket::Library(socket.clone(), self.shared.transports.open(socket))
    }

    /// Lets a socket of the library go that was not let in.
    pub fn dismiss(&self, socket: &SocketRef) {
        self.shared.transports.dismiss(socket.clone());
    }

    /// Takes a socket out again; `reason` unless this node closed it for one of its own. Once for each.
    pub fn leave(&self, seat: &Arc<Seat>, reason: Closed) {
        let reason = seat.close_reason().unwrap_or(reason);
        if !seat.end() {
            return;
        }
        let mut shard = self.shard(&seat.user).write();
        if let Some(seats) = shard.get_mut(&seat.user) {
            seats.retain(|other| !Arc::ptr_eq(other, seat));
            if seats.is_empty() {
                shard.remove(&seat.user);
            }
        }
        drop(shard);
        if self.sockets.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.emptied.notify_waiters();
        }
        self.report_end(seat, reason);
    }

    fn report_end(&self, seat: &Seat, reason: Closed) {
        self.shared
            .metrics
            .connections_closed
            .of((seat.transport(), reason))
            .increment(1);
        if reason != Closed::Client {
            self.remember_departure(&seat.user);
        }
        tracing::info!(
            user = %self.shared.user_ids.show(&seat.user),
            socket = %seat.id(),
            transport = seat.transport().as_str(),
            reason = reason.as_str(),
            seconds = seat.opened.elapsed().as_secs(),
            "disconnected"
        );
    }

    fn remember_departure(&self, user: &UserId) {
        let mut departures = self.departures.lock();
        if departures.len() < DEPARTURES {
            departures.insert(user.clone(), Instant::now());
        }
    }

    /// Hands a message to the sockets it is for. Never waits: a socket without room is stalled, and
    /// gets its changes from the store when it has drained.
    pub fn deliver(&self, message: &Message, path: Path, haste: Haste) {
        self.shared.messages.fetch_add(1, Ordering::Relaxed);
        let Some(user) = &message.to else {
            return self.for_each(|seat| {
                self.hand(seat, message, path);
                seat.flush_soon();
            });
        };
        // Written to when the lock is free again.
        let mut now: [Option<Arc<Seat>>; AT_ONCE] = Default::default();
        if let Some(seats) = self.shard(user).read().get(user) {
            let is_soon = haste == Haste::Soon || seats.len() > AT_ONCE;
            for (index, seat) in seats.iter().enumerate() {
                self.hand(seat, message, path);
                match now.get_mut(index).filter(|_| !is_soon) {
                    Some(place) => *place = Some(Arc::clone(seat)),
                    None => seat.flush_soon(),
                }
            }
        }
        now.iter().flatten().for_each(|seat| seat.flush());
    }

    fn hand(&self, seat: &Arc<Seat>, message: &Message, path: Path) {
        match &message.body {
            Body::Change(position, event) => {
                let parcel = Parcel::at_once(position.seq, Some(event), message.published_at, path);
                self.proceed(seat, seat.change(*position, parcel, &message.epoch), None);
            }
            Body::Emit(event) => {
                seat.transient(&Parcel::at_once(0, Some(event), message.published_at, path));
            }
            Body::Revoked(position, valid_after) => {
                if seat.revoke(*valid_after) {
                    return seat.close(Closed::Kicked);
                }
                let parcel = Parcel::at_once(position.seq, None, message.published_at, path);
                self.proceed(seat, seat.change(*position, parcel, &message.epoch), None);
            }
            Body::Reached(seq) => self.proceed(seat, seat.reached(*seq), Some(Repair::Gap)),
        }
    }

    fn proceed(&self, seat: &Arc<Seat>, step: Step, why: Option<Repair>) {
        if step != Step::Nothing {
            (self.follow)(Arc::clone(seat), step, why);
        }
    }

    /// Warns clients whose tokens end soon, and closes those whose tokens have ended, `leeway` seconds
    /// after. Also forgets who has been away for too long to be a returning client.
    pub fn sweep(&self, now: u64, leeway: u64) {
        for (shard, due) in self.shards.iter().zip(self.due.iter()) {
            if due.load(Ordering::SeqCst) > now {
                continue;
            }
            // Before they are looked at: what is asked for from here on is for the next time.
            due.store(u64::MAX, Ordering::SeqCst);
            for seat in seats_of(shard) {
                seat.check_expiry(now, leeway);
                seat.dismiss_if_lost();
                seat.ask_for_sweep(leeway);
            }
        }
        self.departures
            .lock()
            .retain(|_, left| left.elapsed() < RETURN_WINDOW);
        self.shared.transports.sweep();
    }

    /// Sockets of this node.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    /// Sockets of one user on this node.
    #[must_use]
    pub fn sockets_of(&self, user: &UserId) -> u64 {
        self.shard(user)
            .read()
            .get(user)
            .map_or(0, |seats| seats.len() as u64)
    }

    /// Seats that exist: those of open sockets, and for a moment those of closed ones that somebody still
    /// works for. More than [`Hub::len`] for long is a leak.
    #[must_use]
    pub fn seats_alive(&self) -> usize {
        Arc::strong_count(&self.shared.alive) - 1
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns when there is no socket.
    pub async fn emptied(&self) {
        loop {
            let notified = self.emptied.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Whether one more socket would be taken now, whosever it is.
    #[must_use]
    pub fn has_room(&self) -> bool {
        has_room(self.limits.sockets, self.len())
    }

    /// Whether one more socket of this user would be, if the node has room.
    #[must_use]
    pub fn has_room_for(&self, user: &UserId) -> bool {
        let taken = self.shard(user).read().get(user).map_or(0, Vec::len);
        has_room(self.limits.per_user, taken)
    }

    /// Sets the gauges; to be called before they are read.
    pub fn measure(&self) {
        let mut open = [0_u32; 2];
        let mut users = 0_u32;
        for shard in self.shards.iter() {
            let shard = shard.read();
            users += u32::try_from(shard.len()).unwrap_or(u32::MAX);
            shard
                .values()
                .flatten()
                .for_each(|seat| open[seat.transport().index()] += 1);
        }
        let metrics = &self.shared.metrics;
        metrics.users_connected.of(()).set(users);
        for transport in Transport::all() {
            metrics
                .connections
                .of(transport)
                .set(open[transport.index()]);
        }
    }

    fn for_each(&self, act: impl Fn(&Arc<Seat>)) {
        for shard in self.shards.iter() {
            seats_of(shard).iter().for_each(&act);
        }
    }

    fn shard(&self, user: &UserId) -> &Shard {
        &self.shards[self.part(user)]
    }

    fn part(&self, user: &UserId) -> usize {
        let hash = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64);
        hash.unwrap_or_default()
    }
}

/// Not to be worked on under the lock: closing a transport or sending to many sockets may take its time.
fn seats_of(shard: &Shard) -> Vec<Arc<Seat>> {
    shard.read().values().flatten().cloned().collect()
}

fn has_room(limit: usize, taken: usize) -> bool {
    limit == 0 || taken < limit
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Hub")
            .field("sockets", &self.len())
            .finish_non_exhaustive()
    }
}
