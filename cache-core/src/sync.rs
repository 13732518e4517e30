//! The locks and atomics of what `tests/interleavings` runs under a scheduler: it compiles those modules with others in this place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock};

/// Locks of a table by key. More let more threads in at once.
pub(crate) const SHARDS: usize = 32;
