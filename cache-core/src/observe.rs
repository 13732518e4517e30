//! What a cache reports: events and counters, the counters of each function, the history of keys.

pub mod events;
pub(crate) mod function_stats;
pub(crate) mod history;
