//! What Bellhop promises, checked from outside: in story order.
#![expect(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of one test binary: a panic is the report"
)]
#![expect(clippy::too_many_lines, reason = "tables of cases are long and flat")]

mod databases;

mod store;

mod bus;

