//! What this process knows of versions: a cell for each namespace, function and tag in use.
//!
//! ```text
//! unknown ── read tracked, no change since ──> known (a stamp) ── change told, own write, gap ──> unknown
//! ```
//!
//! Invariant: a known cell is at the version that was read, and nothing has been told since before that read was sent. A stamp
//! stands for one version of one cell for as long as the process lives, so a single load compares
//! all 128 bits. A gap makes every cell unknown by beginning a new epoch; what L1 kept before is
//! dead by then, so a hit need not look at it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};

use indexmap::IndexMap;

use crate::sabotage::{self, Guard};
use crate::store::Version;
use crate::sync::{Mutex, MutexGuard, RwLock};

/// Cells that nothing goes by: as many as this at most where there is no L1, and at least so many
/// in any case.
const MOST_IDLE: usize = 65_536;
const LEAST_IDLE: usize = 1024;
/// What part of L1's limit they may take beyond it.
const IDLE_PART: usize = 16;
/// Cells that are looked at when a new one is made, each drawn by chance, and how many of those may
/// go.
const DRAWN: usize = 4;
const GIVEN_UP: usize = 2;
/// Cells of one step of [`Versions::give_back`].
const GIVEN_BACK_AT_ONCE: usize = 64;

/// The cells of one cache.
pub(crate) struct Versions {
    table: RwLock<Table>,
    /// Rises with each gap.
    epoch: Arc<AtomicU64>,
}

struct Table {
    cells: IndexMap<Arc<str>, Arc<Cell>>,
    /// Above this number those that nobody holds are given up, some at a time.
    most_idle: usize,
    /// Up to where [`Versions::give_back`] has looked.
    looked: usize,
}

/// What is known of one version.
pub(crate) struct Cell {
    key: Arc<str>,
    /// Of the table.
    epoch: Arc<AtomicU64>,
    /// 0: unknown.
    stamp: AtomicU64,
    last: Mutex<Last>,
    /// What was last made that ends with this cell.
    shared: Mutex<Weak<List>>,
    /// What is known of it was used since [`Versions::take_used`].
    used: AtomicBool,
}

#[derive(Default)]
struct Last {
    version: Option<Version>,
    /// Of that version, also while it is unknown whether it still stands.
    stamp: u64,
    /// When it was read: it is known in no other.
    epoch: u64,
    /// Rises whenever the cell alone becomes unknown.
    losses: u64,
    /// Rises with each change that was told or made here.
    changes: u64,
}

/// That a read of a version is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    losses: u64,
    changes: u64,
    epoch: u64,
}

/// A cell as it was when a read of it began.
#[derive(Clone)]
pub(crate) struct Since {
    pub(crate) cell: Arc<Cell>,
    pub(crate) at: Pending,
}

impl Since {
    /// Whether a change was told or made here since then.
    pub(crate) fn has_changed(&self) -> bool {
        self.cell.has_changed(self.at)
    }
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

    /// Whether all of them are known to stand, in this epoch too: what was found before a gap may
    /// have changed in it. For what is to be kept; of what is kept, a gap leaves nothing.
    pub(crate) fn are_known(&self) -> bool {
        self.iter().all(|dependency| dependency.cell.is_known_as(dependency.stamp))
    }

    /// The memory that they take, each part shared among those that hold it now. The first two are
    /// those of all entries of a function.
    pub(crate) fn bytes(&self) -> usize {
        let sharing = |holders: usize| holders.max(1);
        let own = LIST_BYTES.saturating_add(self.0.others.len().saturating_mul(size_of::<Dependency>()));
        let own = own.checked_div(sharing(Arc::strong_count(&self.0))).unwrap_or(own);
        let cells = self.0.others.iter().map(|dependency| {
            let cell = &dependency.cell;
            // The table holds it too.
            let holders = Arc::strong_count(cell).saturating_sub(1);
            let bytes = CELL_BYTES.saturating_add(cell.key.len());
            bytes.checked_div(sharing(holders)).unwrap_or(bytes)
        });
        cells.fold(own, usize::saturating_add)
    }
}

/// What a list takes beside its elements: itself, and what the allocator adds to both.
const LIST_BYTES: usize = size_of::<List>() + 48;
/// What a cell takes beside its key's text: itself, the text's header, its place in the table.
const CELL_BYTES: usize = size_of::<Cell>() + 144;

impl List {
    /// Apart, so that a plain hit stays short.
    #[inline(never)]
    fn others_hold(&self) -> bool {
        self.others.iter().all(Dependency::holds)
    }
}

