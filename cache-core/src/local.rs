//! L1, the tier in this process: decoded values, bounded by bytes.
//!
//! ```text
//! begin(key) ─ a mark ─> read tracked, decode ─> keep(mark, value) ─> served until it expires,
//!                               │                                     a change, or a gap
//!                   changed(key): the mark is poisoned, keep refuses (R6)
//!
//! a hit:                  trust, table (no lock) ── the value ── versions, time ──> served
//! a change of the table:  marks' lock ─> order's lock ─> table
//! ```
//!
//! Invariant: a value is kept only if its key has not changed since before the read of it was sent.
//! It is served only until a change of it or of one of its versions is notified, until it expires,
//! or until the store's [`Trust`] ends. L1 is never filled from an own write (T4, T5, R7, R9).

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use papaya::{Guard as _, HashMapRef, LocalGuard, ResizeMode};

use self::entry::{AheadMs, Candidate, Dead, Hashed, LocalEntry, Look, This};
use self::eviction::{QueueId, Queues, Verdict};
pub(crate) use self::inspect::Inspected;
pub(crate) use self::key::{LocalKeyRef, Origin, ParsedKey};
use self::warm::Origins;
use crate::clock::{Clock, millis};
use crate::mutants::{self, Invariant};
use crate::store::Trust;
use crate::sync::{Mutex, MutexGuard, SHARDS};
use crate::value::Erased;
use crate::value::freshness::HIGHEST_DRAW;
use crate::versions::Dependencies;

// Explicit paths, since `tests/interleavings` includes this file from another folder.
#[path = "local/entry.rs"]
mod entry;
#[path = "local/eviction.rs"]
mod eviction;
#[path = "local/inspect.rs"]
mod inspect;
#[path = "local/key.rs"]
mod key;
#[path = "local/let_go.rs"]
mod let_go;
#[path = "local/warm.rs"]
mod warm;

/// The cost of an entry without its key and value: the struct, its slot in the table, its ticket,
/// the value's header.
const ENTRY_OVERHEAD: u64 = 150;
/// Removed entries leave memory in batches; those of at least this weight leave at once.
const HEAVY_BYTES: u64 = 64 << 10;
/// Entries and values of one step of [`Local::give_back`].
const GIVEN_BACK_AT_ONCE: usize = 64;
/// How many dead entries each fill removes.
const BURIED_BY_A_FILL: usize = 2;
/// How many removed values each fill drops.
const DROPPED_BY_A_FILL: usize = 8;

/// The table, with the guard that keeps its entries in memory.
type Pinned<'a> = HashMapRef<'a, LocalEntry, (), Hashed, LocalGuard<'a>>;

/// The local tier of one cache.
pub(crate) struct Local {
    entries: papaya::HashMap<LocalEntry, (), Hashed>,
    /// Locked by every change of the table.
    order: Mutex<Queues>,
    key_hasher: foldhash::fast::RandomState,
    marks: Vec<Mutex<HashMap<Arc<str>, Marks>>>,
    hasher: RandomState,
    trust: Arc<Trust>,
    now: Now,
    longest: Duration,
    /// Interned namespace and name of keys, so that full keys can be restored.
    origins: Origins,
    _last: let_go::AtTheEnd,
}

/// What decides on a hit in addition to the entry itself.
struct Now {
    clock: Clock,
    /// Rises when everything is dropped at once, so that a drop takes one step and a hit one
    /// comparison.
    epoch: AtomicU32,
}

impl Now {
    #[inline(always)]
    fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }
}

/// How long a value may be served from L1, counted from now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    /// How long it is fresh.
    pub(crate) fresh: Duration,
    /// The time until half of the ttl has passed. There is no refresh ahead before that.
    pub(crate) calm: Duration,
    /// How long it may be served after that, while it is refreshed.
    pub(crate) stale: Duration,
    /// The upper limit for all other times.
    pub(crate) longest: Duration,
    /// The cost of the compute times beta, in milliseconds; zero: no refresh ahead.
    pub(crate) ahead_ms: f64,
    /// The fill id of its record.
    pub(crate) fill_id: u64,
}

/// The result of [`Local::get`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hit<T> {
    /// Serve it.
    Fresh(T),
    /// Serve it, and refresh the record with this fill id.
    Due(T, u64),
}

/// The fills in progress of one key.
#[derive(Default)]
struct Marks {
    count: usize,
    /// Rises at each change of the key.
    changes: u64,
}

