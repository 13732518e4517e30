//! Checks that memory does not grow with the number of keys that a process has seen: live memory
//! stays flat from the second cycle on.
//!
//! This is one test in a program of its own, because live memory (allocated and not freed) is
//! measured for the whole process. `CACHE_LONG=1` uses 10^6 keys.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it measured"
)]

use std::sync::Arc;
use std::time::Duration;

use cache_core::{Cache, CacheBuilder, cached};
use futures::StreamExt as _;
use peak_alloc::PeakAlloc;
use support::{RedisServer, eventually, long_form};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The memory limit of each tier.
const LIMIT: usize = 1 << 20;

#[cached(ttl = 3600, skip(cache), cache = cache)]
async fn plain(cache: &Cache, id: u64) -> Arc<String> {
    let _ = cache;
    Arc::new(format!("value {id} {}", "x".repeat(100)))
}

/// Each entry has a tag of its own, a tag shared with a few others, and a tag that depends on its
/// value.
#[cached(ttl = 3600, skip(cache), cache = cache, tags("one:{id}", "few:{few}", "of:{value.1}"))]
async fn tagged(cache: &Cache, id: u64, few: u64) -> (u64, u64) {
    let _ = (cache, few);
    (id, id)
}

/// Returns the number of distinct keys in a cycle, and the number of cycles.
fn extent() -> (u64, u64) {
    if long_form("a soak of 1,000,000 keys in ten cycles") { (100_000, 10) } else { (4_000, 3) }
}

/// Returns the live memory after all background work has ended.
async fn settled() -> usize {
    let mut last = 0;
    eventually("nothing is freed any more", || {
        let now = ALLOCATOR.current_usage();
        let settled = now == last;
        last = now;
        async move { settled }
    })
    .await;
    last
}

async fn cycle(cache: &Cache, keys: std::ops::Range<u64>, with_tags: bool) {
    let calls = futures::stream::iter(keys).map(|id| async move {
        // The first call computes, the second is a hit.
        for _ in 0..2 {
            if with_tags {
                assert_eq!(tagged(cache, id, id / 10).await, (id, id));
            } else {
                assert!(plain(cache, id).await.starts_with("value"));
            }
        }
    });
    calls.buffer_unordered(32).for_each(|()| async {}).await;
    cache.clear().await.unwrap();
}

async fn is_flat(what: &str, cache: &Cache, with_tags: bool, (keys, cycles): (u64, u64)) {
    let mut live = Vec::new();
    for number in 0..cycles {
        cycle(cache, number * keys..(number + 1) * keys, with_tags).await;
        live.push(settled().await);
    }
    println!("{what}: {live:?} bytes after each cycle of {keys} keys");
    let (second, last) = (live[1], live[live.len() - 1]);
    assert!(last <= second + second / 6 + (128 << 10), "{what}: {live:?}");
}

fn small(builder: CacheBuilder) -> CacheBuilder {
    builder.local_limit_bytes(LIMIT).memory_limit_bytes(LIMIT)
}

#[tokio::test]
// C6
async fn many_distinct_keys_in_cycles_leave_the_process_as_large_as_the_second_cycle_did() {
    let extent = extent();
    for with_tags in [false, true] {
        let what = if with_tags { "with tags" } else { "without tags" };
        is_flat(&format!("embedded, {what}"), &small(Cache::builder()).in_memory(), with_tags, extent).await;
        let server = RedisServer::start();
        let url = format!("{}?response_timeout=20s&max_staleness=60s", server.url());
        let cache = small(Cache::builder()).url(url).connect().await.unwrap();
        is_flat(&format!("Redis, {what}"), &cache, with_tags, extent).await;
        // No background work may continue into the next measurement.
        cache.shutdown().await;
        drop(cache);
        tokio::time::timeout(Duration::from_secs(20), settled()).await.unwrap();
    }
}
