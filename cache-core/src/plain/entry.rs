//! The plain key of a cached function: the type that `f::entry(args)` returns.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::TimeToLive;
use crate::cache::Cache;
use crate::call::flight;
use crate::call::plan::Plan;
use crate::entry::Forget;
use crate::error::Result;
use crate::observe::events::bump;
use crate::store::{Put, When, plain_lease_key};
use crate::value::return_type::Returns;

/// The plain key of a cached function (`#[cached(plain = "user:{id}")]`) for certain arguments,
/// from `f::entry(args)`.
///
/// `R` is the function's return type. Unlike the function itself, the methods return store errors.
#[must_use = "an entry does nothing until one of its methods is called"]
pub struct PlainEntry<R: 'static> {
    cache: Cache,
    plan: Arc<Plan>,
    returns: Returns<R>,
}

/// The plain key of a function whose cache is chosen by arguments that are not in the key. Select
/// the cache with [`on`](Self::on).
#[must_use = "an entry does nothing until one of its methods is called"]
pub struct UnboundPlainEntry<R: 'static> {
    key: Arc<str>,
    bind: Bind<R>,
}

/// Makes the entry once its cache is known.
type Bind<R> = Box<dyn FnOnce(&Cache) -> PlainEntry<R> + Send>;

impl<R> Clone for PlainEntry<R> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), plan: Arc::clone(&self.plan), returns: self.returns }
    }
}

// The key may contain personal data, so only the name is shown.
impl<R> fmt::Debug for PlainEntry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PlainEntry").field(&self.plan.key.name).finish()
    }
}

impl<R> fmt::Debug for UnboundPlainEntry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnboundPlainEntry")
    }
}

impl<R: 'static> UnboundPlainEntry<R> {
    pub(crate) fn new(key: Arc<str>, bind: Bind<R>) -> Self {
        Self { key, bind }
    }

    /// Returns the key, which is the same in every cache.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the entry in this cache.
    pub fn on(self, cache: &Cache) -> PlainEntry<R> {
        (self.bind)(cache)
    }
}

impl<R: 'static> PlainEntry<R> {
    pub(crate) fn new(cache: Cache, plan: Arc<Plan>, returns: Returns<R>) -> Self {
        Self { cache, plan, returns }
    }

    /// Returns the key as it is in Redis.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.plan.key.value_key
    }

    /// Returns what is stored, without running the function. `None` if no value of the function's
    /// type is stored.
    ///
    /// # Errors
    /// Store errors.
    pub async fn get(&self) -> Result<Option<R>> {
        let found = crate::call::plain::peek(&self.cache.0, &self.plan).await?;
        Ok(found.as_ref().and_then(self.returns.of.ok))
    }

    /// Stores a value as if the function had returned it, with its ttl, `cache_if` and
    /// `negative_ttl`. If those rules do not store the value, or it is an error, the key is removed
    /// instead. A run in flight does not overwrite the stored value.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Encode`](crate::ErrorKind::Encode) and
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) for a value that cannot be stored: the key is
    /// not changed then.
    pub async fn set(&self, returned: R) -> Result<()> {
        let engine = &self.cache.0;
        let storable = match (self.returns.of.split)(returned) {
            Ok(value) => crate::call::plain::storable(engine, &self.plan, &value)?,
            Err(_error) => None,
        };
        let Some((bytes, expiry)) = storable else { return self.invalidate().await.map(drop) };
        let (key, put) = (self.key(), Put { expiry: Some(expiry), keep_expiry: false, when: When::Always });
        let _before_and_after = Forget::new(engine, key);
        engine.store.put_plain(key, &plain_lease_key(key), bytes, put).await?;
        bump(&engine.events.count().fills);
        Ok(())
    }

    /// Removes the key for every program that reads it, and ends the run in flight for it: the
    /// value that the run computes goes to its callers and is not stored. Returns `false` if the
    /// key did not exist.
    ///
    /// One round trip. If the call is dropped or fails as unavailable, the key may have been
    /// removed or not.
    ///
    /// # Errors
    /// Store errors: the old value may then be served until its ttl ends.
    pub async fn invalidate(&self) -> Result<bool> {
        let key = self.key();
        let _before_and_after = Forget::new(&self.cache.0, key);
        self.cache.0.store.remove_plain(key, &plain_lease_key(key)).await
    }

    /// Returns how long the key still lives, no matter which program has set it.
    ///
    /// # Errors
    /// Store errors.
    pub async fn ttl(&self) -> Result<TimeToLive> {
        self.cache.plain().ttl(self.key()).await
    }
}

impl<R: Send + 'static> PlainEntry<R> {
    /// For generated code: always runs the function, and stores what it returns.
    #[doc(hidden)]
    pub fn __refresh<'a, F>(self, function: F) -> BoxFuture<'a, R>
    where
        F: Future<Output = R> + Send + 'a,
    {
        let Self { cache, plan, returns } = self;
        let function = function.map(returns.of.split).boxed();
        async move {
            let Plan { key, value, rules, local, .. } = &*plan;
            let plan = Plan::plain(&key.value_key, &key.name, *value, Arc::clone(rules), *local);
            let plan = Arc::new(Plan { refresh: true, overdue: returns.overdue, ..plan });
            let outcome = flight::run_here(&cache.0, Arc::clone(&plan), None, function).await;
            returns.convert(outcome, &plan.key.name)
        }
        .boxed()
    }
}
