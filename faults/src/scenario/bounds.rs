//! The bounds of the fault matrix, in milliseconds, each built on what the promise says of any single fault.

use crate::check::Limits;

/// Any single fault: what the promise says.
pub(super) const PROMISE: Limits = Limits {
    lag_p99: Some(7_000),
    lag_max: Some(7_000),
    lag_after_p99: Some(1_000),
    memory: Some(50),
    ..Limits::NONE
};

/// Redis away or dumb: publishers and connections do not notice.
pub(super) const BUS: Limits = Limits {
    publish_p99: Some(300),
    failed_publishes: Some(0),
    lost_connections: Some(0),
    memory: Some(20),
    ..PROMISE
};

pub(super) const NODE: Limits = Limits {
    recovery_p99: Some(5_000),
    recovery_max: Some(10_000),
    ..PROMISE
};

pub(super) const ROLL: Limits = Limits {
    failed_publishes: Some(0),
    ..NODE
};

/// Those who are on a node that vanished hear of it by heartbeat, and are then as if it was killed.
pub(super) const VANISHED: Limits = Limits {
    recovery_max: Some(10_000),
    ..PROMISE
};

pub(super) const REDIS_DOWN: Limits = Limits {
    lag_p99: Some(2_500),
    deferred: true,
    ..BUS
};

pub(super) const SUBSCRIBERS_KILLED: Limits = Limits {
    lag_p99: Some(6_000),
    ..BUS
};

pub(super) const DATABASE_DOWN: Limits = Limits {
    publish_p99: Some(1_500),
    lost_connections: Some(0),
    ..PROMISE
};

pub(super) const DATABASE_SILENT: Limits = Limits {
    publish_p99: Some(3_000),
    ..DATABASE_DOWN
};

pub(super) const UNNOTICED: Limits = Limits {
    lag_p99: Some(1_000),
    ..BUS
};

pub(super) const STORM: Limits = Limits {
    recovery_max: Some(15_000),
    server_errors: Some(0),
    ..PROMISE
};

pub(super) const FLAPS: Limits = Limits {
    recovery_p99: Some(5_000),
    ..PROMISE
};

/// Its load ends in the fault: what was published last, only the feed brings.
pub(super) const KILLED_AFTER_COMMIT: Limits = Limits {
    lag_after_p99: None,
    ..NODE
};

/// No one waits for the feed, but only for the slow way. The load ends in the fault.
pub(super) const SLOW_SUBSCRIBING: Limits = Limits {
    lag_max: Some(2_000),
    lag_after_p99: None,
    ..FLAPS
};

/// The others do not notice; publishes to the one are refused in time.
pub(super) const ROW_LOCKED: Limits = Limits {
    held_publish_p99: Some(1_500),
    ..UNNOTICED
};

/// More than there are connections to the database: all wait for one, and the others may have to come again.
pub(super) const ROWS_LOCKED: Limits = Limits {
    held_publish_p99: Some(2_500),
    publish_p99: Some(1_500),
    failed_publishes: None,
    ..ROW_LOCKED
};

pub(super) const BULKS: Limits = Limits {
    lost_connections: Some(0),
    ..PROMISE
};

/// Devices go away because they are told to.
pub(super) const ACTS: Limits = Limits {
    lost_connections: None,
    ..UNNOTICED
};

/// Those who are slow, nobody else. How fast 16 KB are published is not the question.
pub(super) const SLOW_CONSUMERS: Limits = Limits {
    lost_connections: None,
    publish_p99: None,
    ..UNNOTICED
};

/// A third of them on each node, of 17 KiB each.
pub(super) const CROWD: Limits = Limits {
    memory: Some(50 + 10_000 / 3 * 17 / 1_024),
    ..PROMISE
};

/// Two faults at a time: the promise is of one.
pub(super) const COCKTAIL: Limits = Limits {
    lag_p99: None,
    lag_max: None,
    lag_after_p99: None,
    ..PROMISE
};
