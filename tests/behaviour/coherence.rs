//! The local tier never serves a value that another process has replaced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cache_core::options::LocalTier;
use cache_core::{Cache, EntryOptions, Key, cached};
use futures::FutureExt as _;
use support::{Gate, Proxy, RedisServer, eventually, on_both_stores, soon};
use tokio::task::JoinSet;

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, gate, text), cache = cache)]
async fn row(cache: &Cache, gate: &Gate, id: u32, text: &str) -> Result<Arc<str>, String> {
    let _ = (cache, id);
    gate.pass().await;
    Ok(text.into())
}

#[cached(name = "not_here", ttl = 60, skip(cache), cache = cache, local = false)]
async fn uncached_here(cache: &Cache) -> u32 {
    1
}

#[cached(batch, name = "not_here_either", ttl = 60, skip(cache), cache = cache, local = false)]
async fn many_uncached_here(cache: &Cache, ids: &[u32]) -> HashMap<u32, u32> {
    let _ = cache;
    ids.iter().map(|id| (*id, *id)).collect()
}

#[cached(name = "not_here", ttl = 60, skip(cache), cache = cache)]
async fn cached_here(cache: &Cache) -> u32 {
    let _ = cache;
    0
}

#[cached(name = "not_here_either", ttl = 60, skip(cache), cache = cache)]
async fn one_cached_here(cache: &Cache, id: u32) -> u32 {
    let _ = (cache, id);
    0
}

async fn read(cache: &Cache, text: &str) -> Arc<str> {
    soon("a read", row(cache, &Gate::open(), 7, text)).await.unwrap()
}

/// Reads until the local tier answers.
async fn kept(cache: &Cache, text: &str) {
    eventually("the tier in this process has it", || async {
        let hits = cache.stats().local_hits;
        assert_eq!(&*read(cache, "computed anew").await, text);
        cache.stats().local_hits > hits
    })
    .await;
}

/// Reads until the value is this one, because a push takes a moment.
async fn becomes(cache: &Cache, text: &str) {
    eventually("the change arrives", || async { &*read(cache, text).await == text }).await;
}

