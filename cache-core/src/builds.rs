//! Which builds of a program store under a function's name, so that an invalidation reaches the records of all of them.
//!
//! Invariant: a build is in the registry before its first lease, hence before any compute whose value it could store. An
//! invalidation unlinks what it knows of, learns the rest in the same trip, and unlinks that too (R21).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Inner;
use crate::clock::Timestamp;
use crate::entry::EntryKey;
use crate::error::Result;
use crate::history::What;
use crate::key;
use crate::sabotage::{self, Guard};
use crate::store::{Fenced, REGISTRY_EXPIRY, Siblings, Token};

/// How often a build that goes on filling says so again.
const REGISTER_EVERY: Duration = Duration::from_secs(600);

/// What this process knows of the registries.
#[derive(Debug, Default)]
pub(crate) struct Builds(Mutex<HashMap<Arc<str>, Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Fingerprints seen in the registry, ever.
    fingerprints: BTreeSet<Arc<str>>,
    /// Which of ours are registered, when, and under which epoch of the store.
    registered: HashMap<Arc<str>, (Timestamp, u64)>,
}

impl Builds {
    /// Makes sure that this build is in the registry. One trip the first time and every ten minutes; else nothing.
    pub(crate) async fn register(&self, inner: &Inner, key: &EntryKey) -> Result<()> {
        let (now, epoch) = (inner.store.now(), inner.store.epoch());
        let is_fresh = |(at, under): &(Timestamp, u64)| *under == epoch && at.until(now) < REGISTER_EVERY;
        if self.lock().get(&key.name).and_then(|known| known.registered.get(&key.fingerprint)).is_some_and(is_fresh) {
            return Ok(());
        }
        let registry = key::builds_key(&inner.namespace, &key.name);
        inner.store.register_build(&registry, &key.fingerprint, REGISTRY_EXPIRY).await?;
        let mut known = self.lock();
        let known = known.entry(Arc::clone(&key.name)).or_default();
        known.fingerprints.insert(Arc::clone(&key.fingerprint));
        known.registered.insert(Arc::clone(&key.fingerprint), (now, epoch));
        Ok(())
    }

    /// Unlinks the records of every build.
    pub(crate) async fn remove(&self, inner: &Inner, key: &EntryKey) -> Result<()> {
        noted(inner, key, What::Removed, self.unlink(inner, key).await)
    }

    /// The same, where that is the end of a fence.
    pub(crate) async fn lift(&self, inner: &Inner, key: &EntryKey) -> Result<()> {
        noted(inner, key, What::FenceLifted, self.unlink(inner, key).await)
    }

    async fn unlink(&self, inner: &Inner, key: &EntryKey) -> Result<()> {
        let mut keys = self.siblings(key);
        if sabotage::is(Guard::BuildsAreReached) {
            keys.clear();
        }
        keys.push(key.value_key.to_string());
        let registry = key::builds_key(&inner.namespace, &key.name);
        let found = inner.store.remove(Siblings { keys: &keys, builds: &registry }).await?;
        self.remove_learned(inner, key, &registry, &found).await
    }

    /// Puts this fence in the places of the records of every build.
    pub(crate) async fn raise(
        &self,
        inner: &Inner,
        key: &EntryKey,
        fence: Token,
        limit: Duration,
    ) -> Result<Vec<Fenced>> {
        let raised = self.try_raise(inner, key, fence, limit).await;
        let what = raised.as_ref().map_or_else(|error| What::WriteFailed(error.kind()), |_| What::FenceRaised);
        inner.history.note(&key.value_key, what);
        raised
    }

    async fn try_raise(&self, inner: &Inner, key: &EntryKey, fence: Token, limit: Duration) -> Result<Vec<Fenced>> {
        if sabotage::is(Guard::FenceRefusesFills) {
            return self.unlink(inner, key).await.map(|()| Vec::new());
        }
        let mut keys = self.siblings(key);
        keys.push(key.value_key.to_string());
        let registry = key::builds_key(&inner.namespace, &key.name);
        let mut fenced = Vec::new();
        // Ends, since the known builds only grow.
        while !keys.is_empty() {
            let (ends, found) = inner.store.raise(fence, limit, Siblings { keys: &keys, builds: &registry }).await?;
            fenced.extend(keys.into_iter().zip(ends));
            keys = self.learn(key, &found).iter().map(|build| key.of_build(build)).collect();
        }
        Ok(fenced)
    }

    /// Takes this fence away, and puts back what stood there before it.
    pub(crate) async fn withdraw(&self, inner: &Inner, key: &EntryKey, fence: Token, fenced: &[Fenced]) -> Result<()> {
        noted(inner, key, What::FenceWithdrawn, inner.store.withdraw(fence, fenced).await)
    }

    /// Writes this build's record and unlinks those of the others, which hold the value before.
    pub(crate) async fn write(&self, inner: &Inner, key: &EntryKey, record: Bytes, ttl: Duration) -> Result<()> {
        let write = async {
            self.register(inner, key).await?;
            let keys = self.siblings(key);
            let registry = key::builds_key(&inner.namespace, &key.name);
            let siblings = Siblings { keys: &keys, builds: &registry };
            let found = inner.store.write(&key.value_key, record, ttl, siblings).await?;
            self.remove_learned(inner, key, &registry, &found).await
        };
        noted(inner, key, What::Set, write.await)
    }

    /// Unlinks the records of builds that this process had not known. Ends, since the known only grow.
    async fn remove_learned(&self, inner: &Inner, key: &EntryKey, registry: &str, found: &[String]) -> Result<()> {
        let mut learned = self.learn(key, found);
        if sabotage::is(Guard::BuildsAreReached) {
            learned.clear();
        }
        while !learned.is_empty() {
            let keys: Vec<String> = learned.iter().map(|build| key.of_build(build)).collect();
            let found = inner.store.remove(Siblings { keys: &keys, builds: registry }).await?;
            learned = self.learn(key, &found);
        }
        Ok(())
    }

    /// The keys of the same entry in the other builds known here.
    fn siblings(&self, key: &EntryKey) -> Vec<String> {
        let known = self.lock();
        let fingerprints = known.get(&key.name).map(|known| &known.fingerprints);
        let others = fingerprints.into_iter().flatten().filter(|build| **build != key.fingerprint);
        others.map(|build| key.of_build(build)).collect()
    }

    /// Remembers the fingerprints; those that were new, without our own.
    fn learn(&self, key: &EntryKey, found: &[String]) -> Vec<Arc<str>> {
        let mut known = self.lock();
        let known = known.entry(Arc::clone(&key.name)).or_default();
        found
            .iter()
            .map(|build| Arc::from(build.as_str()))
            .filter(|build: &Arc<str>| known.fingerprints.insert(Arc::clone(build)) && *build != key.fingerprint)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a write of this process into the history of its key.
fn noted(inner: &Inner, key: &EntryKey, what: What, done: Result<()>) -> Result<()> {
    let what = done.as_ref().map_or_else(|error| What::WriteFailed(error.kind()), |()| what);
    inner.history.note(&key.value_key, what);
    done
}
