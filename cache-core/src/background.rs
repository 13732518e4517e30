//! Background tasks: the only module that spawns.
//!
//! Invariant: every task belongs to one [`Background`] and is over when [`Background::shutdown`]
//! returns or the last owner is dropped. No task outlives its cache.
//!
//! | kind | example | at shutdown |
//! |---|---|---|
//! | service | the connection's supervisor | ended at once |
//! | lasting service | the same: it is restarted if its runtime has ended (D9) | ended at once |
//! | work | a refresh | may finish within the bound, then ended |
//! | run | a miss that callers wait for | goes on for as long as one of them waits |

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// How long shutdown waits for aborted tasks. They end at their next await; only one that blocks
/// its thread takes longer.
const ABORT_BOUND: Duration = Duration::from_secs(1);

/// The background tasks of one cache.
#[derive(Debug, Default)]
pub(crate) struct Background {
    tasks: Mutex<Tasks>,
    /// How many runs are in progress.
    runs: watch::Sender<usize>,
    /// Services that are started again if their runtime has ended.
    lasting: Mutex<Vec<Lasting>>,
}

/// A service that the cache needs for as long as it lives.
struct Lasting {
    make: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
    task: Option<AbortHandle>,
}

impl fmt::Debug for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lasting").field("task", &self.task).finish_non_exhaustive()
    }
}

/// A run in progress.
struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    fn new(runs: &watch::Sender<usize>) -> Self {
        runs.send_modify(|runs| *runs = runs.saturating_add(1));
        Self(runs.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|runs| *runs = runs.saturating_sub(1));
    }
}

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

    /// Spawns a task that runs until shutdown ends it. Returns `false` after shutdown or outside a
    /// tokio runtime; the future is then dropped.
    pub(crate) fn service(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.spawn(|tasks| &mut tasks.services, task).is_some()
    }

    /// Spawns a [`service`](Self::service) that begins with `first`, and that each call of
    /// [`revive`](Self::revive) starts again by `make`.
    pub(crate) fn lasting(
        &self,
        first: impl Future<Output = ()> + Send + 'static,
        make: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> bool {
        let task = self.spawn(|tasks| &mut tasks.services, first);
        let spawned = task.is_some();
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner).push(Lasting { make: Box::new(make), task });
        spawned
    }

    /// Starts the lasting services again on the current runtime, since the one that they were on
    /// has ended. Returns `false` after shutdown or outside a tokio runtime.
    pub(crate) fn revive(&self) -> bool {
        if Handle::try_current().is_err() {
            return false;
        }
        let mut lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        lasting.iter_mut().all(|service| {
            // When a runtime ends, it drops one task after the other: this one may still exist.
            if let Some(task) = service.task.take() {
                task.abort();
            }
            service.task = self.spawn(|tasks| &mut tasks.services, (service.make)());
            service.task.is_some()
        })
    }

    /// Spawns a task that runs to its end; shutdown waits for it within its bound. Returns `false`
    /// as [`service`](Self::service) does.
    pub(crate) fn work(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.spawn(|tasks| &mut tasks.work, task).is_some()
    }

    /// Spawns a run that callers wait for.
    ///
    /// It ends by itself when no caller waits any more, so shutdown does not end it: a computed
    /// value reaches its callers. Shutdown waits for it within its bound, so that it can still
    /// store. It belongs to the `tracing` span of the caller that started it, and sees none of its
    /// task-locals.
    ///
    /// # Errors
    /// Returns the future itself outside a tokio runtime.
    pub(crate) fn run<T>(&self, task: T) -> Result<(), T>
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let Ok(runtime) = Handle::try_current() else { return Err(task) };
        let under_way = UnderWay::new(&self.runs);
        let task = async move {
            task.await;
            drop(under_way);
        };
        #[cfg(feature = "tracing")]
        let task = tracing::Instrument::in_current_span(task);
        drop(runtime.spawn(task));
        Ok(())
    }

    /// Lets work and runs finish for at most `within`, ends the remaining work, runs `left` with
    /// the services, and ends those. Returns `true` if all work finished.
    ///
    /// If this future is cancelled, the remaining tasks end as they are dropped with it.
    pub(crate) async fn shutdown(&self, within: Duration, left: impl Future<Output = ()>) -> bool {
        let (mut services, mut work) = {
            let mut tasks = self.tasks();
            tasks.closed = true;
            (std::mem::take(&mut tasks.services), std::mem::take(&mut tasks.work))
        };
        let mut runs = self.runs.subscribe();
        let ended = async {
            while work.join_next().await.is_some() {}
            // An error would mean that the sender is gone, but `self` holds it.
            drop(runs.wait_for(|runs| *runs == 0).await);
        };
        let drained = timeout(within, ended).await.is_ok();
        // Services end last: work in progress may still need the connection that one of them keeps.
        let end = async {
            work.shutdown().await;
            left.await;
            services.shutdown().await;
        };
        let _a_task_that_blocks_its_thread_is_left_behind = timeout(ABORT_BOUND, end).await;
        drained
    }

    fn spawn(
        &self,
        set: impl FnOnce(&mut Tasks) -> &mut JoinSet<()>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<AbortHandle> {
        let runtime = Handle::try_current().ok()?;
        let mut tasks = self.tasks();
        if tasks.closed {
            return None;
        }
        let set = set(&mut tasks);
        // Finished tasks stay in the set until they are joined.
        while set.try_join_next().is_some() {}
        Some(set.spawn_on(task, &runtime))
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
        assert!(background.shutdown(Duration::from_secs(5), async {}).await);
        assert!(done.load(Ordering::SeqCst));
        assert!(!background.work(async {}));
    }

    #[tokio::test(start_paused = true)]
    // D7
    async fn shutdown_is_bounded() {
        let background = Background::new();
        assert!(background.work(std::future::pending()));
        assert!(!background.shutdown(Duration::from_secs(5), async {}).await);
    }

    #[test]
    // D9
    fn a_lasting_service_moves_to_another_runtime_when_its_own_ends() {
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (background, made) = (Background::new(), Arc::new(AtomicU32::new(0)));
        let (first, second) = (runtime(), runtime());
        let count = Arc::clone(&made);
        let spawned = first.block_on(async {
            background.lasting(std::future::pending(), move || {
                let count = Arc::clone(&count);
                Box::pin(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    std::future::pending().await
                })
            })
        });
        assert!(spawned && !background.revive(), "outside a runtime");
        drop(first);
        let revived = second.block_on(async {
            let revived = background.revive();
            tokio::task::yield_now().await;
            revived
        });
        assert!(revived);
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn outside_a_runtime_nothing_is_spawned() {
        assert!(!Background::new().work(async {}));
    }
}
