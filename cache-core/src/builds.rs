//! Which builds of a program store under a function's name, so that an invalidation reaches the records of all of them.
//!
//! Invariant: a build is in the registry before its first lease, hence before any compute whose value it could store. An
//! invalidation unlinks what it knows of, learns the rest in the same trip, and unlinks that too (R21).
//!
//! A registry can be lost. Whoever makes it anew gives the function another version in the same step, and an invalidation that finds
//! none does so before it is done: so a record ends at the latest when it would no longer be found (R25). Hence a build is known to be
//! registered only as long as the function is at the version that it was registered under.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Inner;
use crate::clock::millis;
use crate::entry::EntryKey;
use crate::error::Result;
use crate::events::{Event, Table};
use crate::history::What;
use crate::key;
use crate::recent::Recent;
use crate::sabotage::{self, Guard};
use crate::store::{Operation, REGISTRY_EXPIRY, Raised, Removal, Siblings, Token, Version};

/// How often a build that goes on filling says so again.
const REGISTER_EVERY: Duration = Duration::from_secs(600);

/// How many names are known at once. Of one that was forgotten, the registry tells again at its
/// next use: a trip more.
const MOST_NAMES: usize = 4096;

/// What this process knows of the registries.
#[derive(Debug)]
pub(crate) struct Builds(Mutex<Recent<Arc<str>, Known>>);

impl Default for Builds {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MOST_NAMES)))
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Fingerprints seen in the registry, ever.
    fingerprints: BTreeSet<Arc<str>>,
    /// Which of ours are registered, or could not be a moment ago.
    registered: HashMap<Arc<str>, Registered>,
}

#[derive(Debug, Clone, Copy)]
struct Registered {
    /// On the coarse clock.
    at: u64,
    /// Of the store.
    epoch: u64,
    /// Of the function. `None`: it had none, or the store did not answer, so nothing can be stored yet.
    version: Option<Version>,
}

impl Builds {
    /// Reads something of a function, and in the same moment says that this build may store under its name, if this process has not said
    /// so yet. Before the read: then a function that nobody has used has no version to be renewed.
    pub(crate) async fn introduce<T>(&self, inner: &Inner, key: &EntryKey, read: impl Future<Output = T>) -> T {
        if self.lock().get(&*key.name).is_some_and(|known| known.registered.contains_key(&key.fingerprint)) {
            return read.await;
        }
        // A fault is told where it matters: before a lease is asked for.
        let (_told_later, read) = futures::future::join(Box::pin(self.register_now(inner, key)), read).await;
        read
    }

    /// Makes sure that this build is in the registry while the function is at this version. One trip the first time, every ten minutes, and
    /// for each new version of the function; else nothing. The function's version since: if it is another one, that one counts.
    pub(crate) async fn register(&self, inner: &Inner, key: &EntryKey, version: Version) -> Result<Option<Version>> {
        let (now, epoch) = (inner.clock.coarse(), inner.store.epoch());
        let registered = self.lock().get(&*key.name).and_then(|known| known.registered.get(&key.fingerprint).copied());
        let is_current = |known: &Registered| {
            known.epoch == epoch
                && now.saturating_sub(known.at) < millis(REGISTER_EVERY)
                && known.version == Some(version)
        };
        if registered.as_ref().is_some_and(is_current) {
            return Ok(Some(version));
        }
        self.register_now(inner, key).await
    }

    async fn register_now(&self, inner: &Inner, key: &EntryKey) -> Result<Option<Version>> {
        let (at, epoch) = (inner.clock.coarse(), inner.store.epoch());
        let registry = key::builds_key(&inner.namespace, &key.name);
        let of_function = key::versions::function_key(&inner.namespace, &key.name);
        let registered = inner.store.register_build(&registry, &of_function, &key.fingerprint, REGISTRY_EXPIRY).await;
        let version = registered.as_ref().ok().copied().flatten();
        let mut table = self.lock();
        let (known, has_forgotten) = table.entry(Arc::clone(&key.name));
        known.fingerprints.insert(Arc::clone(&key.fingerprint));
        known.registered.insert(Arc::clone(&key.fingerprint), Registered { at, epoch, version });
        drop(table);
        if has_forgotten {
            inner.events.table_full(Table::Builds);
        }
        registered
    }

    /// Unlinks the records of every build.
    pub(crate) async fn remove(&self, inner: &Inner, key: &EntryKey) -> Result<()> {
        let removed = self.reach(inner, key, &Write::Remove).await.map(drop);
        noted(inner, key, What::Removed, removed)
    }

    /// Puts this fence in the places of the records of every build, beside those that stand there; the keys that are fenced.
    pub(crate) async fn raise(
        &self,
        inner: &Inner,
        key: &EntryKey,
        fence: Token,
        limit: Duration,
    ) -> Result<Vec<String>> {
        let raise = if sabotage::is(Guard::FenceRefusesFills) { Write::Remove } else { Write::Raise(fence, limit) };
        let raised = self.reach(inner, key, &raise).await;
        let what = raised.as_ref().map_or_else(|error| What::WriteFailed(error.kind()), |_| What::FenceRaised);
        inner.history.note(&key.value_key, what);
        raised
    }

    /// Takes this fence away, and ends the records of every build: those before it, and those that were stored since it ran out.
    pub(crate) async fn lift(&self, inner: &Inner, key: &EntryKey, fence: Token) -> Result<()> {
        let lifted = self.reach(inner, key, &Write::Lift(fence)).await.map(drop);
        noted(inner, key, What::FenceLifted, lifted)
    }

