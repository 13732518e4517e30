//! The global cache, which functions use by default.

use std::sync::OnceLock;

use super::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::events::Event;

static INSTALLED: OnceLock<Cache> = OnceLock::new();

impl Cache {
    /// Installs this cache for all `#[cached]` functions that do not name another one. Call it once
    /// per process, at start-up.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if a cache is already in use: one was installed before, or one
    /// was made at the first call of a cached function.
    pub fn install(cache: Self) -> Result<()> {
        INSTALLED.set(cache).map_err(|_| {
            let detail =
                "a cache is already in use; call `Cache::install` once, before the first call of a cached function";
            Error::new(ErrorKind::Configuration, "install").detail(detail)
        })
    }

    /// Returns the installed cache. If there is none, installs one in memory and emits
    /// [`Event::NotInstalled`].
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
