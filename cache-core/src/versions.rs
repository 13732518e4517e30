//! Versions: what every value depends on, and what an invalidation replaces.

pub(crate) mod cells;
pub(crate) mod functions;
pub(crate) mod keys;
pub(crate) mod snapshot;

pub(crate) use self::cells::{Cell, Dependencies, Dependency, Pending, Since, Told, Versions, shared};
