//! The cache of all functions that name no other.

use std::sync::OnceLock;

use super::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::events::Event;

static INSTALLED: OnceLock<Cache> = OnceLock::new();

impl Cache {
    /// Makes this the cache of all `#[cached]` functions that name no other. Once per process, at start-up.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if there is one already: installed before, or made when a cached function was called first.
    pub fn install(cache: Self) -> Result<()> {
        INSTALLED.set(cache).map_err(|_| {
            let detail =
                "a cache is in use already; call `Cache::install` once, before the first call of a cached function";
            Error::new(ErrorKind::Configuration, "install").detail(detail)
        })
    }

    /// The installed cache. If there is none, one in memory is installed, and [`Event::NotInstalled`] says so.
    #[must_use]
    #[inline]
    pub fn global() -> &'static Self {
        INSTALLED.get_or_init(|| {
            let cache = Self::in_memory();
            cache.0.events.emit(Event::NotInstalled);
            cache
        })
    }
}
