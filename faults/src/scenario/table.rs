//! The fault matrix, as a table: id, what is done, for how long, and the bounds.

use super::bounds::{
    ACTS, BULKS, BUS, COCKTAIL, CROWD, DATABASE_DOWN, DATABASE_SILENT, FLAPS, KILLED_AFTER_COMMIT,
    NODE, PROMISE, REDIS_DOWN, ROLL, ROW_LOCKED, ROWS_LOCKED, SLOW_CONSUMERS, SLOW_SUBSCRIBING,
    STORM, SUBSCRIBERS_KILLED, UNNOTICED, VANISHED,
};
use super::{Failover, Fault, Scenario};
use crate::check::Limits;

const fn row(
    id: &'static str,
    what: &'static str,
    fault: Fault,
    seconds: u64,
    limits: Limits,
) -> Scenario {
    Scenario {
        id,
        what,
        fault,
        seconds,
        limits,
        short: 0,
        needs_root: false,
    }
}

/// Also in the short set, for so many seconds there.
const fn short(seconds: u64, scenario: Scenario) -> Scenario {
    Scenario {
        short: seconds,
        ..scenario
    }
}

const fn as_root(scenario: Scenario) -> Scenario {
    Scenario {
        needs_root: true,
        ..scenario
    }
}

/// All scenarios, in the order in which they run.
pub const ALL: &[Scenario] = &[
    row("F0", "nothing is broken", Fault::None, 10, UNNOTICED),
    short(
        10,
        row(
            "F1",
            "kill -9 of a node, and of the next 10 s later",
            Fault::NodesKilled,
            20,
            NODE,
        ),
    ),
    row(
        "F1b",
        "kill -9 between commit and answer; between answer and announcement",
        Fault::KilledAfterCommit,
        10,
        KILLED_AFTER_COMMIT,
    ),
    row(
        "F1c",
        "a node vanishes (no RST)",
        Fault::NodeVanishes,
        30,
        VANISHED,
    ),
    short(
        20,
        row(
            "F2",
            "SIGTERM to each node in turn",
            Fault::NodesRoll,
            60,
            ROLL,
        ),
    ),
    short(
        6,
        row(
            "F3",
            "Redis SHUTDOWN, and back empty",
            Fault::RedisDown,
            10,
            REDIS_DOWN,
        ),
    ),
    short(
        5,
        row(
            "F4",
            "CLIENT KILL TYPE pubsub each 500 ms",
            Fault::SubscribersKilled,
            10,
            SUBSCRIBERS_KILLED,
        ),
    ),
    short(6, row("F5", "Redis SIGSTOP", Fault::RedisStopped, 20, BUS)),
    short(
        5,
        row(
            "F5b",
            "CLIENT PAUSE ALL",
            Fault::RedisPaused("ALL"),
            10,
            BUS,
        ),
    ),
    row(
        "F5c",
        "CLIENT PAUSE WRITE",
        Fault::RedisPaused("WRITE"),
        10,
        BUS,
    ),
    row(
        "F6",
        "subscriber connections in a black hole",
        Fault::SubscribersSilent,
        15,
        BUS,
    ),
    row(
        "F6b",
        "subscriber connections half open",
        Fault::SubscribersHalfOpen,
        15,
        BUS,
    ),
    row(
        "F6c",
        "publisher connections in a black hole",
        Fault::PublishersSilent,
        15,
        BUS,
    ),
    row(
        "F6d",
        "one node's Redis in a black hole",
        Fault::OneNodeWithoutRedis,
        15,
        BUS,
    ),
    row(
        "F7",
        "kill -9 of the Redis master, Sentinel",
        Fault::Failover(Failover::Killed),
        8,
        BUS,
    ),
    row(
        "F7b",
        "SENTINEL FAILOVER",
        Fault::Failover(Failover::Asked),
        8,
        BUS,
    ),
    row(
        "F7c",
        "the Redis master stopped, and back as a replica",
        Fault::Failover(Failover::Silent),
        8,
        BUS,
    ),
    row(
        "F7d",
        "Redis in cluster mode: slots move, one of three killed -9, and back",
        Fault::ClusterOfRedis,
        8,
        BUS,
    ),
    row(
        "F7e",
        "two Redis that share the users: one killed -9, and back empty",
        Fault::OneOfTwo,
        8,
        BUS,
    ),
    row(
        "F8",
        "a node stopped while its channels are flooded",
        Fault::BusFlooded,
        10,
        PROMISE,
    ),
    row(
        "F8b",
        "Redis refuses PUBLISH and SUBSCRIBE (ACL)",
        Fault::RedisRefuses,
        10,
        REDIS_DOWN,
    ),
    row(
        "F8c",
        "Redis has another password",
        Fault::RedisLocksOut,
        10,
        REDIS_DOWN,
    ),
    short(
        5,
        row(
            "F9",
            "PostgreSQL crashes, down 10 s",
            Fault::PostgresCrashes,
            10,
            DATABASE_DOWN,
        ),
    ),
    row(
        "F10",
        "PostgreSQL stopped (SIGSTOP of all)",
        Fault::PostgresStopped,
        15,
        DATABASE_SILENT,
    ),
    row(
        "F10b",
        "PostgreSQL in a black hole",
        Fault::PostgresSilent,
        15,
        DATABASE_SILENT,
    ),
    row(
        "F10c",
        "all backends terminated each second",
        Fault::BackendsTerminated,
        10,
        DATABASE_DOWN,
    ),
    row(
        "F10d",
        "PostgreSQL read-only",
        Fault::PostgresReadOnly,
        10,
        DATABASE_DOWN,
    ),
    row(
        "F10e",
        "PostgreSQL takes no connection more, and ends the others",
        Fault::PostgresCrowded,
        10,
        DATABASE_DOWN,
    ),
    as_root(row(
        "F10f",
        "the disk of PostgreSQL is full",
        Fault::DiskFull,
        10,
        DATABASE_DOWN,
    )),
    row(
        "F11",
        "the row of one user locked",
        Fault::RowsLocked(1),
        10,
        ROW_LOCKED,
    ),
    row(
        "F11a",
        "the rows of 20 users locked",
        Fault::RowsLocked(20),
        10,
        ROWS_LOCKED,
    ),
    row(
        "F11b",
        "500 users at once from each node, in both orders",
        Fault::Bulks,
        10,
        BULKS,
    ),
    row(
        "F11c",
        "PostgreSQL fails over to a standby that is 10 s behind",
        Fault::HistoryLost,
        10,
        DATABASE_DOWN,
    ),
    row(
        "F12",
        "devices that stop reading, long messages",
        Fault::SlowConsumers,
        20,
        SLOW_CONSUMERS,
    ),
    row(
        "F13",
        "all connections reset at once, the database 50 ms away",
        Fault::Storm,
        5,
        STORM,
    ),
    row(
        "F13b",
        "10 000 more clients, all back within 5 s",
        Fault::Crowd,
        5,
        CROWD,
    ),
    row(
        "F14",
        "clocks 10 min ahead and behind; one goes back 1 h",
        Fault::ClocksDiffer,
        20,
        UNNOTICED,
    ),
    short(
        5,
        row(
            "F15",
            "50 requests of one key on all nodes; kill -9 meanwhile",
            Fault::KeyStorm,
            10,
            NODE,
        ),
    ),
    row(
        "F16",
        "reads, read-all, deletes while devices come and go",
        Fault::Acts,
        15,
        ACTS,
    ),
    row(
        "F18",
        "connections of clients reset each 2 s",
        Fault::Flaps,
        10,
        FLAPS,
    ),
    row(
        "F18b",
        "frames to clients cut in the middle each 2 s",
        Fault::FramesCut,
        10,
        FLAPS,
    ),
    row(
        "F18c",
        "clients come back while it takes long to subscribe, then silence",
        Fault::LastWords,
        10,
        SLOW_SUBSCRIBING,
    ),
    row(
        "F18d",
        "polls reach another node than the session's, each 2 s",
        Fault::Strays,
        10,
        FLAPS,
    ),
    row(
        "F19",
        "no descriptors while clients come; no disk for logs; 256 MB",
        Fault::FewDescriptors,
        15,
        PROMISE,
    ),
    row(
        "F20",
        "a cocktail: two of the above each 10 s",
        Fault::Cocktail,
        60,
        COCKTAIL,
    ),
];
