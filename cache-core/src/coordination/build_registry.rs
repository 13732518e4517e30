//! The registry of builds: which builds of a program store under a function's name, so that an
//! invalidation reaches the records of all of them.
//!
//! Invariant: a build is in the registry before its first lease, and so before any compute whose
//! value it could store. An invalidation unlinks the records that it knows of, learns of the others
//! in the same round trip, and unlinks those too (R21).
//!
//! A registry can be lost. A build that creates it again gives the function a new version in the
//! same step, and an invalidation that finds no registry renews the version before it returns. So a
//! record is invalid at the latest when it could no longer be found (R25). For this reason a
//! registration is valid only while the function has the version that it was made under.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Clock, millis};
use crate::error::{Error, ErrorKind, Result};
use crate::key::versions::function_key;
use crate::key::{EntryKey, builds_key};
use crate::mutants::{self, Invariant};
use crate::observe::events::{Event, Events, Table};
use crate::observe::history::{History, HistoryEvent};
use crate::recent::Recent;
use crate::store::{Operation, REGISTRY_EXPIRY, Raised, Removal, Siblings, Store, Token, Version};
use crate::versions::snapshot::{VersionReader, VersionSnapshot};

/// How often a build that keeps filling registers again.
const REGISTER_EVERY: Duration = Duration::from_secs(600);

/// How many names are known at once. A forgotten name is read from the registry at its next use,
/// with one more round trip.
const MOST_NAMES: usize = 4096;

/// How often a function's version may change under a caller that is about to compute.
const MAX_VERSIONS: usize = 100;

/// The registries of one cache, and what this process knows of them.
pub(crate) struct Builds {
    known: Mutex<Recent<Arc<str>, Known>>,
    store: Arc<dyn Store>,
    namespace: Box<str>,
    versions: Arc<VersionReader>,
    clock: Clock,
    history: Arc<History>,
    events: Events,
}

#[derive(Debug, Default)]
struct Known {
    /// Fingerprints that were seen in the registry.
    fingerprints: BTreeSet<Arc<str>>,
    /// This process's builds that are registered, or whose registration has just failed.
    registered: HashMap<Arc<str>, Registered>,
}

#[derive(Debug, Clone, Copy)]
struct Registered {
    /// The time, on the coarse clock.
    at: u64,
    /// The epoch of the store.
    epoch: u64,
    /// The function's version. `None`: it had none, or the store did not answer, so nothing can be
    /// stored yet.
    version: Option<Version>,
}

