//! What waits to be published: bounded in number and bytes, and refused at once while Redis does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::health::{Direction, Health};
use super::missed::{Losses, Untold};
use crate::bus::questions::{Asking, Posting};
use crate::bus::{Question, Sent};
use crate::event::Message;
use crate::metrics::{BusError, Metrics};
use crate::user::UserId;

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

/// What waits, with the room it takes.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) parcel: Parcel,
    pub(super) room: Room,
}

/// What the other nodes are sent.
#[derive(Debug)]
pub(super) enum Parcel {
    Message(Message),
    /// To the nodes that are subscribed to the user: a question of this number.
    Question(UserId, u64),
    /// To the node that asked: so many sockets.
    Answer(Question, u64),
}

/// Bytes of [`QUEUE_BYTES`], given back when it is dropped. What it is for has failed then, unless it was
/// [`Room::published`].
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    stake: Stake,
    accounts: Arc<Accounts>,
}

/// Who has to know if it is not published.
#[derive(Debug)]
enum Stake {
    /// The other nodes: it counts as lost.
    Message,
    /// Whoever asked here.
    Question(Posting),
    Nobody,
}

impl Room {
    /// Redis has taken it, and passed it to so many.
    pub(super) fn published(mut self, receivers: u64) {
        match std::mem::replace(&mut self.stake, Stake::Nobody) {
            Stake::Question(posting) => posting.reached(receivers),
            Stake::Message | Stake::Nobody => {}
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.accounts.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        match self.stake {
            Stake::Message => self.accounts.losses.add_one(),
            // Says so itself.
            Stake::Question(_) | Stake::Nobody => {}
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
        let event = message.body.event();
        let bytes = event.map_or(0, |event| event.payload.get().len());
        let room = self.room(bytes, Stake::Message);
        self.post(room, || Parcel::Message(message.clone()))
    }

    /// Whether it is published in the end, and to how many, `asking` learns by itself.
    pub(super) fn ask(&self, user: &UserId, asking: &Asking) -> Sent {
        let room = self.room(0, Stake::Question(asking.posting()));
        self.post(room, || Parcel::Question(user.clone(), asking.number()))
    }

    /// An answer that is not published is missed by whoever asked, and by nobody else.
    pub(super) fn answer(&self, question: Question, sockets: u64) -> Sent {
        let room = self.room(0, Stake::Nobody);
        self.post(room, || Parcel::Answer(question, sockets))
    }

    fn post(&self, (room, fits): (Room, bool), parcel: impl FnOnce() -> Parcel) -> Sent {
        if fits && self.health.is_up(Direction::Publishing) {
            let parcel = parcel();
            if self.queue.try_send(Waiting { parcel, room }).is_ok() {
                return Sent::Live;
            }
        }
        self.metrics.bus_errors.of(BusError::Publish).increment(1);
        Sent::Deferred
    }

    /// The room for so many bytes, and whether there is that much.
    fn room(&self, bytes: usize, stake: Stake) -> (Room, bool) {
        let room = Room {
            bytes,
            stake,
            accounts: Arc::clone(&self.accounts),
        };
        let taken = self.accounts.taken.fetch_add(bytes, Ordering::Relaxed);
        (room, taken + bytes <= QUEUE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;

    use super::super::health::Overall;
    use super::*;
    use crate::bus::questions::Questions;
    use crate::event::{Body, Event};

    fn message(length: usize) -> Message {
        Message {
            to: None,
            published_at: 1,
            epoch: "e1".into(),
            body: Body::Emit(Arc::new(Event::new("greeting", &"x".repeat(length)))),
        }
    }

    #[test]
    fn whatever_is_not_published_is_lost_and_gives_its_room_back() {
        let metrics = Arc::new(Metrics::new());
        let overall = Arc::new(Overall::new(1, Arc::clone(&metrics)));
        let health = Arc::new(Health::new(String::new(), overall));
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

        queue.try_recv().unwrap().room.published(0);
        assert!(!lost());
        drop(queue.try_recv().unwrap());
        assert!(lost(), "taken, and never published");

        while let Ok(waiting) = queue.try_recv() {
            waiting.room.published(0);
        }
        assert!(!lost());
        assert_eq!(outbox.accounts.taken.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn of_a_question_only_the_asker_learns_that_it_is_lost() {
        let metrics = Arc::new(Metrics::new());
        let overall = Arc::new(Overall::new(1, Arc::clone(&metrics)));
        let health = Arc::new(Health::new(String::new(), overall));
        let (outbox, mut queue, untold) = Outbox::new(Arc::clone(&health), metrics);
        let questions = Arc::new(Questions::default());
        let user = UserId::try_from("42").unwrap();
        let ask = || {
            let asking = questions.ask().unwrap();
            (outbox.ask(&user, &asking), asking)
        };

        let (sent, deferred) = ask();
        assert_eq!(sent, Sent::Deferred);
        health.up(Direction::Publishing);
        let (sent, dropped) = ask();
        assert_eq!(sent, Sent::Live);
        drop(queue.try_recv().unwrap());
        let (_, published) = ask();
        queue.try_recv().unwrap().room.published(0);

        for (asking, complete) in [(deferred, false), (dropped, false), (published, true)] {
            let answers = poll_immediate(asking.answers()).await.unwrap();
            assert_eq!(answers.complete, complete);
        }
        outbox.answer(
            Question {
                asker: 1,
                number: 2,
            },
            3,
        );
        drop(queue.try_recv().unwrap());
        assert!(!untold.are_there());
    }
}
