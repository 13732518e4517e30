//! A cold key with 1,000 callers: how often the function runs, and how long the last caller waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cache_core::Cache;
use cached::AsyncRedisCache;
use cached::macros::{cached as cached_in_memory, concurrent_cached};
use hitbox::concurrency::BroadcastConcurrencyManager;
use hitbox::policy::ConcurrencyLimit;
use hitbox_fn::prelude::PolicyConfig;
use hitbox_redis::{ConnectionMode, RedisBackend};
use peers::measure::{Line, Plan, Results, ServerClock, Spread, nanoseconds, process_cpu};
use peers::posts::Post;
use tokio::runtime::Runtime;

const CALLERS: usize = 1_000;
const COMPUTE: Duration = Duration::from_millis(20);

static COMPUTES: AtomicUsize = AtomicUsize::new(0);
static URL: std::sync::OnceLock<String> = std::sync::OnceLock::new();

async fn compute(id: u64) -> Post {
    COMPUTES.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(COMPUTE).await;
    Post::long(id, 1_000)
}

#[cache_core::cached(ttl = "1h", skip(cache), cache = cache)]
async fn ours(cache: &Cache, id: u64) -> Arc<Post> {
    let _ = cache;
    Arc::new(compute(id).await)
}

#[concurrent_cached(
    map_error = r##"|error| error.to_string()"##,
    ty = "AsyncRedisCache<u64, Post>",
    create = r##" {
        let cache = AsyncRedisCache::builder("cold").connection_string(URL.get().expect("set before the first call"));
        cache.ttl(Duration::from_secs(3_600)).build().await.expect("a cache")
    } "##
)]
async fn cached_on_redis(id: u64) -> Result<Post, String> {
    Ok(compute(id).await)
}

#[cached_in_memory(max_size = 32768, ttl_secs = 3600, sync_writes = "by_key")]
async fn cached_by_key(id: u64) -> Arc<Post> {
    Arc::new(compute(id).await)
}

#[hitbox_fn::cached]
async fn of_hitbox(id: u64) -> Post {
    compute(id).await
}

/// Returns a round of a contender: starts all callers of one key and waits for the last.
macro_rules! stampede {
    ($runtime:expr, $call:expr) => {{
        let runtime = $runtime;
        Box::new(move |id: u64| {
            runtime.block_on(async {
                let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn($call(id))).collect();
                for caller in callers {
                    caller.await.expect("a caller");
                }
            });
        }) as Box<dyn Fn(u64) + '_>
    }};
}

/// Runs the contest. Every round has a key of its own.
pub fn hold(runtime: &Runtime, url: &str, clock: &ServerClock, plan: Plan) -> Results {
    URL.get_or_init(|| url.to_owned());
    let on_redis = runtime.block_on(Cache::connect(url)).expect("a cache");
    let in_memory = runtime.block_on(async { Cache::in_memory() });
    let backend = RedisBackend::builder().connection(ConnectionMode::single(url)).build().expect("a backend");
    let limit = ConcurrencyLimit::new(1).expect("one is allowed");
    let policy = PolicyConfig::builder().ttl(Duration::from_secs(3_600)).concurrency(limit).build();
    let broadcast = BroadcastConcurrencyManager::<Post>::new();
    let hitbox = hitbox_fn::Cache::builder().backend(backend).policy(policy).concurrency_manager(broadcast).build();
    let hitbox = Arc::new(hitbox);
    let moka = moka::future::Cache::<u64, Arc<Post>>::new(32_768);
    let quick = Arc::new(quick_cache::sync::Cache::<u64, Arc<Post>>::new(32_768));
    let contenders = [
        (
            "moka `get_with`, one process",
            stampede!(runtime, |id| {
                let moka = moka.clone();
                async move { drop(moka.get_with(id, async { Arc::new(compute(id).await) }).await) }
            }),
        ),
        (
            "quick_cache `get_or_insert_async`, one process",
            stampede!(runtime, |id| {
                let quick = Arc::clone(&quick);
                async move {
                    let value =
                        quick.get_or_insert_async(&id, async { Ok::<_, ()>(Arc::new(compute(id).await)) }).await;
                    drop(value);
                }
            }),
        ),
        (
            "cached, `sync_writes = \"by_key\"`, one process",
            stampede!(runtime, |id| async move {
                cached_by_key(id).await;
            }),
        ),
        (
            "**cache-core**, in memory",
            stampede!(runtime, |id| {
                let cache = in_memory.clone();
                async move { drop(ours(&cache, id).await) }
            }),
        ),
        (
            "**cache-core**, Redis: once over processes",
            stampede!(runtime, |id| {
                let cache = on_redis.clone();
                async move { drop(ours(&cache, id).await) }
            }),
        ),
        (
            "hitbox, Redis, `concurrency(1)`",
            stampede!(runtime, |id| {
                let hitbox = Arc::clone(&hitbox);
                async move { drop(of_hitbox(id).cache(&*hitbox).await) }
            }),
        ),
        (
            "cached, Redis",
            stampede!(runtime, |id| async move {
                cached_on_redis(id).await.expect("a post");
            }),
        ),
    ];
    measure(&contenders, clock, plan)
}

fn measure(contenders: &[(&str, Box<dyn Fn(u64) + '_>)], clock: &ServerClock, plan: Plan) -> Results {
    let next = AtomicU64::new(0);
    // time, client, server, computes
    let mut rounds = vec![Vec::<[f64; 4]>::new(); contenders.len()];
    eprintln!("cold key: {} rounds", plan.rounds);
    for round in 0..=plan.rounds {
        for turn in 0..contenders.len() {
            let which = (round + turn) % contenders.len();
            COMPUTES.store(0, Ordering::Relaxed);
            let (client, server, started) = (process_cpu(), clock.read(), Instant::now());
            contenders[which].1(next.fetch_add(1, Ordering::Relaxed));
            let elapsed = nanoseconds(started.elapsed());
            let (client, server) = (nanoseconds(process_cpu() - client), nanoseconds(clock.read() - server));
            // The first round is a warm-up.
            if round > 0 {
                rounds[which].push([elapsed, client, server, COMPUTES.load(Ordering::Relaxed) as f64]);
            }
        }
    }
    let column = |which: usize, at: usize| rounds[which].iter().map(|round| round[at]).collect::<Vec<_>>();
    let first = column(0, 0);
    let lines = contenders.iter().enumerate().map(|(which, (name, _))| {
        let times = column(which, 0);
        let ratios: Vec<f64> = times.iter().zip(&first).map(|(own, first)| own / first).collect();
        let computes = Spread::of(&column(which, 3));
        let note = match (computes.min, computes.max) {
            (1.0, 1.0) => "1 compute".to_owned(),
            (min, max) if min >= max => format!("{max} computes"),
            (min, max) => format!("{min} to {max} computes"),
        };
        Line {
            name: (*name).to_owned(),
            time: Spread::of(&times),
            ratio: Spread::of(&ratios),
            client: Spread::of(&column(which, 1)).median,
            server: Some(Spread::of(&column(which, 2)).median),
            note,
        }
    });
    Results {
        title: format!("cold key, {CALLERS} callers, compute of {} ms: until the last is served", COMPUTE.as_millis()),
        lines: lines.collect(),
    }
}
