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
mod versions;

use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use futures::stream::BoxStream;

use self::channels::Channels;
use self::hashes::read_hash;
use self::shard::{Access, Shard, Value, wrong_type};
use self::sweep::Sweep;
use crate::clock::{Clock, SteadyTime};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Events, Table};
use crate::store::pushes::Pushes;
use crate::store::{
    Acquired, CellStore as _, Expiry, Fill, Filled, Listener, Message, Operation, Over, Raised, Siblings, Slot, Store,
    Token, Trust, Version, Versioned, Wake, aside_key, lease_key, plain_key_of,
};

const SHARDS: usize = 64;
/// How long a waiter sleeps if too many wait already.
const POLL: Duration = Duration::from_millis(100);
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

    /// Unlinks all siblings except `but`, with their leases and the records put aside. Returns the
    /// known builds.
    fn unlink<'a>(&self, siblings: Siblings<'a>, but: Option<&str>) -> BoxFuture<'a, Result<Vec<String>>> {
        for key in siblings.keys.iter().filter(|key| Some(key.as_str()) != but) {
            let removed = self.with(key, |access| {
                access.remove(key);
                access.remove(&lease_key(key));
                access.remove(&aside_key(key));
                Ok(())
            });
            if let Err(error) = removed {
                return Box::pin(future::ready(Err(error)));
            }
        }
        Box::pin(future::ready(self.builds(siblings.builds)))
    }

    fn builds(&self, registry: &str) -> Result<Vec<String>> {
        self.with(registry, |access| match access.get(registry).map(|entry| &entry.value) {
            None => Ok(Vec::new()),
            Some(Value::Set(members)) => Ok(members.iter().cloned().collect()),
            Some(_) => Err(wrong_type()),
        })
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
    fn read_now(&self, key: &str) -> Option<Slot> {
        self.with(key, |access| Ok(access.slot(key))).ok()
    }

    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Slot>> {
        self.ready(key, |access| Ok(access.slot(key)))
    }

    fn read_and_watch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, Wake)>> {
        let waiter = self.pushes.register(key);
        let read = self.with(key, |access| {
            let slot = access.slot(key);
            Ok((slot, access.left(key)))
        });
        Box::pin(future::ready(read.map(|(slot, left)| {
            // Expiry has no effect until a caller reads the key, so the waiter has its own timer.
            let ended = left.map(|left| self.clock.sleep(left));
            let events = self.events.clone();
            let wake = async move {
                match (waiter, ended) {
                    (Some(waiter), Some(ended)) => drop(future::select(waiter, pin!(ended)).await),
                    (Some(waiter), None) => waiter.await,
                    // Too many wait already: this one polls.
                    (None, _) => {
                        events.table_full(Table::Waiters);
                        tokio::time::sleep(POLL).await;
                    }
                }
            };
            (slot, wake.boxed())
        })))
    }

    fn read_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, bool)>> {
        // Listeners are notified of every change here.
        self.ready(key, |access| Ok((access.slot(key), true)))
    }

    fn read_versioned<'a>(&'a self, key: &'a str, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Versioned>> {
        let read = || Ok((self.versions(versions, true)?, self.with(key, |access| Ok(access.slot(key)))?));
        Box::pin(future::ready(read().map(|(versions, slot)| (slot, versions, true))))
    }

    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>> {
        Box::pin(future::ready(self.versions(versions, make).map(|versions| (versions, true))))
    }

    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        Box::pin(future::ready(self.renew_all(versions)))
    }

    fn listen(&self, listener: Weak<dyn Listener>) {
        self.pushes.listen(listener);
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::new(Trust::absolute())
    }

    fn acquire<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        over: Over,
    ) -> BoxFuture<'a, Result<Acquired>> {
        self.ready(key, |access| leases::acquire(access, key, token, lease, over))
    }

    fn acquire_in_place<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        fill_id: u64,
    ) -> BoxFuture<'a, Result<Acquired>> {
        self.ready(key, |access| leases::acquire_in_place(access, key, token, lease, fill_id))
    }

    fn acquire_over_mark<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        mark: Token,
    ) -> BoxFuture<'a, Result<Acquired>> {
        self.ready(key, |access| leases::acquire_over_mark(access, key, token, lease, mark))
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>> {
        self.ready(&fill.claim.key, |access| leases::fill(access, fill))
    }

    fn rewrite_head<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        fill_id: u64,
        head: Bytes,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| leases::rewrite_head(access, key, token, fill_id, head, expiry))
    }

    fn renew<'a>(&'a self, key: &'a str, token: Token, over: Over, lease: Duration) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| leases::renew(access, key, token, over, lease))
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        over: Over,
        unstored: Option<Duration>,
    ) -> BoxFuture<'a, Result<()>> {
        self.ready(key, |access| leases::release(access, key, token, over, unstored))
    }

    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| leases::throttle(access, key, token, throttle))
    }

    fn discard<'a>(&'a self, key: &'a str, what: &'a Slot) -> BoxFuture<'a, Result<()>> {
        self.ready(key, |access| {
            if access.slot(key) == *what {
                access.remove(key);
            }
            Ok(())
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        record: Bytes,
        expiry: Expiry,
        siblings: Siblings<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        let written = self.with(key, |access| {
            access.put(key, Value::Bytes(record), Some(expiry));
            access.remove(&lease_key(key));
            Ok(())
        });
        match written {
            // If the own key is among the siblings, it holds the new record.
            Ok(()) => self.unlink(siblings, Some(key)),
            Err(error) => Box::pin(future::ready(Err(error))),
        }
    }

    fn remove<'a>(&'a self, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        self.unlink(siblings, None)
    }

    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>> {
        Box::pin(future::ready(self.raise(fence, limit, siblings)))
    }

    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(future::ready(self.lift(fence, siblings)))
    }

    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(future::ready(self.withdraw(fence, keys)))
    }

    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(future::ready(self.fence_versions(fence, limit, kinds, tags)))
    }

    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(future::ready(self.lift_versions(fence, versions, tags)))
    }

    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(future::ready(self.withdraw_versions(fence, kinds, tags)))
    }

    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        version: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        self.ready(builds, |access| versions::register_build(access, builds, version, fingerprint, expiry))
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>> {
        self.ready(key, |access| {
            access.put(key, Value::Bytes(bytes), expiry);
            Ok(())
        })
    }

    fn hash_set<'a>(&'a self, key: &'a str, fields: Vec<(String, Bytes)>) -> BoxFuture<'a, Result<()>> {
        self.ready(key, |access| access.hash(key, true, |hash| hash.extend(fields)).map(|_| ()))
    }

    fn hash_get<'a>(&'a self, key: &'a str, field: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        self.ready(key, |access| Ok(read_hash(access, key)?.and_then(|hash| hash.get(field).cloned())))
    }

    fn hash_all<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>>> {
        self.ready(key, |access| {
            Ok(read_hash(access, key)?
                .map_or_else(Vec::new, |hash| hash.iter().map(|(k, v)| (k.clone(), v.clone())).collect()))
        })
    }

    fn hash_keys<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        self.ready(key, |access| {
            Ok(read_hash(access, key)?.map_or_else(Vec::new, |hash| hash.keys().cloned().collect()))
        })
    }

    fn hash_remove<'a>(&'a self, key: &'a str, fields: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        self.ready(key, |access| {
            let removed =
                access.hash(key, false, |hash| fields.iter().filter(|field| hash.remove(*field).is_some()).count())?;
            Ok(removed.unwrap_or(0) as u64)
        })
    }

    fn publish<'a>(&'a self, channel: &'a str, message: Bytes) -> BoxFuture<'a, Result<u64>> {
        Box::pin(future::ready(self.send(channel, message)))
    }

    fn subscribe<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Message>>> {
        Box::pin(future::ready(self.receive(channel)))
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