/// A read of a key in progress. Dropping it gives up the fill.
pub(crate) struct PendingFill<'a> {
    local: &'a Local,
    key: Arc<str>,
    changes: u64,
    epoch: u32,
}

impl Local {
    /// Makes the tier. `None` for a limit of zero, which turns it off.
    pub(crate) fn new(limit_bytes: usize, longest: Duration, trust: Arc<Trust>, clock: Clock) -> Option<Self> {
        let limit = u64::try_from(limit_bytes).ok().filter(|limit| *limit > 0)?;
        // Resizing blocks: a writer holds the lock of the table anyway, and a hit then has only one
        // table to search.
        let entries = papaya::HashMap::builder().hasher(Hashed::default()).resize_mode(ResizeMode::Blocking).build();
        Some(Self {
            entries,
            order: Mutex::new(Queues::new(limit)),
            key_hasher: foldhash::fast::RandomState::default(),
            marks: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            trust,
            now: Now { clock, epoch: AtomicU32::new(0) },
            longest,
            origins: Origins::default(),
            _last: let_go::AtTheEnd,
        })
    }

    /// Fast path: returns the value if it is fresh and no refresh can be due. No wait, no lock, no
    /// allocation. `take` makes the caller's value from it.
    #[inline(always)]
    pub(crate) fn get_plain<T>(&self, key: &LocalKeyRef<'_>, take: impl FnOnce(&Erased) -> Option<T>) -> Option<T> {
        // Read before the table: a value found while nothing may be served must not be saved by
        // trust that is extended later.
        let trusted_until = self.trusted_until();
        let table = self.entries.pin();
        LocalEntry::serve_plain(self.find(key, &table), trusted_until, &self.now, take)
    }

    /// Returns the value if it may be served now.
    pub(crate) fn get<T>(&self, key: &LocalKeyRef<'_>, take: impl FnOnce(&Erased) -> Option<T>) -> Option<Hit<T>> {
        let now = self.now.clock.coarse();
        if now >= self.trusted_until() {
            return None;
        }
        let table = self.entries.pin();
        self.find(key, &table)?.serve(now, self.now.epoch(), take)
    }

    #[inline(always)]
    fn trusted_until(&self) -> u64 {
        if mutants::removed(Invariant::TrustEnds) { u64::MAX } else { self.trust.until() }
    }

