//! Caches without a second tier: moka, quick_cache, and `cached` in memory.

use std::sync::Arc;

use cached::macros::cached;
use cached::prelude::*;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::peer::{Answer, Peer, Source};

pub struct Moka(pub moka::future::Cache<u64, u64>);

impl Peer for Moka {
    fn read(&self, source: Arc<Source>, id: u64) -> BoxFuture<'_, Answer> {
        let read = async move { self.0.try_get_with(id, source.compute()).await };
        read.map(|answer| answer.map_err(|error| error.to_string())).boxed()
    }

    fn invalidate(&self, id: u64) -> BoxFuture<'_, Result<(), String>> {
        async move {
            self.0.invalidate(&id).await;
            Ok(())
        }
        .boxed()
    }

    fn set(&self, id: u64, value: u64) -> BoxFuture<'_, Result<(), String>> {
        self.0.insert(id, value).map(Ok).boxed()
    }
}

pub struct QuickCache(pub quick_cache::sync::Cache<u64, u64>);

impl Peer for QuickCache {
    fn read(&self, source: Arc<Source>, id: u64) -> BoxFuture<'_, Answer> {
        async move { self.0.get_or_insert_async(&id, source.compute()).await }.boxed()
    }

    fn invalidate(&self, id: u64) -> BoxFuture<'_, Result<(), String>> {
        self.0.remove(&id);
        futures::future::ready(Ok(())).boxed()
    }

    fn set(&self, id: u64, value: u64) -> BoxFuture<'_, Result<(), String>> {
        self.0.insert(id, value);
        futures::future::ready(Ok(())).boxed()
    }
}

#[cached(max_size = 1024, ttl_secs = 3600, key = "u64", convert = r##"{ id }"##, sync_writes = "by_key")]
async fn row(source: Arc<Source>, id: u64) -> Result<u64, String> {
    let _ = id;
    source.compute().await
}

/// `#[cached(sync_writes = "by_key")]`.
pub struct CachedInMemory;

impl Peer for CachedInMemory {
    fn read(&self, source: Arc<Source>, id: u64) -> BoxFuture<'_, Answer> {
        row(source, id).boxed()
    }

    fn invalidate(&self, id: u64) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let _removed = ROW.write().await.cache_remove(&id);
            Ok(())
        }
        .boxed()
    }

    fn set(&self, id: u64, value: u64) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let _replaced = ROW.write().await.cache_set(id, value);
            Ok(())
        }
        .boxed()
    }
}
