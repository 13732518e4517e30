//! The state of the rows, the times of invalidations, and the oldest value that a read may return.
//!
//! Writers lock rows, as transactions do, so the versions are in the order of the writes. The cell
//! is written by several clients at once, without a lock. A read of the cell returns the last
//! acknowledged write, or one that had not ended when that one began.

use std::fmt;

/// The row versions and invalidations of one run.
#[derive(Default)]
pub(super) struct History {
    rows: Vec<u64>,
    done: Vec<Invalidation>,
    /// The writes of the cell. Write `n` wrote the value `n`.
    writes: Vec<Write>,
}

/// A write of the cell.
struct Write {
    began: u64,
    /// When its call returned, and on which node.
    ended: Option<(u64, usize)>,
    acknowledged: bool,
    /// It failed, and its node has not yet done the follow-up, so it may still arrive.
    may_arrive: bool,
}

/// A read of the cell.
pub(super) struct CellRead {
    pub(super) value: u64,
    pub(super) node: usize,
    pub(super) began: u64,
}

/// A completed invalidation: no older version may be read, immediately on its node, after a while
/// on others.
pub(super) struct Invalidation {
    pub(super) row: usize,
    pub(super) version: u64,
    /// If set, it covered only rows of this owner, not versions of other owners.
    pub(super) owner: Option<u64>,
    pub(super) at: u64,
    /// `None`: not by any particular node.
    pub(super) node: Option<usize>,
}

/// A read that has returned a version.
pub(super) struct Read {
    pub(super) row: usize,
    /// `None`: the row was absent.
    pub(super) version: Option<u64>,
    pub(super) node: usize,
    pub(super) began: u64,
    /// The number of invalidations completed when it began, which also orders events within one
    /// millisecond.
    pub(super) known: usize,
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// No read is older than the staleness bound allows.
    Staleness,
    /// A read of the cell returns the last acknowledged write or a later one.
    LastWrite,
    /// No call exceeds its time bound.
    Hangs,
    /// The invariants of a link.
    Link,
    /// A key has one run if nothing failed and nothing was written.
    OneRun,
    /// A caller that waited for a run that stored nothing runs immediately.
    Queues,
    /// A value that must not be stored is not found.
    Unstored,
    /// No acknowledged change is lost.
    Lost,
    /// An ended session does not live on.
    Ended,
    /// A logged-in session is in the list of the user's sessions.
    Listed,
    /// Stored entries and waiters are bounded.
    Bounds,
    /// All tasks end, and no waiter is left.
    Ends,
}

/// A broken rule, with details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    pub(super) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Returns whether a row is absent at a version, for the one function whose rows can be absent.
pub(super) fn is_absent(version: u64) -> bool {
    version % 3 == 2
}

/// Returns whether the value of a version is not stored, for the one function that stores only some
/// of its values.
pub(super) fn is_unstored(version: u64) -> bool {
    version % 3 == 1
}

/// Returns the owner of a row at a version. The owner changes with each version.
pub(super) fn owner_of(version: u64) -> u64 {
    version % 2
}

impl History {
    pub(super) fn new(rows: usize) -> Self {
        Self { rows: vec![1; rows], ..Self::default() }
    }

    /// Returns the current version in the database.
    pub(super) fn version(&self, row: usize) -> u64 {
        self.rows[row]
    }

    /// Commits a new version in a transaction.
    pub(super) fn commit(&mut self, row: usize) -> u64 {
        self.rows[row] += 1;
        self.rows[row]
    }

    /// Records that an invalidation or an explicit set, which began at this version of the row, has
    /// returned. Returns its number.
    pub(super) fn completed(&mut self, done: Invalidation) -> usize {
        self.done.push(done);
        self.done.len() - 1
    }

    /// Records that the fence raised with this number is withdrawn: values from before it may be
    /// served again, unless another fence or invalidation forbids it.
    pub(super) fn withdrawn(&mut self, raised: usize) {
        self.done[raised].version = 0;
    }

    /// Checks a read of a row.
    pub(super) fn check(&self, read: &Read, max_staleness: u64) -> Option<Violation> {
        match read.version {
            Some(version) => self.check_version(read, version, max_staleness),
            // The latest version at which the row was absent.
            None => match (1..=self.rows[read.row]).rev().find(|version| is_absent(*version)) {
                Some(version) => self.check_version(read, version, max_staleness),
                None => {
                    let what = format!("row {} is read as absent, and never was: on node {}", read.row, read.node);
                    Some(Violation { rule: Rule::Staleness, what })
                }
            },
        }
    }

    fn check_version(&self, read: &Read, version: u64, max_staleness: u64) -> Option<Violation> {
        let Read { row, node, began, known, .. } = *read;
        let before = self.done.iter().take(known).filter(|done| done.row == row && version < done.version);
        let meant = before.filter(|done| done.owner.is_none_or(|owner| owner == owner_of(version)));
        let broken = meant.filter(|done| done.node == Some(node) || done.at + max_staleness < began);
        let broken = broken.max_by_key(|done| done.version)?;
        let by = broken.node.map_or(String::new(), |node| format!("on node {node} "));
        let what = format!(
            "a read of row {row} that began on node {node} at {began} returned version {version}, though all before {} was \
             invalidated {by}at {}",
            broken.version, broken.at,
        );
        Some(Violation { rule: Rule::Staleness, what })
    }

