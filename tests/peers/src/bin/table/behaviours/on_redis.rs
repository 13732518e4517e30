//! Caches on Redis: ours, `cached` and hitbox.

use std::sync::Arc;
use std::time::Duration;

use cache_core::Cache;
use cached::{AsyncRedisCache, ConcurrentCachedAsync};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hitbox::backend::CacheBackend;
use hitbox::concurrency::BroadcastConcurrencyManager;
use hitbox::offload::OffloadManager;
use hitbox::policy::ConcurrencyLimit;
use hitbox::{CacheContext, CacheKey, CacheValue, KeyPart};
use hitbox_backend::Compose as _;
use hitbox_backend::composition::policy::RefillPolicy;
use hitbox_fn::prelude::PolicyConfig;
use hitbox_moka::MokaBackend;
use hitbox_redis::{ConnectionMode, RedisBackend};

use super::peer::{Answer, Peer, Source};

const TTL: Duration = Duration::from_secs(3_600);

#[cache_core::cached(ttl = "1h", skip(cache, source), cache = &cache)]
async fn row(cache: Cache, source: Arc<Source>, id: u64) -> Result<u64, String> {
    let _ = (cache, id);
    source.compute().await
}

#[cache_core::cached(ttl = "1h", skip(cache, source), cache = cache)]
async fn borrowing_row(cache: &Cache, source: Arc<Source>, id: u64) -> Result<u64, String> {
    let _ = (cache, id);
    source.compute().await
}

/// This library, with a function that owns its arguments.
pub struct Ours(pub Cache);

/// This library, with a function that borrows an argument.
pub struct OursBorrowing(pub Cache);

impl Ours {
    pub async fn connect(url: &str) -> Self {
        Self(Cache::connect(url).await.expect("a cache"))
    }
}

impl Peer for Ours {
    fn read(&self, source: Arc<Source>, id: u64) -> BoxFuture<'_, Answer> {
        row(self.0.clone(), source, id).boxed()
    }

    fn invalidate(&self, id: u64) -> BoxFuture<'_, Result<(), String>> {
        async move { row::entry(id).on(&self.0).invalidate().await.map_err(|error| error.to_string()) }.boxed()
    }

    fn set(&self, id: u64, value: u64) -> BoxFuture<'_, Result<(), String>> {
        async move { row::entry(id).on(&self.0).set(value).await.map_err(|error| error.to_string()) }.boxed()
    }
}

impl Peer for OursBorrowing {
    fn read(&self, source: Arc<Source>, id: u64) -> BoxFuture<'_, Answer> {
        borrowing_row(&self.0, source, id).boxed()
    }

    fn invalidate(&self, id: u64) -> BoxFuture<'_, Result<(), String>> {
        let entry = borrowing_row::entry(id).on(&self.0);
        async move { entry.invalidate().await.map_err(|error| error.to_string()) }.boxed()
    }

    fn set(&self, id: u64, value: u64) -> BoxFuture<'_, Result<(), String>> {
        let entry = borrowing_row::entry(id).on(&self.0);
        async move { entry.set(value).await.map_err(|error| error.to_string()) }.boxed()
    }
}

/// `cached` on Redis, with a connection that is made again after it is lost. Read through as
/// `#[concurrent_cached]` does.
pub struct CachedOnRedis(AsyncRedisCache<u64, u64>);

impl CachedOnRedis {
    pub async fn connect(url: &str, has_local_tier: bool) -> Self {
        let cache = AsyncRedisCache::builder("row").connection_string(url).ttl(TTL);
        let cache = cache.connection_manager(true).client_side_caching(has_local_tier);
        Self(cache.build().await.expect("a cache"))
    }
}

impl Peer for CachedOnRedis {
    fn read(&self, source: Arc<Source>, id: u64) -> BoxFuture<'_, Answer> {
        async move {
            let read = self.0.async_cache_try_get_or_set_with(id, || async move { source.compute().await });
            read.await.map_err(|error| error.to_string())?
        }
        .boxed()
    }

    fn invalidate(&self, id: u64) -> BoxFuture<'_, Result<(), String>> {
        async move { self.0.async_cache_remove(&id).await.map(drop).map_err(|error| error.to_string()) }.boxed()
    }

    fn set(&self, id: u64, value: u64) -> BoxFuture<'_, Result<(), String>> {
        async move { self.0.async_cache_set(id, value).await.map(drop).map_err(|error| error.to_string()) }.boxed()
    }
}

#[hitbox_fn::cached(prefix = "row", skip(source))]
async fn hitbox_row(source: Arc<Source>, id: u64) -> Result<u64, String> {
    let _ = id;
    source.compute().await
}

/// hitbox with `concurrency(1)`, so that callers of one key wait for one compute.
pub struct Hitbox<B>(hitbox_fn::Cache<B, BroadcastConcurrencyManager<Answer>>);

/// Makes the Redis backend of hitbox.
pub fn hitbox_backend(url: &str) -> RedisBackend {
    RedisBackend::builder().connection(ConnectionMode::single(url)).build().expect("a backend")
}

impl<B: CacheBackend> Hitbox<B> {
    fn new(backend: B) -> Self {
        let limit = ConcurrencyLimit::new(1).expect("one is allowed");
        let policy = PolicyConfig::builder().ttl(TTL).concurrency(limit).build();
        let broadcast = BroadcastConcurrencyManager::new();
        Self(hitbox_fn::Cache::builder().backend(backend).policy(policy).concurrency_manager(broadcast).build())
    }
}

/// Returns hitbox on Redis.
pub fn hitbox(url: &str) -> Arc<dyn Peer> {
    Arc::new(Hitbox::new(hitbox_backend(url)))
}

/// Returns hitbox with moka in front of Redis. By default, a hit in Redis does not fill moka.
pub fn hitbox_in_two_tiers(url: &str, refill: RefillPolicy) -> Arc<dyn Peer> {
    let local = MokaBackend::builder().max_entries(1_000).build();
    let tiers = local.compose(hitbox_backend(url), OffloadManager::with_defaults());
    Arc::new(Hitbox::new(tiers.refill(refill)))
}

fn key(id: u64) -> CacheKey {
    CacheKey::new("", 0, vec![KeyPart::new("fn", Some("row")), KeyPart::new("id", Some(id.to_string()))])
}

impl<B: CacheBackend + Send + Sync + 'static> Peer for Hitbox<B> {
    fn read(&self, source: Arc<Source>, id: u64) -> BoxFuture<'_, Answer> {
        async move { hitbox_row(source, id).cache(&self.0).await }.boxed()
    }

    fn invalidate(&self, id: u64) -> BoxFuture<'_, Result<(), String>> {
        let key = key(id);
        async move { self.0.backend().remove(&key).await.map(drop).map_err(|error| error.to_string()) }.boxed()
    }

    fn set(&self, id: u64, value: u64) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let value = CacheValue::new(value, None, None);
            let mut context = CacheContext::default().boxed();
            let set = self.0.backend().set::<Answer>(&key(id), &value, &mut context).await;
            set.map_err(|error| error.to_string())
        }
        .boxed()
    }
}
