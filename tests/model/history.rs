//! What the rows are, what was invalidated when, and what a read must at least return.

use std::fmt;

/// Row versions and invalidations of one run.
#[derive(Default)]
pub(super) struct History {
    rows: Vec<u64>,
    done: Vec<Invalidation>,
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
    pub(super) version: u64,
    pub(super) node: usize,
    pub(super) began: u64,
    /// How many invalidations had completed when it began: also within one millisecond.
    pub(super) known: usize,
}

/// A read that returned what nobody should see any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Whose a row is at a version: it changes hands.
pub(super) fn owner_of(version: u64) -> u64 {
    version % 2
}

impl History {
    pub(super) fn new(rows: usize) -> Self {
        Self { rows: vec![1; rows], done: Vec::new() }
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
    pub(super) fn completed(&mut self, done: Invalidation) {
        self.done.push(done);
    }

    /// The rule.
    pub(super) fn check(&self, read: &Read, max_staleness: u64) -> Option<Violation> {
        let Read { row, version, node, began, known } = *read;
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
        Some(Violation { what })
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
    let check = |version, began, node| history.check(&Read { row: 0, version, node, began, known: 1 }, 2000).is_some();
    assert_eq!([check(1, 3000, 0), check(1, 3001, 0), check(2, 3001, 0)], [false, true, false]);
    // On the same node at once.
    assert_eq!([check(1, 1000, 1), check(2, 1000, 1)], [true, false]);
    let before = Read { row: 0, version: 1, node: 1, began: 1000, known: 0 };
    assert_eq!(history.check(&before, 2000), None, "it had not completed");
}

#[test]
fn an_invalidation_of_an_owner_binds_that_owners_versions() {
    let mut history = History::new(1);
    history.completed(Invalidation { row: 0, version: 4, owner: Some(1), at: 1000, node: None });
    let check = |version| history.check(&Read { row: 0, version, node: 0, began: 4000, known: 1 }, 2000).is_some();
    assert_eq!([check(1), check(2), check(3), check(4), check(5)], [true, false, true, false, false]);
}