/// As one list, the one that other values have where that is the same. `first`: mostly of the
/// namespace and the function.
pub(crate) fn shared(first: Option<[Dependency; 2]>, others: Vec<Dependency>) -> Dependencies {
    let Some(last) = others.last().or_else(|| first.as_ref()?.last()) else { return Dependencies::default() };
    let cell = Arc::clone(&last.cell);
    let list = List { first, others };
    let mut shared = lock(&cell.shared);
    if let Some(known) = shared.upgrade().filter(|known| **known == list) {
        return Dependencies(known);
    }
    let list = Arc::new(list);
    *shared = Arc::downgrade(&list);
    Dependencies(list)
}

impl Versions {
    /// `local_limit_bytes`: L1's, which what nothing goes by is small beside. 0: there is none.
    pub(crate) fn new(local_limit_bytes: usize) -> Self {
        let most_idle = match local_limit_bytes {
            0 => MOST_IDLE,
            limit => (limit / IDLE_PART / CELL_BYTES).clamp(LEAST_IDLE, MOST_IDLE),
        };
        let table = Table { cells: IndexMap::new(), most_idle, looked: 0 };
        Self { table: RwLock::new(table), epoch: Arc::default() }
    }

    pub(crate) fn cell(&self, key: &str) -> Arc<Cell> {
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner).cells.get(key).cloned();
        known.unwrap_or_else(|| {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            table.make_room();
            let key: Arc<str> = key.into();
            let new = || Arc::new(Cell::new(Arc::clone(&key), Arc::clone(&self.epoch)));
            Arc::clone(table.cells.entry(Arc::clone(&key)).or_insert_with(new))
        })
    }

    /// The key has changed, or is about to be by ourselves.
    pub(crate) fn changed(&self, key: &str) -> Told {
        let cell = self.table.read().unwrap_or_else(PoisonError::into_inner).cells.get(key).cloned();
        cell.map_or(Told::NoVersion, |cell| cell.lose())
    }

    /// The keys of those whose version was known, and used, since this was asked last.
    pub(crate) fn take_used(&self) -> Vec<Arc<str>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let used = table.cells.values().filter(|cell| cell.used.swap(false, Ordering::Relaxed));
        used.map(|cell| Arc::clone(&cell.key)).collect()
    }

    /// Anything may have changed: nothing is known from now on. One step, however many there are.
    pub(crate) fn clear(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives up some cells that nothing goes by, where there are many. Whether there may be more.
    pub(crate) fn give_back(&self) -> bool {
        self.table.write().unwrap_or_else(PoisonError::into_inner).give_back()
    }
}

impl Table {
    /// By chance, so that one who goes through more tags than there is room for finds some of them
    /// all the same, and a few at a time, so that none pays for all.
    fn make_room(&mut self) {
        let mut given_up = 0_usize;
        for _ in 0..DRAWN {
            let count = self.cells.len();
            if count < self.most_idle || given_up >= GIVEN_UP {
                return;
            }
            let drawn = (crate::random::fraction() * count as f64) as usize;
            given_up = given_up.saturating_add(usize::from(self.give_up(drawn)));
        }
        // Where it has grown large and stands nearly empty.
        if self.cells.capacity() / 8 > self.cells.len().max(self.most_idle) {
            self.cells.shrink_to(self.cells.len().saturating_mul(2));
        }
    }

    /// Whether nobody went by it. Nobody can take one out meanwhile: the table is locked.
    fn give_up(&mut self, index: usize) -> bool {
        let idle = self.cells.get_index(index).is_some_and(|(_, cell)| Arc::strong_count(cell) == 1);
        if idle {
            self.cells.swap_remove_index(index);
        }
        idle
    }

    fn give_back(&mut self) -> bool {
        for _ in 0..GIVEN_BACK_AT_ONCE {
            if self.cells.len() <= self.most_idle || self.looked >= self.cells.len() {
                self.looked = 0;
                return false;
            }
            // The last one comes in its place.
            if !self.give_up(self.looked) {
                self.looked = self.looked.saturating_add(1);
            }
        }
        true
    }
}

impl Cell {
    fn new(key: Arc<str>, epoch: Arc<AtomicU64>) -> Self {
        Self {
            key,
            epoch,
            stamp: AtomicU64::new(0),
            last: Mutex::default(),
            shared: Mutex::default(),
            used: AtomicBool::new(false),
        }
    }

    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    fn known_of(&self, last: &Last) -> Option<Version> {
        let known = last.version.filter(|_| self.is_known(last));
        // Mostly it is set already, and other threads read it too.
        if known.is_some() && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        known
    }

