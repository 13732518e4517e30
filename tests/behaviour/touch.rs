//! An entry with hits in the local tier does not become cold in Redis.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cache_core::clock::Clock;
use cache_core::{Cache, cached};
use futures::StreamExt as _;
use support::{RedisServer, eventually, long_form};

const MINUTE: Duration = Duration::from_secs(60);

#[cached(name = "hot", ttl = "30d", skip(cache), cache = cache, tags("page"))]
async fn hot(cache: &Cache, id: u32) -> u32 {
    let _ = cache;
    id
}

/// Returns how often the key was accessed, as counted by Redis.
fn seen(server: &RedisServer, key: &str) -> u32 {
    server.cli(&["OBJECT", "FREQ", key]).parse().unwrap()
}

fn touches(server: &RedisServer) -> u64 {
    server.commandstats().get("touch").copied().unwrap_or(0)
}

/// Advances the clock by minutes until the condition holds. The minutes after the first one find
/// nothing to touch.
async fn after_minutes(clock: &Clock, what: &str, holds: impl Fn() -> bool) {
    eventually(what, || async {
        clock.advance(MINUTE);
        tokio::task::yield_now().await;
        holds()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// T8
async fn only_local_hits_are_touched_once_a_minute() {
    // Each use counts.
    let server = RedisServer::builder().option("maxmemory-policy", "allkeys-lfu").option("lfu-log-factor", "0").start();
    let clock = Clock::manual();
    let settings = Cache::builder().url(server.url()).clock(clock.clone()).max_staleness(10_000 * MINUTE);
    let cache = settings.connect().await.unwrap();
    let key = |id: u32| hot::entry(id).on(&cache).key().to_owned();
    // A late push may undo what a fill has kept. A value that is read afterwards stays.
    for _ in 0..3 {
        for id in 0..150 {
            hot(&cache, id).await;
        }
    }
    // Earlier versions do not matter here.
    after_minutes(&clock, "the versions that were used are touched", || touches(&server) == 1).await;
    let versions = ["cache@version", "cache:hot@version", "cache@tag:page"];
    let before: HashMap<&str, u32> = versions.iter().map(|key| (*key, seen(&server, key))).collect();
    let (hit_before, cold_before) = (seen(&server, &key(7)), seen(&server, &key(100)));
    let hits = cache.stats().local_hits;
    for id in 0..90 {
        for _ in 0..5 {
            assert_eq!(hot(&cache, id).await, id);
        }
    }
    assert_eq!(cache.stats().local_hits - hits, 450);
    after_minutes(&clock, "they are touched", || touches(&server) == 2).await;
    assert_eq!((seen(&server, &key(7)), seen(&server, &key(100))), (hit_before + 1, cold_before));
    for version in versions {
        assert_eq!(seen(&server, version), before[version] + 1, "{version}");
    }
    assert_eq!(cache.stats().store_failures, 0);
    // No push has dropped anything, so everything is still kept.
    let hits = cache.stats().local_hits;
    hot(&cache, 7).await;
    hot(&cache, 100).await;
    assert_eq!(cache.stats().local_hits - hits, 2);
    after_minutes(&clock, "the two are touched", || touches(&server) == 3).await;
    assert_eq!((seen(&server, &key(7)), seen(&server, &key(8))), (hit_before + 2, hit_before + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// T8
async fn while_the_store_evicts_local_hits_are_touched_at_once_and_each_second() {
    let server = RedisServer::builder().maxmemory("6mb").option("maxmemory-policy", "allkeys-lru").start();
    let clock = Clock::manual();
    let settings = Cache::builder().url(server.url()).clock(clock.clone()).max_staleness(10_000 * MINUTE);
    let cache = settings.connect().await.unwrap();
    for id in 0..100 {
        hot(&cache, id).await;
    }
    let writer = Cache::builder().url(server.url()).connect().await.unwrap().plain();
    let written = AtomicU32::new(0);
    // No time passes here: the eviction of an entry in use is pushed.
    eventually("something in use is evicted", || async {
        for id in 0..100 {
            hot(&cache, id).await;
        }
        let value = "x".repeat(10_000);
        for _ in 0..50 {
            let number = written.fetch_add(1, Ordering::SeqCst);
            drop(writer.set(&format!("foreign:{number}"), &value, None).await);
        }
        touches(&server) > 0
    })
    .await;
    for round in 1..4 {
        let before = touches(&server);
        hot(&cache, 1).await;
        clock.advance(Duration::from_secs(1));
        eventually("a second later again", || async { touches(&server) > before }).await;
        assert!(touches(&server) <= before + 2, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// T8
async fn a_missing_right_to_touch_is_reported_once() {
    let server = RedisServer::builder().user("app on >secret ~* &* +@all -touch").start();
    let clock = Clock::manual();
    let settings =
        Cache::builder().url(server.url_as("app:secret")).clock(clock.clone()).max_staleness(10_000 * MINUTE);
    let cache = settings.connect().await.unwrap();
    for _ in 0..3 {
        hot(&cache, 7).await;
    }
    after_minutes(&clock, "it is reported", || cache.stats().store_failures == 1).await;
    for _ in 0..10 {
        hot(&cache, 7).await;
        clock.advance(MINUTE);
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.stats().store_failures, 1);
    assert_eq!(hot(&cache, 7).await, 7);
}

/// Reads a hundred hot keys while other programs write ten megabytes a second, which reach the
/// memory limit in six seconds. Returns how often the most frequently computed key was computed.
async fn most_runs(policy: &str) -> u32 {
    const KEYS: usize = 100;
    static RUNS: [AtomicU32; KEYS] = [const { AtomicU32::new(0) }; KEYS];

    #[cached(name = "watched", ttl = 3600, early = false, skip(cache), cache = cache)]
    async fn watched(cache: &Cache, id: usize) -> String {
        let _ = cache;
        RUNS[id].fetch_add(1, Ordering::SeqCst);
        "x".repeat(200)
    }

    RUNS.iter().for_each(|runs| runs.store(0, Ordering::SeqCst));
    let server = RedisServer::builder().maxmemory("64mb").option("maxmemory-policy", policy).start();
    let cache = Cache::builder().url(server.url()).connect().await.unwrap();
    let plain = Cache::builder().url(server.url()).connect().await.unwrap().plain();
    let (began, value) = (Instant::now(), "y".repeat(1000));
    let foreign = async {
        let mut number = 0_u64;
        // A thousand of them every tenth of a second.
        let mut next = tokio::time::interval(Duration::from_millis(100));
        while began.elapsed() < Duration::from_secs(30) {
            next.tick().await;
            let writes = (0..1000).map(|at| {
                let (plain, value, key) = (&plain, &value, format!("foreign:{}", number + at));
                async move { drop(plain.set(&key, value, None).await) }
            });
            futures::stream::iter(writes).buffer_unordered(50).collect::<Vec<()>>().await;
            number += 1000;
        }
    };
    let asked = async {
        let mut next = tokio::time::interval(Duration::from_secs(1));
        while began.elapsed() < Duration::from_secs(30) {
            next.tick().await;
            for id in 0..KEYS {
                watched(&cache, id).await;
            }
        }
    };
    tokio::join!(foreign, asked);
    let evicted = server.cli(&["INFO", "stats"]);
    let evicted = evicted.lines().find(|line| line.starts_with("evicted_keys")).unwrap_or_default().to_owned();
    let total: u32 = RUNS.iter().map(|runs| runs.load(Ordering::SeqCst)).sum();
    let most = RUNS.iter().map(|runs| runs.load(Ordering::SeqCst)).max().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{policy}: {evicted}, {} touches, {total} runs, at most {most} of a key", touches(&server)).unwrap();
    assert!(!evicted.ends_with(":0"), "nothing was evicted");
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// T8
async fn hot_keys_beside_half_a_minute_of_foreign_writes_are_computed_twice_at_most() {
    if !long_form("half a minute of foreign writes under each policy") {
        return;
    }
    for policy in ["allkeys-lru", "allkeys-lfu"] {
        let most = soon_enough(most_runs(policy)).await;
        assert!(most <= 2, "{policy}: {most}");
    }
}

async fn soon_enough<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work).await.expect("it ends by itself")
}
