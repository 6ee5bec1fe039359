//! What this node could not send, until it has told the other nodes so: their own links may have been
//! whole all the while, and nothing else would make them ask the store.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How often a node says that it could not send something, and how often it believes others who say so, at
/// most: each time, sockets are compared with the store. Longer than an answer is waited for, so that no
/// two such words of one node are under way.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Counts the messages that were taken from the caller and not published, for whatever reason, or that
/// Redis may not have got. Cloning shares the count.
#[derive(Clone, Debug)]
pub(super) struct Losses(watch::Sender<u64>);

/// The losses that the other nodes have not been told of.
#[derive(Debug)]
pub(super) struct Untold {
    losses: watch::Receiver<u64>,
    /// How many the others know of.
    told: u64,
    pace: Pace,
}

/// For what may be done once in a [`PAUSE`]: when it was done last.
#[derive(Debug, Default)]
pub(super) struct Pace(Option<Instant>);

impl Losses {
    pub(super) fn new() -> (Self, Untold) {
        let (sender, losses) = watch::channel(0);
        let untold = Untold {
            losses,
            told: 0,
            pace: Pace::default(),
        };
        (Self(sender), untold)
    }

    pub(super) fn add_one(&self) {
        self.0.send_modify(|losses| *losses += 1);
    }
}

impl Untold {
    pub(super) fn are_there(&self) -> bool {
        *self.losses.borrow() != self.told
    }

    /// When the others should be told, if there is something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.are_there().then(|| self.pace.next())
    }

    /// To be called before the word goes out. Answers what it covers: the losses so far.
    pub(super) fn telling(&mut self) -> u64 {
        self.pace.done();
        *self.losses.borrow()
    }

    /// Redis has taken the word that covers the first `losses`. Not called for a word that is not answered:
    /// it stays due.
    pub(super) fn told(&mut self, losses: u64) {
        self.told = losses.max(self.told);
    }

    /// Returns when there is something to tell.
    pub(super) async fn some(&mut self) {
        let told = self.told;
        if self
            .losses
            .wait_for(|losses| *losses != told)
            .await
            .is_err()
        {
            // Nobody is left who could lose anything.
            std::future::pending::<()>().await;
        }
    }
}

impl Pace {
    /// From when on it may be done again.
    pub(super) fn next(&self) -> Instant {
        self.0.map_or_else(Instant::now, |last| last + PAUSE)
    }

    pub(super) fn done(&mut self) {
        self.0 = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_lost_stays_due_until_a_word_that_covers_it_is_answered() {
        let (losses, mut untold) = Losses::new();
        assert_eq!(untold.due(), None);
        assert_eq!(poll_immediate(untold.some()).await, None);

        losses.add_one();
        assert_eq!(poll_immediate(untold.some()).await, Some(()));
        assert_eq!(untold.due(), Some(Instant::now()));
        let unanswered = untold.telling();
        assert_eq!(untold.due(), Some(Instant::now() + PAUSE));

        tokio::time::advance(PAUSE).await;
        let answered = untold.telling();
        losses.add_one();
        untold.told(answered);
        assert!(untold.are_there(), "one was lost after the word");

        let both = untold.telling();
        untold.told(both);
        untold.told(unanswered);
        assert_eq!(untold.due(), None);
        assert_eq!(poll_immediate(untold.some()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_that_never_ends_is_told_once_in_a_pause() {
        let (losses, mut untold) = Losses::new();
        let (start, mut words) = (Instant::now(), 0);
        while start.elapsed() < PAUSE * 10 {
            losses.add_one();
            if untold.due().is_some_and(|due| due <= Instant::now()) {
                let covered = untold.telling();
                untold.told(covered);
                words += 1;
            }
            tokio::time::advance(PAUSE / 100).await;
        }
        assert_eq!(words, 10);
    }

    #[tokio::test]
    async fn nothing_is_awaited_in_vain_when_nobody_can_lose_anything() {
        let (losses, mut untold) = Losses::new();
        drop(losses);
        assert_eq!(poll_immediate(untold.some()).await, None);
    }
}