    #[inline(always)]
    fn find<'t>(&self, key: &LocalKeyRef<'_>, table: &'t Pinned<'_>) -> Option<&'t LocalEntry> {
        let look = self.look(*key);
        let found = match key.number() {
            // A separate search with so little to compare that all of it stays in the processor's
            // registers.
            Some(key) => table.get_key_value(&Look { hash: look.hash, key }),
            None => table.get_key_value(&look),
        };
        found.map(|(kept, ())| kept)
    }

    /// Registers a fill. Called before a tracked read of `key` is sent.
    pub(crate) fn begin(&self, key: &Arc<str>) -> PendingFill<'_> {
        let mut marks = self.marks(key);
        let of_key = marks.entry(Arc::clone(key)).or_default();
        of_key.count = of_key.count.saturating_add(1);
        PendingFill { local: self, key: Arc::clone(key), changes: of_key.changes, epoch: self.now.epoch() }
    }

    /// Drops a key that has changed, or that this process is about to change. Returns whether there
    /// was a value.
    pub(crate) fn drop_key(&self, key: &str) -> bool {
        let parsed = ParsedKey::parse(key);
        let guard = self.entries.guard();
        let mut marks = self.marks(key);
        if let Some(of_key) = marks.get_mut(key) {
            of_key.changes = of_key.changes.wrapping_add(1);
        }
        // Under the lock that a fill also holds: an earlier fill is removed, a later one is
        // refused.
        let removed = self.take(&self.look(parsed.as_ref()), &guard);
        drop(marks);
        removed
    }

    /// Drops everything, since anything may have changed. One step for any number of entries: what
    /// is kept is dead from now on, and [`give_back`](Self::give_back) frees it. Fills in progress
    /// belong to the old epoch, so they are refused.
    pub(crate) fn clear(&self) {
        self.now.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes some dead entries from the table and drops some removed values. Returns whether
    /// there are more.
    pub(crate) fn give_back(&self) -> bool {
        let guard = self.entries.guard();
        let mut order = self.order();
        let mut dead = true;
        for _ in 0..GIVEN_BACK_AT_ONCE {
            dead = dead && self.bury_one(&mut order, &guard);
        }
        drop(order);
        guard.flush();
        drop(guard);
        let_go::drop_some(GIVEN_BACK_AT_ONCE);
        dead || let_go::waiting() > 0
    }

    /// Returns the weight of all entries, alive and dead, and the limit.
    #[cfg(feature = "testing")]
    pub(crate) fn weight(&self) -> (u64, u64) {
        self.order().weight()
    }

    /// Returns whether removed values wait to be dropped.
    pub(crate) fn has_let_go(&self) -> bool {
        let_go::waiting() > 0
    }

    #[inline(always)]
    fn look<'a>(&self, key: LocalKeyRef<'a>) -> Look<LocalKeyRef<'a>> {
        Look { hash: key.hash(&self.key_hasher), key }
    }

    /// Locks the order of eviction and moves it to the current epoch.
    fn order(&self) -> MutexGuard<'_, Queues> {
        let mut order = lock(&self.order);
        let epoch = self.now.epoch();
        if order.epoch != epoch {
            order.begin_epoch(epoch);
        }
        order
    }

    /// Inserts an entry and returns whether it was kept. Refused if everything was dropped since
    /// its epoch.
    fn put(&self, mut kept: LocalEntry, look: &Look<LocalKeyRef<'_>>, guard: &LocalGuard<'_>) -> bool {
        let mut order = self.order();
        if mutants::removed(Invariant::ChangePoisonsFill) {
            kept.epoch = order.epoch;
        }
        if !kept.is_of(order.epoch) {
            return false;
        }
        let mut old = self.entries.get_key_value(look, guard).map(|(old, ())| old);
        if let Some(dead) = old.filter(|old| kept.weight() > order.largest() || !old.is_of(order.epoch)) {
            self.remove(dead, &mut order, guard);
            old = None;
        }
        if kept.weight() > order.largest() {
            return true;
        }
        let place = match old {
            Some(old) => {
                order.replace(old.place(), old.weight(), kept.weight());
                kept.uses.store(old.uses.load(Ordering::Relaxed), Ordering::Relaxed);
                flush_if_heavy(old, guard);
                old.place()
            }
            None => order.enter(kept.ticket(), kept.weight()),
        };
        kept.in_main.store(u8::from(place == QueueId::Main), Ordering::Relaxed);
        self.entries.insert(kept, (), guard);
        // A fill adds one entry and removes more dead ones, so that the dead are removed even if no
        // task can be started. They go before any live entry.
        for _ in 0..BURIED_BY_A_FILL {
            self.bury_one(&mut order, guard);
        }
        while order.is_over() && self.bury_one(&mut order, guard) {}
        if !mutants::removed(Invariant::LocalIsBounded) {
            self.evict(&mut order, guard);
        }
        let epoch = order.epoch;
        order.tidy(|ticket, place| self.entries.contains_key(&Candidate(ticket, place, epoch), guard));
        true
    }

    fn evict(&self, order: &mut Queues, guard: &LocalGuard<'_>) {
        while let Some((ticket, place)) = order.surplus() {
            // Its entry may have been removed otherwise.
            let candidate = Candidate(ticket, place, order.epoch);
            let Some((kept, ())) = self.entries.get_key_value(&candidate, guard) else { continue };
            let uses = kept.uses();
            match order.judge(ticket, place, uses, kept.weight()) {
                Verdict::Stays(uses) => kept.stays(uses),
                Verdict::Goes => {
                    self.entries.remove(&This(kept), guard);
                    flush_if_heavy(kept, guard);
                }
            }
            if self.entries.contains_key(&candidate, guard) {
                order.again(ticket, place);
            }
        }
    }

    /// Removes the dead entries of one ticket. Returns `false` if there are no tickets left.
    fn bury_one(&self, order: &mut Queues, guard: &LocalGuard<'_>) -> bool {
        let Some(ticket) = order.dead() else { return false };
        while let Some((kept, ())) = self.entries.get_key_value(&Dead(ticket, order.epoch), guard) {
            self.remove(kept, order, guard);
        }
        true
    }

    /// Removes the entry of a key. Returns whether there was one that could have been served.
    fn take(&self, look: &Look<LocalKeyRef<'_>>, guard: &LocalGuard<'_>) -> bool {
        // Most changed keys are not in L1. A fill of this key cannot come in between: the caller
        // holds the marks' lock.
        if self.entries.get_key_value(look, guard).is_none() {
            return false;
        }
        let mut order = self.order();
        let Some((kept, ())) = self.entries.get_key_value(look, guard) else { return false };
        self.remove(kept, &mut order, guard);
        kept.is_of(order.epoch)
    }

    fn remove(&self, kept: &LocalEntry, order: &mut Queues, guard: &LocalGuard<'_>) {
        // Not by its hash: another key may have the same.
        self.entries.remove(&This(kept), guard);
        if kept.is_of(order.epoch) {
            order.leave(kept.place(), kept.weight());
        } else {
            order.dead_leaves(kept.weight());
        }
        flush_if_heavy(kept, guard);
    }

    fn marks(&self, key: &str) -> MutexGuard<'_, HashMap<Arc<str>, Marks>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "the index is below SHARDS, the length")]
        lock(&self.marks[index])
    }

    /// Returns the number of keys with a mark.
    pub(crate) fn marked_keys(&self) -> usize {
        self.marks.iter().map(|shard| lock(shard).len()).sum()
    }
}

