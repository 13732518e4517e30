//! The version cells of functions, indexed by function number, so that a call finds them without
//! building the version's key.
//!
//! ```text
//! number of a function ─> its cell      the namespace has one cell, kept next to the table
//! ```
//!
//! Invariant: a cell in this table is the cell of its key in [`Versions`]. [`Versions`] does not
//! drop a cell that is in use, and this table keeps its cells until the cache is dropped. There are
//! as many cells as function numbers; a function without a number is looked up by its key.

use std::sync::{Arc, OnceLock};

use crate::key::versions::{function_key, namespace_key};
use crate::observe::function_stats::{FunctionNumber, MOST};
use crate::versions::{Cell, Versions};

/// The version cells of one cache.
pub(crate) struct FunctionVersions {
    namespace: Arc<Cell>,
    /// Indexed by function number.
    functions: Box<[OnceLock<Arc<Cell>>]>,
}

impl FunctionVersions {
    pub(crate) fn new(versions: &Versions, namespace: &str) -> Self {
        let functions = (0..MOST).map(|_| OnceLock::new()).collect();
        Self { namespace: versions.cell(&namespace_key(namespace)), functions }
    }

    /// Returns the cell of the namespace.
    pub(crate) fn namespace(&self) -> &Arc<Cell> {
        &self.namespace
    }

    /// Returns the cell of the function with this name and number.
    pub(crate) fn function(
        &self,
        versions: &Versions,
        namespace: &str,
        name: &str,
        number: FunctionNumber,
    ) -> Arc<Cell> {
        let cell = || versions.cell(&function_key(namespace, name));
        match self.functions.get(number.place()) {
            Some(known) => Arc::clone(known.get_or_init(cell)),
            None => cell(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Version;
    use crate::versions::Notification;

    #[test]
    // C1, R6
    fn a_function_keeps_the_cell_of_its_key_when_cells_are_dropped() {
        let versions = Versions::new(1);
        let functions = FunctionVersions::new(&versions, "app");
        let number = FunctionNumber::of_function("function_versions.f");
        let cell = |number| functions.function(&versions, "app", "function_versions.f", number);
        let version = Version::random();
        let held = Arc::downgrade(&cell(number));
        for tag in 0..10_000 {
            versions.cell(&format!("app@tag:{tag}"));
        }
        let known = cell(number);
        assert!(Arc::ptr_eq(&known, &held.upgrade().unwrap()));
        assert!(Arc::ptr_eq(&known, &versions.cell(&function_key("app", "function_versions.f"))));
        known.learn(known.begin(), version);
        assert_eq!(versions.changed(&function_key("app", "function_versions.f")), Notification::Known);
        assert!(cell(number).known().is_none());
        functions.namespace().learn(functions.namespace().begin(), version);
        assert_eq!(versions.changed(&namespace_key("app")), Notification::Known);
        // A gap clears all of them.
        known.learn(known.begin(), version);
        versions.clear();
        assert!(cell(number).known().is_none());
    }

    #[test]
    // C1
    fn a_name_without_a_number_has_the_cell_of_its_key() {
        let versions = Versions::new(1);
        let functions = FunctionVersions::new(&versions, "app");
        let cell = |name| functions.function(&versions, "app", name, FunctionNumber::OTHER);
        assert!(Arc::ptr_eq(&cell("a"), &versions.cell(&function_key("app", "a"))));
        assert!(!Arc::ptr_eq(&cell("a"), &cell("b")));
    }
}
