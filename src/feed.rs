//! The feed: compares every socket of this node with the store, all the time, so that nothing that a bus lost stays lost.
//!
//! It needs no index of its own and no order of commits: each user's head is one key look-up, and only this node's
//! own users are asked for, a thousand at once. What it finds, a read brings ([`crate::catch_up`]).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::bus::Bus;
use crate::history::History;
use crate::hub::{Compared, Head, Hub, Served};
use crate::metrics::{Metrics, Repair, SocketRead};
use crate::store::{Known, Standing, Store, StoreError};
use crate::tasks::Tasks;
use crate::tick;
use crate::user::UserId;

/// In what time every user is compared once.
const PERIOD: Duration = Duration::from_secs(5);

/// The same, while it is the feed that brings what happens on other nodes.
const SHORT_PERIOD: Duration = Duration::from_secs(1);

/// Short walks in the time of a long one.
const SHORT_WALKS: u32 = 5;

/// Users whose heads one statement asks for; up to twice as many.
const AT_ONCE: usize = 1_000;

/// Of the time of the store's connections, the feed takes so much at most: its period stretches.
const SHARE: f64 = 0.05;

/// A change that the store has and a socket has not may be on its way; it is given this long, as a gap is.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// For how long single users are gathered.
const GATHERING: Duration = Duration::from_millis(25);

/// Pause after the store did not answer, the first time; it doubles up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// The shortest pause.
const LEAST: Duration = Duration::from_millis(5);

/// The feed of one node. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    hub: Hub,
    bus: Bus,
    history: History,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    wanted: Mutex<Wanted>,
    called: Notify,
    /// When every user had been compared, last.
    ended: Mutex<Instant>,
}

/// Who is to be compared at once.
#[derive(Debug, Default)]
struct Wanted {
    /// Everybody, and why.
    all: Option<Repair>,
    users: HashSet<UserId>,
}

/// A walk over all users: the next part of the hub.
#[derive(Debug, Default)]
struct Walk(usize);

/// What the task of the feed knows from one turn to the next.
struct State {
    walk: Walk,
    /// How many walks have ended.
    walks: u32,
    due: Instant,
    /// Nobody is compared earlier: the store did not answer.
    not_before: Instant,
    backoff: Backoff,
    is_degraded: bool,
}

impl Feed {
    #[must_use]
    pub fn new(
        store: Store,
        hub: Hub,
        bus: Bus,
        history: History,
        metrics: Arc<Metrics>,
        tasks: Tasks,
    ) -> Self {
        metrics.feed_period.of(()).set(PERIOD.as_secs_f64());
        Self(Arc::new(Shared {
            store,
            hub,
            bus,
            history,
            metrics,
            tasks,
            wanted: Mutex::default(),
            called: Notify::new(),
            ended: Mutex::new(Instant::now()),
        }))
    }

    /// Everybody is compared at once, because messages may have passed this node by.
    pub fn compare_all(&self) {
        self.0.wanted.lock().all = Some(Repair::Bus);
        self.0.called.notify_one();
    }

    /// A user is compared at once, with others who are.
    pub fn compare(&self, user: &UserId) {
        self.0.wanted.lock().users.insert(user.clone());
        self.0.called.notify_one();
    }

    /// Sets the gauge of its lag; to be called each second.
    pub fn measure(&self) {
        let lag = self.0.ended.lock().elapsed();
        self.0.metrics.feed_lag.of(()).set(lag.as_secs_f64());
    }

