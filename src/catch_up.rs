//! What a socket missed: read from the store, in one snapshot, and handed to its cursor.

mod spread;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::auth::Lifetime;
use crate::backoff::Backoff;
use crate::epoch::Epoch;
use crate::event::Event;
use crate::gather::{Gather, Question, Unanswered};
use crate::hub::cursor::{Missed, Read, Step};
use crate::hub::{Parcel, Seat};
use crate::metrics::{Closed, Metrics, Path, Repair, SocketRead};
use crate::notification::{Change, What};
use crate::store::{self, MissedRow, RowState, Since, Standing, Store, StoreError};
use crate::tasks::Tasks;
use crate::user::UserId;
use spread::Spread;

/// How long a change waits for a slower one before it, until the store is asked instead.
const HOLD: Duration = Duration::from_millis(50);

/// How long a socket may be stalled until its transport is closed; its client comes back and resumes.
const STALLED: Duration = Duration::from_secs(10);

/// Statements for sockets that this node has in flight at once, each for many of them: the rest of its connections is
/// for publishing, however many clients come back together.
const READS: usize = 4;

/// How long a socket that connects waits for the store to say that its token is not revoked.
const ADMISSION: Duration = Duration::from_secs(1);

/// Pause before a read that failed is tried again, the first time; it doubles up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// What the store says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    Proven,
    Revoked,
    /// Nothing: it is away, or late.
    Unknown,
}

/// Does for each socket what its cursor asks for. Cloning shares the limits.
#[derive(Clone, Debug)]
pub struct CatchUp {
    metrics: Arc<Metrics>,
    tasks: Tasks,
    epoch: Epoch,
    standings: Gather<Standings>,
    missed: Gather<MissedBy>,
    spread: Arc<Spread>,
}

/// How users stand: of those who connect, and of those who fetch the list anyway.
#[derive(Clone, Debug)]
struct Standings {
    store: Store,
    metrics: Arc<Metrics>,
}

impl Question for Standings {
    type About = UserId;
    type Answer = Standing;

    async fn ask(&self, users: &[UserId]) -> Result<Vec<Standing>, StoreError> {
        self.metrics
            .socket_reads
            .of(SocketRead::Standing)
            .increment(1);
        self.store.standings(users).await
    }
}

/// What sockets missed.
#[derive(Clone, Debug)]
struct MissedBy {
    store: Store,
    metrics: Arc<Metrics>,
    limit: u32,
}

impl Question for MissedBy {
    type About = Since;
    type Answer = store::Missed;

    async fn ask(&self, asked: &[Since]) -> Result<Vec<store::Missed>, StoreError> {
        self.metrics
            .socket_reads
            .of(SocketRead::Missed)
            .increment(1);
        self.store.missed_by(asked, self.limit).await
    }
}

/// Closes the seat's transport if its task panics.
struct Followed<'s>(&'s Seat);

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(Closed::TransportError);
        }
    }
}

