//! The embedded store: the operations of [`Store`] in this process, for tests, small services and
//! machines without Redis.
//!
//! Invariant: a value key and its lease key are in one shard, so each operation is atomic under one
//! lock; no lock is held while anything else runs. Memory is bounded: over the limit, sampled least
//! recently used entries are evicted (the approximation that Redis uses for `allkeys-lru`). Expiry
//! uses a clock that cannot be set.

mod cells;
mod channels;
mod eviction;
mod fences;
mod hashes;
mod index;
mod leases;
mod plain;
mod shard;
mod sweep;
mod values;
mod versions;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::FutureExt as _;
use futures::future::{self, BoxFuture};

use self::channels::Channels;
use self::shard::{Access, Shard};
use self::sweep::Sweep;
use crate::clock::{Clock, SteadyTime};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::events::Events;
use crate::store::pushes::Pushes;
use crate::store::{CellStore as _, Listener, Operation, Store, Trust, plain_key_of};

const SHARDS: usize = 64;

/// An in-process store. Several caches may share one, as several processes share a Redis.
pub(crate) struct MemoryStore {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    clock: Clock,
    time: SteadyTime,
    events: Events,
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    /// Counts uses; an entry's last use is its rank for eviction.
    tick: AtomicU64,
    pushes: Arc<Pushes>,
    channels: Channels,
    sweep: Sweep,
    closed: AtomicBool,
}

impl MemoryStore {
    pub(crate) fn new(clock: Clock, events: Events, limit_bytes: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            time: SteadyTime::new(&clock),
            clock,
            events,
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            tick: AtomicU64::new(0),
            pushes: Arc::default(),
            channels: Channels::default(),
            sweep: Sweep::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Runs `step` on the shard of `key`, then enforces the bounds and notifies watchers of the
    /// keys that changed.
    fn with<T>(&self, key: &str, step: impl FnOnce(&mut Access<'_>) -> Result<T>) -> Result<T> {
        self.check_open()?;
        let mut access = Access { store: self, shard: self.shard(key), changed: Vec::new(), now: self.now() };
        let result = step(&mut access);
        let changed = access.changed;
        drop(access.shard);
        for key in &changed {
            self.pushes.changed(key);
        }
        if !changed.is_empty() && self.sweep.is_due() {
            self.sweep_some(sweep::A_FEW);
        }
        self.keep_bounds();
        result
    }

    fn keep_bounds(&self) {
        if self.used_bytes.load(Ordering::Relaxed) > self.limit_bytes {
            self.evict();
        }
    }

    fn ready<'a, T: Send + 'a>(
        &self,
        key: &str,
        step: impl FnOnce(&mut Access<'_>) -> Result<T>,
    ) -> BoxFuture<'a, Result<T>> {
        Box::pin(future::ready(self.with(key, step)))
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::new(ErrorKind::Closed, "store")) } else { Ok(()) }
    }

    /// `k` and `{k}:l` are in one shard, as they are in one slot of a Redis Cluster.
    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        self.lock_shard(self.shard_index(key))
    }

    fn shard_index(&self, key: &str) -> usize {
        let mut key = key;
        while let Some(plain) = plain_key_of(key) {
            key = plain;
        }
        let tag = key.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')).map_or(key, |(tag, _)| tag);
        self.hasher.hash_one(tag) as usize % SHARDS
    }

    fn lock_shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        #[expect(clippy::indexing_slicing, reason = "the index is below SHARDS, the length")]
        lock(&self.shards[index])
    }
}

impl Store for MemoryStore {
    fn listen(&self, listener: Weak<dyn Listener>) {
        self.pushes.listen(listener);
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::new(Trust::absolute())
    }

    fn later(&self, operation: Operation) {
        // Every operation here completes when it is first polled. An error means that the store is
        // closed.
        drop(operation.run(self).now_or_never());
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(future::ready(()))
    }

    fn is_available(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    fn epoch(&self) -> u64 {
        0
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::Release);
        lock(&self.channels).clear();
        self.pushes.gap();
        Box::pin(future::ready(()))
    }
}

/// Ignores poison: no step leaves a shard half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
