//! The handle to a cache.

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

/// A handle to a cache: a store, and everything needed to read through it correctly.
///
/// Cheap to clone. Clones refer to the same cache.
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
    /// Makes every entry of every cached function in this cache's namespace a miss, in every
    /// process, build and tier. Objects and plain values are not affected.
    ///
    /// A run in progress goes on for its callers, and the value it computes is not served to
    /// others.
    ///
    /// One round trip, however many entries there are. If the call is dropped or fails as
    /// [unavailable](crate::ErrorKind::Unavailable), it may have happened or not.
    ///
    /// # Errors
    /// Store errors: old values may then be served until their ttl ends.
    pub async fn clear(&self) -> Result<()> {
        self.0.versions.renew(&[keys::namespace_key(&self.0.namespace).into()]).await
    }

    /// Makes every entry with this tag a miss, in every process, build and tier: entries of
    /// functions with `tags(..)`, and of calls with
    /// [`EntryOptions::tags`](crate::EntryOptions::tags). If no entry has the tag, the call
    /// succeeds.
    ///
    /// A tag is a text: `author:{author}` with author 7 is `author:7`. A run in progress goes on
    /// for its callers, and the value it computes is not served to others.
    ///
    /// One round trip, however many entries there are. If the call is dropped or fails as
    /// [unavailable](crate::ErrorKind::Unavailable), it may have happened or not.
    ///
    /// # Errors
    /// Store errors: old values may then be served until their ttl ends.
    pub async fn invalidate_tag(&self, tag: impl AsRef<str>) -> Result<()> {
        self.invalidate_tags([tag]).await
    }

    /// Like [`invalidate_tag`](Self::invalidate_tag), for several tags in one round trip. Without
    /// tags, it does nothing.
    ///
    /// # Errors
    /// Store errors: old values may then be served until their ttl ends.
    pub async fn invalidate_tags<T: AsRef<str>>(&self, tags: impl IntoIterator<Item = T>) -> Result<()> {
        let keys = keys::keys_of_tags(&self.0.namespace, tags);
        if keys.is_empty() { Ok(()) } else { self.0.versions.renew(&keys).await }
    }

    /// Returns a receiver for the events of this cache from now on. A subscriber that lags more
    /// than 1,024 events behind misses some.
    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Returns what this cache has counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.events.count().snapshot(self.0.functions.local_hits())
    }

    /// Returns what this cache has counted so far for each function that was called, by name. This
    /// includes the key names of [`get_or_compute`](Self::get_or_compute).
    ///
    /// A process counts up to 512 names separately. At most half of them may be names from
    /// [`get_or_compute`](Self::get_or_compute) keys. All other names are counted together as
    /// `(other)`.
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

    /// Returns whether the store can be used now. The embedded store can be used until
    /// [`shutdown`](Self::shutdown).
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.0.store.is_available()
    }

    /// Returns the address of the store without credentials, such as `redis://user:***@host:6379/0`
    /// or `memory://`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Closes the connection and ends background work. Waits up to five seconds for background work
    /// and runs in progress. Cached functions run uncached afterwards.
    pub async fn shutdown(&self) {
        // Work ends first: its values can still be stored, and the leases of aborted runs are
        // released.
        self.0.background.shutdown(SHUTDOWN_LIMIT, self.0.store.settle()).await;
        self.0.store.close().await;
        self.0.events.log_all_repeats();
    }
}

/// How long a shutdown waits for background work and runs.
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
