//! The scenarios: what is broken, for how long, and what may be late by how much.

mod bounds;
mod clients;
mod inject;
mod keys;
mod nodes;
mod postgres;
mod redis;
mod run;
mod table;

pub use inject::parts;
pub use run::{Options, Outcome, run};
pub use table::ALL;

use crate::check::Limits;

/// One row of the fault matrix.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub id: &'static str,
    pub what: &'static str,
    pub fault: Fault,
    /// How long the fault lasts.
    pub seconds: u64,
    pub limits: Limits,
    /// The same in the short set; 0: not among it.
    pub short: u64,
    /// It can be had as root only.
    pub needs_root: bool,
}

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: what the others are compared with.
    None,
    NodesKilled,
    /// Exactly when what it committed is not answered yet, and when it is answered and not announced.
    KilledAfterCommit,
    NodeVanishes,
    NodesRoll,
    RedisDown,
    SubscribersKilled,
    RedisStopped,
    RedisPaused(&'static str),
    SubscribersSilent,
    SubscribersHalfOpen,
    PublishersSilent,
    OneNodeWithoutRedis,
    RedisRefuses,
    /// Another password than nodes have.
    RedisLocksOut,
    Failover(Failover),
    /// Slots of a Redis in cluster mode move, then one of it is killed, and comes back.
    ClusterOfRedis,
    /// One of two is killed, and comes back empty.
    OneOfTwo,
    BusFlooded,
    PostgresCrashes,
    PostgresStopped,
    PostgresSilent,
    BackendsTerminated,
    PostgresReadOnly,
    /// No new connection is taken, and the old ones are ended.
    PostgresCrowded,
    DiskFull,
    /// Those of so many users.
    RowsLocked(usize),
    /// Many users at once, in one order and in the other.
    Bulks,
    /// An asynchronous standby takes over: what it had not got is gone.
    HistoryLost,
    ClocksDiffer,
    FewDescriptors,
    SlowConsumers,
    Storm,
    /// Ten thousand clients come back within 5 s.
    Crowd,
    KeyStorm,
    Acts,
    Flaps,
    FramesCut,
    /// Polls reach another node than the one that has the session.
    Strays,
    /// Clients come back while Redis is slow, and then nothing more is published.
    LastWords,
    /// Random two of the others at a time.
    Cocktail,
}

/// How a Redis with sentinels gets another master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    Killed,
    /// By the sentinels, though nothing is wrong.
    Asked,
    /// Stopped, and back when the other one is long the master.
    Silent,
}

impl Scenario {
    #[must_use]
    pub fn find(id: &str) -> Option<&'static Self> {
        ALL.iter().find(|one| one.id.eq_ignore_ascii_case(id))
    }
}
