//! What Bellhop promises, checked from outside: in story order.
#![expect(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of one test binary: a panic is the report"
)]
#![expect(clippy::too_many_lines, reason = "tables of cases are long and flat")]

mod client;
mod cluster;
mod databases;
mod proxy;

mod reach;

mod catch_up;

mod acts;

mod fallback;

mod revocation;

mod time;

mod histories;

mod auth;

mod publish;

mod inputs;

mod express;

mod batch;

mod publishers;

mod keys;

mod limits;

mod openapi;

mod polling;

mod logs;

mod sockets;

mod hostile;

mod metrics;

mod outage;
mod several;

mod feed;
mod gaps;
mod held;

mod leaving;

mod again;

mod commands;

mod store;

mod bus;

mod agreement;
