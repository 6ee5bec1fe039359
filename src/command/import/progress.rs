//! How far something long is: one line a second to a person, one in ten seconds to a log.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use crate::command::complain;

/// Tells of itself when it is time.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    started: Instant,
    told: Instant,
    period: Duration,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        let now = Instant::now();
        let seconds = if std::io::stderr().is_terminal() {
            1
        } else {
            10
        };
        Self {
            what,
            total,
            started: now,
            told: now,
            period: Duration::from_secs(seconds),
        }
    }

    /// So much is done.
    pub(super) fn at(&mut self, done: u64) {
        if self.told.elapsed() >= self.period {
            self.told = Instant::now();
            complain(&line(self.what, done, self.total, self.started.elapsed()));
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = total.saturating_sub(done) as f64 / rate.max(0.001);
    format!(
        "{done} of {total} {what}, {rate:.0} a second, {} s left",
        left.ceil() as u64
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_by_the_rate() {
        let told = line("imported", 2_000, 5_000, Duration::from_secs(2));
        assert_eq!(told, "2000 of 5000 imported, 1000 a second, 3 s left");
    }
}