impl CatchUp {
    #[must_use]
    pub fn new(
        store: &Store,
        metrics: Arc<Metrics>,
        tasks: Tasks,
        epoch: Epoch,
        replay_limit: u32,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(READS));
        let standings = Standings {
            store: store.clone(),
            metrics: Arc::clone(&metrics),
        };
        let missed = MissedBy {
            store: store.clone(),
            metrics: Arc::clone(&metrics),
            limit: replay_limit,
        };
        Self {
            standings: Gather::new(
                standings,
                Arc::clone(&turns),
                tasks.clone(),
                Arc::clone(&metrics),
            ),
            missed: Gather::new(missed, turns, tasks.clone(), Arc::clone(&metrics)),
            metrics,
            tasks,
            epoch,
            spread: Arc::default(),
        }
    }

    /// Follows a cursor's steps until it is live, or its socket is gone, in a task of its own.
    ///
    /// A cursor has one step under way at a time, beside waits for gaps that have closed meanwhile; an idle socket has
    /// no task. Should the task panic, the transport is closed: its client comes back, rather than wait for a read that
    /// nobody asks for.
    pub fn follow(&self, seat: Arc<Seat>, step: Step, why: Option<Repair>) {
        if step == Step::Nothing {
            return;
        }
        let (catch_up, stopping) = (self.clone(), self.tasks.stopping());
        self.tasks.spawn(async move {
            let _followed = Followed(&seat);
            tokio::select! {
                () = catch_up.run(&seat, step, why) => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    /// Whether the user's tokens of this age are revoked: asked before a socket is let in, or stays with a new one.
    ///
    /// A store that does not answer in time lets it in: the next read decides then.
    pub async fn trust(&self, user: &UserId, lifetime: Lifetime) -> Trust {
        match tokio::time::timeout(ADMISSION, self.standings.ask(user.clone())).await {
            Ok(Ok(Standing {
                valid_after: Some(valid_after),
                ..
            })) if lifetime.is_revoked(valid_after) => Trust::Revoked,
            Ok(Ok(_)) => Trust::Proven,
            Ok(Err(Unanswered)) => Trust::Unknown,
            Err(_late) => Trust::Unknown,
        }
    }

    async fn run(&self, seat: &Seat, mut step: Step, mut why: Option<Repair>) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        while !seat.is_gone() {
            step = match step {
                Step::Nothing => return,
                // Its session does that, before anything else.
                Step::Subscribe => seat.subscribed(),
                Step::Hold => {
                    tokio::time::sleep(HOLD).await;
                    why = why.or(Some(Repair::Gap));
                    seat.hold_expired()
                }
                Step::Read(read) => match self.read(seat, read, why).await {
                    Ok(_) if seat.is_gone() => return,
                    Ok(missed) => {
                        backoff.reset();
                        seat.caught_up(read, &missed)
                    }
                    Err(Unanswered) => {
                        tokio::time::sleep(backoff.pause()).await;
                        seat.read_failed(read)
                    }
                },
                Step::Stalled => {
                    if tokio::time::timeout(STALLED, seat.room()).await.is_err() {
                        return seat.close(Closed::SlowConsumer);
                    }
                    why = Some(Repair::Stall);
                    seat.drained()
                }
            };
        }
    }

    async fn read(
        &self,
        seat: &Seat,
        read: Read,
        why: Option<Repair>,
    ) -> Result<Missed<Parcel>, Unanswered> {
        let Some(since) = read.since else {
            return self.counters(seat).await;
        };
        let asked = Since {
            user: seat.user.clone(),
            seq: since,
        };
        let mut missed = self.missed.ask(asked).await?;
        if cfg!(feature = "bug-ignore-commit-order") {
            // A later snapshot: what was committed in between is below the head, and not among the rows.
            let standing = self.standings.ask(seat.user.clone()).await?;
            missed.head = standing.counters.seq;
        }
        self.dismiss_if_revoked(seat, missed.valid_after);
        let missed = self.encode(seat, since, missed, why);
        if let Some(why) = why {
            self.metrics.repairs.of(why).increment(1);
            self.metrics
                .repaired
                .of(why)
                .increment(missed.changes.len() as u64);
        }
        Ok(missed)
    }

    /// A revocation that the bus lost: the client comes back, and is then told.
    fn dismiss_if_revoked(&self, seat: &Seat, valid_after: store::ValidAfter) {
        if seat.prove(valid_after) {
            seat.close(Closed::Kicked);
        }
    }

    /// For a client that is going to fetch the list anyway: one key look-up.
    async fn counters(&self, seat: &Seat) -> Result<Missed<Parcel>, Unanswered> {
        let Standing {
            counters,
            valid_after,
        } = self.standings.ask(seat.user.clone()).await?;
        self.dismiss_if_revoked(seat, valid_after);
        Ok(Missed {
            head: counters.seq,
            floor: 0,
            unread: counters.unread,
            changes: Vec::new(),
            too_many: false,
        })
    }

    /// One event a row, in seq order: the present state of what changed after `since`.
    fn encode(
        &self,
        seat: &Seat,
        since: u64,
        missed: store::Missed,
        why: Option<Repair>,
    ) -> Missed<Parcel> {
        let mut changes: Vec<_> = missed
            .rows
            .into_iter()
            .map(|row| self.row(seat, since, row, why))
            .collect();
        for (seq, what) in [
            (missed.read_all_seq, What::ReadAll),
            (missed.cleared_seq, What::Cleared),
        ] {
            if seq > since {
                changes.push((seq, self.parcel(seat, seq, what, None)));
            }
        }
        changes.sort_by_key(|(seq, _)| *seq);
        Missed {
            head: missed.head,
            floor: missed.floor,
            unread: missed.unread,
            changes,
            too_many: missed.more,
        }
    }

    fn row(&self, seat: &Seat, since: u64, row: MissedRow, why: Option<Repair>) -> (u64, Parcel) {
        let is_new = row.created_seq > since;
        let (what, created_at) = match row.state {
            // Also what came and went while the client was away: its list may be ahead of its cursor,
            // and an id that it does not know is no news to it.
            RowState::Deleted { id, reason } => (What::Deleted { id, reason }, None),
            RowState::Live(notification) if is_new => {
                let created_at = u64::try_from(notification.created_at.timestamp_millis()).ok();
                (What::New(*notification), created_at)
            }
            RowState::Live(notification) => (What::Updated(*notification), None),
        };
        // The age of what an absent client missed says nothing about delivery; that of a repair does.
        let published_at = why.and(created_at);
        (row.seq, self.parcel(seat, row.seq, what, published_at))
    }

    fn parcel(&self, seat: &Seat, seq: u64, what: What, published_at: Option<u64>) -> Parcel {
        let change = Change {
            user: seat.user.clone(),
            seq,
            unread: 0,
            what,
        };
        Parcel {
            seq,
            event: Some(Arc::new(Event::of(&change, &self.epoch.get()))),
            published_at,
            path: Path::Repair,
        }
    }
}
