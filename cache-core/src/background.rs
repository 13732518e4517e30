//! Background tasks: the only place that spawns.
//!
//! Invariant: every task belongs to one [`Background`] and is over when [`Background::shutdown`] returns or the last owner is
//! dropped. Nothing outlives its cache.
//!
//! | sort | example | at shutdown |
//! |---|---|---|
//! | service | the connection's supervisor | ended at once |
//! | work | a refresh | may finish within the bound, then ended |

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long shutdown waits for tasks that were told to end. They end at their next await; only one that blocks its thread takes longer.
const ABORT_BOUND: Duration = Duration::from_secs(1);

/// The background tasks of one cache.
#[derive(Debug, Default)]
pub(crate) struct Background(Mutex<Tasks>);

#[derive(Debug, Default)]
struct Tasks {
    closed: bool,
    services: JoinSet<()>,
    work: JoinSet<()>,
}

impl Background {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Runs until shutdown ends it. `false`: shut down already, or not called inside a tokio runtime; the future is dropped.
    pub(crate) fn service(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.spawn(|tasks| &mut tasks.services, task)
    }

    /// Runs to its end; shutdown waits for it within its bound. `false` as for [`service`](Self::service).
    pub(crate) fn work(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.spawn(|tasks| &mut tasks.work, task)
    }

    /// Ends services, lets work finish for at most `within`, then ends it too. `true`: all work finished.
    ///
    /// Cancelled half way, the tasks that are left end as they are dropped with this future.
    pub(crate) async fn shutdown(&self, within: Duration) -> bool {
        let (mut services, mut work) = {
            let mut tasks = self.tasks();
            tasks.closed = true;
            (std::mem::take(&mut tasks.services), std::mem::take(&mut tasks.work))
        };
        let drained = timeout(within, async { while work.join_next().await.is_some() {} }).await.is_ok();
        // Services go last: work in progress may still need the connection that one of them keeps.
        let end = async {
            work.shutdown().await;
            services.shutdown().await;
        };
        let _a_task_that_blocks_its_thread_is_left_behind = timeout(ABORT_BOUND, end).await;
        drained
    }

    fn spawn(
        &self,
        set: impl FnOnce(&mut Tasks) -> &mut JoinSet<()>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        let mut tasks = self.tasks();
        if tasks.closed {
            return false;
        }
        let set = set(&mut tasks);
        // Finished tasks stay in the set until they are asked for.
        while set.try_join_next().is_some() {}
        set.spawn_on(task, &runtime);
        true
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    // D7
    async fn shutdown_lets_work_finish_and_ends_services() {
        let background = Background::new();
        let (gate, done) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        assert!(background.service(std::future::pending()));
        let (opened, finished) = (gate.clone(), done.clone());
        assert!(background.work(async move {
            opened.notified().await;
            finished.store(true, Ordering::SeqCst);
        }));
        gate.notify_one();
        assert!(background.shutdown(Duration::from_secs(5)).await);
        assert!(done.load(Ordering::SeqCst));
        assert!(!background.work(async {}));
    }

    #[tokio::test(start_paused = true)]
    // D7
    async fn shutdown_is_bounded() {
        let background = Background::new();
        assert!(background.work(std::future::pending()));
        assert!(!background.shutdown(Duration::from_secs(5)).await);
    }

    #[test]
    fn outside_a_runtime_nothing_is_spawned() {
        assert!(!Background::new().work(async {}));
    }
}
