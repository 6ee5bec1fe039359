//! Who owns a background task, and how it is asked to stop: the only file that spawns.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one node. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs `task` for the life of the node. Its end, by return or by panic, ends the node: one that
    /// has stopped listening to the bus must not look healthy.
    pub fn essential<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop_node = self.stop.clone().drop_guard();
        let task = task(self.stop.child_token());
        self.spawn(async move {
            let _stop_node = stop_node;
            task.await;
            tracing::debug!(task = name, "task ended");
        });
    }

    /// Runs `work` to its end, whoever still waits for it: a caller that goes away cancels nothing.
    /// The work bounds its own time.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(work))
    }

    /// Fires when the node is to stop: because it was asked to, or because an essential task ended.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks every task to stop, and waits for all of them, at most `patience`. Answers whether all ended.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_an_essential_task_ends_the_node() {
        let tasks = Tasks::default();
        tasks.essential("returns", |_| async {});
        tasks.stopping().cancelled().await;
    }

    #[tokio::test]
    async fn the_panic_of_an_essential_task_ends_the_node() {
        let tasks = Tasks::default();
        tasks.essential("panics", |_| async { panic!("on purpose") });
        tasks.stopping().cancelled().await;
    }

    #[tokio::test]
    async fn work_goes_on_when_its_caller_went_away() {
        let tasks = Tasks::default();
        let (done, mut is_done) = tokio::sync::mpsc::channel(1);
        drop(tasks.spawn(async move { done.send(()).await }));
        assert_eq!(is_done.recv().await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_reported() {
        let tasks = Tasks::default();
        tasks.essential("stops", |stop| async move { stop.cancelled().await });
        assert!(tasks.clone().finish(Duration::from_secs(1)).await);

        let tasks = Tasks::default();
        tasks.spawn(std::future::pending::<()>());
        assert!(!tasks.finish(Duration::from_secs(1)).await);
    }
}