/// Moves values that this thread removes from L1 to a list of its own, for a simulation.
#[cfg(feature = "testing")]
pub(crate) fn let_go_apart() {
    let_go::apart();
}

/// Called for an entry that was just removed.
fn flush_if_heavy(kept: &LocalEntry, guard: &LocalGuard<'_>) {
    if kept.weight() >= HEAVY_BYTES {
        // Lighter entries leave memory with the next few dozen.
        guard.flush();
    }
}

impl PendingFill<'_> {
    /// Returns whether a change of the key was notified since the mark was made.
    pub(crate) fn has_changed(&self) -> bool {
        let marks = self.local.marks(&self.key);
        marks.get(&self.key).is_some_and(|of_key| of_key.changes != self.changes)
    }

    /// Keeps the value that the read returned, for as long as it may be served or for the tier's
    /// limit. Refused if the key has changed since the mark was made.
    pub(crate) fn keep(self, value: &Erased, payload_bytes: usize, service: Service, under: Dependencies) -> bool {
        let local = self.local;
        let longest = millis(service.longest.min(local.longest));
        let fresh = millis(service.fresh).min(longest);
        let served = millis(service.fresh.saturating_add(service.stale)).min(longest);
        // Before this, no draw is high enough. If the value is dropped before it expires, no
        // refresh is due ahead of that.
        let ahead_ms = if millis(service.fresh) <= longest { service.ahead_ms } else { 0.0 };
        let plain = fresh.saturating_sub((ahead_ms * HIGHEST_DRAW).ceil() as u64).max(millis(service.calm).min(fresh));
        let short = |ms: u64| u32::try_from(ms.saturating_sub(plain)).unwrap_or(u32::MAX);
        let bytes = u64::try_from(self.key.len().saturating_add(payload_bytes)).unwrap_or(u64::MAX);
        let under_bytes = u64::try_from(under.bytes()).unwrap_or(u64::MAX);
        let weight = bytes.saturating_add(under_bytes).saturating_add(ENTRY_OVERHEAD);
        let parsed = ParsedKey::parse(&self.key);
        local.origins.learn(parsed.origin(), &self.key);
        let look = local.look(parsed.as_ref());
        let kept = LocalEntry {
            hash: look.hash,
            key: look.key.to_owned(),
            value: Arc::clone(value),
            until: local.now.clock.coarse().saturating_add(plain),
            chancy_ms: short(fresh),
            served_ms: short(served),
            ahead: AheadMs::new(ahead_ms),
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
            epoch: self.epoch,
            fill_id: service.fill_id,
            under,
            in_main: AtomicU8::new(0),
            uses: AtomicU8::new(0),
        };
        let guard = local.entries.guard();
        let marks = local.marks(&self.key);
        let unchanged = marks.get(&self.key).is_some_and(|of_key| of_key.changes == self.changes)
            // The versions were read after the mark was made. A gap ends the epoch of versions
            // before that of the tier, so this check is enough.
            && kept.under.are_known()
            || mutants::removed(Invariant::ChangePoisonsFill);
        let kept = unchanged && local.put(kept, &look, &guard);
        drop(marks);
        // Destructors run after the locks are released.
        drop(guard);
        let_go::drop_some(DROPPED_BY_A_FILL);
        kept
    }
}

impl Drop for PendingFill<'_> {
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
        let mut local = f.debug_struct("Local");
        let bytes = self.order().bytes();
        local.field("bytes", &bytes).field("marked_keys", &self.marked_keys()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "local/tests.rs"]
mod tests;
