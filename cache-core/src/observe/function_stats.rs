//! The counters of a cache for each of its functions.
//!
//! ```text
//! name ─ the process' registry ─> number ─ the cache's table ─> counters
//!                                 a hit in L1 already has the number
//! ```
//!
//! Invariant: names are bounded, since names of keys from `get_or_compute` may be data: those
//! beyond the bound are counted as one. Hits in L1 are counted only here, and the cache's total is
//! their sum, so that a hit adds to one counter.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};

use crate::observe::events::Striped;

/// Number of names with counters of their own. Each takes 280 bytes in each cache, whether the
/// function is called or not.
pub(crate) const MOST: usize = 512;
/// How many of them may come from keys of `get_or_compute`, so that data leaves room for functions.
const MOST_UNNAMED: usize = MOST / 2;
/// The name of all that share counters.
const OTHERS: &str = "(other)";

/// Identifies a name in every cache of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FunctionNumber(usize);

impl FunctionNumber {
    pub(crate) const OTHER: Self = Self(MOST);

    /// Returns the number of a cached function.
    pub(crate) fn of_function(name: &str) -> Self {
        NAMES.number(name, MOST)
    }

    /// Returns the number of a name that may be data.
    pub(crate) fn of_name(name: &str) -> Self {
        NAMES.number(name, MOST_UNNAMED)
    }

    /// Returns the index, from zero; below [`MOST`] if it belongs to this name alone.
    pub(crate) fn place(self) -> usize {
        self.0
    }

    /// Returns whether the name has no number of its own, since there are none left.
    pub(crate) fn is_one_of_others(self) -> bool {
        self == Self::OTHER
    }
}

static NAMES: LazyLock<Names> = LazyLock::new(Names::default);

/// The number of each name.
#[derive(Default)]
struct Names(RwLock<Known>);

#[derive(Default)]
struct Known {
    numbers: HashMap<Arc<str>, FunctionNumber>,
    /// In the order of their numbers.
    names: Vec<Arc<str>>,
}

impl Names {
    /// Returns the number of this name. A new name gets one if fewer than `most` are in use.
    fn number(&self, name: &str, most: usize) -> FunctionNumber {
        if let Some(number) = self.0.read().unwrap_or_else(PoisonError::into_inner).find(name, most) {
            return number;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have added it.
        if let Some(number) = known.find(name, most) {
            return number;
        }
        let (name, number): (Arc<str>, _) = (name.into(), FunctionNumber(known.names.len()));
        known.names.push(Arc::clone(&name));
        known.numbers.insert(name, number);
        number
    }

    fn name(&self, number: FunctionNumber) -> Arc<str> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.names.get(number.0).map_or_else(|| OTHERS.into(), Arc::clone)
    }
}

impl Known {
    /// Returns `None` for a name without a number that may get one.
    fn find(&self, name: &str, most: usize) -> Option<FunctionNumber> {
        let full = (self.names.len() >= most).then_some(FunctionNumber::OTHER);
        self.numbers.get(name).copied().or(full)
    }
}

/// The counters of one cache, by function.
pub(crate) struct Functions {
    local_hits: Striped,
    others: Box<[OnceLock<Box<FunctionCounters>>]>,
}

/// The counters of one function.
#[derive(Debug, Default)]
pub(crate) struct FunctionCounters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) computes: AtomicU64,
    pub(crate) compute_errors: AtomicU64,
    pub(crate) fills: AtomicU64,
    pub(crate) renewed: AtomicU64,
    pub(crate) refused_fills: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) refreshes: AtomicU64,
    pub(crate) joined: AtomicU64,
    pub(crate) waited: AtomicU64,
}

impl Functions {
    pub(crate) fn new() -> Self {
        let others = (0..=MOST).map(|_| OnceLock::new()).collect();
        Self { local_hits: Striped::new(MOST.saturating_add(1)), others }
    }

    /// Counts a hit in L1.
    #[inline(always)]
    pub(crate) fn local_hit(&self, number: FunctionNumber) {
        self.local_hits.add(number.0);
    }

    /// Returns the counters of a function; every number has some.
    pub(crate) fn of(&self, number: FunctionNumber) -> Option<&FunctionCounters> {
        self.others.get(number.0).map(|counters| &**counters.get_or_init(Box::default))
    }

    /// Returns the hits in L1 of all functions.
    pub(crate) fn local_hits(&self) -> u64 {
        (0..=MOST).fold(0, |sum, number| sum.wrapping_add(self.local_hits.sum(number)))
    }

