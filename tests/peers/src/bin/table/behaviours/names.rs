//! Names and types: two builds (R21), the same function name in two modules, two tenants.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use cache_core::Cache;
use cached::AsyncRedisCache;
use cached::ConcurrentCachedAsync as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hitbox_fn::prelude::PolicyConfig;
use hitbox_redis::RedisBackend;

use super::on_redis::hitbox_backend;

/// The argument of the child process of [`of_cached_in_two_modules`].
pub const CHILD: &str = "--two-modules-of-cached";
/// The variable from which `#[concurrent_cached(redis = true)]` takes its server.
const VARIABLE: &str = "CACHED_REDIS_CONNECTION_STRING";

type HitboxCache = hitbox_fn::Cache<RedisBackend>;

/// The row that both builds read: a price, and how often it was read.
#[derive(Debug, Default)]
pub struct Row {
    price: AtomicU32,
    computes: AtomicUsize,
}

impl Row {
    fn read(&self) -> u32 {
        self.computes.fetch_add(1, Ordering::SeqCst);
        self.price.load(Ordering::SeqCst)
    }
}

/// A build of a program: a function `thing` that returns its own type of this name.
macro_rules! build {
    ($build:ident, $($field:ident = $value:expr),+) => {
        mod $build {
            use super::*;

            #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, hitbox_fn::CacheableResponse)]
            pub struct Thing {
                $(pub $field: u32,)+
            }

            impl Thing {
                fn of(price: u32) -> Self {
                    let _unused = price;
                    Self { $($field: { let value: fn(u32) -> u32 = $value; value(price) },)+ }
                }
            }

            #[cache_core::cached(name = "thing", ttl = "1h", key = "{id}", skip(cache, row), cache = cache)]
            pub async fn ours(cache: &Cache, row: Arc<Row>, id: u64) -> Thing {
                let _ = (cache, id);
                Thing::of(row.read())
            }

            #[hitbox_fn::cached(prefix = "thing", skip(row))]
            pub async fn hitbox(row: Arc<Row>, id: u64) -> Thing {
                let _ = id;
                Thing::of(row.read())
            }

            pub type Stored = AsyncRedisCache<u64, Thing>;

            pub async fn of_cached(cache: &Stored, row: Arc<Row>, id: u64) -> (u32, u32) {
                let read = cache.async_cache_get_or_set_with(id, || async move { Thing::of(row.read()) });
                let thing = read.await.expect("an answer");
                (thing.price, thing.stock)
            }
        }
    };
}

build!(old, price = |price| price, stock = |_| 5);
build!(added, price = |price| price, discount = |_| 9, stock = |_| 5);
build!(swapped, stock = |_| 5, price = |price| price);

/// Reads with the old and the new build in turns, then invalidates with the new one.
async fn two_builds<'a>(
    row: &Row,
    old: impl Fn() -> BoxFuture<'a, (u32, u32)>,
    new: impl Fn() -> BoxFuture<'a, (u32, u32)>,
    invalidate: impl Future<Output = ()>,
) -> String {
    row.price.store(3, Ordering::SeqCst);
    row.computes.store(0, Ordering::SeqCst);
    let answers = [old().await, new().await, old().await, new().await];
    let computes = row.computes.load(Ordering::SeqCst);
    if answers.iter().any(|answer| *answer != (3, 5)) {
        return "**wrong value**".into();
    }
    row.price.store(4, Ordering::SeqCst);
    invalidate.await;
    match (old().await, computes) {
        ((4, 5), 2) => "right".into(),
        ((4, 5), computes) => format!("right values, {computes} computes for 4 calls"),
        _ => "**stale value** in the other build".into(),
    }
}

macro_rules! ours {
    ($new:ident, $cache:expr, $row:expr, $id:expr) => {
        two_builds(
            &$row,
            || old::ours(&$cache, Arc::clone(&$row), $id).map(|thing| (thing.price, thing.stock)).boxed(),
            || $new::ours(&$cache, Arc::clone(&$row), $id).map(|thing| (thing.price, thing.stock)).boxed(),
            async {
                $new::ours::entry($id).on(&$cache).invalidate().await.expect("it is invalidated");
                // The push to this process may be under way.
                tokio::time::sleep(Duration::from_millis(100)).await;
            },
        )
        .await
    };
}

pub async fn builds_of_ours(url: &str) -> String {
    let (cache, row) = (Cache::connect(url).await.expect("a cache"), Arc::new(Row::default()));
    verdict(&ours!(added, cache, row, 1), &ours!(swapped, cache, row, 2))
}

macro_rules! hitbox {
    ($new:ident, $cache:expr, $row:expr, $id:expr) => {
        two_builds(
            &$row,
            || {
                let read = async { old::hitbox(Arc::clone(&$row), $id).cache(&$cache).await };
                read.map(|thing| (thing.price, thing.stock)).boxed()
            },
            || {
                let read = async { $new::hitbox(Arc::clone(&$row), $id).cache(&$cache).await };
                read.map(|thing| (thing.price, thing.stock)).boxed()
            },
            async {
                let parts = [("fn", Some("thing")), ("id", Some(stringify!($id)))];
                let key = hitbox::CacheKey::from_slice(&parts);
                hitbox::backend::Backend::remove(&**$cache.backend(), &key).await.expect("it is removed");
            },
        )
        .await
    };
}

