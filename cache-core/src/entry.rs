//! Handles to single entries: what `f::entry(args)` returns.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::cache::Cache;
use crate::call::fill::Sealed;
use crate::call::fill::try_seal;
use crate::call::flight;
use crate::call::lifetime::lifetime_for;
use crate::call::plan::Plan;
use crate::call::record::{self, Served, Stored, undecodable};
use crate::call::verdict::{Request, Verdict, decide};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::key::EntryKey;
use crate::mutants::{self, Invariant};
use crate::observe::history::{HistoryEvent, Refusal};
use crate::options::LocalTier;
use crate::store::Slot;
use crate::value::Erased;
use crate::value::return_type::Returns;
use crate::why::Why;

/// The entry of a cached function for certain arguments, from `f::entry(args)`.
///
/// `R` is the return type of the function. The methods work with the value in it: with `T` for both
/// `T` and `Result<T, E>`, where an `Option` is a value too. They act on the cache that the
/// function uses, or on the one given to [`on`](Self::on).
///
/// Unlike the function itself, the methods return store errors.
#[must_use = "an entry does nothing until one of its methods is called"]
pub struct CachedEntry<R: 'static>(ValueEntry<R>);

/// The type that [`CachedEntry`] dereferences to. Provides `get` and `set` for functions that do
/// not return a `Result`.
pub struct ValueEntry<R: 'static> {
    cache: Cache,
    plan: Arc<Plan>,
    returns: Returns<R>,
    /// The arguments in the key, to make the same entry in another cache.
    args: Arc<str>,
}

impl<R> Clone for CachedEntry<R> {
    fn clone(&self) -> Self {
        let ValueEntry { cache, plan, returns, args } = &self.0;
        Self(ValueEntry { cache: cache.clone(), plan: Arc::clone(plan), returns: *returns, args: Arc::clone(args) })
    }
}

impl<R> fmt::Debug for CachedEntry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<R> fmt::Debug for ValueEntry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CachedEntry").field(&self.plan.key).finish()
    }
}

impl<R> Deref for CachedEntry<R> {
    type Target = ValueEntry<R>;

    fn deref(&self) -> &ValueEntry<R> {
        &self.0
    }
}

impl<T: Clone + Send + Sync + 'static, E> CachedEntry<Result<T, E>> {
    /// Returns the stored value without running the function. `None`: no value is stored, or it is
    /// no longer fresh.
    ///
    /// One round trip, and one more if the value has tags whose versions are not known in this
    /// process.
    ///
    /// # Errors
    /// Store errors.
    pub async fn get(&self) -> Result<Option<T>> {
        Ok(self.0.peek().await?.and_then(Result::ok))
    }

    /// Stores a value as if the function had returned it: with its ttl, `cache_if` and
    /// `negative_ttl`. A value that those rules do not store is removed instead. A run in progress
    /// does not overwrite it.
    ///
    /// One round trip. One more if versions are not known in this process, as at the first write of
    /// a function, and one more if tags depend on the value. If the call is dropped or fails as
    /// unavailable, the value may have been stored or not.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Encode`] and [`ErrorKind::Limit`] for a value that cannot be
    /// stored. The old value is removed in that case.
    pub async fn set(&self, value: T) -> Result<()> {
        self.0.store((self.0.returns.of.split)(Ok(value))).await
    }
}

impl<T: Clone + Send + Sync + 'static> ValueEntry<T> {
    /// Returns the stored value without running the function. `None`: no value is stored, or it is
    /// no longer fresh.
    ///
    /// One round trip, and one more if the value has tags whose versions are not known in this
    /// process.
    ///
    /// # Errors
    /// Store errors.
    pub async fn get(&self) -> Result<Option<T>> {
        self.peek().await
    }

    /// Stores a value as if the function had returned it: with its ttl, `cache_if` and
    /// `negative_ttl`. A value that those rules do not store is removed instead. A run in progress
    /// does not overwrite it.
    ///
    /// One round trip. One more if versions are not known in this process, as at the first write of
    /// a function, and one more if tags depend on the value. If the call is dropped or fails as
    /// unavailable, the value may have been stored or not.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Encode`] and [`ErrorKind::Limit`] for a value that cannot be
    /// stored. The old value is removed in that case.
    pub async fn set(&self, value: T) -> Result<()> {
        self.store((self.returns.of.split)(value)).await
    }
}

