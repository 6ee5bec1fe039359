//! Gathering: what many ask of the store at about the same time is asked in one statement.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::store::StoreError;
use crate::tasks::Tasks;

/// Questions in one statement, at most.
const AT_ONCE: usize = 256;

/// From one statement to the next, unless enough wait: at rest nothing is waited for, and when many come
/// together they go together, at most 25 statements a second.
const PAUSE: Duration = Duration::from_millis(40);

/// So many are not made to wait for others.
const ENOUGH: usize = 128;

/// Between two log lines that say that the store does not answer.
const TOLD_AGAIN: Duration = Duration::from_secs(5);

/// What can be asked for many at once.
pub(crate) trait Question: Clone + Send + Sync + 'static {
    type About: Send + Sync + 'static;
    type Answer: Send + 'static;

    /// Asks the store in one statement. Answers the first so many, at least one, in their order; the others are
    /// asked again.
    fn ask(
        &self,
        about: &[Self::About],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

/// The store could not answer; that has been counted and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unanswered;

/// Gathers one kind of question. Cloning shares what is gathered.
pub(crate) struct Gather<Q: Question> {
    question: Q,
    desk: Arc<Mutex<Desk<Q>>>,
    enough: Arc<Notify>,
    /// One for each statement that may be under way.
    turns: Arc<Semaphore>,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

/// The questions that are not asked yet, of those who still wait: as many as there are sockets to ask for, at most.
struct Desk<Q: Question> {
    waiting: VecDeque<Waiting<Q>>,
    /// A task takes care of them.
    is_served: bool,
    asked: Option<Instant>,
    told: Option<Instant>,
}

type Waiting<Q> = (
    <Q as Question>::About,
    oneshot::Sender<Result<<Q as Question>::Answer, Unanswered>>,
);

impl<Q: Question> Clone for Gather<Q> {
    fn clone(&self) -> Self {
        Self {
            question: self.question.clone(),
            desk: Arc::clone(&self.desk),
            enough: Arc::clone(&self.enough),
            turns: Arc::clone(&self.turns),
            tasks: self.tasks.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

impl<Q: Question> Gather<Q> {
    pub(crate) fn new(
        question: Q,
        turns: Arc<Semaphore>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Self {
        let desk = Desk {
            waiting: VecDeque::new(),
            is_served: false,
            asked: None,
            told: None,
        };
        Self {
            question,
            desk: Arc::new(Mutex::new(desk)),
            enough: Arc::default(),
            turns,
            tasks,
            metrics,
        }
    }

    /// The store's answer, of a snapshot that is taken after this was called: a question is never added to a
    /// statement that has been sent.
    pub(crate) async fn ask(&self, about: Q::About) -> Result<Q::Answer, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.queue(|waiting| waiting.push_back((about, answer)));
        // Without an answer: the node stops.
        answered.await.unwrap_or(Err(Unanswered))
    }

    /// Adds to those who wait, and sees to it that they are served.
    fn queue(&self, add: impl FnOnce(&mut VecDeque<Waiting<Q>>)) {
        let mut desk = self.desk.lock();
        add(&mut desk.waiting);
        if desk.waiting.len() >= ENOUGH {
            self.enough.notify_one();
        }
        if !std::mem::replace(&mut desk.is_served, true) {
            drop(desk);
            self.tasks.spawn(self.clone().serve());
        }
    }

    /// Asks in statement after statement, until nobody waits.
    async fn serve(self) {
        let _served = Served(&self.desk);
        loop {
            self.pause().await;
            let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
                return; // Closed never.
            };
            let batch = self.desk.lock().take();
            if batch.is_empty() {
                return;
            }
            let this = self.clone();
            self.tasks.spawn(async move {
                this.answer(batch).await;
                drop(turn);
            });
        }
    }

    async fn pause(&self) {
        loop {
            let due = {
                let desk = self.desk.lock();
                let due = desk.asked.map(|asked| asked + PAUSE);
                due.filter(|due| desk.waiting.len() < ENOUGH && *due > Instant::now())
            };
            let Some(due) = due else { return };
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.enough.notified() => {}
            }
        }
    }

    async fn answer(&self, batch: Vec<Waiting<Q>>) {
        let (questions, askers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        match self.question.ask(&questions).await {
            Ok(answers) => {
                let answered = answers.len();
                let mut waiting = questions.into_iter().zip(askers);
                for ((_, asker), answer) in waiting.by_ref().take(answered).zip(answers) {
                    // Who does not wait any longer has gone.
                    let _gone = asker.send(Ok(answer));
                }
                let rest: Vec<_> = waiting.collect();
                if answered > 0 && !rest.is_empty() {
                    // They were there first.
                    self.queue(|queue| {
                        rest.into_iter().rev().for_each(|one| queue.push_front(one));
                    });
                }
            }
            // What is wrong with one is not the others' loss.
            Err(error) if questions.len() > 1 && !matches!(error, StoreError::Unavailable(_)) => {
                for (question, asker) in questions.iter().zip(askers) {
                    let _gone = asker.send(self.ask_alone(question).await);
                }
            }
            Err(error) => {
                self.report(&error);
                for asker in askers {
                    let _gone = asker.send(Err(Unanswered));
                }
            }
        }
    }

    async fn ask_alone(&self, question: &Q::About) -> Result<Q::Answer, Unanswered> {
        match self.question.ask(std::slice::from_ref(question)).await {
            Ok(mut answers) => answers.pop().ok_or(Unanswered),
            Err(error) => {
                self.report(&error);
                Err(Unanswered)
            }
        }
    }

    fn report(&self, error: &StoreError) {
        self.metrics.store_errors.of(error.into()).increment(1);
        let mut desk = self.desk.lock();
        if desk.told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
            desk.told = Some(Instant::now());
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "cannot read for sockets; they go on asking"
            );
        }
    }
}

/// Whoever serves a desk says so when that ends, however it does: the next question finds another one.
struct Served<'d, Q: Question>(&'d Mutex<Desk<Q>>);

impl<Q: Question> Drop for Served<'_, Q> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().is_served = false;
        }
    }
}

