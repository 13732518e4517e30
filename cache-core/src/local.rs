//! L1, the tier in this process: decoded values, bounded by bytes.
//!
//! ```text
//! begin(key) ─ a mark ─> read tracked, decode ─> keep(mark, value) ─> served until its time, or a change, or a gap
//!                               │
//!                   changed(key): the mark is poisoned, keep refuses (R6)
//!
//! a hit: trust, table, without a lock ── the value ── versions, time ──> served      a change of the table: marks' lock ─> order's lock ─> table
//! ```
//!
//! Invariant: a value is kept only if nothing has changed its key since before the read that brought it was sent, and served
//! only until a change is told of it or of a version it was stored under, its own time ends, or the store's [`Trust`] does. Never filled from an own write (T4, T5, R7, R9).

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use papaya::{Guard as _, HashMapRef, LocalGuard, ResizeMode};

pub(crate) use self::inspect::Inspected;
use self::kept::{Candidate, Hashed, Kept, Look, This};
pub(crate) use self::key::{LocalKeyRef, Origin, ParsedKey};
use self::queues::{Place, Queues, Verdict};
use crate::clock::{Clock, millis};
use crate::freshness::HIGHEST_DRAW;
use crate::sabotage::{self, Guard};
use crate::store::Trust;
use crate::sync::{Mutex, MutexGuard, SHARDS};
use crate::versions::Dependencies;

// Said, since `tests/interleavings` finds this file from elsewhere.
#[path = "local/inspect.rs"]
mod inspect;
#[path = "local/kept.rs"]
mod kept;
#[path = "local/key.rs"]
mod key;
#[path = "local/queues.rs"]
mod queues;

/// What an entry costs beside its key and value: itself, its slot in the table, its ticket, the value's own header.
const ENTRY_OVERHEAD: u64 = 150;
/// Entries leave memory some at a time; those from this weight on at once.
const HEAVY_BYTES: u64 = 64 << 10;

/// A value whose type the engine does not name.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;

/// The table, with what keeps its entries in memory meanwhile.
type Pinned<'a> = HashMapRef<'a, Kept, (), Hashed, LocalGuard<'a>>;

/// The tier in this process of one cache.
pub(crate) struct Local {
    entries: papaya::HashMap<Kept, (), Hashed>,
    /// Held by whoever changes the table.
    order: Mutex<Queues>,
    key_hasher: foldhash::fast::RandomState,
    marks: Vec<Mutex<HashMap<Arc<str>, Marks>>>,
    hasher: RandomState,
    trust: Arc<Trust>,
    clock: Clock,
    longest: Duration,
}

/// How a value may be served from L1, counted from now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    /// As it is.
    pub(crate) fresh: Duration,
    /// At once, beyond that, while it is computed anew.
    pub(crate) stale: Duration,
    /// No longer than this whatever the others say.
    pub(crate) longest: Duration,
    /// What computing it cost, times beta, in milliseconds; zero: no refresh ahead.
    pub(crate) ahead_ms: f64,
    /// The record it came from.
    pub(crate) fill_id: u64,
}

/// What [`Local::get`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hit<T> {
    /// Serve it.
    Fresh(T),
    /// Serve it, and compute the one that replaces this record.
    Due(T, u64),
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

impl Local {
    /// `None` for a limit of zero: no tier.
    pub(crate) fn new(limit_bytes: usize, longest: Duration, trust: Arc<Trust>, clock: Clock) -> Option<Self> {
        let limit = u64::try_from(limit_bytes).ok().filter(|limit| *limit > 0)?;
        // Whoever makes the table larger has its lock anyway, and a hit has one table to look at.
        let entries = papaya::HashMap::builder().hasher(Hashed::default()).resize_mode(ResizeMode::Blocking).build();
        Some(Self {
            entries,
            order: Mutex::new(Queues::new(limit)),
            key_hasher: foldhash::fast::RandomState::default(),
            marks: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            trust,
            clock,
            longest,
        })
    }

