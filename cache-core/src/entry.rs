//! One entry: what `f::entry(args)` returns.

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
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::key::EntryKey;
use crate::mutants::{self, Invariant};
use crate::observe::events::Event;
use crate::observe::history::{HistoryEvent, Refusal};
use crate::options::LocalTier;
use crate::store::Slot;
use crate::value::Erased;
use crate::value::envelope::Envelope;
use crate::value::freshness::{Freshness, verdict};
use crate::value::return_type::{Returns, ValueType};
use crate::versions::snapshot::VersionCheck;
use crate::why::Why;

/// The entry of a cached function for certain arguments, from `f::entry(args)`.
///
/// `R` is the function's return type; the methods speak of the value in it: of `T` for `T` and `Result<T, E>`, where an
/// `Option` is a value too. They act on the cache that the function uses, or on that given to [`on`](Self::on).
///
/// Unlike the function itself they report faults of the store.
#[must_use = "an entry does nothing until one of its methods is called"]
pub struct CachedEntry<R: 'static>(Bare<R>);

/// What a [`CachedEntry`] of a function that returns no `Result` dereferences to; the methods are the same.
pub struct Bare<R: 'static> {
    cache: Cache,
    plan: Arc<Plan>,
    returns: Returns<R>,
    /// The key's arguments, for the same entry in another cache.
    args: Arc<str>,
}

impl<R> Clone for CachedEntry<R> {
    fn clone(&self) -> Self {
        let Bare { cache, plan, returns, args } = &self.0;
        Self(Bare { cache: cache.clone(), plan: Arc::clone(plan), returns: *returns, args: Arc::clone(args) })
    }
}

impl<R> fmt::Debug for CachedEntry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<R> fmt::Debug for Bare<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CachedEntry").field(&self.plan.key).finish()
    }
}

impl<R> Deref for CachedEntry<R> {
    type Target = Bare<R>;

    fn deref(&self) -> &Bare<R> {
        &self.0
    }
}

impl<T: Clone + Send + Sync + 'static, E> CachedEntry<Result<T, E>> {
    /// The stored value, without running the function. `None`: nothing is stored, or what is stored has run out.
    ///
    /// One round trip.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn get(&self) -> Result<Option<T>> {
        Ok(self.0.peek().await?.and_then(Result::ok))
    }

    /// Stores a value as if the function had returned it: with its ttl, `cache_if` and `negative_ttl`. A run that is under way
    /// does not overwrite it. A value that those rules do not store is removed instead.
    ///
    /// One round trip, and one more at a function's first write. If the call is dropped or fails as unavailable, the value may have been stored or not.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Encode`] and [`ErrorKind::Limit`] for a value that cannot be stored. The old value is then gone.
    pub async fn set(&self, value: T) -> Result<()> {
        self.0.store((self.0.returns.of.split)(Ok(value))).await
    }
}

impl<T: Clone + Send + Sync + 'static> Bare<T> {
    /// The stored value, without running the function. `None`: nothing is stored, or what is stored has run out.
    ///
    /// One round trip.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn get(&self) -> Result<Option<T>> {
        self.peek().await
    }

    /// Stores a value as if the function had returned it: with its ttl, `cache_if` and `negative_ttl`. A run that is under way
    /// does not overwrite it. A value that those rules do not store is removed instead.
    ///
    /// One round trip, and one more at a function's first write. If the call is dropped or fails as unavailable, the value may have been stored or not.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Encode`] and [`ErrorKind::Limit`] for a value that cannot be stored. The old value is then gone.
    pub async fn set(&self, value: T) -> Result<()> {
        self.store((self.returns.of.split)(value)).await
    }
}

impl<R: 'static> CachedEntry<R> {
    pub(crate) fn new(cache: Cache, plan: Arc<Plan>, returns: Returns<R>, args: Arc<str>) -> Self {
        Self(Bare { cache, plan, returns, args })
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    pub(crate) fn plan_key(&self) -> &EntryKey {
        &self.0.plan.key
    }

    /// The same entry in another cache.
    pub fn on(self, cache: &Cache) -> Self {
        let Bare { plan, returns, args, .. } = self.0;
        let key = EntryKey::new(&cache.0.namespace, &plan.key.name, &args, &plan.key.fingerprint);
        let number = plan.number.clone();
        let plan = Plan { number, ..Plan::new(key, plan.value, Arc::clone(&plan.rules), plan.local) };
        let plan = Arc::new(plan);
        Self(Bare { cache: cache.clone(), plan, returns, args })
    }

    /// Removes the entry, in every build of the program that shares the store, and ends the runs that are under way for
    /// it: what they compute goes to their callers and is not stored. Once this has returned, no value from before it is served.
    ///
    /// One round trip, and one more where another build is found. If the call is dropped or fails as unavailable, the entry may have been removed or not.
    ///
    /// # Errors
    /// Faults of the store: then old values may go on being served, until their ttl.
    pub async fn invalidate(&self) -> Result<()> {
        let (engine, key) = (&self.0.cache.0, &self.0.plan.key);
        engine.detached(key, engine.builds.remove(key)).await
    }

    /// The key as it stands in Redis.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.plan.key.value_key
    }

    /// Why the entry is as it is: what this process keeps of it, whether it would be served, and what happened to it here, as a short
    /// text and as data. For a person who looks for the reason of an old value, a miss or a slow call.
    ///
    /// Neither waits nor asks the store. What other processes did shows where it reached this one: a push that dropped what was
    /// kept, a lease that was lost. Hits in this process are not among the steps. The history is bounded for the whole
    /// cache: see [`CacheBuilder::history`](crate::CacheBuilder::history).
    #[must_use]
    pub fn why(&self) -> Why {
        let Bare { cache, plan, .. } = &self.0;
        let is_off = plan.local == LocalTier::Off;
        cache.0.why(&plan.key.value_key, &plan.key.name, &plan.rules.options.tags, is_off)
    }

    /// How long the stored value will still be served; `None`: nothing is stored.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn ttl(&self) -> Result<Option<Duration>> {
        let engine = &self.0.cache.0;
        Ok(self.0.record().await?.map(|(envelope, _)| engine.store.now().until(envelope.fresh_until())))
    }
}