pub async fn builds_of_hitbox(url: &str) -> String {
    let (cache, row) = (hitbox_cache(url), Arc::new(Row::default()));
    verdict(&hitbox!(added, cache, row, 1), &hitbox!(swapped, cache, row, 2))
}

macro_rules! of_cached {
    ($new:ident, $url:expr, $row:expr, $id:expr) => {{
        let one: old::Stored =
            AsyncRedisCache::builder("thing").connection_string($url).build().await.expect("a cache");
        let two: $new::Stored =
            AsyncRedisCache::builder("thing").connection_string($url).build().await.expect("a cache");
        let invalidated = async { drop(two.async_cache_remove(&$id).await) };
        two_builds(
            &$row,
            || old::of_cached(&one, Arc::clone(&$row), $id).boxed(),
            || $new::of_cached(&two, Arc::clone(&$row), $id).boxed(),
            invalidated,
        )
        .await
    }};
}

pub async fn builds_of_cached(url: &str) -> String {
    let row = Arc::new(Row::default());
    verdict(&of_cached!(added, url, row, 1), &of_cached!(swapped, url, row, 2))
}

fn verdict(added: &str, swapped: &str) -> String {
    if added == swapped { added.to_owned() } else { format!("a field added: {added}; two swapped: {swapped}") }
}

fn hitbox_cache(url: &str) -> HitboxCache {
    let policy = PolicyConfig::builder().ttl(Duration::from_secs(3_600)).build();
    hitbox_fn::Cache::builder().backend(hitbox_backend(url)).policy(policy).build()
}

/// A module with a function `item`.
macro_rules! module {
    ($module:ident, $value:literal) => {
        mod $module {
            use super::*;

            #[cache_core::cached(ttl = "1h", skip(cache), cache = cache)]
            pub async fn item(cache: &Cache, id: u64) -> u64 {
                let _ = (cache, id);
                $value
            }

            pub mod hitbox {
                #[hitbox_fn::cached]
                pub async fn item(id: u64) -> u64 {
                    let _ = id;
                    $value
                }
            }

            pub mod of_cached {
                #[cached::macros::concurrent_cached(
                    redis = true,
                    ttl_secs = 3600,
                    map_error = r##"|error| error.to_string()"##
                )]
                pub async fn item(id: u64) -> Result<u64, String> {
                    let _ = id;
                    Ok($value)
                }
            }
        }
    };
}

module!(one, 1);
module!(two, 2);

fn of_two_modules(values: (u64, u64)) -> String {
    match values {
        (1, 2) => "right".into(),
        (1, 1) => "**value of the other function**".into(),
        other => format!("{other:?}"),
    }
}

pub async fn ours_in_two_modules(url: &str) -> String {
    let cache = Cache::connect(url).await.expect("a cache");
    of_two_modules((one::item(&cache, 7).await, two::item(&cache, 7).await))
}

pub async fn hitbox_in_two_modules(url: &str) -> String {
    let cache = hitbox_cache(url);
    let values = (one::hitbox::item(7).cache(&cache).await, two::hitbox::item(7).cache(&cache).await);
    of_two_modules(values)
}

/// Runs this program again, because the attribute of `cached` takes its server from a variable.
pub fn of_cached_in_two_modules(url: &str) -> String {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).arg(CHILD).env(VARIABLE, url).output().expect("it can be run");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The child process of [`of_cached_in_two_modules`].
pub async fn child() -> String {
    let first = one::of_cached::item(7).await.expect("a value");
    of_two_modules((first, two::of_cached::item(7).await.expect("a value")))
}

#[cache_core::cached(ttl = "1h", skip(cache, tenant), cache = cache)]
async fn plan_of_ours(cache: &Cache, tenant: u64, id: u64) -> u64 {
    let _ = (cache, id);
    tenant
}

#[hitbox_fn::cached(skip(tenant))]
async fn plan_of_hitbox(tenant: u64, id: u64) -> u64 {
    let _ = id;
    tenant
}

fn of_two_tenants(values: (u64, u64)) -> String {
    match values {
        (1, 2) => "right".into(),
        (1, 1) => "**value of the other tenant**; a tenant has to be an argument, or a database".into(),
        other => format!("{other:?}"),
    }
}

pub async fn tenants_of_ours(url: &str) -> String {
    let connect =
        async |namespace: &str| Cache::builder().url(url).namespace(namespace).connect().await.expect("a cache");
    let (first, second) = (connect("first").await, connect("second").await);
    let values = (plan_of_ours(&first, 1, 7).await, plan_of_ours(&second, 2, 7).await);
    first.clear().await.expect("it is cleared");
    let is_kept = plan_of_ours::entry(7).on(&second).get().await.expect("an answer").is_some();
    if is_kept { of_two_tenants(values) } else { "`clear` of one tenant clears the other".into() }
}

pub async fn tenants_of_hitbox(url: &str) -> String {
    let (first, second) = (hitbox_cache(url), hitbox_cache(url));
    of_two_tenants((plan_of_hitbox(1, 7).cache(&first).await, plan_of_hitbox(2, 7).cache(&second).await))
}
