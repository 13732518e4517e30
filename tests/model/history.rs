//! What the rows are, what was invalidated when, and what a read must at least return.

use std::fmt;

/// Row versions and invalidations of one run.
#[derive(Default)]
pub(super) struct History {
    rows: Vec<u64>,
    done: Vec<Invalidation>,
}

/// One that completed: no older version may be read any more, at once on its node, after a while elsewhere.
struct Invalidation {
    row: usize,
    version: u64,
    at: u64,
    /// `None`: by hand, at the server.
    node: Option<usize>,
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
    pub(super) fn completed(&mut self, row: usize, version: u64, at: u64, node: Option<usize>) {
        self.done.push(Invalidation { row, version, at, node });
    }

    /// Checks a read that began on `node` at `began`.
    pub(super) fn check(
        &self,
        row: usize,
        version: u64,
        began: u64,
        known: usize,
        node: usize,
        max_staleness: u64,
    ) -> Option<Violation> {
        // Only what had completed when the read began: also within one millisecond.
        let before = self.done.iter().take(known).filter(|done| done.row == row);
        let binding = before.filter(|done| done.node == Some(node) || done.at + max_staleness < began);
        let broken = binding.max_by_key(|done| done.version).filter(|done| version < done.version)?;
        let by = broken.node.map_or("by hand".to_owned(), |node| format!("on node {node}"));
        let what = format!(
            "a read of row {row} that began on node {node} at {began} returned version {version}, though version {} was \
             invalidated {by} at {}",
            broken.version - 1,
            broken.at,
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
    history.completed(0, 2, 1000, Some(1));
    let check = |version, began, node| history.check(0, version, began, 1, node, 2000).is_some();
    assert_eq!([check(1, 3000, 0), check(1, 3001, 0), check(2, 3001, 0)], [false, true, false]);
    // On the same node at once.
    assert_eq!([check(1, 1000, 1), check(2, 1000, 1)], [true, false]);
    assert_eq!(history.check(0, 1, 1000, 0, 1, 2000), None, "it had not completed");
}
