//! Pings every connection once an interval, and ends those that do not answer (Engine.IO protocol 4, heartbeat): one task for
//! all of them, so that an idle connection costs no timer.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
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
    ping_interval: Duration,
    ping_timeout: Duration,
    began: Instant,
    turns: Mutex<BTreeMap<u128, Vec<Turn>>>,
}

/// What is to be done for a connection, if it is still there.
#[derive(Debug)]
enum Turn {
    Ping(Weak<Connection>),
    /// The time for an answer is over; so many had come before.
    Check(Weak<Connection>, u32),
}

impl Heart {
    #[must_use]
    pub fn new(terms: &Terms) -> Self {
        Self {
            ping_interval: terms.ping_interval,
            ping_timeout: terms.ping_timeout,
            began: Instant::now(),
            turns: Mutex::default(),
        }
    }

    /// Begins with a connection that has just been opened.
    pub fn add(&self, connection: &Arc<Connection>) {
        self.put(self.ping_interval, Turn::Ping(Arc::downgrade(connection)));
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
        let mut steps = tokio::time::interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = steps.tick() => {}
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

    fn take(&self, turn: Turn) {
        match turn {
            Turn::Ping(connection) => {
                if let Some(open) = open(&connection) {
                    if open.outbox.lock().is_blocked_for(WRITE) {
                        return open.close(Closed::SlowConsumer);
                    }
                    let answers = open.pongs.load(Ordering::Relaxed);
                    open.ping();
                    let check = Turn::Check(Weak::clone(&connection), answers);
                    self.put(self.ping_timeout, check);
                    self.put(self.ping_interval, Turn::Ping(connection));
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
