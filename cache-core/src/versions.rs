//! What this process knows of versions: a cell for each namespace, function and tag in use.
//!
//! ```text
//! unknown ── read tracked, no change since ──> known (a stamp) ── change told, own write, gap ──> unknown
//! ```
//!
//! Invariant: a known cell is at the version that was read, and nothing has been told since before that read was sent. A stamp
//! stands for one version of one cell for as long as the process lives, so a single load compares all 128 bits.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};

use crate::sabotage::{self, Guard};
use crate::store::Version;
use crate::sync::{Mutex, MutexGuard, RwLock};

/// Cells beyond this are given up while nothing in L1 goes by them. About 200 bytes each.
const MANY: usize = 65_536;

/// The cells of one cache.
pub(crate) struct Versions {
    table: RwLock<Table>,
}

struct Table {
    cells: HashMap<Arc<str>, Arc<Cell>>,
    /// Above this number those that nobody holds are given up.
    sweep_above: usize,
}

/// What is known of one version.
pub(crate) struct Cell {
    key: Arc<str>,
    /// 0: unknown.
    stamp: AtomicU64,
    last: Mutex<Last>,
    /// What was last made that ends with this cell.
    shared: Mutex<Weak<List>>,
}

#[derive(Default)]
struct Last {
    version: Option<Version>,
    /// Of that version, also while it is unknown whether it still stands.
    stamp: u64,
    /// Rises whenever the cell becomes unknown.
    losses: u64,
    /// Rises with each change that was told or made here.
    changes: u64,
}

/// That a read of a version is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    losses: u64,
    changes: u64,
}

/// That a value was stored under one version of a cell.
pub(crate) struct Dependency {
    cell: Arc<Cell>,
    stamp: u64,
}

/// What a change of a key means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is no version that is in use.
    NoVersion,
    /// It is one that was not known to stand anyway.
    Unknown,
    /// It is one that was known to stand.
    Known,
}

/// All that a value was stored under. Values that were stored under the same share it, so that a hit in L1 finds it in the
/// processor's cache; one word, since each entry has it.
#[derive(Clone, Default)]
pub(crate) struct Dependencies(Arc<List>);

#[derive(Default, PartialEq)]
struct List {
    /// Mostly the namespace's and the function's, and all there are: a hit looks at both at once.
    first: Option<[Dependency; 2]>,
    others: Vec<Dependency>,
}

impl Dependencies {
    /// Whether all of them are known to stand.
    #[inline(always)]
    pub(crate) fn hold(&self) -> bool {
        let first_hold = self.0.first.as_ref().is_none_or(|[one, two]| one.holds() & two.holds());
        first_hold && (self.0.others.is_empty() || self.0.others_hold())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Dependency> {
        self.0.first.iter().flatten().chain(&self.0.others)
    }

    /// The memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.iter().count().saturating_mul(size_of::<Dependency>())
    }
}

impl List {
    fn new(mut all: Vec<Dependency>) -> Self {
        let others = all.split_off(all.len().min(2));
        match all.try_into() {
            Ok(first) => Self { first: Some(first), others },
            Err(others) => Self { first: None, others },
        }
    }

    /// Apart, so that a plain hit stays short.
    #[inline(never)]
    fn others_hold(&self) -> bool {
        self.others.iter().all(Dependency::holds)
    }
}

/// As one list, the one that other values have where that is the same.
pub(crate) fn shared(dependencies: Vec<Dependency>) -> Dependencies {
    let Some(cell) = dependencies.last().map(|last| Arc::clone(&last.cell)) else { return Dependencies::default() };
    let list = List::new(dependencies);
    let mut shared = lock(&cell.shared);
    if let Some(known) = shared.upgrade().filter(|known| **known == list) {
        return Dependencies(known);
    }
    let list = Arc::new(list);
    *shared = Arc::downgrade(&list);
    Dependencies(list)
}

impl Versions {
    pub(crate) fn new() -> Self {
        Self { table: RwLock::new(Table { cells: HashMap::new(), sweep_above: MANY }) }
    }

    pub(crate) fn cell(&self, key: &str) -> Arc<Cell> {
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner).cells.get(key).cloned();
        known.unwrap_or_else(|| {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            table.sweep();
            let key: Arc<str> = key.into();
            Arc::clone(table.cells.entry(Arc::clone(&key)).or_insert_with(|| Arc::new(Cell::new(key))))
        })
    }

    /// The key has changed, or is about to be by ourselves.
    pub(crate) fn changed(&self, key: &str) -> Told {
        let cell = self.table.read().unwrap_or_else(PoisonError::into_inner).cells.get(key).cloned();
        cell.map_or(Told::NoVersion, |cell| cell.lose(true))
    }

    /// Anything may have changed.
    pub(crate) fn clear(&self) {
        let cells: Vec<_> = self.table.read().unwrap_or_else(PoisonError::into_inner).cells.values().cloned().collect();
        for cell in cells {
            cell.lose(false);
        }
    }
}