impl<R: Send + 'static> CachedEntry<R> {
    /// For generated code: runs the function whatever is stored, and stores what it returns.
    #[doc(hidden)]
    pub fn __refresh<'a, F>(self, function: F) -> BoxFuture<'a, R>
    where
        F: Future<Output = R> + Send + 'a,
    {
        let Bare { cache, plan, returns, .. } = self.0;
        let function = function.map(returns.of.split).boxed();
        async move {
            let key = plan.key.clone();
            let plan = Arc::new(Plan {
                refresh: true,
                overdue: returns.overdue,
                number: plan.number.clone(),
                ..Plan::new(key, plan.value, Arc::clone(&plan.rules), plan.local)
            });
            let landing = flight::run_here(&cache.0, Arc::clone(&plan), None, function).await;
            returns.land(landing, &plan.key.name)
        }
        .boxed()
    }
}

impl<R: 'static> Bare<R> {
    async fn record(&self) -> Result<Option<(Envelope, bytes::Bytes)>> {
        let engine = &self.cache.0;
        let key = &self.plan.key;
        let mut basis = self.plan.basis(engine);
        let (Slot::Bytes(bytes), _) = basis.read(&engine.versions, &key.value_key, false).await? else {
            return Ok(None);
        };
        match Envelope::open(&bytes, &key.value_key) {
            Ok((envelope, _))
                if !matches!(basis.agrees(&engine.versions, &envelope, false).await?, VersionCheck::Yes(_)) =>
            {
                Ok(None)
            }
            Ok((envelope, payload_at)) => match verdict(&envelope, engine.store.now()) {
                Freshness::Fresh => Ok(Some((envelope, bytes.slice(payload_at..)))),
                Freshness::Stale | Freshness::Expired => Ok(None),
            },
            Err(unreadable) => {
                let reason = unreadable.reason();
                engine.events.emit(Event::Undecodable { name: Arc::clone(&key.name), reason });
                Ok(None)
            }
        }
    }

    async fn peek(&self) -> Result<Option<R>> {
        let Some((envelope, payload)) = self.record().await? else { return Ok(None) };
        let value: ValueType = self.plan.value;
        match (value.decode)(envelope.codec, envelope.present, &payload) {
            Ok(value) => Ok(value.as_ref().and_then(self.returns.of.ok)),
            Err(_undecodable) => {
                let reason = "the payload is not a value of this type";
                self.cache.0.events.emit(Event::Undecodable { name: Arc::clone(&self.plan.key.name), reason });
                Ok(None)
            }
        }
    }

    async fn store(&self, returned: Result<Erased, Erased>) -> Result<()> {
        let (engine, plan): (&Arc<Engine>, &Plan) = (&self.cache.0, &self.plan);
        let storable = returned.ok().and_then(|value| Some((lifetime_for(engine, plan, &value)?, value)));
        let Some((lifetime, value)) = storable else {
            return engine.detached(&plan.key, engine.builds.remove(&plan.key)).await;
        };
        // Read before the write: what is invalidated from now on takes this value with it.
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
                // What stands there is older than what the caller wanted there.
                engine.detached(&plan.key, engine.builds.remove(&plan.key)).await?;
                Err(error)
            }
        }
    }
}

/// The entry of a function whose cache depends on arguments that the entry does not have: say which with [`on`](Self::on).
#[must_use = "an entry does nothing until one of its methods is called"]
pub struct UnboundEntry<R: 'static> {
    pub(crate) key: String,
    pub(crate) bind: Bind<R>,
}

/// Makes the entry once its cache is known.
type Bind<R> = Box<dyn FnOnce(&Cache) -> CachedEntry<R> + Send>;

impl<R> fmt::Debug for UnboundEntry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnboundEntry")
    }
}

impl<R: 'static> UnboundEntry<R> {
    /// The function's key name and the key's arguments, `<name>:<arguments>`: what every cache has in common.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The entry in this cache.
    pub fn on(self, cache: &Cache) -> CachedEntry<R> {
        (self.bind)(cache)
    }
}

/// Forgets what this process has of a key, when it is made and when it is dropped.
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
    /// No caller that comes after this gets what this process has of a key.
    pub(crate) fn forget(&self, key: &EntryKey) {
        drop(Forget::new(self, &key.value_key));
    }

    /// Runs a write of a key so that no caller that begins after it gets what was there before: the L1 entry is dropped and the run
    /// under way is detached before the write is sent, and again after its answer (R9, T7).
    pub(crate) async fn detached<T>(&self, key: &EntryKey, write: impl Future<Output = Result<T>>) -> Result<T> {
        // Held over the await: dropped there, what the write may have replaced goes all the same.
        let _before_and_after = Forget::new(self, &key.value_key);
        let result = write.await;
        result.map_err(|error| match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Refused | ErrorKind::Closed | ErrorKind::NotReplicated => error,
            _ => Error::new(error.kind(), "write").source(error),
        })
    }
}