    /// The value, if there is one that may be served now without a thought. No wait, no lock, no allocation. `take` makes what the caller gets
    /// of it.
    #[inline(always)]
    pub(crate) fn get_plain<T>(&self, key: &LocalKeyRef<'_>, take: impl FnOnce(&Erased) -> Option<T>) -> Option<T> {
        // Before the table: what is found while nothing may be served is not saved by trust that comes later.
        let trusted_until = self.trusted_until();
        let table = self.entries.pin();
        Kept::serve_plain(self.find(key, &table), trusted_until, &self.clock, take)
    }

    /// The value, if there is one that may be served now.
    pub(crate) fn get<T>(&self, key: &LocalKeyRef<'_>, take: impl FnOnce(&Erased) -> Option<T>) -> Option<Hit<T>> {
        let now = self.clock.coarse();
        if now >= self.trusted_until() {
            return None;
        }
        let table = self.entries.pin();
        self.find(key, &table)?.serve(now, take)
    }

    #[inline(always)]
    fn trusted_until(&self) -> u64 {
        if sabotage::is(Guard::TrustEnds) { u64::MAX } else { self.trust.until() }
    }

    #[inline(always)]
    fn find<'t>(&self, key: &LocalKeyRef<'_>, table: &'t Pinned<'_>) -> Option<&'t Kept> {
        let look = self.look(*key);
        let found = match key.number() {
            // A search of its own, with so little to compare that all of it stays in the processor's registers.
            Some(key) => table.get_key_value(&Look { hash: look.hash, key }),
            None => table.get_key_value(&look),
        };
        found.map(|(kept, ())| kept)
    }

    /// Before a tracked read of `key` is sent.
    pub(crate) fn begin(&self, key: &Arc<str>) -> Mark<'_> {
        let mut marks = self.marks(key);
        let of_key = marks.entry(Arc::clone(key)).or_default();
        of_key.count = of_key.count.saturating_add(1);
        Mark { local: self, key: Arc::clone(key), changes: of_key.changes }
    }

    /// The key has changed, or is about to be by ourselves. Whether there was a value.
    pub(crate) fn drop_key(&self, key: &str) -> bool {
        let parsed = ParsedKey::parse(key);
        // A value's destructor may do anything: what is let go here is dropped with this guard, after the locks are released.
        let guard = self.entries.guard();
        let mut marks = self.marks(key);
        if let Some(of_key) = marks.get_mut(key) {
            of_key.changes = of_key.changes.wrapping_add(1);
        }
        // Under the lock that a fill holds too: it comes before this, and is removed, or after, and is refused.
        let removed = self.take(&self.look(parsed.as_ref()), &guard);
        drop(marks);
        removed
    }

    /// Anything may have changed.
    pub(crate) fn clear(&self) {
        for shard in &self.marks {
            for of_key in lock(shard).values_mut() {
                of_key.changes = of_key.changes.wrapping_add(1);
            }
        }
        let guard = self.entries.guard();
        let mut order = lock(&self.order);
        // Every fill that came before its mark was poisoned is in the table by now.
        self.entries.clear(&guard);
        order.clear();
        drop(order);
        guard.flush();
    }

    #[inline(always)]
    fn look<'a>(&self, key: LocalKeyRef<'a>) -> Look<LocalKeyRef<'a>> {
        Look { hash: key.hash(&self.key_hasher), key }
    }

    fn put(&self, kept: Kept, look: &Look<LocalKeyRef<'_>>, guard: &LocalGuard<'_>) {
        let mut order = lock(&self.order);
        let old = self.entries.get_key_value(look, guard).map(|(old, ())| old);
        if kept.weight() > order.largest() {
            if let Some(old) = old {
                self.remove(old, &mut order, guard);
            }
            return;
        }
        let place = match old {
            Some(old) => {
                order.replace(old.place(), old.weight(), kept.weight());
                kept.uses.store(old.uses.load(Ordering::Relaxed), Ordering::Relaxed);
                let_go(old, guard);
                old.place()
            }
            None => order.enter(kept.ticket(), kept.weight()),
        };
        kept.in_main.store(u8::from(place == Place::Main), Ordering::Relaxed);
        self.entries.insert(kept, (), guard);
        while let Some((ticket, place)) = order.surplus() {
            // Its entry may have left by another way.
            let Some((kept, ())) = self.entries.get_key_value(&Candidate(ticket, place), guard) else { continue };
            let uses = kept.uses.load(Ordering::Relaxed);
            match order.judge(ticket, place, uses, kept.weight()) {
                Verdict::Stays(uses) => kept.stays(uses),
                Verdict::Goes => {
                    self.entries.remove(&This(kept), guard);
                    let_go(kept, guard);
                }
            }
        }
        order.tidy(|ticket, place| self.entries.contains_key(&Candidate(ticket, place), guard));
    }

    fn take(&self, look: &Look<LocalKeyRef<'_>>, guard: &LocalGuard<'_>) -> bool {
        // Most keys of which a change is told are not here. A fill of this one cannot come in between: it has the marks' lock.
        if self.entries.get_key_value(look, guard).is_none() {
            return false;
        }
        let mut order = lock(&self.order);
        match self.entries.get_key_value(look, guard) {
            Some((kept, ())) => self.remove(kept, &mut order, guard),
            None => return false,
        }
        true
    }

    fn remove(&self, kept: &Kept, order: &mut Queues, guard: &LocalGuard<'_>) {
        // Not by its hash: another key may have the same.
        self.entries.remove(&This(kept), guard);
        order.leave(kept.place(), kept.weight());
        let_go(kept, guard);
    }

    fn marks(&self, key: &str) -> MutexGuard<'_, HashMap<Arc<str>, Marks>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "the index is below SHARDS, the length")]
        lock(&self.marks[index])
    }

    /// How many keys have a mark.
    pub(crate) fn marked_keys(&self) -> usize {
        self.marks.iter().map(|shard| lock(shard).len()).sum()
    }
}