impl Table {
    fn sweep(&mut self) {
        if self.cells.len() < self.sweep_above {
            return;
        }
        // Nobody can take one out meanwhile: the table is locked.
        self.cells.retain(|_, cell| Arc::strong_count(cell) > 1);
        self.sweep_above = self.cells.len().saturating_mul(2).max(MANY);
    }
}

impl Cell {
    fn new(key: Arc<str>) -> Self {
        Self { key, stamp: AtomicU64::new(0), last: Mutex::default(), shared: Mutex::default() }
    }

    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The version, if it is known to stand.
    pub(crate) fn known(&self) -> Option<Version> {
        let last = self.last();
        last.version.filter(|_| self.stamp.load(Ordering::Acquire) != 0)
    }

    /// Before a tracked read is sent.
    pub(crate) fn begin(&self) -> Pending {
        let Last { losses, changes, .. } = *self.last();
        Pending { losses, changes }
    }

    /// What the read brought; forgotten again if something was told since it was sent.
    pub(crate) fn learn(&self, pending: Pending, version: Version) {
        static STAMPS: AtomicU64 = AtomicU64::new(1);
        let mut last = self.last();
        if last.losses != pending.losses && !sabotage::is(Guard::ChangeForgetsRead) {
            return;
        }
        if last.version != Some(version) {
            last.version = Some(version);
            last.stamp = STAMPS.fetch_add(1, Ordering::Relaxed);
        }
        self.stamp.store(last.stamp, Ordering::Release);
    }

    /// Whether a change was told or made here since then.
    pub(crate) fn has_changed(&self, since: Pending) -> bool {
        self.last().changes != since.changes
    }

    /// `None`: it is not known to be at this version.
    pub(crate) fn depend(self: &Arc<Self>, on: Version) -> Option<Dependency> {
        let last = self.last();
        let stamp = self.stamp.load(Ordering::Acquire);
        (stamp != 0 && last.version == Some(on)).then(|| Dependency { cell: Arc::clone(self), stamp })
    }

    fn lose(&self, changed: bool) -> Told {
        let mut last = self.last();
        last.losses = last.losses.wrapping_add(1);
        last.changes = last.changes.wrapping_add(u64::from(changed));
        if self.stamp.swap(0, Ordering::AcqRel) == 0 { Told::Unknown } else { Told::Known }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        lock(&self.last)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PartialEq for Dependency {
    fn eq(&self, other: &Self) -> bool {
        // A stamp is of one cell.
        self.stamp == other.stamp
    }
}

impl Dependency {
    /// The version itself; `None`: the cell is known to be at another one.
    pub(crate) fn version(&self) -> Option<Version> {
        let last = self.cell.last();
        last.version.filter(|_| last.stamp == self.stamp)
    }

    /// Of the version, in the store.
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.cell.key
    }

    /// Whether the version is known to stand. One load.
    #[inline]
    pub(crate) fn holds(&self) -> bool {
        self.cell.stamp.load(Ordering::Acquire) == self.stamp
    }
}

// Tags may be personal data.
impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Versions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(versions: &Versions, key: &str, version: Version) -> Arc<Cell> {
        let cell = versions.cell(key);
        cell.learn(cell.begin(), version);
        cell
    }

    #[test]
    // R6
    fn a_change_between_read_and_answer_is_not_forgotten() {
        let (versions, old) = (Versions::new(), Version::random());
        let cell = versions.cell("a");
        let pending = cell.begin();
        assert_eq!(versions.changed("a"), Told::Unknown);
        cell.learn(pending, old);
        assert!(cell.known().is_none() && cell.has_changed(pending));
        assert!(cell.depend(old).is_none());
        assert_eq!(versions.changed("b"), Told::NoVersion, "nobody goes by it");
    }

    #[test]
    fn a_dependency_holds_while_its_version_is_known_to_stand() {
        let (versions, first) = (Versions::new(), Version::random());
        let cell = known(&versions, "a", first);
        let dependency = cell.depend(first).unwrap();
        assert!(dependency.holds());
        // A lost connection says nothing of the version itself.
        let pending = cell.begin();
        versions.clear();
        assert!(!dependency.holds() && !cell.has_changed(pending));
        cell.learn(cell.begin(), first);
        assert!(dependency.holds());
        assert_eq!((versions.changed("a"), versions.changed("a")), (Told::Known, Told::Unknown));
        cell.learn(cell.begin(), Version::random());
        assert!(!dependency.holds());
        assert!(cell.depend(first).is_none());
    }

    #[test]
    fn cells_that_nobody_goes_by_are_given_up() {
        let (versions, version) = (Versions::new(), Version::random());
        let dependency = known(&versions, "held", version).depend(version).unwrap();
        for number in 0..MANY + 10 {
            versions.cell(&number.to_string());
        }
        let len = versions.table.read().unwrap().cells.len();
        assert!(len < 20, "{len}");
        assert!(dependency.holds());
        versions.changed("held");
        assert!(!dependency.holds(), "its cell is still told of changes");
    }
}
