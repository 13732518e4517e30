//! The handle.

pub(crate) mod get_or_compute;
mod global;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::error::Result;
use crate::observe::events::{Event, Stats};
use crate::observe::function_stats::FunctionStats;
use crate::versions::keys;

/// A cache: a store, and all that makes reading through it right. Cheap to clone; clones are the same cache.
///
/// ```
/// # use cache_core::Cache;
/// # async fn start() -> Result<(), cache_core::Error> {
/// let cache = Cache::connect("redis://127.0.0.1/").await?; // starts even if Redis is down
/// Cache::install(cache).expect("installed once");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Cache(pub(crate) Arc<Engine>);

impl Cache {
    /// Makes every entry of every cached function in this cache's namespace a miss, in every process, build and tier. Runs that are under
    /// way go on for their callers, and what they compute is not served to others. Objects and plain values stay.
    ///
    /// One round trip, however many entries there are. If the call is dropped or fails as unavailable, it may have happened or not.
    ///
    /// # Errors
    /// Faults of the store: then old values may go on being served, until their ttl.
    pub async fn clear(&self) -> Result<()> {
        self.0.versions.renew(&[keys::namespace_key(&self.0.namespace).into()]).await
    }

    /// Makes every entry with this tag a miss, in every process, build and tier: of functions with `tags(..)`, and of calls with
    /// [`EntryOptions::tags`]. A tag that no entry has is no error.
    ///
    /// A tag is its text: `author:{author}` of author 7 is `author:7`. One round trip, however many entries there are. Runs
    /// that are under way go on for their callers, and what they compute is not served to others. If the call is dropped or
    /// fails as unavailable, it may have happened or not.
    ///
    /// # Errors
    /// Faults of the store: then old values may go on being served, until their ttl.
    pub async fn invalidate_tag(&self, tag: impl AsRef<str>) -> Result<()> {
        self.invalidate_tags([tag]).await
    }

    /// As [`invalidate_tag`](Self::invalidate_tag), for several tags in one round trip.
    ///
    /// # Errors
    /// Faults of the store: then old values may go on being served, until their ttl.
    pub async fn invalidate_tags<T: AsRef<str>>(&self, tags: impl IntoIterator<Item = T>) -> Result<()> {
        let keys = keys::keys_of_tags(&self.0.namespace, tags);
        if keys.is_empty() { Ok(()) } else { self.0.versions.renew(&keys).await }
    }

    /// What happens in this cache from now on. A subscriber that lags more than 1,024 events behind misses some.
    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// What this cache has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.events.count().snapshot(self.0.functions.local_hits())
    }

    /// What this cache has done so far for each function, by name: those that were called, also with keys by hand.
    ///
    /// A process counts 512 names one by one, half of which may come from keys by hand; the others are `(other)`.
    ///
    /// ```
    /// # use cache_core::{Cache, cached};
    /// # #[cached(name = "square")] async fn square(n: u64) -> u64 { n * n }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// square(7).await;
    /// square(7).await;
    /// let stats = Cache::global().function_stats();
    /// assert_eq!((&*stats[0].name, stats[0].misses, stats[0].hit_ratio()), ("square", 1, Some(0.5)));
    /// # });
    /// ```
    #[must_use]
    pub fn function_stats(&self) -> Vec<FunctionStats> {
        self.0.functions.snapshot()
    }

    /// Whether the store can be used right now. In memory: until [`shutdown`](Self::shutdown).
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.0.store.is_available()
    }

    /// Where the store is, without credentials: `redis://user:***@host:6379/0`, or `memory://`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Closes the connection and ends background work, waiting for it and for runs under way up to five seconds. Cached functions run uncached afterwards.
    pub async fn shutdown(&self) {
        // Work first: what it computed may still be stored, and leases of what was ended are given back.
        self.0.background.shutdown(SHUTDOWN_LIMIT, self.0.store.settle()).await;
        self.0.store.close().await;
        self.0.events.log_all_repeats();
    }
}

/// How long a shutdown waits for background work.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("address", &self.0.address)
            .field("namespace", &self.0.namespace)
            .field("available", &self.is_available())
            .finish_non_exhaustive()
    }
}