    /// Takes this fence away, and puts back what stood there before it, if no other fence stands there, or was lifted there.
    pub(crate) async fn withdraw(&self, inner: &Inner, key: &EntryKey, fence: Token, fenced: &[String]) -> Result<()> {
        noted(inner, key, What::FenceWithdrawn, inner.store.withdraw(fence, fenced).await)
    }

    /// Writes this build's record and unlinks those of the others, which hold the value before. The build is registered.
    pub(crate) async fn write(&self, inner: &Inner, key: &EntryKey, record: Bytes, ttl: Duration) -> Result<()> {
        // Dropped or unanswered, the write may be executed late, after somebody else's (R26).
        let mut follow_up = FollowUp { inner, removal: Some(self.removal(inner, key, None)) };
        let written = self.reach(inner, key, &Write::Set(record, ttl)).await.map(drop);
        if written.as_ref().err().is_none_or(|error| !error.may_have_happened()) {
            follow_up.removal = None;
        }
        noted(inner, key, What::Set, written)
    }

    /// Sends a write to the keys of every build: those known here, then those that the registry names beyond them. Their keys.
    async fn reach(&self, inner: &Inner, key: &EntryKey, write: &Write) -> Result<Vec<String>> {
        let registry = key::builds_key(&inner.namespace, &key.name);
        // Of this very write: what another one in this process has learned, this one has still to be sent to.
        let mut sent = BTreeSet::from([Arc::clone(&key.fingerprint)]);
        let mut keys = vec![key.value_key.to_string()];
        keys.extend(self.known(key).iter().filter_map(|build| unsent(key, build, &mut sent)));
        let write_to = async |keys: &[String], is_first: bool| {
            let siblings = Siblings { keys, builds: &registry };
            match write {
                // The own key holds the new record.
                Write::Set(record, ttl) if is_first => {
                    inner.store.write(&key.value_key, record.clone(), *ttl, siblings).await
                }
                Write::Set(..) | Write::Remove => inner.store.remove(siblings).await,
                Write::Raise(fence, limit) => {
                    let Raised { builds, crowded } = inner.store.raise(*fence, *limit, siblings).await?;
                    if crowded {
                        inner.events.emit(Event::TooManyFences { name: Some(Arc::clone(&key.name)) });
                    }
                    Ok(builds)
                }
                Write::Lift(fence) => inner.store.lift(*fence, siblings).await,
            }
        };
        let mut found = write_to(&keys, true).await?;
        if found.is_empty() && !sabotage::is(Guard::LostRegistryEndsEntries) {
            // Nobody tells which builds have stored something.
            inner.renew_versions(&[key::versions::function_key(&inner.namespace, &key.name).into()]).await?;
        }
        // Ends: what was sent grows towards what the registry holds.
        loop {
            let rest: Vec<String> = found.iter().filter_map(|build| unsent(key, build, &mut sent)).collect();
            self.learn(key, found);
            if rest.is_empty() || sabotage::is(Guard::BuildsAreReached) {
                return Ok(keys);
            }
            found = write_to(&rest, false).await?;
            keys.extend(rest);
        }
    }

    /// What an invalidation of this entry, or the lift of a fence on it, comes to that is done later.
    pub(crate) fn removal(&self, inner: &Inner, key: &EntryKey, fence: Option<Token>) -> Removal {
        let known = self.lock();
        let known = known.get(&key.name).map(|known| &known.fingerprints);
        let others = known.into_iter().flatten().filter(|build| **build != key.fingerprint).cloned();
        Removal {
            base: key.of_build("").into(),
            registry: key::builds_key(&inner.namespace, &key.name).into(),
            version: key::versions::function_key(&inner.namespace, &key.name).into(),
            builds: others.chain([Arc::clone(&key.fingerprint)]).collect(),
            fence,
        }
    }

    /// The builds known here.
    fn known(&self, key: &EntryKey) -> Vec<Arc<str>> {
        if sabotage::is(Guard::BuildsAreReached) {
            return Vec::new();
        }
        self.lock().get(&*key.name).into_iter().flat_map(|known| &known.fingerprints).cloned().collect()
    }

    fn learn(&self, key: &EntryKey, found: Vec<String>) {
        let mut known = self.lock();
        let (known, _) = known.entry(Arc::clone(&key.name));
        known.fingerprints.extend(found.into_iter().map(Arc::from));
    }

    /// How many names are known.
    #[cfg(test)]
    pub(crate) fn names(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Arc<str>, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Invalidates the entry after a write of it that may have been executed or not, unless that is known.
struct FollowUp<'a> {
    inner: &'a Inner,
    removal: Option<Removal>,
}

impl Drop for FollowUp<'_> {
    fn drop(&mut self) {
        if let Some(removal) = self.removal.take().filter(|_| !sabotage::is(Guard::FailedWriteIsFollowed)) {
            self.inner.store.later(Operation::Remove(removal));
        }
    }
}

/// What is done to the records of an entry in every build.
enum Write {
    Remove,
    /// This build's is replaced, those of the others are removed.
    Set(Bytes, Duration),
    Raise(Token, Duration),
    Lift(Token),
}

/// The key of the entry in another build, the first time.
fn unsent(key: &EntryKey, build: &str, sent: &mut BTreeSet<Arc<str>>) -> Option<String> {
    sent.insert(Arc::from(build)).then(|| key.of_build(build))
}

/// Puts a write of this process into the history of its key.
fn noted(inner: &Inner, key: &EntryKey, what: What, done: Result<()>) -> Result<()> {
    let what = done.as_ref().map_or_else(|error| What::WriteFailed(error.kind()), |()| what);
    inner.history.note(&key.value_key, what);
    done
}
