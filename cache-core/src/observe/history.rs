//! The recent history of each key in this process, for [`why`](crate::CachedEntry::why).
//!
//! ```text
//! note(key, what) ── hash of the key ──> one of 16 rings: a mutex and a fixed number of steps;
//!                                        a new step replaces the oldest
//! ```
//!
//! Invariant: bounded from the start, and noting a step allocates nothing. A key is identified by
//! 64 bits of its hash, so no key stays readable in memory. A hit in L1 notes nothing. A step that
//! concerns many keys (a version, a lost connection) is noted once, under a key of its own.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::Clock;
use crate::error::ErrorKind;
use crate::observe::events::StaleCause;

/// Reduces contention: threads that note steps of different keys rarely meet.
const RINGS: usize = 16;
/// The key under which steps are noted that may have changed every key. No key of the store is
/// empty.
const EVERY_KEY: &str = "";

/// What happened to an entry, as its process saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryEvent {
    /// Read from the store: a value. If it is past its ttl, it is served while a refresh runs.
    Hit {
        /// How long it was still fresh; zero if it was past its ttl.
        fresh_for: Duration,
    },
    /// Read from the store: nothing was there.
    Missed,
    /// Read from the store: a value past its ttl, which must be computed again.
    Expired,
    /// Read from the store: a record from before an invalidation, which is never served again.
    Outdated(Scope),
    /// Read from the store: bytes that are not a record of the function.
    Undecodable,
    /// Read from the store: a write fence, so the value was computed for its caller alone.
    Fenced,
    /// Read from the store: a compute stored nothing a moment ago, or another process computes
    /// again after that. Callers do not wait for it.
    NotAwaited,
    /// Another process was computing the value: this call waited for a push or for the end of the
    /// lease.
    Waited,
    /// This process took the lease and computes for all.
    LeaseTaken,
    /// The lease was renewed during a long compute.
    LeaseRenewed,
    /// The lease was lost during the compute: the key was invalidated, overwritten or evicted. The
    /// value will not be stored.
    LeaseLost,
    /// The function was called.
    RunBegan,
    /// The function returned a value.
    RunEnded {
        /// The duration of the compute.
        after: Duration,
    },
    /// The function returned an error, or panicked.
    RunFailed {
        /// The duration of the compute.
        after: Duration,
    },
    /// The function exceeded its deadline.
    DeadlinePassed,
    /// The value was stored.
    Filled {
        /// How long it is fresh, after jitter.
        fresh_for: Duration,
    },
    /// The function kept the old value, whose ttl started again.
    Renewed {
        /// How long it is fresh, after jitter.
        fresh_for: Duration,
    },
    /// The value was returned and not stored, because of an invalidation or another write during
    /// the compute.
    FillRefused(Refusal),
    /// The value was returned and not stored: by `cache_if`, because it is absent and there is no
    /// `negative_ttl`, because it is too large, or because it cannot be encoded.
    NotStored,
    /// This process wrote a value with `set`.
    Set,
    /// This process invalidated the entry.
    Removed,
    /// A tag, the function or the namespace was invalidated.
    Invalidated(Scope, Actor),
    /// This process raised a write fence on the entry or on one of its tags.
    FenceRaised,
    /// This process lifted the fence.
    FenceLifted,
    /// This process withdrew the fence after a write that did not happen: the content from before
    /// is back.
    FenceWithdrawn,
    /// A write of this process failed. It may or may not have been executed.
    WriteFailed(ErrorKind),
    /// The store notified a change of the entry, and this process dropped its copy.
    ///
    /// Another process or a person with a client wrote or removed it, it expired, or it was
    /// evicted. A refresh that this process stored counts, too.
    Changed,
    /// The connection was lost or made, and this process dropped all its copies: changes may have
    /// been missed.
    ConnectionLost,
    /// A refresh was started while the old value was served.
    RefreshBegan,
    /// The refresh failed.
    RefreshFailed,
    /// The refresh was skipped, because the maximum number was running.
    RefreshSkipped,
    /// A refresh failed a moment ago, here or elsewhere, or another process is running one. This
    /// process does not refresh the entry for a while.
    Cooldown {
        /// How long it does not refresh the entry.
        lasts: Duration,
    },
    /// A value past its ttl was served.
    StaleServed(StaleCause),
    /// The store failed, and the call went on without it.
    StoreFailed(ErrorKind),
}

/// The kind of version that a value was stored under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// The version of a tag.
    Tag,
    /// The version of the function.
    Function,
    /// The version of the namespace.
    Namespace,
    /// The version of the function or the namespace; the record does not say which.
    FunctionOrNamespace,
}

/// Who made a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Actor {
    /// This cache.
    ThisProcess,
    /// Another cache or client, as notified by the store.
    Another,
}

/// Why a value was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The lease was gone: the entry was invalidated, overwritten or evicted.
    LeaseLost,
    /// A tag, the function or the namespace was invalidated, or the entry would have too many tags.
    Outdated,
}