impl<R: 'static> CachedEntry<R> {
    pub(crate) fn new(cache: Cache, plan: Arc<Plan>, returns: Returns<R>, args: Arc<str>) -> Self {
        Self(ValueEntry { cache, plan, returns, args })
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    pub(crate) fn plan_key(&self) -> &EntryKey {
        &self.0.plan.key
    }

    /// Returns the same entry in another cache.
    pub fn on(self, cache: &Cache) -> Self {
        let ValueEntry { plan, returns, args, .. } = self.0;
        let key = EntryKey::new(&cache.0.namespace, &plan.key.name, &args, &plan.key.fingerprint);
        let number = plan.number.clone();
        let plan = Plan { number, ..Plan::new(key, plan.value, Arc::clone(&plan.rules), plan.local) };
        let plan = Arc::new(plan);
        Self(ValueEntry { cache: cache.clone(), plan, returns, args })
    }

    /// Removes the entry, in every build of the program that shares the store. Also ends its runs
    /// in progress: their values go to their callers and are not stored.
    ///
    /// Once this has returned, this process serves no value from before it. Other processes follow
    /// as soon as they are notified.
    ///
    /// One round trip, and one more if another build is found. If the call is dropped or fails as
    /// unavailable, the entry may have been removed or not.
    ///
    /// # Errors
    /// Store errors: old values may then be served until their ttl ends.
    pub async fn invalidate(&self) -> Result<()> {
        let (engine, key) = (&self.0.cache.0, &self.0.plan.key);
        engine.detached(key, engine.builds.remove(key)).await
    }

    /// Returns the key in Redis.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.plan.key.value_key
    }

    /// Explains the state of the entry in this process: what is kept of it, whether it would be
    /// served, and what happened to it here. The result is data, and a short text for a person who
    /// looks for the cause of an old value, a miss or a slow call.
    ///
    /// Does not wait and does not ask the store. Steps of other processes are visible only by their
    /// effect here: a push that dropped the local value, or a lease that was lost. Hits in the
    /// local tier are not recorded. The history has a bound for the whole cache: see
    /// [`CacheBuilder::history`](crate::CacheBuilder::history).
    #[must_use]
    pub fn why(&self) -> Why {
        let ValueEntry { cache, plan, .. } = &self.0;
        let is_off = plan.local == LocalTier::Off;
        cache.0.why(&plan.key.value_key, &plan.key.name, &plan.rules.options.tags, is_off)
    }

    /// Returns how long the stored value is still fresh, or `None` if there is no fresh value.
    ///
    /// # Errors
    /// Store errors.
    pub async fn ttl(&self) -> Result<Option<Duration>> {
        Ok(self.0.fresh().await?.map(|served| served.serving.fresh()))
    }
}

impl<R: Send + 'static> CachedEntry<R> {
    /// For generated code: runs the function whatever is stored, and stores its value.
    #[doc(hidden)]
    pub fn __refresh<'a, F>(self, function: F) -> BoxFuture<'a, R>
    where
        F: Future<Output = R> + Send + 'a,
    {
        let ValueEntry { cache, plan, returns, .. } = self.0;
        let function = function.map(returns.of.split).boxed();
        async move {
            let key = plan.key.clone();
            let plan = Arc::new(Plan {
                refresh: true,
                overdue: returns.overdue,
                number: plan.number.clone(),
                ..Plan::new(key, plan.value, Arc::clone(&plan.rules), plan.local)
            });
            let outcome = flight::run_here(&cache.0, Arc::clone(&plan), None, function).await;
            returns.convert(outcome, &plan.key.name)
        }
        .boxed()
    }
}

