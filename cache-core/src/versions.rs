//! Versions: every value depends on some, and an invalidation replaces them.

pub(crate) mod cells;
pub(crate) mod functions;
pub(crate) mod keys;
pub(crate) mod snapshot;

pub(crate) use self::cells::{Cell, Dependencies, Dependency, Notification, Pending, Since, Versions, shared};
