//! Pings every connection once an interval, and ends those that do not answer (Engine.IO protocol 4, heartbeat): one task for
//! all of them, so that an idle connection costs no timer.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Connection, Terms};
use crate::metrics::Closed;

/// How exactly times are kept.
const STEP: Duration = Duration::from_millis(100);

/// How long a client may leave no room for a single byte, whatever it sends meanwhile.
const WRITE: Duration = Duration::from_secs(30);

/// Pings in a row, after which others may run.
const ROW: usize = 32;

/// Those that beat, by the step in which it is their turn.
#[derive(Debug)]
pub struct Heart {
    terms: Terms,
    began: Instant,
    turns: Mutex<BTreeMap<u128, Vec<Turn>>>,
}

/// What is to be done for a connection, if it is still there.
#[derive(Debug)]
enum Turn {
    /// So many it had been sent before; if it is more by now, somebody has sent this one earlier.
    Ping(Weak<Connection>, u32),
    /// The time for an answer is over; so many had come before.
    Check(Weak<Connection>, u32),
}

impl Heart {
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            began: Instant::now(),
            turns: Mutex::default(),
        }
    }

    /// What is told of the pings, and of what else clients are held to.
    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Pings a connection that was pinged so often before when an interval is over.
    pub(super) fn next(&self, connection: &Arc<Connection>, pings: u32) {
        let turn = Turn::Ping(Arc::downgrade(connection), pings);
        self.put(self.terms.ping_interval, turn);
    }

    /// Ends a connection that was just pinged if by then no more than so many answers have come.
    pub(super) fn check(&self, connection: &Arc<Connection>, answers: u32) {
        let turn = Turn::Check(Arc::downgrade(connection), answers);
        self.put(self.terms.ping_timeout, turn);
    }

    fn put(&self, after: Duration, turn: Turn) {
        // The step after: never early.
        let step = (self.began.elapsed() + after).as_millis() / STEP.as_millis() + 1;
        self.turns.lock().entry(step).or_default().push(turn);
    }

    /// Those whose time has come.
    fn due(&self) -> impl Iterator<Item = Turn> + use<> {
        let now = self.began.elapsed().as_millis() / STEP.as_millis();
        let mut turns = self.turns.lock();
        let later = turns.split_off(&(now + 1));
        std::mem::replace(&mut *turns, later)
            .into_values()
            .flatten()
    }

    /// Beats until `stop` fires.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.next_step()) => {}
                () = stop.cancelled() => return,
            }
            for (index, turn) in self.due().enumerate() {
                self.take(turn);
                if index % ROW == ROW - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// When it is somebody's turn; whoever comes meanwhile has theirs later.
    fn next_step(&self) -> Instant {
        let soonest = self.terms.ping_interval.min(self.terms.ping_timeout);
        let latest = Instant::now() + soonest;
        let turns = self.turns.lock();
        let first = turns
            .keys()
            .next()
            .and_then(|step| u32::try_from(*step).ok());
        first.map_or(latest, |step| latest.min(self.began + STEP * step))
    }

    fn take(&self, turn: Turn) {
        match turn {
            Turn::Ping(connection, pings) => {
                if let Some(open) = open(&connection)
                    && open.pings.load(Ordering::Relaxed) == pings
                {
                    if open.outbox.lock().is_blocked_for(WRITE) {
                        return open.close(Closed::SlowConsumer);
                    }
                    open.ping();
                    open.flush();
                }
            }
            Turn::Check(connection, answers) => {
                if let Some(open) = open(&connection)
                    && open.pongs.load(Ordering::Relaxed) == answers
                {
                    open.close(Closed::PingTimeout);
                }
            }
        }
    }
}

fn open(connection: &Weak<Connection>) -> Option<Arc<Connection>> {
    connection
        .upgrade()
        .filter(|connection| !connection.has_ended())
}