    #[cfg(test)]
    pub(crate) fn known(&self) -> Option<Version> {
        self.look().1
    }

    /// The version, if it is known to stand; a read of it may begin here.
    pub(crate) fn look(&self) -> (Pending, Option<Version>) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let last = self.last();
        (Pending { losses: last.losses, changes: last.changes, epoch }, self.known_of(&last))
    }

    fn is_known(&self, last: &Last) -> bool {
        self.stamp.load(Ordering::Acquire) != 0 && last.epoch == self.epoch.load(Ordering::Acquire)
    }

    fn is_known_as(&self, stamp: u64) -> bool {
        let last = self.last();
        self.is_known(&last) && last.stamp == stamp
    }

    /// Before a tracked read is sent.
    pub(crate) fn begin(&self) -> Pending {
        let epoch = self.epoch.load(Ordering::Acquire);
        let Last { losses, changes, .. } = *self.last();
        Pending { losses, changes, epoch }
    }

    /// What the read brought; forgotten again if something was told since it was sent.
    pub(crate) fn learn(&self, pending: Pending, version: Version) {
        static STAMPS: AtomicU64 = AtomicU64::new(1);
        let mut last = self.last();
        if last.losses != pending.losses && !sabotage::is(Guard::ChangeForgetsRead) {
            return;
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch != pending.epoch && !sabotage::is(Guard::ChangeForgetsRead) {
            return;
        }
        // If it ends at this moment, the cell is of one that has ended.
        last.epoch = epoch;
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
        let is_at = self.is_known(&last) && last.version == Some(on);
        is_at.then(|| Dependency { cell: Arc::clone(self), stamp: last.stamp })
    }

    fn lose(&self) -> Told {
        let mut last = self.last();
        let told = if self.is_known(&last) { Told::Known } else { Told::Unknown };
        last.losses = last.losses.wrapping_add(1);
        last.changes = last.changes.wrapping_add(1);
        self.stamp.store(0, Ordering::Release);
        told
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
        let (versions, old) = (Versions::new(0), Version::random());
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
        let (versions, first) = (Versions::new(0), Version::random());
        let cell = known(&versions, "a", first);
        let dependency = cell.depend(first).unwrap();
        assert!(dependency.holds());
        // A lost connection says nothing of the version itself.
        let (pending, under) = (cell.begin(), shared(None, vec![cell.depend(first).unwrap()]));
        assert!(under.are_known());
        versions.clear();
        assert!(!under.are_known() && !cell.has_changed(pending));
        assert_eq!((cell.known(), cell.depend(first).is_none()), (None, true));
        // Nor does a read that was sent before it.
        cell.learn(pending, first);
        assert_eq!(cell.known(), None);
        cell.learn(cell.begin(), first);
        assert!(under.are_known() && dependency.holds());
        assert_eq!((versions.changed("a"), versions.changed("a")), (Told::Known, Told::Unknown));
        cell.learn(cell.begin(), Version::random());
        assert!(!dependency.holds());
        assert!(cell.depend(first).is_none());
    }

    fn len(versions: &Versions) -> usize {
        versions.table.read().unwrap().cells.len()
    }

    #[test]
    // C1
    fn cells_that_nothing_goes_by_are_given_up_a_few_at_a_time() {
        let (versions, version) = (Versions::new(1), Version::random());
        let hold = |number: usize| known(&versions, &format!("held {number}"), version).depend(version).unwrap();
        let held: Vec<_> = (0..3000).map(hold).collect();
        for number in 0..20_000 {
            let before = len(&versions);
            versions.cell(&number.to_string());
            assert!(len(&versions) + GIVEN_UP > before);
        }
        let idle = len(&versions) - held.len();
        assert!(idle < held.len() * 2 / 3, "{idle}");
        assert!(held.iter().all(Dependency::holds));
        versions.changed("held 7");
        assert!(!held[7].holds(), "its cell is still told of changes");
        drop(held);
        while versions.give_back() {}
        assert_eq!(len(&versions), LEAST_IDLE);
    }

    #[test]
    // C1
    fn with_more_tags_than_there_is_room_for_many_are_known_all_the_same() {
        let (versions, version) = (Versions::new(1), Version::random());
        let round = || {
            (0..LEAST_IDLE * 5 / 4).filter(|number| {
                let cell = versions.cell(&number.to_string());
                let is_known = cell.known().is_some();
                cell.learn(cell.begin(), version);
                is_known
            })
        };
        let rounds: Vec<_> = (0..5).map(|_| round().count()).collect();
        assert!(rounds.iter().skip(1).all(|known| *known > LEAST_IDLE / 4), "{rounds:?}");
    }
}
