//! L1, the tier in this process: decoded values, bounded by bytes.
//!
//! ```text
//! begin(key) ─ a mark ─> read tracked, decode ─> keep(mark, value) ─> served until its time, or a change, or a gap
//!                               │
//!                   changed(key): the mark is poisoned, keep refuses (R6)
//! ```
//!
//! Invariant: a value is kept only if nothing has changed its key since before the read that brought it was sent, and served
//! only until a change is told of it or of a version it was stored under, its own time ends, or the store's [`Trust`] does. Never filled from an own write (T4, T5, R7, R9).

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::clock::{Clock, millis};
use crate::store::Trust;
use crate::versions::{Dependencies, Dependency};

/// What an entry costs beside its key and value: table slots, the value's allocation, bookkeeping.
const ENTRY_OVERHEAD: u64 = 150;
/// Locks of the table. More let more threads in at once; each has its share of the bytes, and larger values are not kept.
const MOST_SHARDS: u64 = 128;
const LEAST_SHARD_BYTES: u64 = 512 << 10;
/// An entry of one number, for sizing the table at its first use.
const EXPECTED_ENTRY_BYTES: u64 = 2048;
const MARK_SHARDS: usize = 32;

/// A value whose type the engine does not name.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;

/// The tier in this process of one cache.
pub(crate) struct Local {
    entries: Cache<Arc<str>, Arc<Kept>, ByBytes>,
    marks: Vec<Mutex<HashMap<Arc<str>, Marks>>>,
    hasher: RandomState,
    trust: Arc<Trust>,
    clock: Clock,
    longest: Duration,
}

/// A value with its end on the coarse clock, and the versions it was stored under.
struct Kept {
    value: Erased,
    until: u64,
    weight: u64,
    under: Dependencies,
}

/// The fills under way of one key.
#[derive(Default)]
struct Marks {
    count: usize,
    /// Rises at each change of the key.
    changes: u64,
}

/// That a read of a key is under way. Dropped, it is given up.
pub(crate) struct Mark<'a> {
    local: &'a Local,
    key: Arc<str>,
    changes: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Arc<str>, Arc<Kept>> for ByBytes {
    fn weight(&self, _key: &Arc<str>, kept: &Arc<Kept>) -> u64 {
        kept.weight
    }
}

impl Local {
    /// `None` for a limit of zero: no tier.
    pub(crate) fn new(limit_bytes: usize, longest: Duration, trust: Arc<Trust>, clock: Clock) -> Option<Self> {
        let limit = u64::try_from(limit_bytes).ok().filter(|limit| *limit > 0)?;
        let shards = (limit / LEAST_SHARD_BYTES).clamp(1, MOST_SHARDS);
        let expected = usize::try_from(limit / EXPECTED_ENTRY_BYTES).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(usize::try_from(shards).unwrap_or(1))
            .estimated_items_capacity(expected)
            .weight_capacity(limit)
            .build()
            .ok()?;
        Some(Self {
            entries: Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default()),
            marks: (0..MARK_SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            trust,
            clock,
            longest,
        })
    }

    /// The value, if there is one that may be served now. No wait, no allocation.
    pub(crate) fn get<T>(&self, key: &str, take: impl FnOnce(&Erased) -> Option<T>) -> Option<T> {
        let kept = self.entries.get(key)?;
        let now = self.clock.coarse();
        // An entry whose versions do not hold stays: after a reconnection they may turn out to stand.
        let holds = now < kept.until && self.trust.holds(now) && kept.under.iter().all(Dependency::holds);
        if holds { take(&kept.value) } else { None }
    }

    /// Before a tracked read of `key` is sent.
    pub(crate) fn begin(&self, key: &Arc<str>) -> Mark<'_> {
        let mut marks = self.marks(key);
        let of_key = marks.entry(Arc::clone(key)).or_default();
        of_key.count = of_key.count.saturating_add(1);
        Mark { local: self, key: Arc::clone(key), changes: of_key.changes }
    }

    /// The key has changed, or is about to be by ourselves.
    pub(crate) fn drop_key(&self, key: &str) {
        let mut marks = self.marks(key);
        if let Some(of_key) = marks.get_mut(key) {
            of_key.changes = of_key.changes.wrapping_add(1);
        }
        // Under the lock that a fill holds too: it comes before this, and is removed, or after, and is refused.
        let removed = self.entries.remove(key);
        drop(marks);
        // A value's destructor may do anything, so it runs outside.
        drop(removed);
    }

    /// Anything may have changed.
    pub(crate) fn clear(&self) {
        for shard in &self.marks {
            for of_key in lock(shard).values_mut() {
                of_key.changes = of_key.changes.wrapping_add(1);
            }
        }
        // Every fill that came before its mark was poisoned is in the table by now.
        self.entries.clear();
    }

    fn marks(&self, key: &str) -> MutexGuard<'_, HashMap<Arc<str>, Marks>> {
        let index = self.hasher.hash_one(key) as usize % MARK_SHARDS;
        #[expect(clippy::indexing_slicing, reason = "the index is below MARK_SHARDS, the length")]
        lock(&self.marks[index])
    }

    #[cfg(test)]
    fn marked_keys(&self) -> usize {
        self.marks.iter().map(|shard| lock(shard).len()).sum()
    }
}