    /// Returns the counters by name.
    pub(crate) fn snapshot(&self) -> Vec<FunctionStats> {
        let counted = self.others.iter().enumerate().map(|(number, others)| {
            let others = others.get().map_or_else(FunctionStats::default, |others| others.snapshot());
            FunctionStats {
                name: NAMES.name(FunctionNumber(number)),
                local_hits: self.local_hits.sum(number),
                ..others
            }
        });
        let is_called = |stats: &FunctionStats| {
            *stats != FunctionStats { name: Arc::clone(&stats.name), ..FunctionStats::default() }
        };
        let mut all: Vec<FunctionStats> = counted.filter(is_called).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// What a cache has done for one of its functions since it was made, from
/// [`Cache::function_stats`](crate::Cache::function_stats).
///
/// Counters only ever rise; each is the function's share of the counter of the same name in
/// [`Stats`](crate::events::Stats).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FunctionStats {
    /// The function's key name, or the name of the keys of `get_or_compute`; `(other)` for all
    /// names that share counters.
    pub name: Arc<str>,
    /// Calls answered from the local tier, without asking the store.
    pub local_hits: u64,
    /// Calls answered from a value in the store.
    pub hits: u64,
    /// Calls that found no usable value.
    pub misses: u64,
    /// Number of times the cache ran the function's body.
    pub computes: u64,
    /// Number of times the function returned an error, panicked, or exceeded its deadline.
    pub compute_errors: u64,
    /// Values stored after a compute.
    pub fills: u64,
    /// Values that the function kept: their ttl was renewed.
    pub renewed: u64,
    /// Values not stored, because of an invalidation or another write during the compute.
    pub refused_fills: u64,
    /// Values served after their ttl because the function failed or took too long.
    pub stale: u64,
    /// Refreshes started while the old value was served.
    pub refreshes: u64,
    /// Calls that shared the compute of another call in this process.
    pub joined: u64,
    /// Calls that waited for another process.
    pub waited: u64,
}

impl FunctionStats {
    /// Returns the share of calls that were answered without waiting for a compute.
    ///
    /// That is hits divided by the sum of hits, misses and calls that joined a compute. `None` if
    /// there was no call.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let hits = self.local_hits.saturating_add(self.hits);
        let calls = hits.saturating_add(self.misses).saturating_add(self.joined);
        (calls > 0).then(|| hits as f64 / calls as f64)
    }
}

impl FunctionCounters {
    fn snapshot(&self) -> FunctionStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FunctionStats {
            hits: read(&self.hits),
            misses: read(&self.misses),
            computes: read(&self.computes),
            compute_errors: read(&self.compute_errors),
            fills: read(&self.fills),
            renewed: read(&self.renewed),
            refused_fills: read(&self.refused_fills),
            stale: read(&self.stale),
            refreshes: read(&self.refreshes),
            joined: read(&self.joined),
            waited: read(&self.waited),
            ..FunctionStats::default()
        }
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Functions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_data_leave_room_for_functions() {
        let names = Names::default();
        let by_hand: Vec<_> = (0..MOST).map(|n| names.number(&format!("user {n}"), MOST_UNNAMED)).collect();
        assert_eq!(by_hand.iter().filter(|number| **number != FunctionNumber::OTHER).count(), MOST_UNNAMED);
        assert_eq!(names.number("user 0", MOST_UNNAMED), by_hand[0]);
        let functions: Vec<_> = (0..MOST).map(|n| names.number(&format!("f{n}"), MOST)).collect();
        assert_eq!(functions.iter().filter(|number| **number != FunctionNumber::OTHER).count(), MOST - MOST_UNNAMED);
        assert_eq!((&*names.name(functions[3]), &*names.name(FunctionNumber::OTHER)), ("f3", OTHERS));
        assert_eq!(names.number("user 0", MOST), by_hand[0], "a function that shares its name");
    }

    #[test]
    fn the_hit_ratio_counts_calls_that_did_not_wait_for_a_compute() {
        let stats = FunctionStats { local_hits: 6, hits: 1, misses: 2, joined: 1, ..FunctionStats::default() };
        assert_eq!((stats.hit_ratio(), FunctionStats::default().hit_ratio()), (Some(0.7), None));
    }

    #[test]
    fn hits_of_functions_without_a_number_are_counted() {
        let functions = Functions::new();
        functions.local_hit(FunctionNumber::OTHER);
        functions.local_hit(FunctionNumber::OTHER);
        let all = functions.snapshot();
        assert_eq!(all.iter().map(|one| (&*one.name, one.local_hits)).collect::<Vec<_>>(), [(OTHERS, 2)]);
        assert_eq!(functions.local_hits(), 2);
    }
}
