//! Questions to the other nodes that are not answered yet: bounded in number and in time, and gone with whoever asked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Elsewhere;

/// How long answers are waited for, in all.
pub(super) const DEADLINE: Duration = Duration::from_millis(300);

/// Questions in flight; the next one is answered at once, and is not complete.
const IN_FLIGHT: usize = 1_024;

/// Nodes whose answers one question takes; the answers of others are ignored, so it is not complete.
const NODES: usize = 1_024;

/// The questions of one node.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<HashMap<u64, Open>>);

#[derive(Debug)]
struct Open {
    /// How many nodes have the question; unknown until it is published.
    receivers: Option<u64>,
    /// Who has answered: one that answers twice counts once.
    answered: Vec<u64>,
    sockets: u64,
    settled: Option<oneshot::Sender<()>>,
}

/// A question in flight. Dropping it forgets the question.
#[derive(Debug)]
pub(super) struct Asking {
    questions: Arc<Questions>,
    number: u64,
    settled: oneshot::Receiver<()>,
}

/// A question on its way out. Dropping it says that it was not published.
#[derive(Debug)]
pub(super) struct Posting {
    questions: Arc<Questions>,
    number: u64,
}

impl Questions {
    /// A new question, under a number that nobody can guess; `None` if there are too many.
    pub(super) fn ask(self: &Arc<Self>) -> Option<Asking> {
        let mut open = self.0.lock();
        if open.len() >= IN_FLIGHT {
            return None;
        }
        let number = rand::random();
        let Entry::Vacant(place) = open.entry(number) else {
            return None;
        };
        let (settle, settled) = oneshot::channel();
        place.insert(Open {
            receivers: None,
            answered: Vec::new(),
            sockets: 0,
            settled: Some(settle),
        });
        Some(Asking {
            questions: Arc::clone(self),
            number,
            settled,
        })
    }

    /// Takes the answer of `node`. `false` if there is no such question, or not any more, or if this node
    /// has answered it already.
    pub(super) fn answer(&self, number: u64, node: u64, sockets: u64) -> bool {
        let mut open = self.0.lock();
        let Some(question) = open.get_mut(&number) else {
            return false;
        };
        if question.answered.contains(&node) || question.answered.len() >= NODES {
            return false;
        }
        question.answered.push(node);
        question.sockets = question.sockets.saturating_add(sockets);
        question.settle_if_complete();
        true
    }

    fn posted(&self, number: u64, receivers: u64) {
        if let Some(question) = self.0.lock().get_mut(&number) {
            question.receivers = Some(receivers);
            question.settle_if_complete();
        }
    }

    fn failed(&self, number: u64) {
        if let Some(question) = self.0.lock().get_mut(&number)
            && question.receivers.is_none()
        {
            question.settle();
        }
    }
}

impl Open {
    fn is_complete(&self) -> bool {
        self.receivers
            .is_some_and(|receivers| self.answered.len() as u64 >= receivers)
    }

    fn settle_if_complete(&mut self) {
        if self.is_complete() {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if let Some(settled) = self.settled.take() {
            // Whoever asked may have gone.
            let _is_heard = settled.send(());
        }
    }
}

impl Asking {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn posting(&self) -> Posting {
        Posting {
            questions: Arc::clone(&self.questions),
            number: self.number,
        }
    }

    /// What came until all had answered, until the question had failed, or until [`DEADLINE`].
    pub(super) async fn answers(mut self) -> Elsewhere {
        // All three say the same: what is there now is what there is.
        let _in_time = tokio::time::timeout(DEADLINE, &mut self.settled).await;
        let open = self.questions.0.lock();
        open.get(&self.number)
            .map_or(Elsewhere::UNKNOWN, |question| Elsewhere {
                sockets: question.sockets,
                complete: question.is_complete(),
            })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.questions.0.lock().remove(&self.number);
    }
}

impl Posting {
    /// It was published, and so many have it.
    pub(super) fn reached(self, receivers: u64) {
        self.questions.posted(self.number, receivers);
    }
}

impl Drop for Posting {
    /// After [`Posting::reached`] this changes nothing.
    fn drop(&mut self) {
        self.questions.failed(self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;
    use tokio::time::Instant;

    use super::*;

    fn elsewhere(sockets: u64, complete: bool) -> Elsewhere {
        Elsewhere { sockets, complete }
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_for_the_last_receiver() {
        let questions = Arc::new(Questions::default());
        // Answers may come before the word how many there will be.
        let asking = questions.ask().unwrap();
        assert!(questions.answer(asking.number(), 1, 2));
        asking.posting().reached(2);
        assert!(questions.answer(asking.number(), 2, 3));
        let answers = poll_immediate(asking.answers()).await;
        assert_eq!(answers, Some(elsewhere(5, true)));

        let nobody = questions.ask().unwrap();
        nobody.posting().reached(0);
        let answers = poll_immediate(nobody.answers()).await;
        assert_eq!(answers, Some(elsewhere(0, true)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_answer_costs_the_deadline_and_completeness() {
        let questions = Arc::new(Questions::default());
        let (asking, start) = (questions.ask().unwrap(), Instant::now());
        asking.posting().reached(2);
        questions.answer(asking.number(), 1, 4);
        assert_eq!(asking.answers().await, elsewhere(4, false));
        assert!(start.elapsed() <= DEADLINE + Duration::from_millis(1));
    }

    #[tokio::test]
    async fn a_question_that_was_not_published_is_not_waited_for() {
        let questions = Arc::new(Questions::default());
        let asking = questions.ask().unwrap();
        drop(asking.posting());
        let answers = poll_immediate(asking.answers()).await;
        assert_eq!(answers, Some(elsewhere(0, false)));
    }

    #[tokio::test]
    async fn a_node_counts_once_and_a_stranger_not_at_all() {
        let questions = Arc::new(Questions::default());
        let asking = questions.ask().unwrap();
        let number = asking.number();
        assert!(!questions.answer(number ^ 1, 1, 7));
        assert!(questions.answer(number, 1, u64::MAX));
        assert!(!questions.answer(number, 1, 7));
        assert!(questions.answer(number, 2, 1));
        asking.posting().reached(2);
        assert_eq!(asking.answers().await, elsewhere(u64::MAX, true));
        assert!(!questions.answer(number, 3, 7), "it is over");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_question_whose_asker_has_gone() {
        let questions = Arc::new(Questions::default());
        let asked: Vec<_> = (0..IN_FLIGHT).map(|_| questions.ask().unwrap()).collect();
        assert!(questions.ask().is_none());

        let posting = asked[0].posting();
        drop(asked);
        posting.reached(3);
        assert!(questions.0.lock().is_empty());
        assert!(questions.ask().is_some());
    }

    #[test]
    fn the_answers_to_one_question_are_bounded() {
        let questions = Arc::new(Questions::default());
        let asking = questions.ask().unwrap();
        let taken = (0..5_000)
            .filter(|node| questions.answer(asking.number(), *node, 1))
            .count();
        assert_eq!(taken, NODES);
    }
}
