//! Functions that read through a plain key: `#[cached(plain = "user:{id}")]`.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{Cached, Resolved, written};
use crate::cache::Cache;
use crate::call::plan::Plan;
use crate::call::read_through::read_or_run_plain;
use crate::key::KeyWriter;
use crate::local::ParsedKey;
use crate::options::LocalTier;
use crate::plain::{PlainEntry, UnboundPlainEntry};
use crate::value::return_type::Returns;
use crate::value::rules::Rules;

/// A cached function with its types, whose entries are plain keys. It is a separate type because
/// plain keys have no versions, so its entries cannot be invalidated together.
pub struct PlainCached<R: 'static>(Cached<R>);

impl<R> fmt::Debug for PlainCached<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<R: Send + 'static> PlainCached<R> {
    /// Makes the function. Its codec is JSON.
    #[must_use]
    pub const fn new(cached: Cached<R>) -> Self {
        Self(cached)
    }

    /// Returns the entry of these arguments.
    pub fn entry(&self, cache: &Cache, rules: Rules, args: impl FnOnce(&mut KeyWriter<'_>)) -> PlainEntry<R> {
        entry_of(self.0, cache, rules, &written(args))
    }

    /// Returns the entry of these arguments if only the caller knows the cache.
    pub fn unbound_entry(&self, rules: Rules, args: impl FnOnce(&mut KeyWriter<'_>)) -> UnboundPlainEntry<R> {
        let (cached, key) = (self.0, written(args));
        UnboundPlainEntry::new(Arc::clone(&key), Box::new(move |cache| entry_of(cached, cache, rules, &key)))
    }
}

fn entry_of<R: Send + 'static>(cached: Cached<R>, cache: &Cache, rules: Rules, key: &str) -> PlainEntry<R> {
    let name = &cached.resolve(cache).name;
    let plan = Plan::plain(key, name, cached.returns.of.value, Arc::new(rules), cached.local);
    PlainEntry::new(cache.clone(), Arc::new(plan), cached.returns)
}

/// Returns the value from L1. `args` writes the key.
///
/// # Errors
/// The miss, to be run.
pub fn look_up_plain<R: Send + 'static>(
    cached: impl Fn() -> PlainCached<R>,
    cache: &Cache,
    args: impl FnOnce(&mut KeyWriter<'_>),
) -> Result<R, Box<PlainMiss<R>>> {
    let PlainCached(cached) = cached();
    let (resolved, key) = (cached.resolve(cache), written(args));
    if cached.local != LocalTier::Off {
        let parsed = ParsedKey::parse(&key);
        let hit = cache.0.in_local_plain(&parsed.as_ref(), || resolved.function, cached.returns.of.ok);
        if let Some(hit) = hit {
            return Ok(hit);
        }
    }
    Err(Box::new(PlainMiss { cache: cache.clone(), key, resolved, returns: cached.returns, local: cached.local }))
}

/// A call without a value in this process.
#[must_use = "a miss does nothing until it runs"]
pub struct PlainMiss<R: 'static> {
    cache: Cache,
    key: Arc<str>,
    resolved: &'static Resolved,
    returns: Returns<R>,
    local: LocalTier,
}

impl<R> fmt::Debug for PlainMiss<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PlainMiss").field(&self.resolved.name).finish()
    }
}

impl<R: Send + 'static> PlainMiss<R> {
    /// Runs the slow path. If the caller that runs the function is dropped, one of the callers that
    /// joined starts its own run.
    #[cold]
    #[inline(never)]
    pub fn run<'a, F>(self, rules: Rules, function: F) -> BoxFuture<'a, R>
    where
        F: Future<Output = R> + Send + 'a,
    {
        let Self { cache, key, resolved, returns, local } = self;
        let plan = Plan::plain(&key, &resolved.name, returns.of.value, Arc::new(rules), local);
        let plan = Plan { overdue: returns.overdue, ..plan };
        let name = Arc::clone(&plan.key.name);
        let call = read_or_run_plain(&cache.0, plan, function.map(returns.of.split).boxed());
        call.map(move |outcome| returns.convert(outcome, &name)).boxed()
    }
}