impl<Q: Question> Desk<Q> {
    /// The next for one statement, the first that came first; none: nobody serves them any longer.
    fn take(&mut self) -> Vec<Waiting<Q>> {
        // In an outage, those who have given up would be asked for first.
        self.waiting.retain(|(_, asker)| !asker.is_closed());
        let many = self.waiting.len().min(AT_ONCE);
        if many == 0 {
            self.is_served = false;
            self.waiting.shrink_to(ENOUGH);
        } else {
            self.asked = Some(Instant::now());
        }
        self.waiting.drain(..many).collect()
    }
}

impl<Q: Question> std::fmt::Debug for Gather<Q> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gather").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Doubles numbers; each statement takes some time.
    #[derive(Clone, Default)]
    struct Double {
        statements: Arc<AtomicUsize>,
        most: Option<usize>,
        fails_on: Option<u64>,
        under_way: Arc<AtomicUsize>,
    }

    impl Question for Double {
        type About = u64;
        type Answer = u64;

        async fn ask(&self, numbers: &[u64]) -> Result<Vec<u64>, StoreError> {
            assert!(numbers.len() <= AT_ONCE);
            self.statements.fetch_add(1, Ordering::SeqCst);
            assert!(self.under_way.fetch_add(1, Ordering::SeqCst) < 4);
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            if self.fails_on.is_some_and(|bad| numbers.contains(&bad)) {
                return Err(StoreError::Refused("a test".to_owned()));
            }
            let some = numbers.iter().take(self.most.unwrap_or(usize::MAX));
            Ok(some.map(|number| number * 2).collect())
        }
    }

    fn gather(question: &Double) -> Gather<Double> {
        let turns = Arc::new(Semaphore::new(4));
        let metrics = Arc::new(Metrics::new());
        Gather::new(question.clone(), turns, Tasks::default(), metrics)
    }

    /// Asks for `many` numbers, one each `interval`. Answers what came back, in order.
    async fn ask(
        gather: &Gather<Double>,
        many: u64,
        interval: Duration,
    ) -> Vec<Result<u64, Unanswered>> {
        let asking = (0..many).map(|number| async move {
            let waits = interval * u32::try_from(number).unwrap();
            tokio::time::sleep(waits).await;
            gather.ask(number).await
        });
        futures_util::future::join_all(asking).await
    }

    fn are_doubled(answers: &[Result<u64, Unanswered>]) -> bool {
        (0..)
            .zip(answers)
            .all(|(number, answer)| *answer == Ok(number * 2))
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_in_five_seconds_are_some_dozens_of_statements_a_second() {
        let double = Double::default();
        let answers = ask(&gather(&double), 10_000, Duration::from_micros(500)).await;
        assert!(are_doubled(&answers));
        let statements = double.statements.load(Ordering::SeqCst);
        assert!((40..=250).contains(&statements), "{statements}");
    }

    #[tokio::test(start_paused = true)]
    async fn at_rest_nobody_waits_for_others() {
        let double = Double::default();
        let gather = gather(&double);
        let start = Instant::now();
        assert_eq!(gather.ask(1).await, Ok(2));
        assert_eq!(start.elapsed(), Duration::from_millis(1));
        tokio::time::sleep(PAUSE * 2).await;
        let start = Instant::now();
        assert_eq!(gather.ask(2).await, Ok(4));
        assert_eq!(start.elapsed(), Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_are_full_statements() {
        let double = Double::default();
        let answers = ask(&gather(&double), 2_561, Duration::ZERO).await;
        assert!(answers.iter().all(Result::is_ok));
        assert!(double.statements.load(Ordering::SeqCst) <= 13);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_left_over_is_asked_again() {
        let double = Double {
            most: Some(10),
            ..Double::default()
        };
        let answers = ask(&gather(&double), 95, Duration::ZERO).await;
        assert!(are_doubled(&answers));
        assert_eq!(double.statements.load(Ordering::SeqCst), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_with_one_is_not_the_others_loss() {
        let double = Double {
            fails_on: Some(7),
            ..Double::default()
        };
        let answers = ask(&gather(&double), 20, Duration::ZERO).await;
        for (number, answer) in (0..).zip(answers) {
            let expected = if number == 7 {
                Err(Unanswered)
            } else {
                Ok(number * 2)
            };
            assert_eq!(answer, expected);
        }
    }

    /// Also those who stopped waiting do not hold anybody up.
    #[tokio::test(start_paused = true)]
    async fn a_question_joins_no_statement_that_was_sent() {
        let double = Double::default();
        let gather = gather(&double);
        let (first, second) = tokio::join!(gather.ask(1), async {
            tokio::time::sleep(Duration::from_micros(500)).await;
            let gone = tokio::time::timeout(Duration::ZERO, gather.ask(9)).await;
            assert!(gone.is_err());
            gather.ask(2).await
        });
        assert_eq!((first, second), (Ok(2), Ok(4)));
        assert_eq!(double.statements.load(Ordering::SeqCst), 2);
    }
}
