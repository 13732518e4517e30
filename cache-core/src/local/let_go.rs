//! Values that were removed from L1. Their destructors are the user's code: they run in a
//! background task or after a fill, one by one, and never on the connection's task, in a hit or
//! under a lock.
//!
//! There is one list for the process, since an entry has no room for a pointer to its own. It is
//! emptied by every cache that drops or keeps something.
//!
//! Invariant: a value that was in the table is dropped here, so a destructor that panics does not
//! unwind through other code of the library.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::value::{Erased, drop_caught};

struct Values {
    /// A lock of the standard library: nothing else is done under it, so the order of steps does
    /// not depend on it.
    list: Mutex<Vec<Erased>>,
    /// The length of the list, readable without its lock.
    len: AtomicUsize,
}

static OF_ALL: Values = Values::new();

#[cfg(feature = "testing")]
thread_local!(static OF_THIS_THREAD: std::cell::Cell<Option<&'static Values>> = const { std::cell::Cell::new(None) });

/// Gives this thread a list of its own from now on. A simulation replays every step by its seed,
/// independent of other threads.
#[cfg(feature = "testing")]
pub(super) fn apart() {
    if OF_THIS_THREAD.get().is_none() {
        OF_THIS_THREAD.set(Some(Box::leak(Box::new(Values::new()))));
    }
}

fn values() -> &'static Values {
    #[cfg(feature = "testing")]
    if let Some(own) = OF_THIS_THREAD.get() {
        return own;
    }
    &OF_ALL
}

/// The capacity that an empty list keeps.
const ROOM: usize = 1024;

/// Replaces the value, so that it can be dropped later.
pub(super) fn later(place: &mut Erased) {
    static NOTHING: LazyLock<Erased> = LazyLock::new(|| Arc::new(()));
    let value = std::mem::replace(place, Arc::clone(&NOTHING));
    let values = values();
    let mut list = values.list();
    list.push(value);
    values.len.store(list.len(), Ordering::Relaxed);
}

/// Returns how many values wait.
pub(super) fn waiting() -> usize {
    values().len.load(Ordering::Relaxed)
}

/// Drops some of them.
pub(super) fn drop_some(most: usize) {
    if waiting() == 0 {
        return;
    }
    let dropped = {
        let values = values();
        let mut list = values.list();
        let rest = list.len().saturating_sub(most);
        let dropped = list.split_off(rest);
        if rest == 0 && list.capacity() > ROOM {
            list.shrink_to(ROOM);
        }
        values.len.store(rest, Ordering::Relaxed);
        dropped
    };
    for value in dropped {
        drop_caught(value);
    }
}

/// Drops all waiting values when it is dropped itself: the last field of a tier.
pub(super) struct AtTheEnd;

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        drop_some(usize::MAX);
    }
}

impl Values {
    const fn new() -> Self {
        Self { list: Mutex::new(Vec::new()), len: AtomicUsize::new(0) }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Erased>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
