//! Everything that a cache reports: events and counters, counters per function, the history of
//! keys.

pub(crate) mod events;
pub(crate) mod function_stats;
pub(crate) mod history;
