//! The locks of what `tests/interleavings` runs under a scheduler: it compiles those modules with others in this place.
//!
//! Atomics are the standard library's there too: a value in L1 looks at its versions under the table's own lock, where the scheduler
//! must not change threads.

pub(crate) use std::sync::{Mutex, MutexGuard, RwLock};

/// Locks of a table by key. More let more threads in at once.
pub(crate) const SHARDS: usize = 32;