on_both_stores! {
    // T1
    async fn a_hit_in_the_store_fills_the_tier_in_this_process(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        read(&here, "v1").await;
        kept(&there, "v1").await;
        let before = there.stats();
        for _ in 0..100 {
            read(&there, "v2").await;
        }
        let after = there.stats();
        assert_eq!((after.local_hits - before.local_hits, after.hits - before.hits), (100, 0));
    }

    // T2
    async fn the_tier_can_be_off_for_a_function_and_for_a_cache(nodes: &Nodes) {
        let cache = nodes.node().await;
        let options = EntryOptions::new().local(LocalTier::Off);
        for _ in 0..5 {
            let compute = || async { Ok::<_, String>(1) };
            cache.get_or_compute(Key::new("off"), &options, compute).await.unwrap();
        }
        assert_eq!((cache.stats().local_hits, cache.stats().computes), (0, 1));
        for _ in 0..5 {
            assert_eq!(uncached_here(&cache).await, 1);
        }
        assert_eq!((cache.stats().local_hits, cache.stats().computes), (0, 2));
        for _ in 0..5 {
            assert_eq!(many_uncached_here(&cache, &[1, 2]).await.len(), 2);
        }
        assert_eq!((cache.stats().local_hits, cache.stats().computes), (0, 3));
        // Functions that share these entries and have the tier on keep nothing either.
        assert_eq!((cached_here(&cache).await, one_cached_here(&cache, 2).await), (1, 2));
        assert_eq!((cache.stats().local_hits, cache.stats().computes), (0, 3));
        let off = nodes.node_with(Cache::builder().local_limit_bytes(0)).await;
        for _ in 0..5 {
            read(&off, "v1").await;
        }
        assert_eq!((off.stats().local_hits, off.stats().computes), (0, 1));
    }

    // T3
    async fn the_tier_is_bounded_and_evicted_entries_are_read_again(nodes: &Nodes) {
        let cache = nodes.node_with(Cache::builder().local_limit_bytes(100_000)).await;
        let ask = |id: u32| {
            let cache = cache.clone();
            async move {
                let compute = || async { Ok::<_, String>("x".repeat(5_000)) };
                cache.get_or_compute(Key::new("large").part(&id), &EntryOptions::new(), compute).await.unwrap()
            }
        };
        for _ in 0..3 {
            for id in 0..100 {
                assert_eq!(ask(id).await.len(), 5_000);
            }
        }
        assert_eq!(cache.stats().computes, 100);
    }

    // T5, I2
    async fn another_nodes_write_and_invalidation_drop_the_entry_here(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        read(&here, "v1").await;
        kept(&here, "v1").await;
        row::entry(7).on(&there).set(Arc::from("v2")).await.unwrap();
        becomes(&here, "v2").await;
        kept(&here, "v2").await;
        row::entry(7).on(&there).invalidate().await.unwrap();
        becomes(&here, "v3").await;
    }

    // T5
    async fn a_key_deleted_by_hand_is_dropped_here(nodes: &Nodes) {
        let here = nodes.node().await;
        read(&here, "v1").await;
        kept(&here, "v1").await;
        nodes.delete_by_hand(row::entry(7).on(&here).key()).await;
        becomes(&here, "v2").await;
    }

    // T7, R9
    async fn an_own_write_is_read_back_at_once(nodes: &Nodes) {
        let here = nodes.node().await;
        read(&here, "v0").await;
        for round in 0..200 {
            kept_or_not(&here).await;
            let text = format!("v{round}");
            row::entry(7).on(&here).set(Arc::from(text.as_str())).await.unwrap();
            assert_eq!(&*read(&here, "computed").await, text);
            kept_or_not(&here).await;
            row::entry(7).on(&here).invalidate().await.unwrap();
            assert_eq!(&*read(&here, "after").await, "after");
        }
    }

    // R5
    async fn a_slow_run_here_does_not_overwrite_what_another_node_set(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let slow = tokio::spawn({
            let (here, gate) = (here.clone(), gate.clone());
            async move { row(&here, &gate, 7, "v1").await }
        });
        gate.arrival().await;
        row::entry(7).on(&there).set(Arc::from("v2")).await.unwrap();
        gate.let_through(1);
        assert_eq!(&*soon("it ends", slow).await.unwrap().unwrap(), "v1");
        for node in [&here, &there] {
            assert_eq!(&*read(node, "v3").await, "v2");
            kept(node, "v2").await;
        }
    }

    // R6, R8
    async fn readers_beside_writers_end_with_the_last_value_everywhere(nodes: &Nodes) {
        let nodes = [nodes.node().await, nodes.node().await, nodes.node().await];
        for round in 0..30 {
            let mut tasks = JoinSet::new();
            for (index, node) in nodes.iter().enumerate() {
                for reader in 0..4 {
                    let node = node.clone();
                    tasks.spawn(async move {
                        for _ in 0..10 {
                            read(&node, "computed").await;
                            if reader == 0 {
                                tokio::task::yield_now().await;
                            }
                        }
                    });
                }
                let node = node.clone();
                tasks.spawn(async move {
                    for write in 0..5 {
                        let text = format!("{round}.{index}.{write}");
                        row::entry(7).on(&node).set(Arc::from(text.as_str())).await.unwrap();
                    }
                });
            }
            soon("a round", tasks.join_all()).await;
            let stored = row::entry(7).on(&nodes[0]).get().await.unwrap();
            for node in &nodes {
                match &stored {
                    Some(last) => becomes_without_write(node, last).await,
                    None => panic!("the last write is stored"),
                }
            }
        }
    }
}

/// Reads once, from either tier.
async fn kept_or_not(cache: &Cache) {
    read(cache, "computed").await;
}

async fn becomes_without_write(cache: &Cache, text: &str) {
    eventually("every node has the last value", || async { &*read(cache, "computed").await == text }).await;
    kept(cache, text).await;
}

#[tokio::test]
// T1
async fn on_the_embedded_store_the_second_call_is_a_hit_in_the_store_and_the_third_a_local_one() {
    let cache = Cache::in_memory();
    for (call, counts) in [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (4, (1, 1, 2))] {
        assert_eq!(&*read(&cache, "computed").await, "computed");
        let stats = cache.stats();
        assert_eq!((stats.computes, stats.hits, stats.local_hits), counts, "call {call}");
    }
}