/// The steps of one cache.
pub(crate) struct History {
    /// Empty if the history is turned off.
    rings: Vec<Mutex<Ring>>,
    /// Steps in each ring.
    most: usize,
    /// A random seed, so that keys with equal hashes cannot be chosen on purpose.
    seed: u64,
    order: AtomicU64,
    clock: Clock,
}

#[derive(Default)]
struct Ring {
    steps: Vec<Noted>,
    /// The oldest step, once the ring is full.
    oldest: usize,
}

/// A step as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noted {
    hash: u64,
    /// Rises from step to step.
    pub(crate) order: u64,
    /// On the machine's wall clock, since 1970.
    pub(crate) at: Duration,
    pub(crate) what: HistoryEvent,
}

impl History {
    /// Makes a history of `most` steps, rounded up to a multiple of 16. Zero turns it off.
    pub(crate) fn new(most: usize, clock: Clock) -> Self {
        let rings = if most == 0 { 0 } else { RINGS };
        Self {
            rings: (0..rings).map(|_| Mutex::default()).collect(),
            most: most.div_ceil(RINGS),
            seed: crate::random::u64(),
            order: AtomicU64::new(0),
            clock,
        }
    }

    /// Notes what happened to a key. Allocates nothing, except for a ring at its first step.
    pub(crate) fn note(&self, key: &str, what: HistoryEvent) {
        let hash = self.hash(key);
        let Some(ring) = self.ring(hash) else { return };
        let at = self.clock.wall_precise();
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: the steps of one ring are in order.
        let noted = Noted { hash, order: self.order.fetch_add(1, Ordering::Relaxed), at, what };
        ring.push(noted, self.most);
    }

    /// Notes what happened to every key at once.
    pub(crate) fn note_of_all(&self, what: HistoryEvent) {
        self.note(EVERY_KEY, what);
    }

    /// Returns the steps of a key that are still known, the oldest first.
    pub(crate) fn of(&self, key: &str) -> Vec<Noted> {
        let hash = self.hash(key);
        let Some(ring) = self.ring(hash) else { return Vec::new() };
        let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        let (newer, older) = ring.steps.split_at_checked(ring.oldest).unwrap_or_default();
        older.iter().chain(newer).filter(|step| step.hash == hash).copied().collect()
    }

    /// Returns the steps that concern every key.
    pub(crate) fn of_all(&self) -> Vec<Noted> {
        self.of(EVERY_KEY)
    }

    fn hash(&self, key: &str) -> u64 {
        xxh3_64_with_seed(key.as_bytes(), self.seed)
    }

    fn ring(&self, hash: u64) -> Option<&Mutex<Ring>> {
        self.rings.get(hash as usize % RINGS)
    }
}

impl Ring {
    fn push(&mut self, step: Noted, most: usize) {
        if self.steps.len() < most {
            if self.steps.is_empty() {
                self.steps.reserve_exact(most);
            }
            self.steps.push(step);
            return;
        }
        if let Some(oldest) = self.steps.get_mut(self.oldest) {
            *oldest = step;
        }
        self.oldest = self.oldest.wrapping_add(1).checked_rem(most).unwrap_or(0);
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("History")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(history: &History, key: &str) -> Vec<HistoryEvent> {
        history.of(key).iter().map(|noted| noted.what).collect()
    }

    #[test]
    fn a_key_has_its_own_steps_in_their_order() {
        let history = History::new(64, Clock::manual());
        history.note("a", HistoryEvent::Missed);
        history.note("b", HistoryEvent::Set);
        history.note("a", HistoryEvent::LeaseTaken);
        history.note_of_all(HistoryEvent::ConnectionLost);
        assert_eq!(kinds(&history, "a"), [HistoryEvent::Missed, HistoryEvent::LeaseTaken]);
        assert_eq!(kinds(&history, "b"), [HistoryEvent::Set]);
        assert_eq!(history.of_all().iter().map(|noted| noted.order).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn the_oldest_steps_are_dropped_and_memory_stays_constant() {
        let history = History::new(64, Clock::manual());
        for millis in 0..10 {
            history.note("a", HistoryEvent::Hit { fresh_for: Duration::from_millis(millis) });
        }
        let last = (6..10).map(|millis| HistoryEvent::Hit { fresh_for: Duration::from_millis(millis) });
        assert_eq!(kinds(&history, "a"), last.collect::<Vec<_>>());
        for key in 0..1000 {
            history.note(&key.to_string(), HistoryEvent::Missed);
        }
        let held = history.rings.iter().map(|ring| ring.lock().unwrap().steps.capacity());
        assert_eq!(held.collect::<Vec<_>>(), [4; RINGS]);
    }

    #[test]
    fn a_disabled_history_keeps_nothing() {
        let history = History::new(0, Clock::manual());
        history.note("a", HistoryEvent::Missed);
        assert!(kinds(&history, "a").is_empty());
    }
}