    /// Begins a write of the cell. Returns the value to write.
    pub(super) fn begin_write(&mut self, now: u64) -> u64 {
        self.writes.push(Write { began: now, ended: None, acknowledged: false, may_arrive: false });
        self.writes.len() as u64 - 1
    }

    /// Records that the write of this value has returned.
    pub(super) fn end_write(&mut self, value: u64, now: u64, node: usize, acknowledged: bool) {
        let write = &mut self.writes[value as usize];
        (write.ended, write.acknowledged, write.may_arrive) = (Some((now, node)), acknowledged, !acknowledged);
    }

    /// Records that this node has done the follow-up of its failed writes: nothing of them can
    /// arrive. Returns how many there were.
    pub(super) fn settled(&mut self, node: usize, now: u64) -> u64 {
        let mut count = 0;
        for write in self.writes.iter_mut().filter(|write| write.may_arrive) {
            if write.ended.is_some_and(|(_, by)| by == node) {
                (write.ended, write.may_arrive) = (Some((now, node)), false);
                count += 1;
            }
        }
        count
    }

    /// Records that the store has lost all writes.
    pub(super) fn forget_writes(&mut self) {
        self.writes.iter_mut().for_each(|write| write.acknowledged = false);
    }

    /// Checks a read of the cell.
    pub(super) fn check_cell(&self, read: &CellRead, max_staleness: u64) -> Option<Violation> {
        let CellRead { value, node, began } = *read;
        let written = &self.writes[value as usize];
        let over = written.ended.filter(|_| !written.may_arrive)?.0;
        let newer = self.writes.iter().enumerate().filter(|(_, write)| write.acknowledged && write.began > over);
        let mut broken = newer.filter(|(_, write)| {
            write.ended.is_some_and(|(at, by)| if by == node { at < began } else { at + max_staleness < began })
        });
        let (newer, _) = broken.next_back()?;
        let what = format!(
            "a read of the cell that began on node {node} at {began} returned {value}, whose write was over at {over}, before \
             that of {newer} began"
        );
        Some(Violation { rule: Rule::LastWrite, what })
    }

    /// Returns the number of invalidations completed so far.
    pub(super) fn known(&self) -> usize {
        self.done.len()
    }
}

#[test]
fn a_value_older_than_an_invalidation_elsewhere_is_found_after_a_while() {
    let mut history = History::new(1);
    assert_eq!(history.commit(0), 2);
    history.completed(Invalidation { row: 0, version: 2, owner: None, at: 1000, node: Some(1) });
    let check = |version, began, node| {
        history.check(&Read { row: 0, version: Some(version), node, began, known: 1 }, 2000).is_some()
    };
    assert_eq!([check(1, 3000, 0), check(1, 3001, 0), check(2, 3001, 0)], [false, true, false]);
    // Immediately on the same node.
    assert_eq!([check(1, 1000, 1), check(2, 1000, 1)], [true, false]);
    let before = Read { row: 0, version: Some(1), node: 1, began: 1000, known: 0 };
    assert_eq!(history.check(&before, 2000), None, "it had not completed");
}

#[test]
fn an_invalidation_of_an_owner_binds_that_owners_versions() {
    let mut history = History::new(1);
    history.completed(Invalidation { row: 0, version: 4, owner: Some(1), at: 1000, node: None });
    let check = |version| {
        history.check(&Read { row: 0, version: Some(version), node: 0, began: 4000, known: 1 }, 2000).is_some()
    };
    assert_eq!([check(1), check(2), check(3), check(4), check(5)], [true, false, true, false, false]);
}

#[test]
fn an_absent_row_may_be_as_old_as_its_last_absent_version() {
    let mut history = History::new(1);
    let check = |history: &History| {
        history.check(&Read { row: 0, version: None, node: 0, began: 9000, known: 9 }, 2000).is_some()
    };
    assert!(check(&history), "it was there from the beginning");
    assert_eq!(history.commit(0), 2);
    history.completed(Invalidation { row: 0, version: 2, owner: None, at: 1000, node: None });
    assert!(!check(&history));
    assert_eq!(history.commit(0), 3);
    history.completed(Invalidation { row: 0, version: 3, owner: None, at: 2000, node: None });
    assert!(check(&history));
}

#[test]
fn a_cell_write_that_ended_before_a_later_one_began_is_not_read_after_it() {
    let mut history = History::new(0);
    assert_eq!((history.begin_write(0), history.begin_write(10), history.begin_write(30)), (0, 1, 2));
    history.end_write(0, 20, 1, true);
    history.end_write(1, 20, 1, false);
    history.end_write(2, 40, 1, true);
    let check =
        |history: &History, value, node, began| history.check_cell(&CellRead { value, node, began }, 2000).is_some();
    assert_eq!([check(&history, 0, 1, 40), check(&history, 0, 1, 41)], [false, true]);
    assert_eq!([check(&history, 0, 0, 2040), check(&history, 0, 0, 2041)], [false, true], "elsewhere after a while");
    assert!(!check(&history, 1, 1, 41), "it failed, and may still arrive");
    assert!(!check(&history, 2, 1, 9000));
    history.settled(0, 25);
    assert!(!check(&history, 1, 1, 41), "of another node");
    history.settled(1, 25);
    assert!(check(&history, 1, 1, 41));
}