impl Mark<'_> {
    /// Keeps what the read brought, for `left` or the tier's limit; refused if the key has changed since the mark was made.
    pub(crate) fn keep(self, value: &Erased, payload_bytes: usize, left: Duration, under: Dependencies) -> bool {
        let local = self.local;
        let until = local.clock.coarse().saturating_add(millis(left.min(local.longest)));
        let bytes = u64::try_from(self.key.len().saturating_add(payload_bytes)).unwrap_or(u64::MAX);
        let under_bytes = u64::try_from(size_of_val(&*under)).unwrap_or(u64::MAX);
        let weight = bytes.saturating_add(under_bytes).saturating_add(ENTRY_OVERHEAD);
        let kept = Arc::new(Kept { value: Arc::clone(value), until, weight, under });
        let marks = local.marks(&self.key);
        let unchanged = marks.get(&self.key).is_some_and(|of_key| of_key.changes == self.changes);
        if unchanged {
            local.entries.insert(Arc::clone(&self.key), kept);
        }
        drop(marks);
        unchanged
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut marks = self.local.marks(&self.key);
        let Some(of_key) = marks.get_mut(&self.key) else { return };
        of_key.count = of_key.count.saturating_sub(1);
        if of_key.count == 0 {
            marks.remove(&self.key);
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("bytes", &self.entries.weight()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn local(clock: &Clock) -> Local {
        Local::new(1 << 20, LONG, Arc::new(Trust::absolute()), clock.clone()).unwrap()
    }

    fn value(number: u32) -> Erased {
        Arc::new(number)
    }

    fn read(local: &Local, key: &str) -> Option<u32> {
        local.get(key, |value| value.downcast_ref::<u32>().copied())
    }

    #[test]
    // R6, T4
    fn a_change_between_read_and_fill_refuses_the_fill() {
        let local = local(&Clock::manual());
        let key: Arc<str> = "k".into();
        let (first, second) = (local.begin(&key), local.begin(&key));
        local.drop_key("k");
        let third = local.begin(&key);
        assert!(!first.keep(&value(1), 4, LONG, Box::default()));
        assert!(third.keep(&value(2), 4, LONG, Box::default()));
        assert!(!second.keep(&value(1), 4, LONG, Box::default()));
        assert_eq!(read(&local, "k"), Some(2));
        assert_eq!(local.marked_keys(), 0);
    }

    #[test]
    // R7
    fn a_gap_empties_the_tier_and_refuses_fills_from_before() {
        let local = local(&Clock::manual());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!(local.begin(&a).keep(&value(1), 4, LONG, Box::default()));
        let pending = local.begin(&b);
        local.clear();
        assert!(!pending.keep(&value(2), 4, LONG, Box::default()));
        assert_eq!((read(&local, "a"), read(&local, "b")), (None, None));
    }

    #[test]
    // T1, T2
    fn a_value_is_served_for_the_shorter_of_its_time_and_the_tiers() {
        let clock = Clock::manual();
        let local = local(&clock);
        for (left, served) in [(Duration::from_secs(5), 5), (Duration::from_secs(500), 60)] {
            local.begin(&"k".into()).keep(&value(1), 4, left, Box::default());
            clock.advance(Duration::from_secs(served) - Duration::from_millis(1));
            assert_eq!(read(&local, "k"), Some(1));
            clock.advance(Duration::from_millis(1));
            assert_eq!(read(&local, "k"), None);
        }
    }

    #[test]
    // R7
    fn nothing_is_served_beyond_trust() {
        let (clock, trust) = (Clock::manual(), Arc::new(Trust::default()));
        let local = Local::new(1 << 20, LONG, Arc::clone(&trust), clock.clone()).unwrap();
        local.begin(&"k".into()).keep(&value(1), 4, LONG, Box::default());
        assert_eq!(read(&local, "k"), None);
        trust.extend(clock.coarse() + 2000);
        assert_eq!(read(&local, "k"), Some(1));
        clock.advance(Duration::from_secs(2));
        assert_eq!(read(&local, "k"), None);
    }

    #[test]
    // T3
    fn the_tier_is_bounded_by_bytes() {
        let local = local(&Clock::manual());
        for number in 0..10_000 {
            local.begin(&format!("key {number}").into()).keep(&value(number), 1000, LONG, Box::default());
        }
        assert!(local.entries.weight() <= 1 << 20, "{}", local.entries.weight());
        assert!(local.entries.len() > 500, "{}", local.entries.len());
    }
}
