//! All tasks of the process: each has a name and a token that ends it. One that ends without being told to is the end of the
//! process: half a gateway is worse than a restart.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The set of running tasks.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<Option<String>>,
}

/// One task, as the supervisor holds it.
#[derive(Debug)]
pub(super) struct Running {
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Tasks {
    /// Starts a task on this runtime. It is expected to end after `stop` was cancelled, and never before.
    pub(super) fn spawn<F>(&mut self, name: &str, stop: CancellationToken, work: F) -> Running
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let (done, ended) = oneshot::channel();
        let (name, token) = (name.to_owned(), stop.clone());
        self.set.spawn(async move {
            work.await;
            // Nobody may be waiting for the end.
            let _ = done.send(());
            (!token.is_cancelled()).then_some(name)
        });
        Running { stop, ended }
    }

    /// Waits for a task that ended unasked, and names it. Cancel-safe.
    pub(super) async fn unasked(&mut self) -> String {
        loop {
            match self.set.join_next().await {
                Some(Ok(None)) => {}
                Some(Ok(Some(name))) => return name,
                Some(Err(panicked)) => return format!("a task that panicked: {panicked}"),
                None => std::future::pending().await,
            }
        }
    }
}

impl Running {
    /// Tells the task to end.
    pub(super) fn tell(&self) {
        self.stop.cancel();
    }

    /// Tells the task to end and waits at most so long; whether it ended.
    pub(super) async fn end(&mut self, within: Duration) -> bool {
        self.stop.cancel();
        timeout(within, &mut self.ended).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_task_that_ends_unasked_is_named() {
        let mut tasks = Tasks::default();
        let stop = CancellationToken::new();
        let mut page = tasks.spawn("page", stop.clone(), async move { stop.cancelled().await });
        assert!(page.end(Duration::from_secs(5)).await);
        tasks.spawn("uplink", CancellationToken::new(), async {});
        assert_eq!(tasks.unasked().await, "uplink");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_not_waited_for_longer_than_its_budget() {
        let mut tasks = Tasks::default();
        let mut stuck = tasks.spawn("stuck", CancellationToken::new(), std::future::pending::<()>());
        assert!(!stuck.end(Duration::from_secs(1)).await);
    }
}