impl Builds {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        namespace: &str,
        versions: Arc<VersionReader>,
        clock: Clock,
        history: Arc<History>,
        events: Events,
    ) -> Self {
        let known = Mutex::new(Recent::new(MOST_NAMES));
        Self { known, store, namespace: namespace.into(), versions, clock, history, events }
    }

    /// Runs a read for a function. At the same time registers this build, if this process has not
    /// done so yet. The registration is sent first: a function that has never been used has no
    /// version to renew.
    pub(crate) async fn introduce<T>(&self, key: &EntryKey, read: impl Future<Output = T>) -> T {
        if self.lock().get(&*key.name).is_some_and(|known| known.registered.contains_key(&key.fingerprint)) {
            return read.await;
        }
        // An error is reported where it matters: before a lease is taken.
        let (_told_later, read) = futures::future::join(Box::pin(self.register_now(key)), read).await;
        read
    }

    /// Makes sure that this build is registered while the function has this version. One round trip
    /// the first time, every ten minutes, and for each new version of the function; otherwise none.
    ///
    /// Returns the function's current version. If it differs from `version`, it is the one that
    /// counts.
    pub(crate) async fn register(&self, key: &EntryKey, version: Version) -> Result<Option<Version>> {
        let (now, epoch) = (self.clock.coarse(), self.store.epoch());
        let registered = self.lock().get(&*key.name).and_then(|known| known.registered.get(&key.fingerprint).copied());
        let is_current = |known: &Registered| {
            known.epoch == epoch
                && now.saturating_sub(known.at) < millis(REGISTER_EVERY)
                && known.version == Some(version)
        };
        if registered.as_ref().is_some_and(is_current) {
            return Ok(Some(version));
        }
        self.register_now(key).await
    }

    /// Makes sure that this build is registered under the function version of all these snapshots.
    /// Must be called before a value that depends on them is computed.
    pub(crate) async fn register_all(&self, bases: &mut [VersionSnapshot], key: &EntryKey) -> Result<()> {
        for _ in 0..MAX_VERSIONS {
            let Some(version) = bases.iter().find_map(VersionSnapshot::function) else { return Ok(()) };
            let stands = self.register(key, version).await?;
            let differs = |basis: &VersionSnapshot| basis.function().is_some() && basis.function() != stands;
            if !bases.iter().any(differs) {
                return Ok(());
            }
            // The version was renewed, perhaps by this step. This process may not be notified yet.
            self.versions.cells.changed(&function_key(&self.namespace, &key.name));
            for basis in bases.iter_mut() {
                basis.look_again(&self.versions).await?;
            }
        }
        Err(Error::new(ErrorKind::Limit, "register")
            .detail("the function's version changed too often; the value is computed without storing it"))
    }

    async fn register_now(&self, key: &EntryKey) -> Result<Option<Version>> {
        let (at, epoch) = (self.clock.coarse(), self.store.epoch());
        let registry = builds_key(&self.namespace, &key.name);
        let of_function = function_key(&self.namespace, &key.name);
        let registered = self.store.register_build(&registry, &of_function, &key.fingerprint, REGISTRY_EXPIRY).await;
        let version = registered.as_ref().ok().copied().flatten();
        let mut table = self.lock();
        let (known, has_forgotten) = table.entry(Arc::clone(&key.name));
        known.fingerprints.insert(Arc::clone(&key.fingerprint));
        known.registered.insert(Arc::clone(&key.fingerprint), Registered { at, epoch, version });
        drop(table);
        if has_forgotten {
            self.events.table_full(Table::Builds);
        }
        registered
    }

    /// Unlinks the records of every build.
    pub(crate) async fn remove(&self, key: &EntryKey) -> Result<()> {
        let removed = self.reach(key, &Write::Remove).await.map(drop);
        self.noted(key, HistoryEvent::Removed, removed)
    }

    /// Puts this fence in the place of the records of every build, and adds it to the fences there.
    /// Returns the fenced keys.
    pub(crate) async fn raise(&self, key: &EntryKey, fence: Token, limit: Duration) -> Result<Vec<String>> {
        let raise =
            if mutants::removed(Invariant::FenceRefusesFills) { Write::Remove } else { Write::Raise(fence, limit) };
        let raised = self.reach(key, &raise).await;
        let what =
            raised.as_ref().map_or_else(|error| HistoryEvent::WriteFailed(error.kind()), |_| HistoryEvent::FenceRaised);
        self.history.note(&key.value_key, what);
        raised
    }

    /// Removes this fence and the records of every build: those from before it, and those stored
    /// since its time limit ended.
    pub(crate) async fn lift(&self, key: &EntryKey, fence: Token) -> Result<()> {
        let lifted = self.reach(key, &Write::Lift(fence)).await.map(drop);
        self.noted(key, HistoryEvent::FenceLifted, lifted)
    }

    /// Removes this fence, and restores what was there before it, unless another fence is there or
    /// was lifted there.
    pub(crate) async fn withdraw(&self, key: &EntryKey, fence: Token, fenced: &[String]) -> Result<()> {
        self.noted(key, HistoryEvent::FenceWithdrawn, self.store.withdraw(fence, fenced).await)
    }

    /// Writes this build's record and unlinks those of the other builds, which hold the old value.
    /// This build must be registered.
    pub(crate) async fn write(&self, key: &EntryKey, record: Bytes, ttl: Duration) -> Result<()> {
        // If it is dropped or gets no answer, the write may run late, after a write of another
        // caller (R26).
        let mut follow_up = FollowUp { store: &self.store, removal: Some(self.removal(key, None)) };
        let written = self.reach(key, &Write::Set(record, ttl)).await.map(drop);
        if written.as_ref().err().is_none_or(|error| !error.may_have_happened()) {
            follow_up.removal = None;
        }
        self.noted(key, HistoryEvent::Set, written)
    }

    /// Sends a write to the keys of every build: first those known here, then the others in the
    /// registry. Returns the keys.
    async fn reach(&self, key: &EntryKey, write: &Write) -> Result<Vec<String>> {
        let registry = builds_key(&self.namespace, &key.name);
        // Collected per write: builds that another write of this process has learned of must still
        // get this one.
        let mut sent = BTreeSet::from([Arc::clone(&key.fingerprint)]);
        let mut keys = vec![key.value_key.to_string()];
        keys.extend(self.known(key).iter().filter_map(|build| unsent(key, build, &mut sent)));
        let write_to = async |keys: &[String], is_first: bool| {
            let siblings = Siblings { keys, builds: &registry };
            match write {
                // This build's own key gets the new record.
                Write::Set(record, ttl) if is_first => {
                    self.store.write(&key.value_key, record.clone(), *ttl, siblings).await
                }
                Write::Set(..) | Write::Remove => self.store.remove(siblings).await,
                Write::Raise(fence, limit) => {
                    let Raised { builds, crowded } = self.store.raise(*fence, *limit, siblings).await?;
                    if crowded {
                        self.events.emit(Event::TooManyFences { name: Some(Arc::clone(&key.name)) });
                    }
                    Ok(builds)
                }
                Write::Lift(fence) => self.store.lift(*fence, siblings).await,
            }
        };
        let mut found = write_to(&keys, true).await?;
        if found.is_empty() && !mutants::removed(Invariant::LostRegistryEndsEntries) {
            // Without a registry it is unknown which builds have stored something.
            self.versions.renew(&[function_key(&self.namespace, &key.name).into()]).await?;
        }
        // This loop ends, because `sent` grows towards the content of the registry.
        loop {
            let rest: Vec<String> = found.iter().filter_map(|build| unsent(key, build, &mut sent)).collect();
            self.learn(key, found);
            if rest.is_empty() || mutants::removed(Invariant::BuildsAreReached) {
                return Ok(keys);
            }
            found = write_to(&rest, false).await?;
            keys.extend(rest);
        }
    }

    /// Returns an invalidation of this entry, or the lift of a fence on it, that is done later.
    pub(crate) fn removal(&self, key: &EntryKey, fence: Option<Token>) -> Removal {
        let known = self.lock();
        let known = known.get(&key.name).map(|known| &known.fingerprints);
        let others = known.into_iter().flatten().filter(|build| **build != key.fingerprint).cloned();
        Removal {
            base: key.of_build("").into(),
            registry: builds_key(&self.namespace, &key.name).into(),
            version: function_key(&self.namespace, &key.name).into(),
            builds: others.chain([Arc::clone(&key.fingerprint)]).collect(),
            fence,
        }
    }

    /// Returns the builds known here.
    fn known(&self, key: &EntryKey) -> Vec<Arc<str>> {
        if mutants::removed(Invariant::BuildsAreReached) {
            return Vec::new();
        }
        self.lock().get(&*key.name).into_iter().flat_map(|known| &known.fingerprints).cloned().collect()
    }

    fn learn(&self, key: &EntryKey, found: Vec<String>) {
        let mut known = self.lock();
        let (known, _) = known.entry(Arc::clone(&key.name));
        known.fingerprints.extend(found.into_iter().map(Arc::from));
    }

    /// Adds a write by this process to the history of its key.
    fn noted(&self, key: &EntryKey, what: HistoryEvent, done: Result<()>) -> Result<()> {
        let what = done.as_ref().map_or_else(|error| HistoryEvent::WriteFailed(error.kind()), |()| what);
        self.history.note(&key.value_key, what);
        done
    }

    /// Returns how many names are known.
    #[cfg(test)]
    pub(crate) fn names(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Arc<str>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Invalidates the entry after a write of it that may have happened, unless the outcome is known.
struct FollowUp<'a> {
    store: &'a Arc<dyn Store>,
    removal: Option<Removal>,
}

impl Drop for FollowUp<'_> {
    fn drop(&mut self) {
        if let Some(removal) = self.removal.take().filter(|_| !mutants::removed(Invariant::FailedWriteIsFollowed)) {
            self.store.later(Operation::Remove(removal));
        }
    }
}

/// A write to the records of an entry in every build.
enum Write {
    Remove,
    /// This build's record is replaced, those of the other builds are removed.
    Set(Bytes, Duration),
    Raise(Token, Duration),
    Lift(Token),
}

/// Returns the key of the entry in another build, if it is not in `sent` yet.
fn unsent(key: &EntryKey, build: &str, sent: &mut BTreeSet<Arc<str>>) -> Option<String> {
    sent.insert(Arc::from(build)).then(|| key.of_build(build))
}
