//! Clients that came with many others: each is told to fetch its list at some time in the next seconds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::CatchUp;
use crate::hub::Seat;

/// Over how long the lists of clients are fetched that came together.
const SPREAD: Duration = Duration::from_secs(10);

/// In how many steps: so many that few clients share one, for those who are told at the same time delay what others hear.
const STEPS: u32 = 2_000;

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
    /// Puts a client into one of the next steps. Answers whether somebody has to begin to [`step`](Self::step).
    fn put(&self, seat: Arc<Seat>, step: usize) -> bool {
        let mut turns = self.0.lock();
        if turns.steps.len() <= step {
            turns.steps.resize_with(step + 1, Vec::new);
        }
        turns.steps[step].push(seat);
        !std::mem::replace(&mut turns.running, true)
    }

    /// Whose turn it is; `None`: nobody waits any longer, and whoever steps may end.
    fn step(&self) -> Option<Vec<Arc<Seat>>> {
        let mut turns = self.0.lock();
        let next = turns.steps.pop_front();
        turns.running = next.is_some();
        next
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

impl CatchUp {
    /// Has a client that came with many others fetch the list at some time in the next seconds.
    pub fn spread(&self, seat: Arc<Seat>) {
        if !self.spread.put(seat, rand::random_range(0..STEPS) as usize) {
            return;
        }
        let (catch_up, stopping) = (self.clone(), self.tasks.stopping());
        self.tasks.spawn(async move {
            let mut give_up = GiveUp(Some(&catch_up.spread));
            let mut steps = tokio::time::interval(SPREAD / STEPS);
            while let Some(seats) = catch_up.spread.step() {
                for seat in seats.into_iter().filter(|seat| !seat.is_gone()) {
                    catch_up.follow(Arc::clone(&seat), seat.connect_due(), None);
                    // Each is a write: others come in between.
                    tokio::task::yield_now().await;
                }
                tokio::select! {
                    _ = steps.tick() => {}
                    () = stopping.cancelled() => return,
                }
            }
            // Somebody else may step by now.
            give_up.0 = None;
        });
    }
}