#[cached(name = "short", ttl = 60, skip(cache), cache = cache, local = "5s")]
async fn short_here(cache: &Cache) -> u32 {
    let _ = cache;
    1
}

#[tokio::test]
// T2
async fn the_tier_keeps_a_value_for_no_longer_than_its_function_and_its_cache_say() {
    let clock = cache_core::clock::Clock::manual();
    let cache = Cache::builder().clock(clock.clone()).jitter(0.0).early(0.0);
    let whole = cache.in_memory();
    let brief = Cache::builder().clock(clock.clone()).local_ttl(Duration::from_secs(5)).share_store(&whole).in_memory();
    let options = EntryOptions::new().local(LocalTier::For(Duration::from_secs(5)));
    let compute = || async { Ok::<_, String>(1) };
    let by_hand = || whole.get_or_compute(Key::new("by hand"), &options, compute);
    // The first call of each reads the store, the others the tier.
    for after in [Duration::ZERO, Duration::from_millis(4999)] {
        short_here(&whole).await;
        by_hand().await.unwrap();
        read(&whole, "v1").await;
        read(&brief, "v1").await;
        clock.advance(after);
    }
    let (before, before_brief) = (whole.stats(), brief.stats());
    short_here(&whole).await;
    by_hand().await.unwrap();
    read(&whole, "v1").await;
    read(&brief, "v1").await;
    assert_eq!(whole.stats().local_hits - before.local_hits, 3, "a moment before the five seconds have passed");
    assert_eq!(brief.stats().local_hits - before_brief.local_hits, 1);
    clock.advance(Duration::from_millis(1));
    let (before, before_brief) = (whole.stats(), brief.stats());
    short_here(&whole).await;
    by_hand().await.unwrap();
    read(&whole, "v1").await;
    read(&brief, "v1").await;
    let after = whole.stats();
    assert_eq!((after.local_hits - before.local_hits, after.hits - before.hits), (1, 2), "one knows no such bound");
    let after = brief.stats();
    assert_eq!((after.local_hits - before_brief.local_hits, after.hits - before_brief.hits), (0, 1));
    assert_eq!(after.computes + whole.stats().computes, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// T5
async fn expiry_and_flushall_and_rename_drop_the_entry_here() {
    let server = RedisServer::start();
    let here = Cache::connect(&server.patient_url()).await.unwrap();
    let entry = row::entry(7).on(&here);
    for command in [&["FLUSHALL"] as &[&str], &["PEXPIRE", entry.key(), "1"], &["RENAME", entry.key(), "elsewhere"]] {
        read(&here, "v1").await;
        kept(&here, "v1").await;
        server.cli(command);
        becomes(&here, "v2").await;
        entry.invalidate().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// T5
async fn eviction_drops_the_entry_here() {
    let server = RedisServer::start();
    let here = Cache::connect(&server.patient_url()).await.unwrap();
    let large = "x".repeat(300_000);
    read(&here, &large).await;
    kept(&here, &large).await;
    // The entry that expires next is evicted first. This is the only one that has to go; its
    // versions stay.
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl", "maxmemory-samples", "64"]);
    let entry = row::entry(7).on(&here);
    // The amount to free is less than the entry takes. Client buffers count too and vary, so the
    // limit follows the used memory.
    eventually("it is evicted", || async {
        let memory = server.cli(&["INFO", "memory"]);
        let used: u64 = memory.split_once("used_memory:").unwrap().1.lines().next().unwrap().parse().unwrap();
        server.cli(&["CONFIG", "SET", "maxmemory", &(used - 100_000).to_string()]);
        let gone = server.cli(&["EXISTS", entry.key()]) == "0";
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        gone
    })
    .await;
    assert_eq!(server.cli(&["EXISTS", "cache@version", "cache:row@version"]).trim(), "2");
    becomes(&here, "v2").await;
}

const OPTIONS: &str = "?response_timeout=100ms&connect_timeout=500ms&heartbeat=50ms&max_staleness=400ms";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R7
async fn a_write_while_the_link_is_cut_is_seen_after_it_is_back() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let here = Cache::connect(&format!("{}{OPTIONS}", proxy.url())).await.unwrap();
    let there = Cache::connect(&server.patient_url()).await.unwrap();
    for round in 0..5 {
        let (old, new) = (format!("old {round}"), format!("new {round}"));
        row::entry(7).on(&there).set(Arc::from(old.as_str())).await.unwrap();
        becomes(&here, &old).await;
        kept(&here, &old).await;
        proxy.cut();
        row::entry(7).on(&there).set(Arc::from(new.as_str())).await.unwrap();
        eventually("the loss is noticed", || async { !here.is_available() }).await;
        assert_ne!(&*read(&here, "computed").await, old, "served from before the loss");
        proxy.heal();
        eventually("the link is back", || async { here.is_available() }).await;
        // Reading another entry loads the versions again, which the entries in the tier are checked
        // against.
        soon("another row", row(&here, &Gate::open(), 1000 + round, "other")).await.unwrap();
        assert_eq!(&*read(&here, "computed").await, new);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R7
async fn a_silent_link_bounds_staleness() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let here = Cache::connect(&format!("{}{OPTIONS}", proxy.url())).await.unwrap();
    let there = Cache::connect(&server.patient_url()).await.unwrap();
    row::entry(7).on(&there).set(Arc::from("old")).await.unwrap();
    becomes(&here, "old").await;
    kept(&here, "old").await;
    // From here on nothing gets through, and no error reports it.
    proxy.freeze();
    row::entry(7).on(&there).set(Arc::from("new")).await.unwrap();
    let written = std::time::Instant::now();
    let mut last_old = Duration::ZERO;
    while written.elapsed() < Duration::from_millis(1200) {
        // Measured before the read: however long the read takes, it began within the bound.
        let asked = written.elapsed();
        if &*read(&here, "computed").await == "old" {
            last_old = asked;
        }
        tokio::task::yield_now().await;
    }
    // The configured bound, and the resolution of the coarse clock.
    assert!(last_old < Duration::from_millis(400 + 20), "old value served {last_old:?} after it was replaced");
    proxy.heal();
    eventually("the link is back", || async { here.is_available() }).await;
    assert_eq!(&*read(&here, "computed").await, "new");
}

/// Neither the pushes nor the silence of the link are noticed. An entry is trusted up to the bound,
/// by the clock alone.
#[test]
// R7
fn a_change_without_a_push_is_served_no_longer_than_the_bound() {
    let bound = Duration::from_secs(5);
    let clock = cache_core::clock::Clock::manual();
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let here = runtime.block_on(async {
        let here =
            Cache::builder().url(server.url()).clock(clock.clone()).max_staleness(bound).connect().await.unwrap();
        read(&here, "old").await;
        kept(&here, "old").await;
        here
    });
    // From here on the runtime does not run, and neither does the connection.
    server.cli(&["SET", row::entry(7).on(&here).key(), "another program's"]);
    let lookup = || row(&here, &Gate::open(), 7, "new").now_or_never().map(Result::unwrap);
    assert_eq!(lookup().as_deref(), Some("old"));
    clock.advance(bound - Duration::from_millis(1));
    assert_eq!(lookup().as_deref(), Some("old"));
    clock.advance(Duration::from_millis(1));
    assert_eq!(lookup(), None, "it has to ask");
}

/// Described in `local.md` for loops that do nothing else: on one thread, a loop that never yields
/// would not receive the push before it ends.
#[tokio::test]
// T5
async fn a_loop_of_hits_that_yields_receives_changes() {
    let server = RedisServer::start();
    let here =
        Cache::builder().url(server.patient_url()).max_staleness(Duration::from_secs(600)).connect().await.unwrap();
    read(&here, "old").await;
    kept(&here, "old").await;
    server.cli(&["DEL", row::entry(7).on(&here).key()]);
    let gate = Gate::open();
    let mut hits = 0;
    while &*row(&here, &gate, 7, "new").await.unwrap() == "old" {
        hits += 1;
        assert!(hits < 1_000_000, "it is never notified");
        tokio::task::consume_budget().await;
    }
}
