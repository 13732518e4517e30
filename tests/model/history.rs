//! What the rows are, what was invalidated when, and what a read must at least return.
//!
//! Rows are locked by whoever writes them, as by a transaction; so their versions are in the order
//! of their writes. The cell is written by several at once, without a lock: a read of it returns
//! the last acknowledged write, or one that was not over when that one began.

use std::fmt;

/// Row versions and invalidations of one run.
#[derive(Default)]
pub(super) struct History {
    rows: Vec<u64>,
    done: Vec<Invalidation>,
    /// Of the cell; write `n` wrote `n`.
    writes: Vec<Write>,
}

/// A write of the cell.
struct Write {
    began: u64,
    /// When its call returned, and on which node.
    ended: Option<(u64, usize)>,
    acknowledged: bool,
    /// It failed, and its node has not yet done what is to follow it: it may still arrive.
    may_arrive: bool,
}

/// A read of the cell.
pub(super) struct CellRead {
    pub(super) value: u64,
    pub(super) node: usize,
    pub(super) began: u64,
}

/// One that completed: no older version may be read any more, at once on its node, after a while elsewhere.
pub(super) struct Invalidation {
    pub(super) row: usize,
    pub(super) version: u64,
    /// `Some`: it was of this owner's rows, and says nothing of versions that were another's.
    pub(super) owner: Option<u64>,
    pub(super) at: u64,
    /// `None`: nobody's in particular.
    pub(super) node: Option<usize>,
}

/// A read that has returned a version.
pub(super) struct Read {
    pub(super) row: usize,
    /// `None`: that the row is absent.
    pub(super) version: Option<u64>,
    pub(super) node: usize,
    pub(super) began: u64,
    /// How many invalidations had completed when it began: also within one millisecond.
    pub(super) known: usize,
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// No read is older than the staleness bound allows.
    Staleness,
    /// The last acknowledged write of the cell, or a later one, is read.
    LastWrite,
    /// No call outlives its bound.
    Hangs,
    /// What holds of a link at any time.
    Link,
    /// One run a key, where nothing failed and nothing was written.
    OneRun,
    /// Who waited for a run that stored nothing runs at once.
    Queues,
    /// What is not to be stored is not found.
    Unstored,
    /// What was acknowledged is not lost.
    Lost,
    /// A session that was ended does not live on.
    Ended,
    /// Who is logged in is in the list of the user's sessions.
    Listed,
    /// What is kept and what waits is bounded.
    Bounds,
    /// All tasks end, and nobody is left waiting.
    Ends,
}

/// A rule that was broken, and how.
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

/// Whether a row of the one function whose rows can be absent is, at a version.
pub(super) fn is_absent(version: u64) -> bool {
    version % 3 == 2
}

/// Whether what the one function that stores some of its values only returns at a version is not
/// stored.
pub(super) fn is_unstored(version: u64) -> bool {
    version % 3 == 1
}

/// Whose a row is at a version: it changes hands.
pub(super) fn owner_of(version: u64) -> u64 {
    version % 2
}

impl History {
    pub(super) fn new(rows: usize) -> Self {
        Self { rows: vec![1; rows], ..Self::default() }
    }

    /// What the database says now.
    pub(super) fn version(&self, row: usize) -> u64 {
        self.rows[row]
    }

    /// A transaction commits a new version.
    pub(super) fn commit(&mut self, row: usize) -> u64 {
        self.rows[row] += 1;
        self.rows[row]
    }

    /// An invalidation or an explicit set, which began when the row had this version, has returned.
    /// Its number.
    pub(super) fn completed(&mut self, done: Invalidation) -> usize {
        self.done.push(done);
        self.done.len() - 1
    }

    /// The fence that was raised by this one is withdrawn: what stood before it may be served again,
    /// as far as no other fence or invalidation says otherwise.
    pub(super) fn withdrawn(&mut self, raised: usize) {
        self.done[raised].version = 0;
    }

    /// The rule.
    pub(super) fn check(&self, read: &Read, max_staleness: u64) -> Option<Violation> {
        match read.version {
            Some(version) => self.check_version(read, version, max_staleness),
            // The latest version at which it was absent.
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

    /// A write of the cell begins; what it writes.
    pub(super) fn begin_write(&mut self, now: u64) -> u64 {
        self.writes.push(Write { began: now, ended: None, acknowledged: false, may_arrive: false });
        self.writes.len() as u64 - 1
    }

    /// The write of this value has returned.
    pub(super) fn end_write(&mut self, value: u64, now: u64, node: usize, acknowledged: bool) {
        let write = &mut self.writes[value as usize];
        (write.ended, write.acknowledged, write.may_arrive) = (Some((now, node)), acknowledged, !acknowledged);
    }

    /// This node has done all that is to follow what has failed: nothing of it arrives any more.
    pub(super) fn settled(&mut self, node: usize, now: u64) {
        for write in self.writes.iter_mut().filter(|write| write.may_arrive) {
            if write.ended.is_some_and(|(_, by)| by == node) {
                (write.ended, write.may_arrive) = (Some((now, node)), false);
            }
        }
    }

    /// The store has lost all that was written.
    pub(super) fn forget_writes(&mut self) {
        self.writes.iter_mut().for_each(|write| write.acknowledged = false);
    }

    /// The rule of the cell.
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

    /// How many invalidations have completed so far.
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
    // On the same node at once.
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
fn that_a_row_is_absent_may_be_as_old_as_the_last_version_at_which_it_was() {
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
fn a_write_of_the_cell_that_was_over_when_a_later_one_began_is_not_read_after_that() {
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
