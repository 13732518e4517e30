//! The locks used by the modules that `tests/interleavings` runs under a scheduler.
//!
//! That test compiles those modules with other lock types in place of these. Atomics are the
//! standard library's in both cases: a value in L1 checks its versions under the table's own lock,
//! where the scheduler must not switch threads.

pub(crate) use std::sync::{Mutex, MutexGuard, RwLock};

/// Number of locks in a table sharded by key. More shards let more threads in at once.
pub(crate) const SHARDS: usize = 32;
