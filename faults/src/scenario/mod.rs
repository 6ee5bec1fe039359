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
    /// Among those of the short set.
    pub short: bool,
}

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: what the others are compared with.
    None,
    NodesKilled,
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
    BusFlooded,
    PostgresCrashes,
    PostgresStopped,
    PostgresSilent,
    BackendsTerminated,
    PostgresReadOnly,
    RowLocked,
    SlowConsumers,
    Storm,
    KeyStorm,
    Acts,
    Flaps,
    FramesCut,
    /// Clients come back while Redis is slow, and then nothing more is published.
    LastWords,
    /// Random two of the others at a time.
    Cocktail,
}

impl Scenario {
    #[must_use]
    pub fn find(id: &str) -> Option<&'static Self> {
        ALL.iter().find(|one| one.id.eq_ignore_ascii_case(id))
    }
}
