//! Who waits for which key to change.
//!
//! The server pushes each change of a key that was read tracked on this connection, once. The push arrives on the
//! connection's driver task, so everything here only moves map entries.
//!
//! Invariant: a waiter that is registered before its read is sent is woken by every change after that read: by the push,
//! or, if the connection that would carry the push is lost, by [`Watchers::wake_all`]. Being woken without a change is allowed.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use redis::Value;
use tokio::sync::oneshot;

/// Waiters of one process; one more falls back to polling. About 200 bytes each.
const MAX_WAITERS: usize = 65_536;

#[derive(Default)]
pub(super) struct Watchers(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: u64,
    count: usize,
    /// Rises whenever everything may have changed.
    epoch: u64,
    keys: HashMap<Box<[u8]>, Vec<Registered>>,
}

/// A waiter's number and what wakes it.
type Registered = (u64, oneshot::Sender<()>);

/// Resolves at the first change of its key. Dropping it deregisters.
pub(super) struct Waiter {
    watchers: Arc<Watchers>,
    key: Box<[u8]>,
    id: u64,
    woken: oneshot::Receiver<()>,
}

impl Watchers {
    /// `None`: too many wait already.
    pub(super) fn register(self: &Arc<Self>, key: &str) -> Option<Waiter> {
        let key: Box<[u8]> = key.as_bytes().into();
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
        Some(Waiter { watchers: Arc::clone(self), key, id, woken })
    }

    /// Handles an invalidation push: a list of keys, or nothing for all of them (FLUSHALL, a full tracking table).
    pub(super) fn invalidated(&self, data: &[Value]) {
        match data {
            [Value::Array(keys)] => {
                for key in keys {
                    if let Value::BulkString(key) = key {
                        self.wake(key);
                    }
                }
            }
            _ => self.wake_all(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.waiting().epoch
    }

    pub(super) fn wake_all(&self) {
        let woken = {
            let mut waiting = self.waiting();
            waiting.count = 0;
            waiting.epoch = waiting.epoch.wrapping_add(1);
            std::mem::take(&mut waiting.keys)
        };
        // Dropping a sender wakes its waiter: after the lock is free.
        drop(woken);
    }

    fn wake(&self, key: &[u8]) {
        let woken = {
            let mut waiting = self.waiting();
            let woken = waiting.keys.remove(key);
            waiting.count = waiting.count.saturating_sub(woken.as_ref().map_or(0, Vec::len));
            woken
        };
        drop(woken);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn count(&self) -> (usize, usize) {
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
        let mut waiting = self.watchers.waiting();
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

    fn push_of(keys: &[&str]) -> Vec<Value> {
        vec![Value::Array(keys.iter().map(|key| Value::BulkString(key.as_bytes().to_vec())).collect())]
    }

    #[test]
    fn a_push_wakes_the_waiters_of_its_key_only() {
        let watchers = Arc::new(Watchers::default());
        let (mut a, mut also_a) = (watchers.register("a").unwrap(), watchers.register("a").unwrap());
        let mut b = watchers.register("b").unwrap();
        watchers.invalidated(&push_of(&["a", "unknown"]));
        assert_eq!(((&mut a).now_or_never(), (&mut also_a).now_or_never()), (Some(()), Some(())));
        assert_eq!((&mut b).now_or_never(), None);
        watchers.invalidated(&[Value::Nil]);
        assert_eq!((&mut b).now_or_never(), Some(()));
        assert_eq!(watchers.count(), (0, 0));
    }

    #[test]
    fn a_dropped_waiter_leaves_nothing_behind() {
        let watchers = Arc::new(Watchers::default());
        let (a, also_a) = (watchers.register("a").unwrap(), watchers.register("a").unwrap());
        drop(a);
        assert_eq!(watchers.count(), (1, 1));
        drop(also_a);
        assert_eq!(watchers.count(), (0, 0));
        let late = watchers.register("a").unwrap();
        watchers.wake_all();
        let new = watchers.register("a").unwrap();
        drop(late);
        assert_eq!(watchers.count(), (1, 1));
        drop(new);
    }

    #[test]
    fn waiters_are_bounded() {
        let watchers = Arc::new(Watchers::default());
        let all: Vec<_> = (0..MAX_WAITERS).map(|n| watchers.register(&n.to_string()).unwrap()).collect();
        assert!(watchers.register("one more").is_none());
        drop(all);
        assert!(watchers.register("one more").is_some());
    }
}