    /// Compares, for the life of the node.
    pub async fn run(self, stop: CancellationToken) {
        if cfg!(feature = "bug-no-feed") {
            return stop.cancelled().await;
        }
        tokio::select! {
            () = self.work() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn work(&self) {
        let mut healthy = self.0.bus.healthy();
        let mut state = State {
            walk: Walk::default(),
            walks: 0,
            due: Instant::now() + SHORT_PERIOD,
            not_before: Instant::now(),
            backoff: Backoff::new(RETRY.0, RETRY.1),
            is_degraded: false,
        };
        loop {
            self.mind_health(&mut state, *healthy.borrow_and_update());
            tokio::select! {
                Ok(()) = healthy.changed() => {}
                () = self.called(state.not_before) => self.compare_wanted(&mut state).await,
                () = tokio::time::sleep_until(state.due) => self.compare_next(&mut state).await,
            }
        }
    }

    /// Degraded at once; healthy only when everybody has been compared after the bus was.
    fn mind_health(&self, state: &mut State, is_healthy: bool) {
        match (is_healthy, state.is_degraded) {
            (true, true) => self.want_all(Repair::Bus),
            (false, false) => {
                state.is_degraded = true;
                state.due = state.due.min(Instant::now() + SHORT_PERIOD);
                self.0.metrics.degraded.of(()).set(1.0);
                self.want_all(Repair::Feed);
            }
            (true, false) | (false, true) => {}
        }
    }

    fn end_of_degradation(&self, state: &mut State) {
        if std::mem::take(&mut state.is_degraded) {
            self.0.metrics.degraded.of(()).set(0.0);
            tracing::info!(
                "healthy: the bus is joined, and every socket was compared with the store"
            );
        }
    }

    /// Returns when somebody is to be compared at once, and may be.
    async fn called(&self, not_before: Instant) {
        loop {
            if self.0.wanted.lock().is_some() {
                return tokio::time::sleep_until(not_before).await;
            }
            self.0.called.notified().await;
        }
    }

    async fn compare_wanted(&self, state: &mut State) {
        if self.0.wanted.lock().all.is_none() {
            tokio::time::sleep(GATHERING).await;
        }
        // Before: what is joined later has its own word.
        let is_healthy = self.0.bus.is_healthy();
        let wanted = std::mem::take(&mut *self.0.wanted.lock());
        let compared = match wanted.all {
            Some(why) => self.compare_everybody(why).await,
            None => self.compare_users(wanted.users).await,
        };
        match compared {
            Ok(()) => {
                state.backoff.reset();
                if is_healthy && wanted.all.is_some() {
                    self.end_of_degradation(state);
                }
            }
            Err(error) => self.put_off(state, &error),
        }
    }

    async fn compare_everybody(&self, why: Repair) -> Result<(), StoreError> {
        let mut walk = Walk::default();
        loop {
            let (served, ended) = walk.next(&self.0.hub);
            self.compare_served(&served, why).await?;
            if ended {
                *self.0.ended.lock() = Instant::now();
                return Ok(());
            }
        }
    }

    async fn compare_users(&self, users: HashSet<UserId>) -> Result<(), StoreError> {
        let served = self.0.hub.served(users);
        self.compare_served(&served, Repair::Feed).await
    }

    async fn compare_served(&self, served: &[Served], why: Repair) -> Result<(), StoreError> {
        // A few more, rather than a statement for a few.
        let chunks = (served.len() / AT_ONCE).max(1);
        for chunk in served.chunks(served.len().div_ceil(chunks).max(1)) {
            self.compare_chunk(chunk, why).await?;
        }
        Ok(())
    }

    /// The next chunk of the walk that never ends.
    async fn compare_next(&self, state: &mut State) {
        let (mut served, ended) = state.walk.next(&self.0.hub);
        // While the bus is degraded, a walk is short. Whom it still reaches is compared as often as always.
        let is_whole = !state.is_degraded || state.walks.is_multiple_of(SHORT_WALKS);
        if !is_whole {
            served.retain(|served| !self.0.bus.reaches(&served.user));
        }
        let start = Instant::now();
        match self.compare_served(&served, Repair::Feed).await {
            Ok(()) => {
                state.backoff.reset();
                if ended {
                    state.walks = state.walks.wrapping_add(1);
                }
                if ended && is_whole {
                    *self.0.ended.lock() = Instant::now();
                }
                let all = self.0.hub.users();
                let pause = self.pause(state.is_degraded, served.len(), all, start.elapsed());
                state.due = tick::after(pause);
            }
            Err(error) => self.put_off(state, &error),
        }
    }

    /// Until the next chunk, after one that took so long: its part of the period.
    fn pause(&self, is_degraded: bool, users: usize, all: usize, took: Duration) -> Duration {
        let shared = &self.0;
        let is_alone = !shared.bus.leaves_the_process() && shared.store.may_be_shared();
        let period = if is_degraded || is_alone {
            SHORT_PERIOD
        } else {
            PERIOD
        };
        if users == 0 && all > 0 {
            return LEAST;
        }
        let (pause, period) = paced(period, users, all, took, shared.store.width());
        shared.metrics.feed_period.of(()).set(period.as_secs_f64());
        pause.max(LEAST)
    }

    /// Everybody is compared when the store answers again: what it took meanwhile may have passed this node by.
    fn put_off(&self, state: &mut State, error: &StoreError) {
        let shared = &self.0;
        shared.metrics.store_errors.of(error.into()).increment(1);
        tracing::debug!(
            error = error as &dyn std::error::Error,
            "the feed cannot read"
        );
        state.not_before = Instant::now() + state.backoff.pause();
        state.due = state.due.max(state.not_before);
        self.want_all(Repair::Feed);
    }

    fn want_all(&self, why: Repair) {
        self.0.wanted.lock().all.get_or_insert(why);
        self.0.called.notify_one();
    }

    async fn compare_chunk(&self, served: &[Served], why: Repair) -> Result<(), StoreError> {
        let shared = &self.0;
        shared
            .metrics
            .socket_reads
            .of(SocketRead::Feed)
            .increment(1);
        let known: Vec<_> = served.iter().map(known).collect();
        let standings = shared.store.contradicted(&known).await?;
        let mut compared = Compared::default();
        for (served, standing) in served.iter().zip(standings) {
            if let Some(standing) = standing {
                shared.hub.compare(served, head(standing), &mut compared);
            }
        }
        let Compared { ahead, behind } = compared;
        // If the epoch says so as well, all are told at once, and these with them.
        if !ahead.is_empty() && shared.history.check().await == Some(false) {
            shared.hub.recheck(&ahead, why);
        }
        if !behind.is_empty() {
            let hub = shared.hub.clone();
            shared.tasks.spawn(async move {
                tokio::time::sleep(ON_ITS_WAY).await;
                behind.iter().for_each(|behind| hub.catch_up(behind, why));
            });
        }
        Ok(())
    }
}

/// The pause after `users` of `all` that took so long, and the period that this comes to.
fn paced(
    period: Duration,
    users: usize,
    all: usize,
    took: Duration,
    width: u32,
) -> (Duration, Duration) {
    #[expect(clippy::cast_precision_loss, reason = "far fewer users than that")]
    let part = if users == 0 {
        1.0
    } else {
        users as f64 / all.max(users) as f64
    };
    // took / ((took + pause) * width) is the feed's share.
    let rest = took.mul_f64((1.0 / (SHARE * f64::from(width)) - 1.0).max(0.0));
    let pause = period.mul_f64(part).saturating_sub(took).max(rest);
    (pause, (pause + took).div_f64(part))
}

fn known(served: &Served) -> Known<'_> {
    Known {
        user: &served.user,
        head: served.settled(),
    }
}

fn head(standing: Standing) -> Head {
    Head {
        seq: standing.counters.seq,
        valid_after: standing.valid_after,
    }
}

impl Wanted {
    fn is_some(&self) -> bool {
        self.all.is_some() || !self.users.is_empty()
    }
}

impl Walk {
    /// The users of the next parts, [`AT_ONCE`] or some more, and whether they are the last; then it begins anew.
    fn next(&mut self, hub: &Hub) -> (Vec<Served>, bool) {
        let mut served = Vec::new();
        while served.len() < AT_ONCE && self.0 < Hub::PARTS {
            served.extend(hub.served_in(self.0));
            self.0 += 1;
        }
        let ended = self.0 == Hub::PARTS;
        if ended {
            self.0 = 0;
        }
        (served, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_takes_its_period_and_stretches_rather_than_load_the_store() {
        let seconds = |(pause, period): (Duration, Duration)| {
            (
                pause.as_secs_f64(),
                (period.as_secs_f64() * 10.0).round() / 10.0,
            )
        };
        let quick = Duration::from_millis(3);
        // Few users: one chunk, one period.
        assert_eq!(seconds(paced(PERIOD, 10, 10, quick, 10)), (4.997, 5.0));
        assert_eq!(paced(PERIOD, 0, 0, Duration::ZERO, 10), (PERIOD, PERIOD));
        // A hundred thousand: a hundred chunks in one period.
        assert_eq!(
            seconds(paced(PERIOD, 1_000, 100_000, quick, 10)),
            (0.047, 5.0)
        );
        // Ten million: ten thousand chunks of 3 ms are more than 5 % of ten connections in 5 s.
        assert_eq!(
            seconds(paced(PERIOD, 1_000, 10_000_000, quick, 10)),
            (0.003, 60.0)
        );
        // A slow store.
        let slow = Duration::from_secs(1);
        assert_eq!(seconds(paced(SHORT_PERIOD, 10, 10, slow, 1)), (19.0, 20.0));
    }
}