/// Of an entry that was just taken out.
fn let_go(kept: &Kept, guard: &LocalGuard<'_>) {
    if kept.weight() >= HEAVY_BYTES {
        // In the background otherwise, with the next few dozen.
        guard.flush();
    }
}

impl Mark<'_> {
    /// Keeps what the read brought, as long as it may be served or for the tier's limit; refused if the key has changed since the
    /// mark was made.
    pub(crate) fn keep(self, value: &Erased, payload_bytes: usize, service: Service, under: Dependencies) -> bool {
        let local = self.local;
        let longest = millis(service.longest.min(local.longest));
        let fresh = millis(service.fresh).min(longest);
        let served = millis(service.fresh.saturating_add(service.stale)).min(longest);
        // Before this, no draw is high enough. Where the value goes before it ends, nothing is to be done ahead of that.
        let ahead_ms = if millis(service.fresh) <= longest { service.ahead_ms } else { 0.0 };
        let plain = fresh.saturating_sub((ahead_ms * HIGHEST_DRAW).ceil() as u64);
        let short = |ms: u64| u32::try_from(ms.saturating_sub(plain)).unwrap_or(u32::MAX);
        let bytes = u64::try_from(self.key.len().saturating_add(payload_bytes)).unwrap_or(u64::MAX);
        let under_bytes = u64::try_from(under.bytes()).unwrap_or(u64::MAX);
        let weight = bytes.saturating_add(under_bytes).saturating_add(ENTRY_OVERHEAD);
        let parsed = ParsedKey::parse(&self.key);
        let look = local.look(parsed.as_ref());
        let kept = Kept {
            hash: look.hash,
            key: look.key.to_owned(),
            value: Arc::clone(value),
            until: local.clock.coarse().saturating_add(plain),
            chancy_ms: short(fresh),
            served_ms: short(served),
            ahead_ms: ahead_ms as f32,
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
            fill_id: service.fill_id,
            under,
            in_main: AtomicU8::new(0),
            uses: AtomicU8::new(0),
        };
        let guard = local.entries.guard();
        let marks = local.marks(&self.key);
        let unchanged = marks.get(&self.key).is_some_and(|of_key| of_key.changes == self.changes)
            || sabotage::is(Guard::ChangePoisonsFill);
        if unchanged {
            local.put(kept, &look, &guard);
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
        let mut local = f.debug_struct("Local");
        let bytes = lock(&self.order).bytes();
        local.field("bytes", &bytes).field("marked_keys", &self.marked_keys()).finish_non_exhaustive()
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

    /// However it is asked for.
    fn read(local: &Local, key: &str) -> Option<u32> {
        let plain = local.get_plain(&ParsedKey::parse(key).as_ref(), |value| value.downcast_ref().copied());
        match find(local, key) {
            None => assert_eq!(plain, None),
            Some(Hit::Fresh(value)) => assert_eq!(plain, Some(value)),
            Some(Hit::Due(..)) => panic!("it is fresh"),
        }
        plain
    }

    fn find(local: &Local, key: &str) -> Option<Hit<u32>> {
        local.get(&ParsedKey::parse(key).as_ref(), |value| value.downcast_ref().copied())
    }

    fn fresh_for(fresh: Duration) -> Service {
        Service { fresh, stale: Duration::ZERO, longest: Duration::MAX, ahead_ms: 0.0, fill_id: 7 }
    }

    #[test]
    // R6, T4
    fn a_change_between_read_and_fill_refuses_the_fill() {
        let local = local(&Clock::manual());
        let key: Arc<str> = "k".into();
        let (first, second) = (local.begin(&key), local.begin(&key));
        local.drop_key("k");
        let third = local.begin(&key);
        assert!(!first.keep(&value(1), 4, fresh_for(LONG), Dependencies::default()));
        assert!(third.keep(&value(2), 4, fresh_for(LONG), Dependencies::default()));
        assert!(!second.keep(&value(1), 4, fresh_for(LONG), Dependencies::default()));
        assert_eq!(read(&local, "k"), Some(2));
        assert_eq!(local.marked_keys(), 0);
    }

    #[test]
    // T5, R6
    fn keys_of_one_hash_are_kept_and_dropped_apart() {
        let local = local(&Clock::manual());
        let hash = |key: &str| local.look(ParsedKey::parse(key).as_ref()).hash;
        let mut seen = HashMap::new();
        let keys = (0..1_000_000).map(|number| format!("shop:user:{number}@f1"));
        let pairs = keys.filter_map(|key| Some((seen.insert(hash(&key), key.clone())?, key)));
        let pairs: Vec<_> = pairs.take(3).collect();
        assert_eq!(pairs.len(), 3);
        for (one, other) in pairs {
            for (dropped, stays) in [(&other, &one), (&one, &other)] {
                for (number, key) in [(1, &one), (2, &other)] {
                    local.begin(&key.as_str().into()).keep(&value(number), 4, fresh_for(LONG), Dependencies::default());
                }
                assert_eq!((read(&local, &one), read(&local, &other)), (Some(1), Some(2)));
                assert!(local.drop_key(dropped));
                assert!(read(&local, dropped).is_none() && read(&local, stays).is_some());
            }
        }
    }

    #[test]
    // R7
    fn what_was_found_without_trust_is_not_served_for_trust_that_came_meanwhile() {
        let trust = Arc::new(Trust::absolute());
        let local = Local::new(1 << 20, LONG, Arc::clone(&trust), Clock::manual()).unwrap();
        local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), Dependencies::default());
        assert_eq!(read(&local, "k"), Some(1));
        trust.revoke();
        // The link is back while the value is in hand.
        let served = local.get_plain(&ParsedKey::parse("k").as_ref(), |value| {
            local.clear();
            trust.extend(u64::MAX);
            value.downcast_ref::<u32>().copied()
        });
        assert_eq!(served, None);
    }

    #[test]
    // R7, T1
    fn a_call_that_is_held_up_does_not_serve_what_has_ended_meanwhile() {
        let (clock, trust) = (Clock::manual(), Arc::new(Trust::absolute()));
        let local = Local::new(1 << 20, LONG, Arc::clone(&trust), clock.clone()).unwrap();
        let held_up = |by: Duration| {
            local.get_plain(&ParsedKey::parse("k").as_ref(), |value| {
                clock.advance(by);
                value.downcast_ref::<u32>().copied()
            })
        };
        local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), Dependencies::default());
        assert_eq!((held_up(LONG / 2), held_up(LONG / 2)), (Some(1), None));
        local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), Dependencies::default());
        trust.extend(clock.coarse() + 2000);
        assert_eq!((held_up(Duration::from_secs(1)), held_up(Duration::from_secs(1))), (Some(1), None));
    }

    #[test]
    // R7
    fn a_gap_empties_the_tier_and_refuses_fills_from_before() {
        let local = local(&Clock::manual());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!(local.begin(&a).keep(&value(1), 4, fresh_for(LONG), Dependencies::default()));
        let pending = local.begin(&b);
        local.clear();
        assert!(!pending.keep(&value(2), 4, fresh_for(LONG), Dependencies::default()));
        assert_eq!((read(&local, "a"), read(&local, "b")), (None, None));
    }

    #[test]
    // T1, T2
    fn a_value_is_served_for_the_shorter_of_its_time_and_the_tiers() {
        let clock = Clock::manual();
        let local = local(&clock);
        for (left, served) in [(Duration::from_secs(5), 5), (Duration::from_secs(500), 60)] {
            local.begin(&"k".into()).keep(&value(1), 4, fresh_for(left), Dependencies::default());
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
        local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), Dependencies::default());
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
            local.begin(&format!("key {number}").into()).keep(
                &value(number),
                1000,
                fresh_for(LONG),
                Dependencies::default(),
            );
        }
        let bytes = lock(&local.order).bytes();
        assert!(bytes <= 1 << 20, "{bytes}");
        assert!(local.entries.len() > 500, "{}", local.entries.len());
    }

    #[test]
    // F1, F4
    fn a_value_in_its_stale_window_is_served_and_due() {
        let clock = Clock::manual();
        let local = local(&clock);
        let service = Service { stale: Duration::from_secs(5), ..fresh_for(Duration::from_secs(10)) };
        local.begin(&"k".into()).keep(&value(1), 4, service, Dependencies::default());
        for (after_ms, found) in
            [(9_999, Some(Hit::Fresh(1))), (1, Some(Hit::Due(1, 7))), (4_999, Some(Hit::Due(1, 7))), (1, None)]
        {
            clock.advance(Duration::from_millis(after_ms));
            assert_eq!(find(&local, "k"), found);
        }
        // A tier that keeps a value for less than it is fresh serves no stale one.
        local.begin(&"k".into()).keep(
            &value(1),
            4,
            Service { longest: Duration::from_secs(3), ..service },
            Dependencies::default(),
        );
        clock.advance(Duration::from_secs(3));
        assert_eq!(find(&local, "k"), None);
    }

    #[test]
    // F8
    fn early_refreshes_of_kept_values_follow_the_formula() {
        let clock = Clock::manual();
        let local = local(&clock);
        let service = Service { ahead_ms: 100.0, ..fresh_for(Duration::from_secs(10)) };
        local.begin(&"k".into()).keep(&value(1), 4, service, Dependencies::default());
        let (key, guard) = (ParsedKey::parse("k"), local.entries.guard());
        let (kept, ()) = local.entries.get_key_value(&local.look(key.as_ref()), &guard).unwrap();
        // Before the last 37 times the cost nothing is drawn; from then on each read draws for itself.
        assert_eq!(kept.until, clock.coarse() + 10_000 - 3_700);
        clock.advance(Duration::from_millis(9_800));
        let mut state = 42_u64;
        let mut due = 0;
        for _ in 0..10_000 {
            // A linear congruential generator with Knuth's constants: the same draws in every run.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = (state >> 11) as f64 / (1_u64 << 53) as f64;
            due += u32::from(kept.is_due(clock.coarse(), || random).unwrap());
        }
        // P = exp(-200 ms / 100 ms) = 0.1353: within three standard deviations, 34 each.
        assert!((1353 - 103..=1353 + 103).contains(&due), "{due} of 10,000");
    }
}
