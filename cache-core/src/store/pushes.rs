//! Notifications of changes: waiters for single keys, and listeners for all of them.
//!
//! Invariant: a waiter that is registered before its read is sent is woken by every change after
//! that read: by the change, or, if the connection that would deliver it is lost, by
//! [`Pushes::gap`]. A wake-up without a change is allowed. Everything here only moves map entries,
//! since changes arrive on the connection's driver task.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::mutants::{self, Invariant};

/// The maximum number of waiters in one process; further ones fall back to polling. About 200 bytes
/// each.
const MAX_WAITERS: usize = 65_536;

/// Is notified of changes, synchronously and in order. It must neither block nor panic.
pub(crate) trait Listener: Send + Sync {
    /// The key was written or removed by any client, or has expired.
    fn changed(&self, key: &str);
    /// Anything may have changed: the connection was lost, or everything was flushed.
    fn gap(&self);
}

/// Waiters and listeners of one store.
#[derive(Default)]
pub(crate) struct Pushes {
    waiting: Mutex<Waiting>,
    listeners: RwLock<Vec<Weak<dyn Listener>>>,
    /// Rises at each gap.
    epoch: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    count: usize,
    keys: HashMap<Box<str>, Vec<Registered>>,
}

/// A waiter's number and the sender that wakes it.
type Registered = (u64, oneshot::Sender<()>);

/// Resolves at the first change of its key. Dropping it deregisters.
pub(crate) struct Waiter {
    pushes: Arc<Pushes>,
    key: Box<str>,
    id: u64,
    woken: oneshot::Receiver<()>,
}

impl Pushes {
    /// Notifies the listener of every change from now on, for as long as it lives.
    pub(crate) fn listen(&self, listener: Weak<dyn Listener>) {
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    /// Registers a waiter; `None` if too many wait already.
    pub(crate) fn register(self: &Arc<Self>, key: &str) -> Option<Waiter> {
        let key: Box<str> = key.into();
        let (wake, woken) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.count >= MAX_WAITERS {
            return None;
        }
        let id = waiting.next;
        waiting.next = id.wrapping_add(1);
        waiting.count = waiting.count.saturating_add(1);
        waiting.keys.entry(key.clone()).or_default().push((id, wake));
        drop(waiting);
        Some(Waiter { pushes: Arc::clone(self), key, id, woken })
    }

    /// Handles a change of a key. Listeners come first: a woken caller must not find a replaced
    /// value.
    pub(crate) fn changed(&self, key: &str) {
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            listener.changed(key);
        }
        let woken = {
            let mut waiting = self.waiting();
            let woken = waiting.keys.remove(key);
            waiting.count = waiting.count.saturating_sub(woken.as_ref().map_or(0, Vec::len));
            woken
        };
        // Dropping a sender wakes its waiter, so it is done after the lock is released.
        drop(woken);
    }

    /// Handles a gap: anything may have changed.
    pub(crate) fn gap(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            listener.gap();
        }
        let woken = {
            let mut waiting = self.waiting();
            waiting.count = 0;
            std::mem::take(&mut waiting.keys)
        };
        // The caller that has waited longest is woken first.
        let mut woken: Vec<Registered> = woken.into_values().flatten().collect();
        woken.sort_unstable_by_key(|(id, _)| *id);
        drop(woken);
    }

    /// Returns how many gaps there have been.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of waiters, and of keys they wait for.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn count(&self) -> (usize, usize) {
        let waiting = self.waiting();
        (waiting.count, waiting.keys.len())
    }
}

impl Future for Waiter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The sender is never used, only dropped: an error is the wake-up.
        Pin::new(&mut self.woken).poll(cx).map(|_dropped| ())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if mutants::removed(Invariant::WaiterLeaves) {
            return;
        }
        let mut waiting = self.pushes.waiting();
        let Some(waiters) = waiting.keys.get_mut(&self.key) else { return };
        let before = waiters.len();
        waiters.retain(|(id, _)| *id != self.id);
        let (removed, empty) = (before.saturating_sub(waiters.len()), waiters.is_empty());
        waiting.count = waiting.count.saturating_sub(removed);
        if empty {
            waiting.keys.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_change_wakes_the_waiters_of_its_key_only() {
        let pushes = Arc::new(Pushes::default());
        let (mut a, mut also_a) = (pushes.register("a").unwrap(), pushes.register("a").unwrap());
        let mut b = pushes.register("b").unwrap();
        pushes.changed("a");
        pushes.changed("unknown");
        assert_eq!(((&mut a).now_or_never(), (&mut also_a).now_or_never()), (Some(()), Some(())));
        assert_eq!((&mut b).now_or_never(), None);
        pushes.gap();
        assert_eq!((&mut b).now_or_never(), Some(()));
        assert_eq!(pushes.count(), (0, 0));
    }

    #[test]
    fn a_dropped_waiter_leaves_nothing_behind() {
        let pushes = Arc::new(Pushes::default());
        let (a, also_a) = (pushes.register("a").unwrap(), pushes.register("a").unwrap());
        drop(a);
        assert_eq!(pushes.count(), (1, 1));
        drop(also_a);
        assert_eq!(pushes.count(), (0, 0));
        let late = pushes.register("a").unwrap();
        pushes.gap();
        let new = pushes.register("a").unwrap();
        drop(late);
        assert_eq!(pushes.count(), (1, 1));
        drop(new);
    }

    #[test]
    fn waiters_are_bounded() {
        let pushes = Arc::new(Pushes::default());
        let all: Vec<_> = (0..MAX_WAITERS).map(|n| pushes.register(&n.to_string()).unwrap()).collect();
        assert!(pushes.register("one more").is_none());
        drop(all);
        assert!(pushes.register("one more").is_some());
    }
}
