//! What objects and sessions need of a cache.

#[cfg(feature = "sessions")]
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::cell::{CellStore, Cells};
use crate::clock::Timestamp;
use crate::engine::Engine;
#[cfg(feature = "sessions")]
use crate::error::Error;
use crate::error::Result;
#[cfg(feature = "sessions")]
use crate::observe::events::{Event, SessionEvent};

/// The cache in which cells live. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CellHost(Arc<Engine>);

impl From<&Cache> for CellHost {
    fn from(cache: &Cache) -> Self {
        Self(Arc::clone(&cache.0))
    }
}

impl CellHost {
    /// Returns the cells in the cache's store.
    pub(crate) fn cells(&self) -> Cells {
        self.cells_in(Arc::<dyn crate::store::Store>::clone(&self.0.store))
    }

    /// Returns the cells in another store.
    pub(crate) fn cells_in(&self, store: Arc<dyn CellStore>) -> Cells {
        Cells::new(store, self.0.clock.clone(), Arc::clone(&self.0.background))
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Returns the time of the cache's store.
    pub(crate) fn now(&self) -> Timestamp {
        self.0.store.now()
    }

    /// Returns the largest size of a stored value in bytes.
    pub(crate) fn max_bytes(&self) -> usize {
        self.0.limits.max_value_bytes
    }

    /// Stores bytes whatever is stored already.
    pub(crate) async fn overwrite(&self, key: &str, bytes: Vec<u8>, ttl: Duration) -> Result<()> {
        self.0.store.put(key, bytes.into(), Some(ttl)).await
    }
}

/// For sessions.
#[cfg(feature = "sessions")]
impl CellHost {
    pub(crate) fn emit(&self, event: SessionEvent) {
        self.0.events.emit(Event::Session(event));
    }

    /// Reports a fault of the cache's store that a call survived.
    pub(crate) fn store_failed(&self, error: &Error) {
        self.0.store_failed(error);
    }

    /// Returns how long the cache may serve without having heard from its store.
    pub(crate) fn max_staleness(&self) -> Duration {
        self.0.limits.max_staleness
    }

    /// Runs a task in the background. Without a runtime, this does nothing.
    pub(crate) fn work(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.background.work(task);
    }
}
