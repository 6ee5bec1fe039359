//! Clients that came with many others: each is told to fetch its list at some time in the next seconds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::CatchUp;
use crate::hub::Seat;

/// A time in which few clients are told, for those who are told at the same time delay what others hear.
const STEP: Duration = Duration::from_millis(5);

/// While nobody hears anything, nobody is delayed: the steps of this time are taken together, for waking up is most of what
/// they cost.
const QUIET: Duration = Duration::from_millis(250);

/// In so many steps all are told that came together: 10 seconds, with the last of them taken late.
const STEPS: usize = (10_000 - QUIET.as_millis() as usize - 2 * STEP.as_millis() as usize)
    / STEP.as_millis() as usize;

/// Clients in a row, after which others may be told something.
const ROW: usize = 8;

/// Those who wait, by the step in which it is their turn: one task for all of them, and it ends when nobody waits.
#[derive(Debug, Default)]
pub(super) struct Spread(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    /// The first is the next one.
    steps: VecDeque<Vec<Arc<Seat>>>,
    running: bool,
}

impl Spread {
    /// Puts a client into one of the next steps. Answers whether somebody has to begin to [`take`](Self::take).
    fn put(&self, seat: Arc<Seat>, step: usize) -> bool {
        let mut turns = self.0.lock();
        if turns.steps.len() <= step {
            turns.steps.resize_with(step + 1, Vec::new);
        }
        turns.steps[step].push(seat);
        !std::mem::replace(&mut turns.running, true)
    }

    /// Whose turn it is in the next steps; `None`: nobody waits any longer, and whoever steps may end.
    fn take(&self, steps: usize) -> Option<Vec<Arc<Seat>>> {
        let mut turns = self.0.lock();
        turns.running = !turns.steps.is_empty();
        let steps = steps.min(turns.steps.len());
        let seats = turns.steps.drain(..steps).flatten().collect();
        turns.running.then_some(seats)
    }
}

/// Forgets who waits when nobody steps any longer, because the node stops or by a panic; usually nobody waits then.
struct GiveUp<'s>(Option<&'s Spread>);

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if let Some(spread) = self.0 {
            *spread.0.lock() = Turns::default();
        }
    }
}

/// Whether anybody hears anything.
#[derive(Debug, Default)]
struct Quiet {
    heard: Option<u64>,
}

impl Quiet {
    /// Whether nobody has heard anything since the last time, when this many messages have been heard so far.
    fn lasts(&mut self, heard: Option<u64>) -> bool {
        std::mem::replace(&mut self.heard, heard) == heard
    }
}

impl CatchUp {
    /// Has a client that came with many others fetch the list at some time in the next seconds.
    pub fn spread(&self, seat: Arc<Seat>) {
        if !self.spread.put(seat, rand::random_range(0..STEPS)) {
            return;
        }
        let (catch_up, stopping) = (self.clone(), self.tasks.stopping());
        self.tasks.spawn(async move {
            let mut give_up = GiveUp(Some(&catch_up.spread));
            tokio::select! {
                () = catch_up.tell_by_and_by() => {}
                () = stopping.cancelled() => return,
            }
            // Somebody else may step by now.
            give_up.0 = None;
        });
    }

    async fn tell_by_and_by(&self) {
        let mut due = Instant::now();
        let (mut witness, mut quiet) = (None, Quiet::default());
        loop {
            let mut steps = 0;
            while due <= Instant::now() {
                due += STEP;
                steps += 1;
            }
            let Some(seats) = self.spread.take(steps) else {
                return;
            };
            for row in seats.chunks(ROW) {
                for seat in row.iter().filter(|seat| !seat.is_gone()) {
                    self.follow(Arc::clone(seat), seat.connect_due(), None);
                }
                // Each is a write.
                tokio::task::yield_now().await;
            }
            witness = seats.into_iter().next_back().or(witness);
            let heard = witness.as_ref().map(|seat| seat.heard_here());
            let next = if quiet.lasts(heard) { due + QUIET } else { due };
            tokio::time::sleep_until(next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quiet_until_somebody_hears_something() {
        let mut quiet = Quiet::default();
        // Nobody was told yet who could say.
        assert!(quiet.lasts(None));
        // It may just have happened.
        assert!(!quiet.lasts(Some(7)));
        assert!(quiet.lasts(Some(7)));
        assert!(!quiet.lasts(Some(8)));
        assert!(quiet.lasts(Some(8)));
    }
}