impl<R: 'static> ValueEntry<R> {
    /// Returns the stored value if it is fresh.
    async fn fresh(&self) -> Result<Option<Served>> {
        let (engine, plan) = (&self.cache.0, &self.plan);
        let mut basis = plan.basis(engine);
        let (slot, _) = basis.read(&engine.versions, &plan.key.value_key, false).await?;
        if !matches!(slot, Slot::Bytes(_)) {
            return Ok(None);
        }
        let stored = record::read(engine, plan, &basis, &slot, false).await?;
        if let Stored::Newer(_, reason) | Stored::Foreign(reason) = &stored {
            undecodable(engine, plan, reason);
        }
        Ok(match decide(Request::of(engine, plan), stored, |_| None) {
            Verdict::Serve(served) if !served.serving.fresh().is_zero() => Some(served),
            _ => None,
        })
    }

    async fn peek(&self) -> Result<Option<R>> {
        let Some(served) = self.fresh().await? else { return Ok(None) };
        Ok((self.returns.of.ok)(&served.value))
    }

    async fn store(&self, returned: Result<Erased, Erased>) -> Result<()> {
        let (engine, plan): (&Arc<Engine>, &Plan) = (&self.cache.0, &self.plan);
        let storable = returned.ok().and_then(|value| Some((lifetime_for(engine, plan, &value)?, value)));
        let Some((lifetime, value)) = storable else {
            return engine.detached(&plan.key, engine.builds.remove(&plan.key)).await;
        };
        // Read before the write, so that an invalidation from now on also invalidates this value.
        let mut basis = plan.basis(engine);
        engine.builds.introduce(&plan.key, basis.read_unknown(&engine.versions)).await?;
        engine.builds.register_all(std::slice::from_mut(&mut basis), &plan.key).await?;
        let Some(under) = basis.of_value(&engine.versions, &plan.key.name, &plan.rules, &value).await? else {
            plan.observed(engine, HistoryEvent::FillRefused(Refusal::Outdated));
            return engine.detached(&plan.key, engine.builds.remove(&plan.key)).await;
        };
        match try_seal(engine, plan, &value, under, lifetime, Duration::ZERO) {
            Ok(Sealed { record, expiry, .. }) => {
                engine.detached(&plan.key, engine.builds.write(&plan.key, record, expiry)).await
            }
            Err(error) => {
                // The stored value is older than the one that the caller wanted to store.
                engine.detached(&plan.key, engine.builds.remove(&plan.key)).await?;
                Err(error)
            }
        }
    }
}

/// The entry of a function whose cache depends on arguments that the entry does not have. Select
/// the cache with [`on`](Self::on).
#[must_use = "an entry does nothing until one of its methods is called"]
pub struct UnboundEntry<R: 'static> {
    pub(crate) key: String,
    pub(crate) bind: Bind<R>,
}

/// Makes the entry for a given cache.
type Bind<R> = Box<dyn FnOnce(&Cache) -> CachedEntry<R> + Send>;

impl<R> fmt::Debug for UnboundEntry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnboundEntry")
    }
}

impl<R: 'static> UnboundEntry<R> {
    /// Returns the part of the key that is the same in every cache: `<name>:<arguments>`, with the
    /// function's key name.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the entry in this cache.
    pub fn on(self, cache: &Cache) -> CachedEntry<R> {
        (self.bind)(cache)
    }
}

/// Forgets what this process knows of a key, when it is made and when it is dropped.
pub(crate) struct Forget<'a> {
    engine: &'a Engine,
    key: &'a str,
}

impl<'a> Forget<'a> {
    pub(crate) fn new(engine: &'a Engine, key: &'a str) -> Self {
        let forget = Self { engine, key };
        forget.now();
        forget
    }

    fn now(&self) {
        if mutants::removed(Invariant::OwnWriteForgets) {
            return;
        }
        self.engine.flights.detach(self.key);
        if let Some(local) = &self.engine.local {
            local.drop_key(self.key);
        }
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.now();
    }
}

impl Engine {
    /// Forgets what this process knows of a key, so that later callers do not get it.
    pub(crate) fn forget(&self, key: &EntryKey) {
        drop(Forget::new(self, &key.value_key));
    }

    /// Runs a write of a key. No caller that begins after it gets what was there before: the L1
    /// entry is dropped and the run in progress is detached before the write is sent, and again
    /// after its reply (R9, T7).
    pub(crate) async fn detached<T>(&self, key: &EntryKey, write: impl Future<Output = Result<T>>) -> Result<T> {
        // Held over the await: if the call is dropped there, the old value is forgotten all the
        // same.
        let _before_and_after = Forget::new(self, &key.value_key);
        let result = write.await;
        result.map_err(|error| match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Refused | ErrorKind::Closed | ErrorKind::NotReplicated => error,
            _ => Error::new(error.kind(), "write").source(error),
        })
    }
}
