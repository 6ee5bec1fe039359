//! What the bus has for its node and the node has not taken yet: bounded, and never silently incomplete.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{BACKLOG, Incoming, Question, Receiver};
use crate::event::Message;
use crate::user::UserId;

/// The sending end of a node's [`Receiver`]. Nothing in it waits.
///
/// The queue has one place more than [`BACKLOG`], kept for [`Incoming::Restored`]: so a node that falls
/// behind is told at once, in order, and what is dropped while that word is still in the queue is covered
/// by it, because the node compares with the store only when it takes it out.
#[derive(Debug)]
pub(super) struct Backlog {
    sender: mpsc::Sender<Incoming>,
    /// How many places behind the newest `Restored` in the queue are taken; [`BACKLOG`] and more: none is in it.
    since_restored: usize,
}

/// What became of something that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    Over,
    /// There was no room; of a message, the node learns it by [`Incoming::Restored`].
    Lost,
    /// The node has dropped its receiver.
    Closed,
}

impl Backlog {
    pub(super) fn new() -> (Self, Receiver) {
        let (sender, receiver) = mpsc::channel(BACKLOG + 1);
        let backlog = Self {
            sender,
            since_restored: BACKLOG,
        };
        (backlog, receiver)
    }

    pub(super) fn message(&mut self, message: Message) -> Handed {
        self.hand(Incoming::Message(message))
    }

    pub(super) fn other_epoch(&mut self) -> Handed {
        self.hand(Incoming::OtherEpoch)
    }

    /// A question that finds no room is not answered; the node need not know.
    pub(super) fn asked(&mut self, user: UserId, question: Question) -> Handed {
        self.try_hand(Incoming::Asked { user, question })
    }

    fn hand(&mut self, incoming: Incoming) -> Handed {
        let handed = self.try_hand(incoming);
        // The queue holds the newest BACKLOG entries, or one more if the last is a `Restored`.
        if handed == Handed::Lost && self.since_restored >= BACKLOG {
            self.restored();
        }
        handed
    }

    fn try_hand(&mut self, incoming: Incoming) -> Handed {
        if self.sender.is_closed() {
            return Handed::Closed;
        }
        // Only this end adds, so there cannot be less room in a moment.
        if self.sender.capacity() > 1 && self.sender.try_send(incoming).is_ok() {
            self.since_restored = self.since_restored.saturating_add(1);
            return Handed::Over;
        }
        Handed::Lost
    }

    /// Says that messages may have been missed until now.
    pub(super) fn restored(&mut self) {
        match self.sender.try_send(Incoming::Restored) {
            Ok(()) => self.since_restored = 0,
            // The last place is only ever taken by a `Restored`: it is still to come, and says the same.
            Err(TrySendError::Full(_)) => {}
            // Nobody is left who could have missed anything.
            Err(TrySendError::Closed(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::event::{Body, Event};

    fn message(number: u64) -> Message {
        Message {
            to: None,
            published_at: number,
            epoch: "e1".into(),
            body: Body::Emit(Arc::new(Event::new("number", &number))),
        }
    }

    #[test]
    fn a_node_that_falls_behind_is_told_once_and_goes_on() {
        let (mut backlog, mut receiver) = Backlog::new();
        for number in 0..BACKLOG as u64 {
            assert_eq!(backlog.message(message(number)), Handed::Over);
        }
        for number in 0..10 {
            assert_eq!(backlog.message(message(number)), Handed::Lost);
        }
        for _ in 0..BACKLOG {
            assert!(matches!(receiver.try_recv(), Ok(Incoming::Message(_))));
        }
        assert!(matches!(receiver.try_recv(), Ok(Incoming::Restored)));
        assert!(receiver.try_recv().is_err());
        assert_eq!(backlog.message(message(1)), Handed::Over);
    }

    #[test]
    fn a_question_that_finds_no_room_is_dropped_without_a_word() {
        let (mut backlog, mut receiver) = Backlog::new();
        let (user, question) = (
            UserId::try_from("42").unwrap(),
            Question {
                asker: 1,
                number: 2,
            },
        );
        for _ in 0..BACKLOG {
            assert_eq!(backlog.asked(user.clone(), question), Handed::Over);
        }
        assert_eq!(backlog.asked(user.clone(), question), Handed::Lost);
        for _ in 0..BACKLOG {
            assert!(matches!(receiver.try_recv(), Ok(Incoming::Asked { .. })));
        }
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn a_node_that_is_gone_is_noticed() {
        let (mut backlog, receiver) = Backlog::new();
        drop(receiver);
        assert_eq!(backlog.message(message(1)), Handed::Closed);
        backlog.restored();
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Hand(usize),
        Take(usize),
        Restore,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let many = prop_oneof![1..3_usize, BACKLOG - 2..BACKLOG + 3];
        let step = prop_oneof![
            many.clone().prop_map(Step::Hand),
            many.prop_map(Step::Take),
            Just(Step::Restore),
        ];
        prop::collection::vec(step, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_lost_a_restored_is_still_to_come(steps in steps()) {
            let (mut backlog, mut receiver) = Backlog::new();
            let mut queued = VecDeque::new();
            let mut number = 0;
            let mut uncovered = false;
            for step in steps {
                match step {
                    Step::Hand(times) => for _ in 0..times {
                        number += 1;
                        match backlog.message(message(number)) {
                            Handed::Over => queued.push_back(number),
                            Handed::Lost => uncovered = true,
                            Handed::Closed => prop_assert!(false),
                        }
                    },
                    Step::Restore => { backlog.restored(); uncovered = true; }
                    Step::Take(times) => for _ in 0..times {
                        match receiver.try_recv() {
                            Ok(Incoming::Message(message)) => prop_assert_eq!(Some(message.published_at), queued.pop_front()),
                            Ok(Incoming::Restored) => uncovered = false,
                            Ok(Incoming::OtherEpoch | Incoming::Asked { .. }) => prop_assert!(false),
                            Err(_) => prop_assert!(!uncovered),
                        }
                    },
                }
            }
        }
    }
}
