//! What waits to be published: bounded in number and bytes, and refused at once while Redis does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::health::{Direction, Health};
use super::missed::{Losses, Untold};
use crate::bus::Sent;
use crate::event::Message;
use crate::metrics::{BusError, Metrics};

/// Messages that wait to be published; the next ones are deferred and counted.
const QUEUE: usize = 10_000;

/// Bytes of payload that wait or are on their way; beyond it, messages are deferred and counted. So a
/// Redis that hangs costs no more memory than this, however large the messages are.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Where messages are left for the [`super::publisher::Publisher`].
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Waiting>,
    accounts: Arc<Accounts>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Accounts {
    /// Of [`QUEUE_BYTES`].
    taken: AtomicUsize,
    losses: Losses,
}

/// A message that waits, with the room it takes.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message: Message,
    pub(super) room: Room,
}

/// Bytes of [`QUEUE_BYTES`], given back when it is dropped. The message that it is for counts as lost then,
/// unless it was [`Room::published`].
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    is_published: bool,
    accounts: Arc<Accounts>,
}

impl Room {
    /// Redis has taken the message.
    pub(super) fn published(mut self) {
        self.is_published = true;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.accounts.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        if !self.is_published {
            self.accounts.losses.add_one();
        }
    }
}

impl Outbox {
    pub(super) fn new(
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Waiting>, Untold) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (losses, untold) = Losses::new();
        let accounts = Accounts {
            taken: AtomicUsize::new(0),
            losses,
        };
        let outbox = Self {
            queue,
            accounts: Arc::new(accounts),
            health,
            metrics,
        };
        (outbox, waiting, untold)
    }

    /// What is not published in the end, deferred here or dropped later, is among the [`Untold`].
    pub(super) fn send(&self, message: &Message) -> Sent {
        let (room, fits) = self.room(message.event.payload.get().len());
        if fits && self.health.is_up(Direction::Publishing) {
            let message = message.clone();
            if self.queue.try_send(Waiting { message, room }).is_ok() {
                return Sent::Live;
            }
        }
        self.metrics.bus_errors.of(BusError::Publish).increment(1);
        Sent::Deferred
    }

    /// The room for a message, and whether there is that much.
    fn room(&self, bytes: usize) -> (Room, bool) {
        let room = Room {
            bytes,
            is_published: false,
            accounts: Arc::clone(&self.accounts),
        };
        let taken = self.accounts.taken.fetch_add(bytes, Ordering::Relaxed);
        (room, taken + bytes <= QUEUE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn message(length: usize) -> Message {
        Message {
            to: None,
            change: None,
            published_at: 1,
            event: Arc::new(Event::new("greeting", &"x".repeat(length))),
        }
    }

    #[test]
    fn whatever_is_not_published_is_lost_and_gives_its_room_back() {
        let metrics = Arc::new(Metrics::new());
        let health = Arc::new(Health::new(Arc::clone(&metrics)));
        let (outbox, mut queue, mut untold) = Outbox::new(Arc::clone(&health), metrics);
        let mut lost = || {
            let (before, now) = (untold.are_there(), untold.telling());
            untold.told(now);
            before
        };

        assert_eq!(outbox.send(&message(10)), Sent::Deferred);
        assert!(lost(), "the link is down");

        health.up(Direction::Publishing);
        assert_eq!(outbox.send(&message(QUEUE_BYTES)), Sent::Deferred);
        assert!(lost(), "too many bytes");

        for _ in 0..QUEUE {
            assert_eq!(outbox.send(&message(10)), Sent::Live);
        }
        assert!(!lost());
        assert_eq!(outbox.send(&message(10)), Sent::Deferred);
        assert!(lost(), "too many messages");

        queue.try_recv().unwrap().room.published();
        assert!(!lost());
        drop(queue.try_recv().unwrap());
        assert!(lost(), "taken, and never published");

        while let Ok(waiting) = queue.try_recv() {
            waiting.room.published();
        }
        assert!(!lost());
        assert_eq!(outbox.accounts.taken.load(Ordering::Relaxed), 0);
    }
}
