//! Leaving: every socket is told when its transport will be closed, and then it is, some at a time.

use std::sync::Weak;
use std::sync::{Arc, atomic::Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{Hub, Seat};
use crate::event::{Event, SERVER_DRAIN};
use crate::metrics::Closed;

/// The least time between two batches: so short that each is a small part of what a node holds.
const STEP: Duration = Duration::from_millis(250);

impl Hub {
    /// Closes the transports of all sockets, in even batches over this time, none before its own; each is told
    /// at once when that will be. Those that still come are closed as they enter.
    ///
    /// Returns when the last batch was closed, or there is no socket left.
    pub async fn drain(&self, over: Duration) {
        self.closing.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        let seats = self.seats();
        let size = batch_size(seats.len(), over);
        let batches = seats.len().div_ceil(size);

        for (index, batch) in seats.chunks(size).enumerate() {
            let delay = delay(over, index, batches);
            open(batch).for_each(|seat| announce(&seat, delay));
            // So many may take some time, and others are served meanwhile.
            tokio::task::yield_now().await;
        }
        for (index, batch) in seats.chunks(size).enumerate() {
            tokio::select! {
                () = tokio::time::sleep_until(begun + delay(over, index, batches)) => {}
                () = self.emptied() => return,
            }
            open(batch).for_each(|seat| seat.close(Closed::Drain));
        }
    }

    /// Those that are here now. Weak, for the last ones stay listed for as long as all take.
    fn seats(&self) -> Vec<Weak<Seat>> {
        let mut seats = Vec::with_capacity(self.len());
        for shard in self.shards.iter() {
            seats.extend(shard.read().values().flatten().map(Arc::downgrade));
        }
        seats
    }
}

/// Closes the transport of a socket that came too late.
pub(super) fn send_away(seat: &Seat) {
    announce(seat, Duration::ZERO);
    seat.close(Closed::Drain);
}

fn announce(seat: &Seat, delay: Duration) {
    let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    let payload = serde_json::json!({ "retryAfterMs": delay });
    seat.control(&Event::new(SERVER_DRAIN, &payload));
}

fn open(batch: &[Weak<Seat>]) -> impl Iterator<Item = Arc<Seat>> {
    batch
        .iter()
        .filter_map(Weak::upgrade)
        .filter(|seat| !seat.is_gone())
}

/// How many are closed together: no more than it takes to be through in time, a batch each [`STEP`].
fn batch_size(sockets: usize, over: Duration) -> usize {
    let most = over.as_millis() / STEP.as_millis();
    let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
    sockets.div_ceil(most).max(1)
}

/// When a batch is closed: the last one at the end.
fn delay(over: Duration, index: usize, batches: usize) -> Duration {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    over.saturating_mul(count(index + 1)) / count(batches).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(sockets: usize, over: Duration) -> Vec<(usize, u128)> {
        let all = vec![(); sockets];
        let size = batch_size(sockets, over);
        let batches = sockets.div_ceil(size);
        let batch =
            |(index, batch): (usize, &[()])| (batch.len(), delay(over, index, batches).as_millis());
        all.chunks(size).enumerate().map(batch).collect()
    }

    #[test]
    fn batches_are_even_and_end_with_the_drain() {
        let over = Duration::from_secs(20);
        assert_eq!(delays(0, over), []);
        assert_eq!(delays(2, over), [(1, 10_000), (1, 20_000)]);
        let many = delays(20_000, over);
        assert_eq!(many.len(), 80);
        assert_eq!((many[0], many[79]), ((250, 250), (250, 20_000)));
        for sockets in [1, 79, 80, 81, 1_000, 19_999] {
            let batches = delays(sockets, over);
            assert_eq!(batches.iter().map(|batch| batch.0).sum::<usize>(), sockets);
            assert_eq!(batches.last().unwrap().1, 20_000);
            assert!(batches.is_sorted_by_key(|batch| batch.1));
        }
    }

    #[test]
    fn a_drain_of_no_time_is_one_batch() {
        assert_eq!(delays(1_000, Duration::ZERO), [(1_000, 0)]);
    }
}
